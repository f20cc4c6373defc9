import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BuildDaemon, ESTIBA, run } from './build/daemon.ts';
import { describeTree } from './build/tree.ts';

// Each folder of build/case is built by us and by buildah, from the same base images; files, modes, owners, links and the image's
// configuration have to be the same.
const CASES = join(import.meta.dirname, 'build/case');

const FIELDS = [
  'User',
  'ExposedPorts',
  'Env',
  'Entrypoint',
  'Cmd',
  'Volumes',
  'WorkingDir',
  'Labels',
  'StopSignal',
  'Healthcheck',
  'OnBuild',
  'Shell',
] as const;

/** Times and random numbers that programs write themselves, and mount points that buildah's chroot leaves. */
const NOISE = [
  /^var\/log\//,
  /^var\/cache\/(ldconfig\/aux-cache|apt|debconf)/,
  /^var\/lib\/(apt|systemd|dpkg)\//,
  /^etc\/(resolv\.conf|hosts|hostname|mtab)$/,
  /^(proc|sys|dev|run)(\/|$)/,
];

describe('what buildah builds, we build', () => {
  let daemon: BuildDaemon;
  let buildah: string[];
  beforeAll(async () => {
    daemon = await BuildDaemon.start('esbuildah');
    const storage = ['--root', join(daemon.dir, 'bd'), '--runroot', join(daemon.dir, 'bdrun')];
    buildah = ['buildah', ...storage, '--storage-driver', 'overlay'];
    for (const base of ['busybox', 'debian:bookworm']) await shareBase(base);
  });
  afterAll(async () => {
    await tool('rm', '--all');
    await tool('rmi', '--all', '--force');
    await run('umount', ['-l', join(daemon.dir, 'bd/overlay')]).catch(() => undefined); // only where it was mounted
    await daemon.stop();
  });

  const tool = (...args: string[]): Promise<string> =>
    run(buildah[0] ?? '', [...buildah.slice(1), ...args], { env: { ...process.env, BUILDAH_ISOLATION: 'chroot' } });
  const estiba = (...args: string[]): Promise<string> => run(ESTIBA, args, { env: daemon.env() });

  /** The base as we have it, for buildah too. */
  async function shareBase(name: string): Promise<void> {
    const dir = join(daemon.dir, 'base');
    mkdirSync(dir, { recursive: true });
    const archive = join(dir, `${name.replace(':', '-')}.tar`);
    await run(
      'sh',
      ['-c', `echo 'FROM ${name}' | "$0" build -q -t localhost/${name} -o type=docker,dest=${archive} -`, ESTIBA],
      {
        env: daemon.env(),
      },
    );
    await tool('pull', '-q', `docker-archive:${archive}`);
  }

  async function ours(dir: string, args: string[], into: string): Promise<Record<string, unknown>> {
    const iid = join(dir, '..', 'iid');
    await estiba('build', '--progress', 'plain', '--iidfile', iid, '-o', `type=tar,dest=${into}.tar`, ...args, dir);
    mkdirSync(into);
    await run('tar', ['-x', '-p', '--numeric-owner', '-C', into, '-f', `${into}.tar`]);
    return JSON.parse(daemon.blob(readFileSync(iid, 'utf8'))).config;
  }

  async function theirs(
    dir: string,
    args: string[],
    name: string,
  ): Promise<{ root: string; config: Record<string, unknown> }> {
    await tool('build', '-q', '--format', 'docker', '--layers=false', '--pull-never', ...args, '-t', name, dir);
    const container = await tool('from', '--pull-never', name);
    const root = await tool('mount', container);
    const { Docker } = JSON.parse(await tool('inspect', '--type', 'image', name));
    return { root, config: Docker.config };
  }

  for (const name of readdirSync(CASES).sort()) {
    it(name, async () => {
      const work = join(daemon.dir, 'work', name);
      const dir = join(work, 'context');
      mkdirSync(work, { recursive: true });
      cpSync(join(CASES, name), dir, { recursive: true, verbatimSymlinks: true });
      if (existsSync(join(dir, 'prepare.sh'))) await run('sh', ['-euc', '. ./prepare.sh; rm prepare.sh'], { cwd: dir });
      if (existsSync(join(dir, 'base'))) {
        await estiba('build', '-q', '-t', 'onbuild-base', join(dir, 'base'));
        await tool('build', '-q', '--format', 'docker', '--pull-never', '-t', 'onbuild-base', join(dir, 'base'));
        await run('rm', ['-r', join(dir, 'base')]);
      }
      const args = flagsOf(dir);
      const config = await ours(dir, args, join(work, 'ours'));
      const peer = await theirs(dir, args, `case-${name}`);
      const isNoise = (path: string): boolean => NOISE.some((pattern) => pattern.test(path));
      expect(describeTree(join(work, 'ours'), isNoise)).toEqual(describeTree(peer.root, isNoise));
      expect(settings(config)).toEqual(settings(peer.config));
    });
  }
});

/** `args` and `target` beside a Dockerfile say what it is built with. */
function flagsOf(dir: string): string[] {
  const lines = (file: string): string[] =>
    existsSync(join(dir, file)) ? readFileSync(join(dir, file), 'utf8').trim().split('\n') : [];
  return [
    ...lines('args').flatMap((line) => ['--build-arg', line]),
    ...lines('target').flatMap((line) => ['--target', line]),
  ];
}

function settings(config: Record<string, unknown>): Record<string, unknown> {
  const kept: Record<string, unknown> = {};
  for (const field of FIELDS) {
    let value = config[field];
    if (field === 'Env' && Array.isArray(value)) value = [...value].sort();
    if (field === 'Labels' && typeof value === 'object' && value !== null)
      value = Object.fromEntries(Object.entries(value).filter(([key]) => key !== 'io.buildah.version'));
    const isEmpty =
      value === null ||
      value === undefined ||
      value === '' ||
      (typeof value === 'object' && Object.keys(value).length === 0);
    if (!isEmpty) kept[field] = value;
  }
  return kept;
}
