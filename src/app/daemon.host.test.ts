import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sleep, systemClock } from '#base/clock.ts';
import { type ApiServer, startEstiba } from '../../test/suites/room/engine.ts';
import { Room, waitFor } from '../../test/suites/room/room.ts';

const COUNT = 20;
const NAME = `dmn${process.pid % 100_000}`;

/** `estiba daemon` killed, restarted and rebooted under containers; every line is one of the docker CLI. */
describe('a daemon that goes and comes back', () => {
  let room: Room;
  let server: ApiServer;
  const sh = (line: string): string => server.ok(line);
  const inspect = (name: string, format: string): string => sh(`docker inspect ${name} --format '{{${format}}}'`);
  const pids = (): string[] => Array.from({ length: COUNT }, (_, i) => inspect(`box${i}`, '.State.Pid'));
  const ask = (port: number): string => sh(`timeout 2 busybox wget -qO- http://127.0.0.1:${port}/group | head -1`);
  const daemonPid = (): number => Number(readFileSync(join(room.dir, 'estiba-run/daemon.lock'), 'utf8').split(' ')[0]);
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    const pid = daemonPid();
    process.kill(pid, signal);
    await waitFor(() => !existsSync(`/proc/${pid}`), 10_000, 'the daemon to end');
  };
  const restart = async (): Promise<void> => {
    server = await startEstiba(room, NAME);
  };

  beforeAll(async () => {
    room = await Room.open('daemon');
    server = await startEstiba(room, NAME);
    sh('docker network create front');
    for (let i = 0; i < COUNT; i++)
      sh(
        `docker run -d --name box${i} --network front --restart always -p 127.0.0.1:${18_300 + i}:80 busybox sh -c 'echo began; exec httpd -f -h /etc'`,
      );
  });
  afterAll(async () => {
    sh('docker rm -f $(docker ps -aq)');
    await kill('SIGTERM');
    expect(readdirSync(join(room.dir, 'estiba-run/shims'))).toEqual([]);
    await room.end();
  });

  it('kill -9: processes, ports, names and logs go on, and no request fails meanwhile', async () => {
    const before = pids();
    // One request every 20 ms by a published port and by name, while the daemon is killed and comes back.
    sh(
      `docker run -d --name asker --network front busybox sh -c 'for i in $(seq 150); do timeout 2 wget -qO- http://box3/group >/dev/null || echo failed; sleep 0.02; done; echo done'`,
    );
    const outside = room.start.bind(room);
    outside('asking', 'sh', [
      '-c',
      'for i in $(seq 150); do timeout 2 busybox wget -qO- http://127.0.0.1:18304/group >/dev/null || echo failed; sleep 0.02; done; echo done',
    ]);
    await kill('SIGKILL');
    await restart();
    expect(pids()).toEqual(before);
    expect(ask(18_300)).toContain('root');
    await waitFor(() => room.log('asking').includes('done'), 30_000, 'the requests from the host');
    expect(room.log('asking')).not.toContain('failed');
    expect(sh('docker wait asker; docker logs asker').split('\n')).toEqual(['0', 'done']);
    expect(sh('docker logs box0')).toBe('began');
    sh('docker rm asker');
  });

  it('the default route of a running container goes where the gateway priorities say, after a kill -9 as before', async () => {
    sh('docker network create side && docker network create --ipv6 wide');
    sh('docker run -d --name way --network front -p 127.0.0.1:18350:80 busybox httpd -f -h /etc');
    const ways = () => sh('docker exec way sh -c "ip route; ip -6 route" | grep ^default | grep -o "eth."').split('\n');
    sh('docker network connect --gw-priority 2 side way');
    expect(ways()).toEqual(['eth1']);
    expect(inspect('way', '.NetworkSettings.Networks.side.GwPriority')).toBe('2');
    expect(ask(18_350)).toContain('root');
    await kill('SIGKILL');
    await restart();
    sh('docker network connect --gw-priority 1 wide way');
    expect(ways()).toEqual(['eth1', 'eth2']); // IPv6 has one way alone
    sh('docker network disconnect side way');
    expect(ways()).toEqual(['eth2', 'eth2']);
    expect(ask(18_350)).toContain('root');
    sh('docker restart -t 1 way && docker network disconnect wide way');
    expect(ways()).toEqual(['eth0']);
    expect(ask(18_350)).toContain('root');
    sh('docker rm -f way && docker network rm side wide');
  });

  it('containers that join a shareable IPC namespace share its memory; a private one is not joined', () => {
    sh('docker run -d --name donor --ipc shareable --shm-size 1m busybox sleep 600');
    sh('docker exec donor sh -c "echo cargo > /dev/shm/hold"');
    expect(sh('docker run --rm --ipc container:donor busybox cat /dev/shm/hold')).toBe('cargo');
    expect(sh('docker run --rm --ipc container:donor busybox df -k /dev/shm | tail -1')).toMatch(/ 1024 /);
    expect(server.sh('docker run --rm --ipc container:box0 busybox true').err).toContain('non-shareable IPC');
    sh('docker rm -f donor');
    expect(readdirSync(join(room.dir, 'estiba-run/roots')).filter((name) => name.endsWith('.shm'))).toEqual([]);
  });

  it('turned log files are packed, also what was turned without a daemon, and are read and followed as plain ones', async () => {
    const signs = join(room.dir, 'signs');
    mkdirSync(signs);
    const say =
      'seq 3000; until [ -e /s/1 ]; do sleep 0.05; done; seq 3001 6000; until [ -e /s/2 ]; do sleep 0.05; done; seq 6001 9000; sleep 600';
    const packing = '--log-opt compress=true --log-opt max-size=64k --log-opt max-file=40';
    const id = sh(`docker run -d --name wordy ${packing} -v ${signs}:/s busybox sh -c '${say}'`);
    const logs = join(inspect('wordy', '.LogPath'), '..');
    const turned = () => readdirSync(logs).filter((name) => name !== `${id}-json.log`);
    const packed = (least: number) =>
      waitFor(() => turned().length >= least && turned().every((name) => name.endsWith('.gz')), 30_000, 'packed files');
    const numbers = (from: number, to: number) => sh(`seq ${from} ${to}`);
    await packed(3);
    const before = turned().length;
    expect(sh('docker logs wordy')).toBe(numbers(1, 3000));
    expect(sh('docker logs --tail 2500 wordy')).toBe(numbers(501, 3000));
    await kill('SIGKILL');
    writeFileSync(join(signs, '1'), '');
    await waitFor(() => turned().length >= before + 3, 15_000, 'files turned without a daemon');
    expect(turned().some((name) => !name.endsWith('.gz'))).toBe(true);
    await restart();
    await waitFor(() => sh('docker logs --tail 1 wordy') === '6000', 15_000, 'the last line');
    expect(sh('docker logs wordy')).toBe(numbers(1, 6000));
    await packed(before + 3);
    expect(sh('docker logs wordy')).toBe(numbers(1, 6000));
    expect(sh(`(sleep 1; touch ${signs}/2) & timeout 6 docker logs -f --tail 5000 wordy || true`)).toBe(
      numbers(1001, 9000),
    );
    sh('docker kill wordy');
    await packed(before + 6);
    expect(sh('docker logs --since 1h wordy')).toBe(numbers(1, 9000));
    sh('docker rm wordy');
    await waitFor(() => !existsSync(logs), 10_000, 'its logs to go');
  });

  it('the exit code of an exec that ran while the daemon was killed is known', async () => {
    const socket = join(room.dir, 'estiba-run/docker.sock');
    const post = (path: string, body: object): string =>
      sh(
        `curl -s --unix-socket ${socket} -H 'Content-Type: application/json' -d '${JSON.stringify(body)}' http://x${path}`,
      );
    const { Id } = JSON.parse(post('/containers/box1/exec', { Cmd: ['sh', '-c', 'sleep 1; exit 7'] })) as {
      Id: string;
    };
    post(`/exec/${Id}/start`, { Detach: true });
    await kill('SIGKILL');
    await restart();
    const state = (): { Running: boolean; ExitCode: number | null } =>
      JSON.parse(sh(`curl -s --unix-socket ${socket} http://x/exec/${Id}/json`));
    await waitFor(() => !state().Running, 10_000, 'the exec to end');
    expect(state().ExitCode).toBe(7);
  });

  it('a container that ended meanwhile has its exit code, and one that shall run again does', async () => {
    sh(`docker run -d --name once busybox sh -c 'sleep 0.5; exit 5'`);
    const pid = inspect('box2', '.State.Pid');
    const once = inspect('once', '.State.Pid');
    await kill('SIGKILL');
    process.kill(Number(pid), 'SIGKILL');
    await waitFor(() => !existsSync(`/proc/${once}`), 10_000, '`once` to end');
    await restart();
    expect(inspect('once', '.State.ExitCode')).toBe('5');
    await waitFor(() => inspect('box2', '.State.Running') === 'true', 10_000, 'box2 to run again');
    expect(inspect('box2', '.State.Pid')).not.toBe(pid);
    await waitFor(() => ask(18_302).includes('root'), 10_000, 'its server to listen');
    sh('docker rm once');
  });

  it('killed while containers end, it knows how each ended, and holds nothing of those any more', async () => {
    const gate = join(room.dir, 'gate');
    mkdirSync(gate);
    const command = `until [ -e /gate/open ]; do sleep 0.02; done; exit`;
    for (const delayMs of [5, 20, 40, 80]) {
      const ids = Array.from({ length: 8 }, (_, i) =>
        sh(`docker run -d --ipc shareable -v ${gate}:/gate:ro busybox sh -c '${command} ${i + 1}'`),
      );
      writeFileSync(join(gate, 'open'), '');
      await sleep(systemClock, delayMs);
      await kill('SIGKILL');
      await restart();
      const all = ids.join(' ');
      expect(sh(`docker wait ${all}`).split('\n')).toEqual(ids.map((_, i) => String(i + 1)));
      const run = join(room.dir, 'estiba-run');
      const held = (): string[] =>
        [
          ...readdirSync(join(run, 'shims')),
          ...readdirSync(join(run, 'oci')),
          ...readdirSync(join(run, 'roots')),
          ...(room.run('cat', ['/proc/self/mountinfo']).out.match(/\/roots\/[^ ]*/g) ?? []),
        ].filter((name) => ids.some((id) => name.includes(id)));
      await waitFor(() => held().length === 0, 10_000, 'what they held to go');
      expect(sh(`docker network inspect bridge --format '{{len .Containers}}'`)).toBe('0');
      rmSync(join(gate, 'open'));
      // Nothing of the last run is in the way of the next.
      sh(`docker start ${all}`);
      sh(`docker rm -f ${all}`);
    }
  });

  it('SIGTERM ends it cleanly and leaves containers running; a second daemon of the same root is refused', async () => {
    const before = pids();
    const second = server.sh(
      `${join(import.meta.dirname, '../../bin/estiba')} daemon --only engine --name ${NAME} --data-root ${room.dir}/estiba-data --run-root ${room.dir}/estiba-run`,
    );
    expect(second.code).toBe(1);
    expect(second.err).toMatch(/is in use by process/);
    await kill('SIGTERM');
    expect(room.log('estiba')).not.toContain(' error ');
    await restart();
    expect(pids()).toEqual(before);
  });

  it('after a reboot, all that is volatile gone, containers with a restart policy run again', async () => {
    sh('docker run -d --name never busybox sleep 1000');
    sh('docker stop -t 0 box19');
    await kill('SIGKILL');
    await room.reboot(join(room.dir, 'estiba-run'));
    await restart();
    const running = sh('docker ps --format {{.Names}}').split('\n').sort();
    // `always` starts even what was stopped by hand, at the next boot.
    expect(running).toEqual(Array.from({ length: COUNT }, (_, i) => `box${i}`).sort());
    await waitFor(() => ask(18_305).includes('root'), 10_000, 'its server to listen');
    expect(sh('docker run --rm --network front busybox wget -qO- http://box7/group | head -1')).toContain('root');
    expect(inspect('never', '.State.Status')).toBe('exited');
    sh('docker rm never');
  });
});
