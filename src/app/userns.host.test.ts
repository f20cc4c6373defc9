import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type ApiServer, ESTIBA, startEstiba } from '../../test/suites/room/engine.ts';
import { Room, waitFor } from '../../test/suites/room/room.ts';

const NAME = `uns${process.pid % 100_000}`;
const PORT = 18_467;
const FIRST = 0x7000_0000;
const COUNT = 0x1_0000;

/** `--userns private` under `estiba daemon`, whose word it is; all else are lines of the docker CLI. */
describe('containers with a user namespace of their own', () => {
  let room: Room;
  let server: ApiServer;
  const run = (line: string): ReturnType<ApiServer['sh']> => server.sh(line);
  const sh = (line: string): string => server.ok(line);
  /** A detached container that waits, with these flags. */
  const start = (name: string, flags = ''): void =>
    void sh(`${ESTIBA} run -d --name ${name} --userns private ${flags} busybox sleep 600`);
  const inspect = (name: string, format: string): string => sh(`docker inspect ${name} --format '{{${format}}}'`);
  /** The ids of a container's first process as the host has them: real, effective, saved, of files. */
  const uids = (name: string): number[] => {
    const status = readFileSync(`/proc/${inspect(name, '.State.Pid')}/status`, 'utf8');
    return (/^Uid:\s+(.*)$/m.exec(status)?.[1] ?? '').split('\t').map(Number);
  };
  const upper = (name: string): string => inspect(name, '.GraphDriver.Data.UpperDir');
  const inRun = (name: string): string => join(room.dir, 'estiba-run', name);
  const kill9 = async (): Promise<void> => {
    const pid = Number(readFileSync(inRun('daemon.lock'), 'utf8').split(' ')[0]);
    process.kill(pid, 'SIGKILL');
    await waitFor(() => !existsSync(`/proc/${pid}`), 15_000, 'the daemon to end');
  };

  beforeAll(async () => {
    room = await Room.open('userns');
    chmodSync(room.dir, 0o711);
    server = await startEstiba(room, NAME);
  });
  afterEach(async () => {
    run('docker rm -fv $(docker ps -aq); docker volume prune -af; docker rmi mine');
    const left = (): string[] => [
      ...readdirSync(inRun('roots')),
      ...readdirSync(inRun('netns')).filter((name) => name.endsWith('.user')),
      ...readdirSync(join(room.dir, 'estiba-data/snapshots')),
    ];
    await waitFor(() => left().length === 0, 15_000, 'nothing to be left');
  });
  afterAll(async () => {
    await kill9();
    const roots = ['--data-root', join(room.dir, 'estiba-data'), '--run-root', inRun('')];
    expect(room.run(ESTIBA, ['daemon', '--remove', '--name', NAME, ...roots]).code).toBe(0);
    await room.end();
  });

  it('root inside is nobody of the host’s, and two containers are two different ones', () => {
    start('one');
    start('two');
    expect(sh('docker exec one id -u')).toBe('0');
    expect(uids('one')).toEqual([FIRST, FIRST, FIRST, FIRST]);
    expect(uids('two')[0]).toBe(FIRST + COUNT);
    expect(sh('docker exec one cat /proc/self/uid_map').split(/\s+/)).toEqual(['0', `${FIRST}`, `${COUNT}`]);
    expect(sh('docker exec -u 1000:1000 one sh -c "id -u; id -g"')).toBe('1000\n1000');
    expect(inspect('one', '.HostConfig.UsernsMode')).toBe('private');
    expect(sh(`${ESTIBA} xray one`)).toMatch(new RegExp(`namespace.user\\s+its own, 0 is ${FIRST} of the host`));
    sh('docker rm -f one');
    start('three'); // the range of the one that went
    expect(uids('three')[0]).toBe(FIRST);
  });

  it('what it writes belongs to its range on the host, and to itself inside; the image’s files are its own', () => {
    start('one');
    expect(sh('docker exec one stat -c %u:%g / /bin/busybox /etc/hosts')).toBe('0:0\n0:0\n0:0');
    sh('docker exec one sh -c "echo mine > /of-root; touch /of-app; chown 1000:50 /of-app; chmod 4755 /bin/busybox"');
    const owner = (path: string): number[] => [statSync(path).uid, statSync(path).gid];
    expect(owner(join(upper('one'), 'of-root'))).toEqual([FIRST, FIRST]);
    expect(owner(join(upper('one'), 'of-app'))).toEqual([FIRST + 1000, FIRST + 50]);
    expect(sh('docker exec one sh -c "echo x >> /etc/hosts; tail -n 1 /etc/hosts"')).toBe('x');
    sh('docker restart -t 0 one');
    expect(sh('docker exec one stat -c %u:%g /of-root /of-app')).toBe('0:0\n1000:50');
    expect(sh('docker diff one').split('\n').sort()).toEqual(['A /of-app', 'A /of-root', 'C /bin', 'C /bin/busybox']);
  });

  it('cp, export and commit show ids as they are inside, running or not', () => {
    start('one', '-v data:/data --tmpfs /memory');
    sh('docker exec one sh -c "mkdir /out; touch /out/of-app /data/of-app; chown 1000:50 /out/of-app /data/of-app"');
    const owners = (tar: string): string => sh(`${tar} | tar -tv --numeric-owner | grep of-app | awk '{print $2}'`);
    const dir = join(room.dir, 'in');
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, 'note'), 'hello');
    sh(`tar -C ${dir} --numeric-owner --owner 7 --group 8 -cf ${dir}.tar note`);
    const check = (): void => {
      expect(owners('docker cp one:/out -')).toBe('1000/50');
      expect(owners('docker cp one:/data -')).toBe('1000/50');
      expect(owners('docker export one')).toBe('1000/50');
      for (const target of ['/out', '/data']) sh(`docker cp - one:${target} < ${dir}.tar`);
    };
    check();
    expect(sh('docker exec one stat -c %u:%g /out/note /data/note')).toBe('7:8\n7:8');
    expect(sh('docker exec one sh -c "rm /out/note /data/note; echo done"')).toBe('done');
    sh('docker stop -t 0 one');
    check();
    sh('docker start one');
    expect(sh('docker exec one stat -c %u:%g /out/note /data/note')).toBe('7:8\n7:8');
    sh(`docker cp ${dir}/note one:/made`);
    expect(sh('docker exec one stat -c %u /made')).toBe('0');
    sh('docker commit one mine');
    expect(sh('docker run --rm mine stat -c %u:%g / /out /out/of-app /out/note')).toBe('0:0\n0:0\n1000:50\n7:8');
    expect(sh(`${ESTIBA} run --rm --userns private mine stat -c %u:%g / /out/of-app`)).toBe('0:0\n1000:50');
  });

  it('volumes are shared with other containers by the ids inside; files of the host are nobody’s', () => {
    const dir = join(room.dir, 'host');
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, 'secret'), 'of root', { mode: 0o600 });
    start('one', `-v data:/data -v ${dir}:/host`);
    sh('docker exec one sh -c "echo mine > /data/file; chown 5:6 /data/file"');
    expect(sh('docker run --rm -v data:/data busybox stat -c %u:%g /data /data/file')).toBe('0:0\n5:6');
    expect(sh(`${ESTIBA} run --rm --userns private -v data:/data busybox stat -c %u:%g /data/file`)).toBe('5:6');
    expect(sh('docker exec one stat -c %u /host/secret')).toBe('65534');
    expect(run('docker exec one cat /host/secret').err).toContain('Permission denied');
    expect(run('docker exec one touch /host/new').err).toContain('Permission denied');
    expect(readdirSync(dir)).toEqual(['secret']);
  });

  it('a volume is filled with what the image has there, with the image’s owners', () => {
    sh('docker create --name seed busybox && docker cp /etc/hostname seed:/etc/of-app');
    sh('docker commit seed mine');
    sh(`${ESTIBA} run --userns private -v data:/etc mine stat -c %u:%g /etc /etc/of-app`);
    sh(`${ESTIBA} run --rm --userns private -v data:/etc mine stat -c %u:%g /etc /etc/of-app`);
    expect(sh('docker run --rm -v data:/data busybox stat -c %u:%g /data')).toBe('0:0');
  });

  it('its network is its own: addresses, low ports, published ports, ping, its devices in /sys, and right over them', async () => {
    start('one', `-p 127.0.0.1:${PORT}:80`);
    sh('docker exec -d -u 1000 one httpd -f -h /etc -p 80');
    await waitFor(() => run(`busybox wget -qO- http://127.0.0.1:${PORT}/group`).out.includes('root'), 15_000, 'httpd');
    const names = sh('docker exec one ls /sys/class/net').split('\n');
    expect(names.filter((name) => /^(lo|eth)/.test(name))).toEqual(['eth0', 'lo']);
    expect(sh('docker exec one cat /proc/sys/net/ipv4/ip_unprivileged_port_start')).toBe('0');
    expect(sh('docker exec one ping -c 1 127.0.0.1')).toContain('1 packets received');
    expect(sh('docker exec one cat /proc/sys/net/ipv4/ping_group_range').split(/\s+/)).toEqual(['0', '65535']);
    expect(run('docker exec one ip link set lo down').code).not.toBe(0);
    start('admin', '--cap-add NET_ADMIN --sysctl net.ipv4.ip_forward=1 --sysctl net.ipv4.conf.eth0.forwarding=1');
    expect(sh('docker exec admin sh -c "ip link set eth0 mtu 1400 && cat /sys/class/net/eth0/mtu"')).toBe('1400');
    expect(sh('docker exec admin cat /proc/sys/net/ipv4/ip_forward')).toBe('1');
    sh('docker network create uns-front && docker network connect uns-front one');
    expect(sh('docker exec one ls /sys/class/net')).toContain('eth1');
    sh('docker rm -f one admin && docker network rm uns-front');
  });

  it('the rest of a run is as in any other container', async () => {
    start('one', '--read-only --tmpfs /memory --shm-size 1m --device /dev/null:/dev/nothing --init --ipc shareable');
    expect(run('docker exec one touch /x').err).toContain('Read-only');
    expect(sh('docker exec one sh -c "touch /memory/x /dev/shm/x && stat -c %u /memory /memory/x /dev/shm/x"')).toBe(
      '0\n0\n0',
    );
    expect(sh('docker exec one df -k /dev/shm | tail -n 1')).toMatch(/ 1024 /);
    expect(sh('docker exec one sh -c "echo x > /dev/nothing; echo y > /dev/null; head -c 1 /dev/zero | wc -c"')).toBe(
      '1',
    );
    expect(run('docker exec one mknod /memory/null c 1 3').code).not.toBe(0);
    sh('docker pause one && docker unpause one');
    expect(sh('docker top one')).toContain('sleep 600');
    expect(sh('docker stats --no-stream one')).toContain('one');
    sh('docker kill -s KILL one');
    expect(inspect('one', '.State.ExitCode')).toBe('137');
    start('busy');
    expect(
      sh(`${ESTIBA} run --rm -t --userns private busybox sh -c 'tty; stat -c %u /dev/console; echo hi > /dev/tty'`),
    ).toMatch(/\/dev\/pts\/0\s+0\s+hi/);
    expect(
      sh(`echo in | ${ESTIBA} run --rm -i --userns private -u 1000 busybox sh -c 'cat; echo out > /dev/stdout'`),
    ).toBe('in\nout');
    expect(sh(`docker exec -u 1000 busy sh -c 'echo out > /dev/stdout; echo in | cat /dev/stdin'`)).toBe('out\nin');
    expect(sh(`${ESTIBA} run --rm --network none --userns private busybox ls /sys/class/net`)).toContain('lo');
    expect(sh(`${ESTIBA} run --rm --uts host --cgroupns host --userns private busybox id -u`)).toBe('0');
  });

  it('others may join its namespaces', () => {
    start('one', '--ipc shareable');
    sh('docker exec one sh -c "echo cargo > /dev/shm/hold"');
    const flags = '--network container:one --pid container:one --ipc container:one';
    expect(sh(`docker run --rm ${flags} busybox sh -c "cat /dev/shm/hold; ls /sys/class/net; ps"`)).toMatch(
      /cargo[\s\S]*eth0[\s\S]*sleep 600/,
    );
  });

  it('kill -9 of the daemon: it runs on, is known with its range, and what a start was cut off in is taken away', async () => {
    start('one');
    sh('docker exec one touch /before');
    const pid = inspect('one', '.State.Pid');
    await kill9();
    const cut = inRun('roots/cut.layers');
    mkdirSync(join(cut, '0'), { recursive: true });
    sh(`mount -t tmpfs left ${cut}/0`);
    server = await startEstiba(room, NAME);
    expect(existsSync(cut)).toBe(false);
    expect(inspect('one', '.State.Pid')).toBe(pid);
    expect(sh('docker exec one sh -c "touch /after; stat -c %u /before /after"')).toBe('0\n0');
    start('two');
    expect(uids('two')[0]).toBe(FIRST + COUNT);
    sh('docker restart -t 0 one');
    expect(uids('one')[0]).toBe(FIRST);
    expect(sh('docker exec one stat -c %u /before /after')).toBe('0\n0');
  });

  it.each([
    ['--privileged', 'contradicts a user namespace of its own'],
    ['--network host', 'contradicts a user namespace of its own'],
    ['--pid host', 'contradicts a user namespace of its own'],
    ['--ipc host', 'contradicts a user namespace of its own'],
    ['--network container:other', 'contradicts a user namespace of its own'],
    ['--userns private:100000:10', 'images use 65536'],
    ['--userns private:5000:65536', 'has to begin above'],
    [`--userns private:${FIRST}:65536`, 'overlap with those of container other'],
    ['--runtime runc', 'a user namespace of its own is not for runtime runc'],
    ['--userns keep-id', 'is none of host, private'],
  ])('%s is refused at create', (flags, why) => {
    start('other');
    const { code, err } = run(`${ESTIBA} create --userns private ${flags} busybox true`);
    expect(code).not.toBe(0);
    expect(err).toContain(why);
  });

  it('a range may be named', () => {
    start('one', '--userns private:1000000:131072');
    expect(uids('one')[0]).toBe(1_000_000);
    expect(sh('docker exec one sh -c "touch /far; chown 100000 /far; stat -c %u /far"')).toBe('100000');
  });
});
