import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ApiServer, ESTIBA, startEstiba } from '../../test/suites/room/engine.ts';
import { type Answer, Room, waitFor } from '../../test/suites/room/room.ts';

const NAME = `rmn${process.pid % 100_000}`;

describe('a node that is removed', () => {
  let room: Room;
  let server: ApiServer;
  const runRoot = (): string => join(room.dir, 'estiba-run');
  const dataRoot = (): string => join(room.dir, 'estiba-data');
  const remove = (): Answer =>
    server.sh(`${ESTIBA} daemon --remove --name ${NAME} --data-root ${dataRoot()} --run-root ${runRoot()}`);
  /** Links, rules, cgroups and mounts that bear its name or lie below its roots. */
  const left = (): string => {
    const look = 'ip -brief link; nft list tables; ls -d /sys/fs/cgroup/*/*; cut -d " " -f 2 /proc/mounts';
    return server.sh(`(${look}) | grep -E '${NAME}|${runRoot()}|${dataRoot()}'`).out;
  };

  beforeAll(async () => {
    room = await Room.open('remove-node');
    server = await startEstiba(room, NAME);
  });
  afterAll(async () => {
    await room.end();
  });

  it('is not, while its daemon runs', () => {
    expect(server.sh('docker run -d -p 127.0.0.1:18398:80 busybox httpd -f').code).toBe(0);
    expect(remove()).toMatchObject({ code: 1, err: expect.stringContaining('daemon.lock is in use by process') });
    for (const what of [`${NAME}0`, `table inet ${NAME}`, `pids/${NAME}`, `${runRoot()}/`])
      expect(left()).toContain(what);
  });

  it('takes processes, links, rules, mounts and cgroups with it, whatever became of its daemon', async () => {
    const pid = Number(readFileSync(join(runRoot(), 'daemon.lock'), 'utf8').split(' ')[0]);
    process.kill(pid, 'SIGKILL');
    await waitFor(() => !existsSync(`/proc/${pid}`), 10_000, 'the daemon to end');
    expect(remove()).toMatchObject({ code: 0, out: expect.stringContaining('removed 1 processes of containers') });
    expect(left()).toBe('');
    expect([existsSync(dataRoot()), existsSync(runRoot())]).toEqual([false, false]);
  });

  it('can be removed again', () => {
    expect(remove().code).toBe(0);
  });
});
