import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Answer, busyboxTar, type Room, waitFor } from './room.ts';

export const ESTIBA = fileURLToPath(new URL('../../../bin/estiba', import.meta.url));
const START_MS = 60_000;

/** A Docker API in a room, ours or dockerd's, with busybox imported: what clients are let loose on. */
export interface ApiServer {
  socket: string;
  /** A line of shell in the room, with DOCKER_HOST set. */
  sh(line: string, env?: Record<string, string>): Answer;
  /** One that has to end well: what it prints, trimmed; throws with its words otherwise. */
  ok(line: string): string;
}

/** Which build of `estiba` it is, or what carries plans out for it. */
export interface Build {
  /** `bin/estiba` of a tree; ours when absent. */
  program?: string;
  /** ESTIBA_INIT. */
  executor?: string;
}

/** `estiba daemon --only engine` in the room; `name` is at most twelve characters. */
export function startEstiba(room: Room, name: string, ...flags: string[]): Promise<ApiServer> {
  return startBuild({}, room, name, ...flags);
}

/** As `startEstiba`, of another build. */
export async function startBuild(
  { program = ESTIBA, executor }: Build,
  room: Room,
  name: string,
  ...flags: string[]
): Promise<ApiServer> {
  const [data, run] = [join(room.dir, 'estiba-data'), join(room.dir, 'estiba-run')];
  rmSync(join(run, 'endpoints.json'), { force: true }); // of a daemon that was killed
  const args = ['daemon', '--only', 'engine', '--name', name, '--data-root', data, '--run-root', run];
  const env = executor === undefined ? {} : { ESTIBA_INIT: executor };
  room.start('estiba', program, [...args, '--bootstrap', 'off', ...flags], env);
  room.ownsCgroup(name);
  const ready = (): boolean => existsSync(join(run, 'endpoints.json'));
  await waitFor(ready, START_MS, `estiba daemon: ${room.log('estiba')}`);
  return withBusybox(room, join(run, 'docker.sock'));
}

export async function startDockerd(room: Room, ...flags: string[]): Promise<ApiServer> {
  const socket = join(room.dir, 'dockerd.sock');
  room.start('dockerd', 'dockerd', [
    ...['--data-root', join(room.dir, 'docker-data'), '--exec-root', join(room.dir, 'docker-exec')],
    ...['--pidfile', join(room.dir, 'docker.pid'), '-H', `unix://${socket}`, '--cgroup-parent', `/${room.name}`],
    ...['--exec-opt', 'native.cgroupdriver=cgroupfs', '--storage-driver', 'overlay2', '--oom-score-adjust', '0'],
    ...flags,
  ]);
  const ready = (): boolean =>
    existsSync(socket) && room.run('docker', ['-H', `unix://${socket}`, 'version']).code === 0;
  await waitFor(ready, START_MS, `dockerd: ${room.log('dockerd')}`);
  return withBusybox(room, socket);
}

function withBusybox(room: Room, socket: string): ApiServer {
  const sh = (line: string, env: Record<string, string> = {}): Answer =>
    room.run('sh', ['-c', line], {
      env: { DOCKER_HOST: `unix://${socket}`, DOCKER_BUILDKIT: '0', DOCKER_CLI_HINTS: 'false', ...env },
    });
  const ok = (line: string): string => {
    const { code, out, err } = sh(line);
    if (code !== 0) throw new Error(`${line}: ${err || out}`);
    return out.trim();
  };
  if (sh('docker image inspect busybox').code === 0) return { socket, sh, ok };
  const tar = join(room.dir, 'busybox.tar');
  if (!existsSync(tar)) busyboxTar(room.dir);
  ok(`docker import -c 'ENV PATH=/bin' -c 'CMD ["sh"]' ${tar} busybox`);
  return { socket, sh, ok };
}
