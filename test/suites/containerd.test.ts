import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ociArchive } from './room/image.ts';
import type { Answer } from './room/room.ts';
import { busyboxTar, Room, RUNTIME, waitFor } from './room/room.ts';

// containerd with our runtime as the BinaryName of its runc shim, driven by its own client.
let room: Room;
const IMAGE = 'example.org/busybox:latest';

const ctr = (...args: string[]): Answer => room.run('ctr', ['--address', join(room.dir, 'containerd.sock'), ...args]);
const run = (id: string, flags: readonly string[], ...command: string[]): Answer =>
  ctr('run', '--runc-binary', RUNTIME, '--cgroup', `/${room.name}/${id}`, ...flags, IMAGE, id, ...command);

beforeAll(async () => {
  room = await Room.open('containerd');
  const config = join(room.dir, 'config.toml');
  writeFileSync(
    config,
    `version = 2
root = "${room.dir}/data"
state = "${room.dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "${room.dir}/containerd.sock"
`,
  );
  room.start('containerd', 'containerd', ['--config', config]);
  await waitFor(
    () => existsSync(join(room.dir, 'containerd.sock')) && ctr('version').code === 0,
    30_000,
    'containerd',
  ).catch((error) => {
    throw new Error(`${error}\n${room.log('containerd')}`);
  });
  const imported = ctr('images', 'import', ociArchive(room.dir, busyboxTar(room.dir), IMAGE));
  expect(imported.code, imported.err + room.log('containerd')).toBe(0);
}, 120_000);

afterAll(async () => {
  for (const id of ctr('containers', 'ls', '-q').out.split('\n').filter(Boolean)) {
    ctr('tasks', 'kill', '-s', 'SIGKILL', id);
    ctr('tasks', 'delete', '--force', id);
    ctr('containers', 'delete', id);
  }
  await room.end();
});

describe('containerd with our runtime as BinaryName', () => {
  it('runs a container in the foreground and gives its output and exit code', () => {
    const hello = run('hello', ['--rm'], 'echo', 'hello');
    expect(hello, room.log('containerd')).toMatchObject({ code: 0, out: 'hello\n' });
    expect(run('seven', ['--rm'], 'sh', '-c', 'exit 7').code).toBe(7);
  });

  it('says why a program cannot be run', () => {
    const missing = run('missing', ['--rm'], 'nothing-there');
    expect(missing.code).not.toBe(0);
    expect(missing.err).toContain('nothing-there');
  });

  it('keeps limits, seccomp, read-only roots and the environment', () => {
    const flags = [
      '--rm',
      '--memory-limit',
      String(64 * 2 ** 20),
      '--cpus',
      '0.5',
      '--seccomp',
      '--read-only',
      '--env',
      'A=b',
    ];
    const answer = run('limits', flags, 'sh', '-c', 'touch /x 2>&1; grep -E "^Seccomp:" /proc/self/status; echo $A');
    expect(answer.out.split('\n')).toEqual(['touch: /x: Read-only file system', 'Seccomp:\t2', 'b', '']);
  });

  it('runs on a terminal', () => {
    const line = [
      'ctr',
      '--address',
      join(room.dir, 'containerd.sock'),
      'run',
      '--runc-binary',
      RUNTIME,
      '--rm',
      '-t',
      '--cgroup',
      `/${room.name}/tty`,
      IMAGE,
      'tty',
      'tty',
    ];
    const answer = room.run('script', ['-qec', line.map((word) => `'${word}'`).join(' '), '/dev/null']);
    expect(answer.out).toContain('/dev/pts/0');
  });

  describe('a task that stays', () => {
    beforeAll(() => {
      const started = run('stay', ['-d'], 'sh', '-c', 'while :; do sleep 0.1; done');
      expect(started.code, started.err).toBe(0);
    });

    it('takes execs and gives their codes', () => {
      expect(ctr('tasks', 'exec', '--exec-id', 'e1', 'stay', 'echo', 'inside')).toMatchObject({
        code: 0,
        out: 'inside\n',
      });
      expect(ctr('tasks', 'exec', '--exec-id', 'e2', 'stay', 'sh', '-c', 'exit 9').code).toBe(9);
    });

    it('stands still when paused', () => {
      expect(ctr('tasks', 'pause', 'stay').code).toBe(0);
      expect(ctr('tasks', 'ls').out).toMatch(/stay +\d+ +PAUSED/);
      expect(ctr('tasks', 'resume', 'stay').code).toBe(0);
      expect(ctr('tasks', 'ls').out).toMatch(/stay +\d+ +RUNNING/);
    });

    it('tells its processes and its use', () => {
      expect(ctr('tasks', 'ps', 'stay').out.split('\n').length).toBeGreaterThan(2);
      expect(ctr('tasks', 'metrics', 'stay').out).toContain('pids.current');
    });

    it('ends when killed, and its cgroup is gone', async () => {
      const [hierarchy] = readFileSync('/proc/self/cgroup', 'utf8').includes('memory') ? ['memory'] : [''];
      const cgroup = join('/sys/fs/cgroup', hierarchy ?? '', room.name, 'stay');
      expect(existsSync(cgroup)).toBe(true);
      expect(ctr('tasks', 'kill', '-s', 'SIGKILL', 'stay').code).toBe(0);
      await waitFor(() => ctr('tasks', 'ls').out.includes('STOPPED'), 10_000, 'the end');
      expect(ctr('tasks', 'delete', 'stay').code).toBe(0);
      expect(ctr('containers', 'delete', 'stay').code).toBe(0);
      expect(existsSync(cgroup)).toBe(false);
    });
  });

  it('leaves no state behind', () => {
    expect(ctr('containers', 'ls', '-q').out).toBe('');
    expect(room.run('sh', ['-c', 'find /run/containerd -mindepth 3 -path "*runc*" | wc -l']).out.trim()).toBe('0');
  });
});
