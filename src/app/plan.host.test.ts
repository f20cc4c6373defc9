import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ApiServer, ESTIBA, startEstiba } from '../../test/suites/room/engine.ts';
import { Room } from '../../test/suites/room/room.ts';

const NAME = `pln${process.pid % 100_000}`;

/** `--plan` and `--explain` by the command line, at a real daemon. */
describe('what would be done', () => {
  let room: Room;
  let server: ApiServer;
  const estiba = (line: string): ReturnType<ApiServer['sh']> =>
    server.sh(`${ESTIBA} -H unix://${join(room.dir, 'estiba-run/docker.sock')} ${line}`);
  const listed = (path: string): string[] =>
    existsSync(join(room.dir, path)) ? readdirSync(join(room.dir, path)) : [];
  /** All that a container would leave on the machine. */
  const traces = (): unknown => ({
    containers: estiba('ps -aq').out,
    volumes: estiba('volume ls -q').out,
    networks: estiba('network inspect bridge --format "{{json .Containers}}"').out,
    snapshots: listed('estiba-data/snapshots'),
    roots: listed('estiba-run/roots'),
    shims: listed('estiba-run/shims'),
    files: listed('estiba-run/files'),
    cgroups: readdirSync('/sys/fs/cgroup/pids').filter((name) => name.includes(NAME)),
  });

  beforeAll(async () => {
    room = await Room.open('plan');
    server = await startEstiba(room, NAME);
  });
  afterAll(async () => {
    estiba('rm -f there');
    process.kill(Number(readFileSync(join(room.dir, 'estiba-run/daemon.lock'), 'utf8').split(' ')[0]), 'SIGTERM');
    await room.end();
  });

  it('of a container that does not exist is shown to the last step, each with its wish, and nothing is made', () => {
    const before = traces();
    const plan = estiba('run --plan --name web --memory 64m -p 18377:80 -v data:/data --cap-drop NET_RAW busybox true');
    expect(plan).toMatchObject({ code: 0, err: '' });
    for (const step of [
      'record container web',
      'make volume data',
      'mount overlay',
      'make eth0',
      'publish',
      'exec true',
    ])
      expect(plan.out).toContain(step);
    const explained = estiba('create --explain --name web --memory 64m busybox true').out;
    expect(explained).toContain('because: network bridge');
    expect(explained.match(/^ *\d+ /gm)?.length).toBe(explained.match(/^ *because: /gm)?.length);
    expect(traces()).toEqual(before);
  });

  it('of a create that would be refused is refused in the same words', () => {
    expect(estiba('run --plan none-such true').err).toContain('No such image: none-such');
    expect(estiba('run --plan --name web --pid container:nobody busybox true').err).toContain('nobody');
  });

  it('of an update are the limits it would write, and they stay as they are', () => {
    expect(estiba('run -d --name there --memory 64m busybox sleep 1000').code).toBe(0);
    const plan = estiba('update --plan --memory 32m there').out;
    expect(plan).toContain('memory.limit_in_bytes');
    expect(plan).toContain('record the new limits');
    expect(estiba('inspect there --format "{{.HostConfig.Memory}}"').out.trim()).toBe(String(64 * 1024 * 1024));
  });
});
