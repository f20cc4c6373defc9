import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const INSTALL = resolve(import.meta.dirname, 'install.mjs');
const LOCK = {
  packages: {
    '': { name: 'tree' },
    'node_modules/one': { version: '1.0.0', integrity: 'sha512-1' },
    'node_modules/elsewhere': { version: '2.0.0', integrity: 'sha512-2', optional: true },
  },
};
const { 'node_modules/one': one } = LOCK.packages;

describe('make packages', () => {
  let room: string;
  let tree: string;

  beforeEach(() => {
    room = mkdtempSync(join(tmpdir(), 'estiba-install-'));
    tree = join(room, 'tree');
    mkdirSync(join(room, 'bin'));
    mkdirSync(tree);
    writeFileSync(join(tree, 'package-lock.json'), JSON.stringify(LOCK));
    // Who is asked, and with what: npm itself would need a registry.
    writeFileSync(join(room, 'bin/npm'), `#!/bin/sh\necho "$@" >> ${room}/asked\n`);
    chmodSync(join(room, 'bin/npm'), 0o755);
  });
  afterEach(() => rmSync(room, { recursive: true, force: true }));

  const installed = (packages: object, directory = join(tree, 'node_modules')): void => {
    mkdirSync(directory);
    writeFileSync(join(directory, '.package-lock.json'), JSON.stringify({ packages }));
  };
  const run = (): { status: number | null; said: string; asked: string } => {
    const { status, stderr } = spawnSync(process.execPath, [INSTALL, tree], {
      encoding: 'utf8',
      env: { ...process.env, PATH: `${join(room, 'bin')}:${process.env['PATH']}` },
    });
    let asked = '';
    try {
      asked = readFileSync(join(room, 'asked'), 'utf8');
    } catch {
      // nobody was
    }
    return { status, said: stderr, asked };
  };

  it('asks npm where nothing is installed', () => {
    expect(run()).toMatchObject({ status: 0, asked: expect.stringMatching(/^ci --ignore-scripts /) });
  });

  it('asks nobody where all is there, packages for other machines apart', () => {
    installed({ 'node_modules/one': one });
    expect(run()).toEqual({ status: 0, said: '', asked: '' });
  });

  it.each([
    ['another version', { 'node_modules/one': { ...one, version: '0.9.0' } }],
    ['other content', { 'node_modules/one': { ...one, integrity: 'sha512-0' } }],
    ['a missing package', {}],
  ])('asks npm for %s, whatever the files’ times say', (_, packages) => {
    installed(packages);
    const future = Date.now() / 1000 + 86_400;
    utimesSync(join(tree, 'node_modules/.package-lock.json'), future, future);
    expect(run().asked).toMatch(/^ci /);
  });

  it('is not led to install again by a lock file from the future', () => {
    installed({ 'node_modules/one': one });
    const future = Date.now() / 1000 + 86_400;
    utimesSync(join(tree, 'package-lock.json'), future, future);
    expect(run().asked).toBe('');
  });

  it('uses a linked directory in which all is there', () => {
    installed({ 'node_modules/one': one }, join(room, 'others'));
    symlinkSync(join(room, 'others'), join(tree, 'node_modules'));
    expect(run()).toEqual({ status: 0, said: '', asked: '' });
  });

  it.each(['others', 'nowhere'])('refuses to fill a linked directory (%s), and says what to do', (target) => {
    installed({}, join(room, 'others'));
    symlinkSync(join(room, target), join(tree, 'node_modules'));
    const { status, said, asked } = run();
    expect({ status, asked }).toEqual({ status: 1, asked: '' });
    expect(said).toContain(`rm ${join(tree, 'node_modules')} && make setup`);
  });
});
