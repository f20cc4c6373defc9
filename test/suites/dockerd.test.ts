import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Answer } from './room/room.ts';
import { busyboxTar, Room, RUNTIME, waitFor } from './room/room.ts';

// dockerd with our runtime as its default: the same as Podman's day, through containerd and its shim, which keep the
// runtime's log as JSON and read its state, its pid file and its exit codes.
let room: Room;

const docker = (...args: string[]): Answer =>
  room.run('docker', ['-H', `unix://${join(room.dir, 'docker.sock')}`, ...args], { env: { DOCKER_BUILDKIT: '0' } });
const run = (...args: string[]): Answer => docker('run', ...args);
const onTerminal = (...args: string[]): Answer => {
  const line = ['docker', '-H', `unix://${join(room.dir, 'docker.sock')}`, ...args].map((w) => `'${w}'`).join(' ');
  return room.run('script', ['-qec', line, '/dev/null']);
};

beforeAll(async () => {
  room = await Room.open('dockerd');
  const flags = [
    ...[
      '--data-root',
      join(room.dir, 'data'),
      '--exec-root',
      join(room.dir, 'exec'),
      '--pidfile',
      join(room.dir, 'docker.pid'),
    ],
    ...['-H', `unix://${join(room.dir, 'docker.sock')}`, '--cgroup-parent', `/${room.name}`, '--oom-score-adjust', '0'],
    ...['--exec-opt', 'native.cgroupdriver=cgroupfs', '--storage-driver', 'overlay2'],
    ...['--add-runtime', `estiba=${RUNTIME}`, '--default-runtime', 'estiba'],
  ];
  room.start('dockerd', 'dockerd', flags);
  await waitFor(
    () => existsSync(join(room.dir, 'docker.sock')) && docker('version').code === 0,
    60_000,
    'dockerd',
  ).catch((error) => {
    throw new Error(`${error}\n${room.log('dockerd')}`);
  });
  const imported = docker('import', '-c', 'ENV PATH=/bin', '-c', 'CMD ["sh"]', busyboxTar(room.dir), 'busybox');
  expect(imported.code, imported.err).toBe(0);
}, 120_000);

afterAll(async () => {
  const left = docker('ps', '-aq').out.split('\n').filter(Boolean);
  if (left.length > 0) docker('rm', '-f', ...left);
  await room.end();
});

