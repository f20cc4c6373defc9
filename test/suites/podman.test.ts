import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Answer } from './room/room.ts';
import { busyboxTar, grantedLimits, Room, RUNTIME, waitFor } from './room/room.ts';

// Podman with our runtime: what its users do in a day. Podman drives the runtime through conmon: create, start, exec with
// and without a terminal, kill, delete, state, update, pause.
let room: Room;

const podman = (...args: string[]): Answer =>
  room.run('podman', [...GLOBAL.map((word) => word.replace('ROOM', room.dir)), ...args], {
    env: { CONTAINERS_CONF: join(room.dir, 'containers.conf') },
  });
const GLOBAL = [
  '--root',
  'ROOM/root',
  '--runroot',
  'ROOM/run',
  '--tmpdir',
  'ROOM/tmp',
  '--cgroup-manager',
  'cgroupfs',
  '--runtime',
  RUNTIME,
];
const run = (...args: string[]): Answer => podman('run', `--cgroup-parent=/${room.name}`, '--network=none', ...args);

/** The same on a terminal: script(1) gives one to the client. */
const onTerminal = (...args: string[]): Answer => {
  const line = ['podman', ...GLOBAL.map((word) => word.replace('ROOM', room.dir)), ...args]
    .map((w) => `'${w}'`)
    .join(' ');
  const env = { CONTAINERS_CONF: join(room.dir, 'containers.conf') };
  return room.run('script', ['-qec', line, '/dev/null'], { env });
};

beforeAll(async () => {
  room = await Room.open('podman');
  const { nofile, nproc } = grantedLimits();
  const limits = `["nofile=${nofile}:${nofile}", "nproc=${nproc}:${nproc}"]`;
  writeFileSync(
    join(room.dir, 'containers.conf'),
    `[containers]\ndefault_ulimits = ${limits}\n[engine]\nevents_logger = "file"\n`,
  );
  const imported = podman('import', '-q', busyboxTar(room.dir), 'busybox');
  expect(imported.code, imported.err).toBe(0);
});

afterAll(async () => {
  podman('pod', 'rm', '-fa', '-t', '0');
  podman('rm', '-fa', '-t', '0');
  await room.end();
});

