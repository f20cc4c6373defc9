import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { makeBundle } from './bundle.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** A user nobody has: no entry in /etc/passwd, no subordinate ids. */
const UID = 23456;

it('a user without any rights runs a container as its root, alone in the id map', () => {
  using bundle = makeBundle('rootless');
  // The checkout may lie where only root can go: the user gets a copy of what runs.
  const copy = join(bundle.dir, 'estiba');
  for (const part of ['bin/estiba-oci', 'dist', 'native/build/estiba-init'])
    cpSync(join(ROOT, part), join(copy, part), { recursive: true });
  for (const dir of [bundle.dir, join(bundle.dir, 'run')]) {
    mkdirSync(dir, { recursive: true });
    chmodSync(dir, 0o755);
    chownSync(dir, UID, UID);
  }
  chownSync(bundle.rootfs, UID, UID);
  const oci = (...args: string[]) =>
    spawnSync(join(copy, 'bin/estiba-oci'), args, {
      cwd: bundle.dir,
      uid: UID,
      gid: UID,
      encoding: 'utf8',
      env: { PATH: process.env['PATH'] ?? '', XDG_RUNTIME_DIR: join(bundle.dir, 'run') },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 20_000,
    });
  expect(oci('spec', '--rootless').status).toBe(0);
  const spec = JSON.parse(readFileSync(join(bundle.dir, 'config.json'), 'utf8'));
  spec.process = { ...spec.process, terminal: false, args: ['sh', '-c', 'id -u; cat /proc/self/uid_map; exit 3'] };
  writeFileSync(join(bundle.dir, 'config.json'), JSON.stringify(spec));

  const result = oci('run', 'estiba-rootless');
  expect(result.stderr).toBe('');
  expect(result.stdout.split('\n').map((line) => line.trim().replace(/\s+/g, ' '))).toEqual(['0', `0 ${UID} 1`, '']);
  expect(result.status).toBe(3);
  expect(oci('list', '-q').stdout).toBe('');
});