describe('dockerd with our runtime as default', () => {
  it('uses it, and reads its version', () => {
    expect(docker('info', '--format', '{{.DefaultRuntime}}').out.trim()).toBe('estiba');
    // dockerd asks for runc's three lines; what it cannot read it warns about.
    expect(room.log('dockerd')).not.toContain('failed to retrieve runc version');
  });

  it('runs a container in the foreground and gives its output and exit code', () => {
    const hello = run('--rm', 'busybox', 'echo', 'hello');
    expect(hello, room.log('dockerd')).toMatchObject({ code: 0, out: 'hello\n' });
    expect(run('--rm', 'busybox', 'sh', '-c', 'exit 7').code).toBe(7);
    expect(
      room.run('docker', ['-H', `unix://${room.dir}/docker.sock`, 'run', '-i', '--rm', 'busybox', 'cat'], {
        input: 'through',
      }).out,
    ).toBe('through');
  });

  it('gives the codes for a program that is missing or may not be run', () => {
    expect(run('--rm', 'busybox', 'nothing-there').code).toBe(127);
    expect(run('--rm', 'busybox', '/etc/passwd').code).toBe(126);
  });

  it('runs on a terminal', () => {
    const tty = onTerminal('run', '--rm', '-it', 'busybox', 'sh', '-c', 'tty; exit 3');
    expect(tty.out).toContain('/dev/pts/0');
    expect(tty.code).toBe(3);
  });

  it('keeps Docker’s defaults: capabilities, seccomp, masked paths', () => {
    const status = run(
      '--rm',
      'busybox',
      'sh',
      '-c',
      'grep -E "^(CapEff|Seccomp):" /proc/self/status; unshare -U true 2>&1; wc -c < /proc/keys',
    );
    expect(status.out.split('\n')).toEqual([
      'CapEff:\t00000000a80425fb',
      'Seccomp:\t2',
      'unshare: unshare(0x10000000): Operation not permitted',
      '0',
      '',
    ]);
  });

  it('keeps limits, users, read-only roots, tmpfs, volumes and links to the host', () => {
    const limits = run(
      '--rm',
      '--memory=64m',
      '--pids-limit=50',
      '--cpus=0.5',
      '--read-only',
      '--tmpfs=/scratch',
      '-v',
      '/usr/bin:/host:ro',
      '--user=1000:1000',
      '--hostname=named',
      '--ulimit=nofile=99:99',
      'busybox',
      'sh',
      '-c',
      'cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us; touch /x 2>&1; [ -x /host/env ] && echo 1; id -u; hostname; ulimit -n; echo ok > /scratch/f && cat /scratch/f',
    );
    expect(limits.out.split('\n')).toEqual([
      String(64 * 2 ** 20),
      '50',
      '50000',
      'touch: /x: Read-only file system',
      '1',
      '1000',
      'named',
      '99',
      'ok',
      '',
    ]);
  });

  it('says that memory ran out', () => {
    expect(
      run(
        '--name',
        'hungry',
        '--memory=16m',
        '--memory-swap=16m',
        'busybox',
        'sh',
        '-c',
        // containerd's shim begins to watch when `start` has returned: what runs out before that is not told.
        'sleep 1; exec dd if=/dev/zero of=/dev/null bs=64M count=1',
      ).code,
    ).toBe(137);
    expect(docker('inspect', '--format', '{{.State.OOMKilled}}', 'hungry').out.trim()).toBe('true');
    docker('rm', 'hungry');
  });

  it('privileged means every device and capability that there is', () => {
    const all = run(
      '--rm',
      '--privileged',
      'busybox',
      'sh',
      '-c',
      'head -c 0 < /dev/kmsg && echo kmsg; grep CapEff /proc/self/status',
    );
    // dockerd 20.10 knows the capabilities up to CAP_AUDIT_READ, 37; ours are what the host gave us of them.
    const own =
      BigInt(`0x${/CapBnd:\t(\w+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]}`) & ((1n << 38n) - 1n);
    expect(all.out).toBe(`kmsg\nCapEff:\t${own.toString(16).padStart(16, '0')}\n`);
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
          '500ms',
          'busybox',
          'sh',
          '-c',
          loop,
        ).code,
      ).toBe(0);
    });

    it('writes logs', async () => {
      await waitFor(() => docker('logs', 'stay').out.includes('tick 3'), 10_000, 'lines');
    });

    it('takes execs, with and without a terminal, and gives their codes', () => {
      expect(docker('exec', 'stay', 'echo', 'inside')).toMatchObject({ code: 0, out: 'inside\n' });
      expect(docker('exec', 'stay', 'sh', '-c', 'exit 9').code).toBe(9);
      expect(
        docker('exec', '--user=1000', '-e', 'A=b', '-w', '/tmp', 'stay', 'sh', '-c', 'id -u; echo $A; pwd').out,
      ).toBe('1000\nb\n/tmp\n');
      expect(onTerminal('exec', '-it', 'stay', 'tty').out).toContain('/dev/pts/');
      expect(docker('exec', 'stay', 'missing').code).toBe(126); // so does dockerd 20.10 with runc
    });

    it('stands still when paused', async () => {
      expect(docker('pause', 'stay').code).toBe(0);
      expect(docker('inspect', '--format', '{{.State.Status}}', 'stay').out.trim()).toBe('paused');
      expect(docker('unpause', 'stay').code).toBe(0);
      expect(docker('inspect', '--format', '{{.State.Status}}', 'stay').out.trim()).toBe('running');
    });

    it('takes new limits', () => {
      const updated = docker('update', '--memory=80m', '--memory-swap=160m', '--cpus=0.25', '--pids-limit=77', 'stay');
      expect(updated.code, updated.err).toBe(0);
      expect(
        docker(
          'exec',
          'stay',
          'cat',
          '/sys/fs/cgroup/memory/memory.limit_in_bytes',
          '/sys/fs/cgroup/cpu/cpu.cfs_quota_us',
          '/sys/fs/cgroup/pids/pids.max',
        ).out,
      ).toBe(`${80 * 2 ** 20}\n25000\n77\n`);
    });

    it('tells its processes and its use', () => {
      expect(docker('top', 'stay').out).toContain('tick');
      expect(docker('stats', '--no-stream', '--format', '{{.Name}} {{.PIDs}}', 'stay').out).toMatch(/^stay [1-9]/);
    });

    it('becomes healthy when its check says so', async () => {
      const health = (): string => docker('inspect', '--format', '{{.State.Health.Status}}', 'stay').out.trim();
      docker('exec', 'stay', 'touch', '/healthy');
      await waitFor(() => health() === 'healthy', 10_000, 'health');
    });

    it('ends when killed, with the code of the signal', () => {
      expect(docker('kill', '-s', 'KILL', 'stay').code).toBe(0);
      expect(docker('wait', 'stay').out.trim()).toBe('137');
      expect(docker('rm', 'stay').code).toBe(0);
    });
  });

  it('builds an image, and restarts what fails', async () => {
    const built = room.run('docker', ['-H', `unix://${room.dir}/docker.sock`, 'build', '-q', '-t', 'built', '-'], {
      input: 'FROM busybox\nRUN echo made > /made\nWORKDIR /w\nCMD cat /made; exit 1\n',
      env: { DOCKER_BUILDKIT: '0' },
    });
    expect(built.code, built.err).toBe(0);
    expect(run('-d', '--name', 'fails', '--restart=on-failure:2', 'built').code).toBe(0);
    await waitFor(
      () => docker('inspect', '--format', '{{.RestartCount}} {{.State.Status}}', 'fails').out.trim() === '2 exited',
      20_000,
      'restarts',
    );
    expect(docker('logs', 'fails').out).toBe('made\nmade\nmade\n');
    expect(docker('rm', 'fails').code).toBe(0);
  });

  it('connects containers on a network of theirs', () => {
    expect(docker('network', 'create', 'both').code).toBe(0);
    expect(
      run(
        '-d',
        '--name',
        'server',
        '--network=both',
        'busybox',
        'sh',
        '-c',
        'echo page > /tmp/index.html; exec httpd -f -h /tmp',
      ).code,
    ).toBe(0);
    const page = run(
      '--rm',
      '--network=both',
      'busybox',
      'sh',
      '-c',
      'for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://server/index.html && break; sleep 0.3; done',
    );
    expect(page.out).toBe('page\n');
    expect(docker('rm', '-f', 'server').code).toBe(0);
    expect(docker('network', 'rm', 'both').code).toBe(0);
  });

  it('leaves no state behind', () => {
    expect(docker('ps', '-aq').out).toBe('');
    expect(room.run('sh', ['-c', 'find /run -path "*runtime-runc/moby/*" | wc -l']).out.trim()).toBe('0');
  });
});
