import { chmodSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { olderExecutor } from '#kernel/plan/older-executor.ts';
import { OWN_VOCABULARY, toldVocabulary } from '#kernel/plan/vocabulary.ts';
import { type ApiServer, type Build, startBuild, startEstiba } from '../../test/suites/room/engine.ts';
import { type Answer, Room, waitFor } from '../../test/suites/room/room.ts';

const NAME = `upg${process.pid % 100_000}`;
const PORT = 18_390;
const FIRST = toldVocabulary(Buffer.alloc(0));
const ALL = 'talk web tty input small fails ends frozen mapped other beside';
const LATER = [...OWN_VOCABULARY].filter((name) => !FIRST.has(name));

/** Makes the build that starts the containers, in a directory of its own. */
type Older = (dir: string) => Build;
const BUILDS: [string, Older][] = [
  ['that says nothing of what it knows', (dir) => ({ executor: olderExecutor(dir, LATER, { silent: true }) })],
  [
    'that knows nothing of pidfds, and says so',
    (dir) => ({ executor: olderExecutor(dir, ['enterProcess', 'cloneInto']) }),
  ],
  ['that enters by a process of its own', (dir) => ({ executor: olderExecutor(dir, ['cloneInto']) })],
];
/** A release, or a tree of before, with its programs built: `ESTIBA_OLDER=TREE/bin/estiba`. */
const named = process.env['ESTIBA_OLDER'];
if (named !== undefined) BUILDS.push([named, () => ({ program: named })]);

/** A daemon of another build, then one of this: every line is one of the docker CLI. */
class Upgrade {
  readonly room: Room;
  #server: ApiServer;

  private constructor(room: Room, server: ApiServer) {
    this.room = room;
    this.#server = server;
  }

  static async from(older: Older): Promise<Upgrade> {
    const room = await Room.open('upgrade');
    chmodSync(room.dir, 0o711); // the root of a user namespace is another user here
    try {
      return new Upgrade(room, await startBuild(older(join(room.dir, 'older')), room, NAME));
    } catch (error) {
      await room.end();
      throw error;
    }
  }

  /** kill -9, and the next daemon. */
  async upgrade(): Promise<void> {
    await this.#kill('SIGKILL');
    this.#server = await startEstiba(this.room, NAME);
  }

  sh(line: string): string {
    return this.#server.ok(line);
  }

  try(line: string): Answer {
    return this.#server.sh(line);
  }

  inspect(name: string, format: string): string {
    return this.sh(`docker inspect ${name} --format '{{${format}}}'`);
  }

  curl(path: string, body?: object): string {
    const data = body ? `-H 'Content-Type: application/json' -d '${JSON.stringify(body)}'` : '';
    return this.sh(`curl -s --unix-socket ${this.#server.socket} ${data} 'http://x${path}'`);
  }

  async end(): Promise<void> {
    this.sh('docker rm -f $(docker ps -aq)');
    await this.#kill('SIGTERM');
    expect(readdirSync(join(this.room.dir, 'estiba-run/shims'))).toEqual([]);
    await this.room.end();
  }

  async #kill(signal: NodeJS.Signals): Promise<void> {
    const pid = Number(readFileSync(join(this.room.dir, 'estiba-run/daemon.lock'), 'utf8').split(' ')[0]);
    process.kill(pid, signal);
    await waitFor(() => !existsSync(`/proc/${pid}`), 10_000, 'the daemon to end');
  }
}

