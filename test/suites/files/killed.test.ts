import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { BuildDaemon, run } from '../build/daemon.ts';

// The daemon is killed while it makes volumes and copies an image's content into them. Each is empty or whole afterwards, volumes
// that nobody named are gone with their unfinished containers, and the audit finds nothing.
const ROUNDS = 8;
const STEP_MS = 25;

let daemon: BuildDaemon;
const docker = (...args: string[]): Promise<string> => run('docker', args, { env: daemon.env() });

beforeAll(async () => {
  daemon = await BuildDaemon.start(`ek${process.pid % 100_000}`);
  await docker('pull', '-q', 'busybox');
}, 120_000);

afterAll(async () => {
  const left = (await docker('ps', '-aq')).split('\n').filter(Boolean);
  if (left.length > 0) await docker('rm', '-f', '-v', ...left);
  await daemon.stop();
});

it('volumes are empty or whole after kill -9 at any moment of the copy, and nothing else is left', async () => {
  await docker('create', '--name', 'whole', '-v', 'whole:/bin', 'busybox', 'true');
  const whole = entriesOf('whole').length;
  for (let round = 0; round < ROUNDS; round++) {
    const name = `kill-${round}`;
    const mounts = ['-v', `${name}:/bin`, '-v', '/anonymous'];
    const client = spawn('docker', ['create', '--name', name, ...mounts, 'busybox', 'true'], {
      env: daemon.env(),
      stdio: 'ignore',
    });
    const gone = new Promise((done) => client.once('exit', done));
    await sleep(round * STEP_MS); // a different moment each round; whether it is the right one is chance
    await daemon.killAndStart();
    await gone;
    const entries = entriesOf(name);
    expect([0, whole], `round ${round}: ${entries.slice(0, 3)}`).toContain(entries.length);
    expect(entries.filter((entry) => entry.startsWith('.estiba'))).toEqual([]);
    expect((await audit()).findings).toEqual([]);
  }
  const containers = (await docker('ps', '-aq')).split('\n').filter(Boolean);
  const anonymous = (await docker('volume', 'ls', '-q', '--filter', 'label=com.docker.volume.anonymous')).split('\n');
  expect(anonymous.filter(Boolean)).toHaveLength(containers.length - 1); // each whole create has one; `whole` has none
}, 120_000);

function entriesOf(volume: string): string[] {
  const path = join(daemon.dir, 'data/volumes', volume, '_data');
  return existsSync(path) ? readdirSync(path) : [];
}

function audit(): Promise<{ findings: unknown[] }> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: join(daemon.dir, 'run/docker.sock'), path: '/estiba/v1/audit' }, (answer) => {
      let text = '';
      answer.on('data', (chunk) => {
        text += chunk;
      });
      answer.once('end', () => resolve(JSON.parse(text)));
    });
    asked.once('error', reject).end();
  });
}
