import { describe, expect, it } from 'vitest';
import { explain } from './failed.mjs';

const host = { mirrors: ['http://mirror.example/debian'], npmRegistry: 'https://packages.example/' };
const said = (message: string): string =>
  explain({ message, step: 'the step', host, left: 'nothing runs', log: '/var/lib/demo/daemon.log' });

describe('what a demo that failed says', () => {
  it('names the step, who was asked, what to do and what is left', () => {
    const text = said(
      "E: Failed to fetch http://one.example/debian/dists/bookworm/InRelease  Temporary failure resolving 'one.example'",
    );
    expect(text).toMatch(/^make demo failed at: the step\n/);
    expect(text).toContain(
      'A Debian package mirror did not answer.\n  asked   http://one.example\n  to do   see that `apt-get update`',
    );
    expect(text).toMatch(/ {2}left {4}nothing runs\n$/);
  });

  it('names whom the machine would ask where the words do not', () => {
    expect(said('E: Unable to locate package chromium')).toContain('asked   http://mirror.example/debian\n');
    expect(said('npm error code EINTEGRITY')).toContain('asked   https://packages.example/\n');
  });

  it('tells npm’s registry from Debian’s mirrors', () => {
    const text = said(
      'npm error request to https://one.example/preact failed, reason: getaddrinfo EAI_AGAIN one.example',
    );
    expect(text).toContain('npm did not get its packages.\n  asked   https://one.example\n');
  });

  it('claims no reason that it does not know', () => {
    const text = said('Deployment wiki/wiki: 0 of 2 ready');
    expect(text).toContain("The reason stands above.\n  to do   the daemon's log is /var/lib/demo/daemon.log");
  });
});
