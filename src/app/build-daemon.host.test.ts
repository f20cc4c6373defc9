import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BuildDaemon, ESTIBA } from '../../test/suites/build/daemon.ts';
import { waitFor } from '../../test/suites/room/room.ts';

const WAIT_MS = 60_000;
/** No other process of this host sleeps just so long. */
const SECONDS = `${91_000 + (process.pid % 1000)}`;

describe('estiba build at a daemon', () => {
  let daemon: BuildDaemon;
  beforeAll(async () => {
    daemon = await BuildDaemon.start(`bd${process.pid % 100_000}`);
  });
  afterAll(() => daemon.stop());

  interface Ended {
    code: number;
    out: string;
    err: string;
  }

  /** Words of the command line; `input` on its standard input. */
  function estiba(words: string[], input = ''): Ended {
    try {
      const out = execFileSync(ESTIBA, words, { env: daemon.env(), input, stdio: 'pipe', encoding: 'utf8' });
      return { code: 0, out, err: '' };
    } catch (error) {
      const { status, stdout, stderr } = error as { status: number; stdout: string; stderr: string };
      return { code: status, out: stdout, err: stderr };
    }
  }

  function context(name: string, files: Record<string, string>): string {
    const directory = join(daemon.dir, name);
    mkdirSync(directory, { recursive: true });
    for (const [path, text] of Object.entries(files)) writeFileSync(join(directory, path), text);
    return directory;
  }

  function commands(): string[] {
    return execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' })
      .split('\n')
      .filter((line) => line.startsWith(`sleep ${SECONDS}`));
  }

  /** What a command of a build has on this host while it runs. */
  function left(): string[] {
    const below = (path: string): string[] => readdirSync(join(daemon.dir, path)).map((name) => `${path}/${name}`);
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
    return [
      ...commands(),
      ...below('run/shims'),
      ...below('run/build-sandboxes'),
      ...below('run/oci'),
      ...below('data/snapshots'),
      ...mounts.filter((line) => line.includes(join(daemon.dir, 'run/build-roots'))),
      ...readdirSync('/sys/fs/cgroup/memory')
        .filter((name) => name === daemon.name)
        .flatMap((name) => readdirSync(join('/sys/fs/cgroup/memory', name)).filter((id) => /^[0-9a-f]{32}/.test(id))),
    ];
  }

  it('kill -9 of the daemon in the middle of a RUN: the command is ended and nothing is left after the next start', async () => {
    const directory = context('killed', { Dockerfile: `FROM busybox\nRUN sleep ${SECONDS}\n` });
    const client = spawn(ESTIBA, ['build', '-q', directory], { env: daemon.env(), stdio: 'ignore' });
    const ended = new Promise((resolve) => client.once('exit', resolve));
    await waitFor(() => commands().length > 0, WAIT_MS, 'the command to run');
    expect(left().length).toBeGreaterThan(3);
    await daemon.killAndStart();
    await ended;
    expect(left()).toEqual([]);
    expect(estiba(['build', '-q', context('after', { Dockerfile: 'FROM busybox\nRUN true\n' })]).code).toBe(0);
  });

  it('debug-build runs a shell where the failed step stood, in a sandbox like its own', () => {
    const text =
      'FROM busybox\nWORKDIR /w\nENV GREETING=hello\nUSER 7:8\nRUN --network=none echo left > /tmp/x; exit 9\n';
    const failed = estiba(['build', context('failing', { Dockerfile: text })]);
    expect(failed).toMatchObject({ code: 9, err: expect.stringContaining('estiba debug-build') });
    const before = estiba(['images', '-aq']).out;
    const shell = estiba(['debug-build'], 'pwd; echo $GREETING; id -u; id -g; cat /tmp/x; ls /sys/class/net; exit 5\n');
    expect(shell).toMatchObject({ code: 5, out: '/w\nhello\n7\n8\nleft\nlo\n' });
    expect(estiba(['debug-build', '--', 'cat', '/tmp/x']).out).toBe('left\n');
    const words = `${ESTIBA} debug-build -- sh -c 'test -t 0 && echo a terminal'`;
    const typed = execFileSync('script', ['-qec', words, '/dev/null'], { env: daemon.env(), encoding: 'utf8' });
    expect(typed).toContain('a terminal');
    expect(estiba(['images', '-aq']).out).toBe(before);
    expect(estiba(['ps', '-aq']).out).toBe('');
  });

  it('gives commands the limits that are asked for, and one layer where that is', () => {
    const text =
      'FROM busybox\nRUN ulimit -n > /n; df -k /dev/shm | tail -1 > /shm; cat /proc/self/cgroup > /cg\nRUN rm /cg; cat /n /shm\n';
    const directory = context('limits', { Dockerfile: text });
    const flags = [
      '--ulimit',
      'nofile=123:456',
      '--shm-size',
      '1m',
      '--memory',
      '64m',
      '--cpu-shares',
      '512',
      '--squash',
    ];
    const { code, out } = estiba(['build', '-t', 'limits:1', ...flags, '-q', directory]);
    expect([code, out]).toEqual([0, expect.stringContaining('sha256:')]);
    expect(estiba(['run', '--rm', 'limits:1', 'sh', '-c', 'cat /n; cat /shm; ls /cg']).out).toMatch(/^123\n.* 1024 /);
    expect(JSON.parse(estiba(['inspect', 'limits:1']).out)[0].RootFS.Layers).toHaveLength(2);
  });

  it.each([
    [['--allow', 'security.insecure'], 'no power that a plain container would not have'],
    [['--isolation', 'hyperv'], 'Linux has one kind'],
    [['--security-opt', 'seccomp=unconfined'], 'the default profile'],
    [['--cache-to', 'type=registry,ref=x'], 'is not exported'],
    [['--provenance', 'true'], 'attestations'],
    [['--push'], 'estiba push'],
    [['--platform', 'linux/amd64/v8/x'], 'one to three parts'],
    [['--cpu-quota', 'much'], 'no whole number'],
    [['--ulimit', 'nofile'], 'NAME=SOFT[:HARD]'],
  ])('refuses %s, and says why', (flags, why) => {
    const { code, err } = estiba(['build', ...flags, context('refused', { Dockerfile: 'FROM busybox\n' })]);
    expect(code).not.toBe(0);
    expect(err).toContain(why);
  });

  it('says what need not be asked for, and builds', () => {
    const flags = ['--rm', '--force-rm', '--compress', '--cache-from', 'x', '--load', '--isolation', 'default'];
    const directory = context('needless', { Dockerfile: 'FROM busybox\nRUN true\n' });
    const ended = execFileSync('sh', ['-c', '"$@" 2>&1', 'sh', ESTIBA, 'build', ...flags, directory], {
      env: daemon.env(),
      encoding: 'utf8',
    });
    expect(ended).toContain('--compress changes nothing');
    expect(ended).toContain('built ');
  });

  it('looks at no file of what is ignored, however many there are', () => {
    const directory = context('many', { Dockerfile: 'FROM busybox\nRUN true\n', '.dockerignore': '*\n' });
    const many = join(directory, 'node_modules');
    for (let i = 0; i < 20; i++) {
      mkdirSync(join(many, `${i}`), { recursive: true });
      for (let j = 0; j < 500; j++) writeFileSync(join(many, `${i}/${j}`), '');
    }
    const calls = join(daemon.dir, 'calls');
    const words = [
      '-f',
      '-e',
      'trace=lstat,newfstatat,statx,getdents64',
      '-o',
      calls,
      ESTIBA,
      'build',
      '-q',
      directory,
    ];
    execFileSync('strace', words, { env: daemon.env(), stdio: 'ignore' });
    expect(
      readFileSync(calls, 'utf8')
        .split('\n')
        .filter((line) => line.includes(`${many}/`)).length,
    ).toBe(0);
    expect(estiba(['build', '-q', directory]).code).toBe(0);
  });
});