describe('podman with our runtime', () => {
  it('uses it', () => {
    expect(podman('info', '--format', '{{.Host.OCIRuntime.Path}}').out.trim()).toBe(RUNTIME);
  });

  it('runs a container in the foreground and gives its output and exit code', () => {
    expect(run('--rm', 'busybox', 'echo', 'hello')).toMatchObject({ code: 0, out: 'hello\n' });
    expect(run('--rm', 'busybox', 'sh', '-c', 'exit 7').code).toBe(7);
    expect(run('--rm', '--user', 'user', 'busybox', 'sh', '-c', 'id -u; echo $HOME; pwd').out).toBe('1000\n/tmp\n/\n');
  });

  it('gives conmon the codes for a program that is missing or may not be run', () => {
    expect(run('--rm', 'busybox', 'nothing-there').code).toBe(127);
    expect(run('--rm', 'busybox', '/etc/passwd').code).toBe(126);
  });

  it('runs on a terminal', () => {
    const tty = onTerminal(
      'run',
      `--cgroup-parent=/${room.name}`,
      '--network=none',
      '--rm',
      '-it',
      'busybox',
      'sh',
      '-c',
      'tty; exit 3',
    );
    expect(tty.out).toContain('/dev/pts/0');
    expect(tty.code).toBe(3);
  });

  it('keeps limits, capabilities, seccomp and read-only roots', () => {
    const answer = run(
      '--rm',
      '--memory=64m',
      '--pids-limit=50',
      '--cpus=0.5',
      '--read-only',
      '--cap-drop=all',
      'busybox',
      'sh',
      '-c',
      'cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us; touch /x 2>&1; grep -E "^(CapEff|Seccomp):" /proc/self/status',
    );
    expect(answer.out.split('\n')).toEqual([
      String(64 * 2 ** 20),
      '50',
      '50000',
      'touch: /x: Read-only file system',
      'CapEff:\t0000000000000000',
      'Seccomp:\t2',
      '',
    ]);
  });

  describe('a container that stays', () => {
    beforeAll(() => {
      const loop = 'i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.1; done';
      expect(
        run(
          '-d',
          '--name',
          'stay',
          '--health-cmd',
          'test -e /healthy',
          '--health-interval',
          'disable',
          'busybox',
          'sh',
          '-c',
          loop,
        ).code,
      ).toBe(0);
    });

    it('writes logs', async () => {
      await waitFor(() => podman('logs', 'stay').out.includes('tick 3'), 10_000, 'lines');
      expect(podman('logs', '--tail', '1', 'stay').out).toMatch(/^tick \d+\n$/);
    });

    it('takes execs, with and without a terminal, and gives their codes', () => {
      expect(podman('exec', 'stay', 'echo', 'inside')).toMatchObject({ code: 0, out: 'inside\n' });
      expect(podman('exec', 'stay', 'sh', '-c', 'exit 9').code).toBe(9);
      expect(podman('exec', '--user', '1000', '--env', 'A=b', 'stay', 'sh', '-c', 'id -u; echo $A').out).toBe(
        '1000\nb\n',
      );
      expect(onTerminal('exec', '-it', 'stay', 'tty').out).toContain('/dev/pts/');
      expect(podman('exec', 'stay', 'missing').code).toBe(127);
    });

    it('stands still when paused', () => {
      expect(podman('pause', 'stay').code).toBe(0);
      expect(podman('inspect', '--format', '{{.State.Status}}', 'stay').out.trim()).toBe('paused');
      const before = podman('logs', 'stay').out.length;
      expect(podman('logs', 'stay').out.length).toBe(before);
      expect(podman('unpause', 'stay').code).toBe(0);
      expect(podman('inspect', '--format', '{{.State.Status}}', 'stay').out.trim()).toBe('running');
    });

    it('takes new limits', () => {
      expect(podman('update', '--memory=80m', '--cpus=0.25', 'stay').code).toBe(0);
      const cgroup = podman('inspect', '--format', '{{.State.CgroupPath}}', 'stay').out.trim();
      expect(readFileSync(`/sys/fs/cgroup/memory${cgroup}/memory.limit_in_bytes`, 'utf8').trim()).toBe(
        String(80 * 2 ** 20),
      );
      expect(readFileSync(`/sys/fs/cgroup/cpu${cgroup}/cpu.cfs_quota_us`, 'utf8').trim()).toBe('25000');
    });

    it('tells its processes and its use', () => {
      expect(podman('top', 'stay', 'pid', 'comm').out).toMatch(/1 +sh/);
      expect(podman('stats', '--no-stream', '--format', '{{.Name}} {{.PIDS}}', 'stay').out).toMatch(/^stay [1-9]/);
    });

    it('is healthy when its check says so', () => {
      expect(podman('healthcheck', 'run', 'stay').code).toBe(1);
      podman('exec', 'stay', 'touch', '/healthy');
      expect(podman('healthcheck', 'run', 'stay').code).toBe(0);
    });

    it('ends when killed, with the code of the signal', () => {
      expect(podman('kill', '-s', 'KILL', 'stay').code).toBe(0);
      expect(podman('wait', 'stay').out.trim()).toBe('137');
      expect(podman('rm', 'stay').code).toBe(0);
    });
  });

  it('restarts a container', () => {
    expect(run('-d', '--name', 'again', 'busybox', 'sh', '-c', 'echo up; exec sleep 1000').code).toBe(0);
    expect(podman('restart', '-t', '0', 'again').code).toBe(0);
    expect(podman('logs', 'again').out).toBe('up\nup\n');
    expect(podman('rm', '-f', '-t', '0', 'again').code).toBe(0);
  });

  it('runs a pod: containers share network, IPC and name', () => {
    const made = podman(
      'pod',
      'create',
      '--name',
      'pod',
      `--cgroup-parent=/${room.name}`,
      '--network=none',
      '--hostname=podhost',
      '--infra-image=busybox',
      '--infra-command=/pause',
    );
    expect(made.code, made.err).toBe(0);
    const started = podman('run', '-d', '--pod', 'pod', '--name', 'member', 'busybox', 'sleep', '1000');
    expect(started.code, started.err).toBe(0);
    const other = podman('run', '--rm', '--pod', 'pod', 'busybox', 'sh', '-c', 'hostname; readlink /proc/self/ns/net');
    const [hostname, network] = other.out.split('\n');
    expect(hostname).toBe('podhost');
    expect(podman('exec', 'member', 'readlink', '/proc/self/ns/net').out.trim()).toBe(network);
    expect(podman('pod', 'pause', 'pod').code).toBe(0);
    expect(podman('pod', 'unpause', 'pod').code).toBe(0);
    expect(podman('pod', 'stop', '-t', '0', 'pod').code).toBe(0);
    const removed = podman('pod', 'rm', '-f', '-t', '0', 'pod');
    expect(removed.code, removed.err).toBe(0);
  });

  it('leaves no state behind', () => {
    expect(podman('ps', '-aq').out).toBe('');
    expect(room.run(RUNTIME, ['list', '-q']).out).toBe('');
  });
});
