import { copyFileSync, cpSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BuildDaemon, ESTIBA, run } from './build/daemon.ts';
import { grantedLimits } from './room/room.ts';

// A Node.js service, a C program and a PHP site: built through three clients, pushed to our registry, pulled and run by Podman.
const APPS = join(import.meta.dirname, 'build/app');
const CA = '/etc/ssl/certs/ca-certificates.crt';
const ANSWERS = { node: 'a day has 86400000 ms', c: 'hello c', php: 'page from sqlite' } as const;
type App = keyof typeof ANSWERS;
const NAMES = Object.keys(ANSWERS) as App[];

describe('build, ship, run', () => {
  let daemon: BuildDaemon;
  let dir: string;
  let registry: string;
  let podman: string[];
  beforeAll(async () => {
    daemon = await BuildDaemon.start('esjourney', 'engine,registry');
    registry = daemon.endpoints()['registry']?.replace(/^https?:\/\//, '') ?? '';
    dir = join(daemon.dir, 'apps');
    cpSync(APPS, dir, { recursive: true });
    // npm inside a build trusts what this machine's own npm does.
    if (existsSync(CA)) copyFileSync(CA, join(dir, 'node/ca.crt'));
    writeFileSync(join(daemon.dir, 'containers.conf'), '');
    podman = [
      '--root',
      join(daemon.dir, 'pd'),
      '--runroot',
      join(daemon.dir, 'pdrun'),
      '--runtime',
      'runc',
      '--cgroup-manager',
      'cgroupfs',
    ];
    mkdirSync(join(dir, 'empty'));
    for (const base of ['node', 'php'])
      await estiba(
        'build',
        '-q',
        '-t',
        `${base}-base`,
        '-f',
        join(dir, `bases/${base}.Dockerfile`),
        join(dir, 'empty'),
      );
  });
  afterAll(async () => {
    await run('podman', [...podman, 'rm', '--all', '--force', '--time', '0']);
    await run('umount', ['-l', join(daemon.dir, 'pd/overlay')]).catch(() => undefined); // only where it was mounted
    await daemon.stop();
  });

  const estiba = (...args: string[]): Promise<string> => run(ESTIBA, args, { env: daemon.env() });
  const docker = (...args: string[]): Promise<string> => run('docker', args, { env: daemon.env() });
  const idOf = (name: string): Promise<string> => docker('image', 'inspect', '--format', '{{.Id}}', name);

  for (const app of NAMES) {
    it(`${app}: the docker CLI, docker-compose and estiba build give one image`, async () => {
      await estiba('build', '--progress', 'plain', '-t', `${registry}/${app}:estiba`, join(dir, app));
      await docker('build', '-t', `${registry}/${app}:docker`, join(dir, app));
      const compose = { env: { ...daemon.env(), REGISTRY: registry, COMPOSE_DOCKER_CLI_BUILD: '0' }, cwd: dir };
      await run('docker-compose', ['-f', 'compose.yml', 'build', app], compose);
      const ids = await Promise.all(
        ['estiba', 'docker', 'compose'].map((client) => idOf(`${registry}/${app}:${client}`)),
      );
      expect(new Set(ids).size).toBe(1);
    });

    it(`${app}: pushed to our registry, pulled and run by Podman, it answers`, async () => {
      await docker('push', `${registry}/${app}:docker`);
      await run('podman', [...podman, 'pull', '-q', '--tls-verify=false', `${registry}/${app}:docker`]);
      const port = await freePort();
      const { nofile, nproc } = grantedLimits();
      const limits = ['--ulimit', `nofile=${nofile}:${nofile}`, '--ulimit', `nproc=${nproc}:${nproc}`];
      const command = app === 'c' ? [String(port)] : [];
      const name = `${registry}/${app}:docker`;
      const args = ['run', '-d', '--network', 'host', '-e', `PORT=${port}`, ...limits, name, ...command];
      const id = await run('podman', [...podman, ...args]);
      expect((await answerOf(port)).trim()).toBe(ANSWERS[app]);
      await run('podman', [...podman, 'rm', '--force', '--time', '0', id]);
    });
  }
});

async function answerOf(port: number): Promise<string> {
  for (let tries = 0; ; tries++) {
    try {
      return await (await fetch(`http://127.0.0.1:${port}/`)).text();
    } catch (error) {
      if (tries > 100) throw error;
      await sleep(100);
    }
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}