describe.each(BUILDS)('containers of a build %s', (_, older) => {
  let world: Upgrade;
  const sh = (line: string): string => world.sh(line);
  const lines = (name: string): number[] => sh(`docker logs ${name}`).split('\n').map(Number);
  let pids: string;
  let execId: string;

  beforeAll(async () => {
    world = await Upgrade.from(older);
    sh('docker network create front');
    const count = `i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done`;
    sh(`docker run -d --name talk --network front --memory 64m busybox sh -c '${count}'`);
    sh(`docker run -d --name web --network front -p 127.0.0.1:${PORT}:80 busybox httpd -f -h /etc`);
    sh(`docker run -dit --name tty busybox sh`);
    sh(`docker run -di --name input busybox cat`);
    const small = '--user 65534:65534 --cap-drop ALL --read-only --pids-limit 2';
    sh(`docker run -d --name small ${small} busybox sh -c 'sleep 600 & exec sleep 600'`);
    sh(`docker run -d --name fails --restart always busybox sleep 600`);
    sh(`docker run -d --name ends busybox sh -c 'trap "exit 9" TERM; echo up; while true; do sleep 0.05; done'`);
    sh(`docker run -d --name frozen busybox sleep 600 && docker pause frozen`);
    const mapped = { Image: 'busybox', Cmd: ['sleep', '600'], HostConfig: { UsernsMode: 'private' } };
    world.curl('/containers/create?name=mapped', mapped);
    sh('docker start mapped');
    sh('docker run -d --name other --runtime runc busybox sleep 600');
    sh('docker run -d --name beside --pid container:talk --network container:talk busybox sleep 600');
    ({ Id: execId } = JSON.parse(world.curl('/containers/talk/exec', { Cmd: ['sh', '-c', 'sleep 2; exit 7'] })));
    world.curl(`/exec/${execId}/start`, { Detach: true });
    pids = sh(`docker inspect -f '{{.State.Pid}}' ${ALL}`);
    await world.upgrade();
  });
  afterAll(() => world.end());

  it('run on', () => {
    expect(sh(`docker inspect -f '{{.State.Pid}}' ${ALL}`)).toBe(pids);
    expect(world.inspect('frozen', '.State.Status')).toBe('paused');
  });

  it('run further programs: exit status, user, directory, environment, input, terminal, rights', () => {
    expect(world.try('docker exec talk sh -c "exit 3"').code).toBe(3);
    expect(sh(`docker exec -u 1000:1001 -w /tmp -e A=b talk sh -c 'id -u; id -g; pwd; echo $A'`)).toBe(
      '1000\n1001\n/tmp\nb',
    );
    expect(sh('echo words | docker exec -i talk cat')).toBe('words');
    expect(sh('docker exec -t talk tty')).toBe('/dev/pts/0');
    expect(sh('docker exec --privileged talk grep CapEff /proc/self/status')).not.toBe(
      sh('docker exec talk grep CapEff /proc/self/status'),
    );
    // In all of its namespaces, and below its limits.
    expect(sh(`docker exec talk sh -c 'hostname; ps | grep -c "[w]hile true"'`)).toBe(
      `${world.inspect('talk', '.Config.Hostname')}\n1`,
    );
    const cgroup = sh('docker exec talk cat /proc/self/cgroup');
    expect(sh('docker exec talk cat /proc/1/cgroup')).toBe(cgroup);
    expect(world.try('docker exec talk no-such-program').code).toBe(127);
    expect(sh('docker exec small id -u')).toBe('65534'); // though it has no place left
    expect(world.try('docker exec frozen true').err).toContain('paused');
  });

  it('do so in a user namespace of their own, by another runtime, and in the namespaces of another container', () => {
    const script = 'id -u; cat /proc/self/uid_map | wc -l; echo words > /dev/stdout';
    expect(sh(`docker exec -u 5 mapped sh -c '${script}'`)).toBe('5\n1\nwords');
    expect(sh('echo words | docker exec -i other cat')).toBe('words');
    expect(sh('docker exec -t other tty')).toContain('/dev/pts/');
    expect(sh(`docker exec beside sh -c 'ps | grep -c "[w]hile true"'`)).toBe('1');
  });

  it('know how an exec ended that ran meanwhile', async () => {
    const state = (): { Running: boolean; ExitCode: number | null } => JSON.parse(world.curl(`/exec/${execId}/json`));
    await waitFor(() => !state().Running, 10_000, 'the exec to end');
    expect(state().ExitCode).toBe(7);
  });

  it('have lost no line of their logs, and can be attached to', async () => {
    const seen = lines('talk').length;
    await waitFor(() => lines('talk').length > seen + 5, 10_000, 'the log to grow');
    const all = lines('talk');
    expect(all).toEqual(all.map((__, i) => i + 1));
    expect(world.try('timeout -s KILL 1 docker attach --no-stdin talk').out).toMatch(/^\d+\n/);
    world.try('(echo to-cat; sleep 1) | timeout -s KILL 1 docker attach input');
    await waitFor(() => sh('docker logs input').includes('to-cat'), 10_000, 'cat to answer');
    world.curl('/containers/tty/resize?h=50&w=132', {});
    expect(sh('docker exec tty sh -c "stty size < /proc/1/fd/0"')).toBe('50 132');
  });

  it('serve at their ports and under their names', () => {
    expect(sh(`busybox wget -qO- http://127.0.0.1:${PORT}/group | head -1`)).toContain('root');
    expect(sh(`docker run --rm --network front busybox wget -qO- http://web/group | head -1`)).toContain('root');
  });

  it('are updated, measured, listed, copied from, paused and thawed', () => {
    sh('docker update --memory 96m --memory-swap 96m talk');
    expect(sh('docker stats --no-stream --format "{{.MemUsage}}" talk')).toContain('/ 96MiB');
    expect(sh('docker top talk')).toContain('sh -c');
    sh('docker pause talk');
    expect(world.inspect('talk', '.State.Status')).toBe('paused');
    sh('docker unpause talk && docker unpause frozen');
    expect(sh('docker exec frozen echo thawed')).toBe('thawed');
    sh('docker exec web sh -c "echo kept > /tmp/kept"');
    expect(sh('docker cp web:/tmp/kept - | tar xO')).toBe('kept');
    expect(sh('docker diff web')).toContain('A /tmp/kept');
  });

  it('end with their status, start anew by their policy, and once started again are of this build', async () => {
    sh('docker stop -t 10 ends');
    expect(world.inspect('ends', '.State.ExitCode')).toBe('9');
    const pid = world.inspect('fails', '.State.Pid');
    process.kill(Number(pid), 'SIGKILL');
    await waitFor(() => ![pid, '0'].includes(world.inspect('fails', '.State.Pid')), 10_000, 'it to run again');
    sh('docker restart -t 0 talk');
    for (const name of ['fails', 'talk']) expect(sh(`docker exec ${name} echo here`)).toBe('here');
    expect(world.try('docker run --rm busybox sh -c "exit 4"').code).toBe(4);
    expect(sh('docker kill web && docker wait web')).toBe('web\n137');
  });
});

describe('a container of a build that knows no way for what is asked', () => {
  let world: Upgrade;
  beforeAll(async () => {
    world = await Upgrade.from((dir) => ({ executor: olderExecutor(dir, ['kill', 'enterProcess', 'cloneInto']) }));
    world.sh('docker run -d --name old --network none busybox sleep 600');
    await world.upgrade();
  });
  afterAll(() => world.end());

  it('says what it lacks and what to do about it, and after that it is done', () => {
    const says = /started by an older build of Estiba.* does not know kill: restart the container/;
    expect(world.try('docker exec old true')).toMatchObject({ code: 128, out: expect.stringMatching(says) });
    expect(world.try('docker exec -d old true')).toMatchObject({ code: 1, err: expect.stringMatching(says) });
    world.sh('docker restart -t 0 old');
    expect(world.sh('docker exec old echo here')).toBe('here');
  });
});
