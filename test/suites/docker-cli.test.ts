import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ApiServer, startDockerd, startEstiba } from './room/engine.ts';
import { type Answer, Room } from './room/room.ts';

// A tour of the docker CLI: the same lines against dockerd and against us, in this run, each in a room of its own. What a line says
// is compared where the CLI promises it (`same`); elsewhere its exit code, and what it must say (`says`).
interface Line {
  run: string;
  /** Standard output equals dockerd's, but for ids, addresses, times and sizes. */
  same?: true;
  says?: RegExp;
  /** The API version from which on the client has it at all. */
  since?: number;
}

const same = (run: string): Line => ({ run, same: true });
const code = (run: string): Line => ({ run });
const says = (run: string, text: RegExp): Line => ({ run, says: text });

const EVENTS = 'docker events --since $(cat since) --until 0s --format "{{.Type}} {{.Action}}"';

const TOUR: Line[] = [
  // the machine
  says('docker version --format "{{.Server.Os}}"', /^linux$/m),
  same('docker info --format "{{.OSType}} {{.Swarm.LocalNodeState}} {{.Driver}}"'),
  says('docker info', /Server Version/),
  // images
  same('docker images --format "{{.Repository}}:{{.Tag}}"'),
  same('docker images -q | wc -l'),
  same('docker image inspect busybox --format "{{.Os}} {{.Architecture}} {{json .Config.Cmd}} {{json .Config.Env}}"'),
  same('docker tag busybox team/box:1'),
  same('docker images team/box --format "{{.Repository}}:{{.Tag}}"'),
  same('docker images --filter reference="team/*" --format "{{.Tag}}"'),
  same('docker rmi team/box:1'),
  code('docker rmi no/such'),
  code('docker tag no/such x'),
  code('docker image inspect no/such'),
  same('docker history busybox --format "{{.Comment}}" --no-trunc | wc -l'),
  code('docker save -o box.tar busybox'),
  says('docker load -i box.tar', /Loaded image: busybox:latest/),
  same('docker save busybox | docker load -q | grep -c Loaded'),
  same(
    'printf "FROM busybox\\nRUN echo built > /built\\nCMD [\\"cat\\",\\"/built\\"]\\n" | docker build -q -t built - | wc -l',
  ),
  same('docker run --rm built'),
  same('docker rmi -f built | grep -c Untagged'),
  code('docker pull 127.0.0.1:1/none'),
  code('docker push 127.0.0.1:1/none'),
  // one container after the other
  same('docker run --rm busybox echo hello'),
  same('docker run --rm busybox sh -c "echo out; echo err >&2" 2>/dev/null'),
  code('docker run --rm busybox sh -c "exit 7"'),
  code('docker run --rm busybox no-such-program'),
  code('docker run --rm busybox /etc'),
  same('echo from stdin | docker run -i --rm busybox cat'),
  same('docker run --rm -e A=1 -e B=two busybox sh -c "echo $A \\$A \\$B"'),
  same('docker run --rm --env-file /dev/null -w /tmp busybox pwd'),
  same('docker run --rm -u 1000:1000 busybox id'),
  same('docker run --rm -u user busybox id -un'),
  same('docker run --rm --hostname boat busybox hostname'),
  same('docker run --rm --read-only busybox touch /x 2>&1 | tail -1'),
  same('docker run --rm --entrypoint /bin/echo busybox from the entry point'),
  same('docker run --rm --memory 64m busybox cat /sys/fs/cgroup/memory/memory.limit_in_bytes'),
  same('docker run --rm --pids-limit 50 busybox cat /sys/fs/cgroup/pids/pids.max'),
  same('docker run --rm --cpus 0.5 busybox cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us'),
  same('docker run --rm --ulimit nofile=99:99 busybox sh -c "ulimit -n"'),
  same('docker run --rm --cap-drop ALL busybox grep CapBnd /proc/self/status'),
  same('docker run --rm --cap-add NET_ADMIN busybox grep CapBnd /proc/self/status'),
  same('docker run --rm --security-opt no-new-privileges busybox grep NoNewPrivs /proc/self/status'),
  same('docker run --rm --security-opt seccomp=unconfined busybox grep Seccomp: /proc/self/status'),
  same("docker run --rm --tmpfs /t:size=1m busybox sh -c \"df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2\""),
  same("docker run --rm --shm-size 2m busybox sh -c \"df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2\""),
  same('docker run --rm --init busybox sh -c "echo reaped"'),
  same('docker run --rm --sysctl net.ipv4.ip_forward=0 busybox cat /proc/sys/net/ipv4/ip_forward'),
  same('docker run --rm --device /dev/zero:/dev/nothing busybox sh -c "test -c /dev/nothing && echo there"'),
  same('docker run --rm --add-host far:192.0.2.9 busybox grep far /etc/hosts'),
  same('docker run --rm --dns 192.0.2.53 --network bridge busybox grep nameserver /etc/resolv.conf'),
  same('docker run --rm --network none busybox ls /sys/class/net'),
  same('docker run --rm --network host busybox sh -c "ls /sys/class/net | grep -c lo"'),
  same('docker run --rm --pid host busybox sh -c "test -d /proc/1 && echo seen"'),
  same('docker run --rm --label a=b --name labelled -d busybox sleep 100 | wc -l'),
  same('docker inspect labelled --format "{{index .Config.Labels \\"a\\"}} {{.State.Status}} {{.Path}} {{.Args}}"'),
  same('docker rm -f labelled'),
  // its life
  same('docker create --name web busybox sh -c "trap \'exit 3\' TERM; echo ready; while :; do sleep 0.1; done"| wc -l'),
  same('docker ps -a --format "{{.Names}} {{.State}}"'),
  same('docker start web'),
  code('docker start web'),
  same('docker ps --format "{{.Names}} {{.Image}} {{.State}}"'),
  same('docker exec web echo inside'),
  same('docker exec -e X=y web sh -c "echo \\$X"'),
  { ...same('docker exec -w /tmp -u 1000 web sh -c "pwd; id -u"'), since: 35 },
  same('echo piped | docker exec -i web cat'),
  code('docker exec web sh -c "exit 9"'),
  // 20.10 says 126, newer ones 127, and so do we.
  code('docker exec web no-such-program; test $? -ge 126'),
  same('docker exec -d web true'),
  same('docker logs web'),
  same('docker logs --tail 1 web'),
  says('docker logs -t web', /^\d{4}-\d\d-\d\dT.* ready$/m),
  same('docker top web -o pid,comm | head -1 | tr -s " "'),
  says('docker stats --no-stream --format "{{.Name}}" web', /^web$/m),
  same('docker pause web'),
  same('docker ps --filter status=paused --format "{{.Names}}"'),
  code('docker exec web true'),
  same('docker unpause web'),
  same('docker update --memory 32m --memory-swap 64m web'),
  same('docker inspect web --format "{{.HostConfig.Memory}}"'),
  same('docker update --restart unless-stopped web'),
  same('docker inspect web --format "{{.HostConfig.RestartPolicy.Name}}"'),
  same('docker rename web site'),
  same('docker port site'),
  same('echo content > file; docker cp file site:/tmp/file; docker exec site cat /tmp/file'),
  same('docker cp site:/tmp/file back && cat back'),
  same('docker cp site:/etc/passwd - | tar -t'),
  code('docker cp site:/no/such -'),
  same('docker diff site | sort'),
  same('docker export site | tar -t | grep -c passwd'),
  same('docker commit -m saved -c "CMD [\\"cat\\",\\"/tmp/file\\"]" site saved | wc -l'),
  same('docker run --rm saved'),
  same('docker restart -t 1 site'),
  same('docker kill --signal USR1 site; sleep 0.2; docker inspect site --format "{{.State.Running}}"'),
  same('docker start site; docker stop -t 5 site'),
  same('docker wait site'),
  same('docker inspect site --format "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}"'),
  code('docker kill site'),
  same('docker rm site'),
  code('docker rm site'),
  code('docker inspect site'),
  same('docker rmi saved | grep -c Untagged'),
  // what is not here is said, and nobody takes it for a missing image
  same('docker wait no-such 2>&1'),
  same('docker run --rm --volumes-from no-such busybox true 2>&1 | head -1'),
  same('docker run --rm --network no-such busybox true 2>&1 | head -1'),
  says('docker run --rm --link no-such busybox true 2>&1', /No such container: no-such/),
  same(
    'docker run -d --name det --log-opt tag="{{.Name}} of {{.ImageName}}" --log-opt labels=a,none --log-opt labels-regex="^b" --log-opt env=E --log-opt env-regex="^F." --label a=1 --label bb="2 & 3" --label c=4 -e E=x=y -e FF=1 -e G=2 busybox echo told | wc -l; docker wait det; docker logs --details det; docker rm det',
  ),
  // several, and lists
  same('for i in 1 2 3; do docker run -d --name many$i --label group=many busybox sleep 100; done | wc -l'),
  same('docker ps --filter label=group=many --format "{{.Names}}" | sort'),
  same('docker ps -q --filter name=many2 | wc -l'),
  same('docker ps -n 1 --format "{{.Names}}"'),
  same('docker stop -t 0 many1 many2'),
  same('docker ps -a --filter status=exited --format "{{.Names}}" | sort'),
  same('docker container prune -f --filter label=group=many | grep -c Deleted'),
  same('docker rm -f many3'),
  // volumes
  same('docker volume create --label x=y data'),
  same('docker run --rm -v data:/data busybox sh -c "echo kept > /data/f"'),
  same('docker run --rm -v data:/data:ro busybox cat /data/f'),
  same('docker run --rm -v data:/data:ro busybox touch /data/g 2>&1 | tail -1'),
  same('docker run --rm --mount type=volume,src=data,dst=/m busybox ls /m'),
  same('mkdir -p bound; echo host > bound/f; docker run --rm -v "$PWD/bound:/b" busybox cat /b/f'),
  same('docker volume ls --format "{{.Name}} {{.Driver}}"'),
  same('docker volume inspect data --format "{{.Name}} {{.Scope}} {{.Labels}}"'),
  same('docker volume ls -q --filter dangling=true'),
  same('docker volume rm data'),
  code('docker volume rm data'),
  same('docker volume prune -f | grep -c reclaimed'),
  // networks
  same('docker network create --subnet 10.211.0.0/24 --gateway 10.211.0.1 front | wc -l'),
  code('docker network create front'),
  same('docker network ls --format "{{.Name}} {{.Driver}} {{.Scope}}" | sort'),
  same('docker run -d --name server --network front --network-alias srv busybox httpd -f -h /etc | wc -l'),
  same('docker run --rm --network front busybox wget -qO- http://server/hostname | wc -c'),
  same('docker run --rm --network front busybox wget -qO- http://srv/passwd | head -1'),
  same('docker run --rm --network front --ip 10.211.0.77 busybox sh -c "ip -o addr | grep -c 10.211.0.77"'),
  same(
    'docker network inspect front --format "{{range .Containers}}{{.Name}}{{end}} {{(index .IPAM.Config 0).Subnet}}"',
  ),
  code('docker network rm front'),
  same('docker network disconnect front server; docker network connect --alias again front server'),
  same('docker run --rm --network front busybox wget -qO- http://again/group | head -1'),
  same('docker run --rm --network container:server busybox wget -qO- http://127.0.0.1/group | head -1'),
  // the default route of a container that runs goes to the first network by name that is not internal
  same('docker network create aside | wc -l; docker network create --internal aaa | wc -l'),
  same('docker network connect aaa server; docker network connect aside server'),
  same('docker exec server ip route | grep ^default | grep -c 10.211.0.1'),
  same('docker network disconnect aside server; docker exec server ip route | grep ^default | grep -c 10.211.0.1'),
  same('docker rm -f server'),
  same('docker network rm front aside aaa'),
  same('docker network prune -f'),
  // published ports
  same('docker run -d --name pub -p 127.0.0.1:18081:80 busybox httpd -f -h /etc | wc -l'),
  same('docker port pub'),
  same('busybox wget -qO- http://127.0.0.1:18081/group | head -1'),
  code('docker run --rm -p 127.0.0.1:18081:80 busybox true'),
  same('docker rm -f pub'),
  // turned and packed logs
  same(
    'docker run --name wordy --log-opt max-size=20k --log-opt max-file=50 --log-opt compress=true busybox seq 4000 | tail -n 1',
  ),
  same('docker logs wordy | md5sum; docker logs --tail 1234 wordy | md5sum; docker logs --since 1h wordy | tail -n 2'),
  same('docker inspect wordy --format "{{json .HostConfig.LogConfig}}"; docker rm wordy'),
  same('docker run --rm --log-driver local --log-opt max-size=10k busybox seq 2000 | md5sum'),
  code('docker run --rm --log-opt compress=perhaps --log-opt max-size=1m --log-opt max-file=2 busybox true'),
  code('docker run --rm --log-opt compress=true --log-opt max-size=1m --log-opt max-file=1 busybox true'),
  // restart, health, events, what is left
  same('docker run -d --name again --restart on-failure:2 busybox false | wc -l'),
  same(
    'for i in $(seq 100); do docker inspect again --format "{{.State.Status}}" | grep -q exited && break; sleep 0.2; done; docker inspect again --format "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}"',
  ),
  same('docker rm -f again'),
  same('docker run -d --name fit --health-cmd true --health-interval 200ms busybox sleep 100 | wc -l'),
  same('sleep 1; docker inspect fit --format "{{.State.Health.Status}} {{.State.Health.FailingStreak}}"'),
  same('docker rm -f fit'),
  same('docker events --since 10m --until 0s --filter event=destroy --format "{{.Type}} {{.Action}}" | sort -u'),
  code(
    'sleep 1.1; date +%s > since; docker volume create heard; docker network create told; docker tag busybox told:1',
  ),
  code('docker run -d --name told -v heard:/v --network told told:1 sleep 100; docker exec told true'),
  code('docker pause told; docker unpause told; docker restart -t 0 told; docker stop -t 0 told; docker rm told'),
  code('docker run --rm told:1 true; docker save told:1 | docker load; docker import box.tar told:2'),
  same('docker rmi told:1 told:2 | grep -c Untagged; docker volume rm heard; docker network rm told'),
  code('docker container prune -f; docker volume prune -f; docker network prune -f; docker image prune -f'),
  // The client asks by whole seconds.
  same(`sleep 1.1; ${EVENTS} --filter image=told --filter type=container | sort | uniq -c`),
  same(`${EVENTS} --filter volume=heard | sort -u`),
  same(`${EVENTS} --filter type=network --filter network=told | sort | uniq -c`),
  same(`${EVENTS} --filter event=prune | sort`),
  same(
    `${EVENTS} --filter event=import --filter event=save --filter event=load --filter event=delete | sort | uniq -c`,
  ),
  says('docker system df', /Images[\s\S]*Containers[\s\S]*Local Volumes/),
  code('docker swarm init --advertise-addr 127.0.0.1 >/dev/null 2>&1; true'),
  code('docker plugin ls'),
  same('docker ps -aq | wc -l'),
];

/** What differs from run to run and from machine to machine. */
function normal(text: string): string {
  return text
    .replace(/sha256:[0-9a-f]{64}/g, 'DIGEST')
    .replace(/\b[0-9a-f]{64}\b/g, 'ID')
    .replace(/\b[0-9a-f]{12}\b/g, 'ID')
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME')
    .replace(/[ \t]+$/gm, '')
    .trim();
}

function tour(server: ApiServer, version?: string): Map<string, Answer> {
  const env = version === undefined ? {} : { DOCKER_API_VERSION: version };
  const minor = Number(version?.split('.')[1] ?? Number.POSITIVE_INFINITY);
  const shown = TOUR.filter(({ since = 0 }) => minor >= since);
  return new Map(shown.map(({ run }) => [run, server.sh(run, env)]));
}

/** Lines on which we differ from dockerd, or from what the line must say. */
function differences(ours: Map<string, Answer>, theirs: Map<string, Answer>): object[] {
  return TOUR.flatMap(({ run, same: compared, says: wanted }): object[] => {
    const [we, they] = [ours.get(run), theirs.get(run)];
    if (!we || !they) return []; // the client's version has no such option
    const problems = [
      ...(we.code === they.code ? [] : [{ code: we.code, dockerd: they.code }]),
      ...(compared && normal(we.out) !== normal(they.out) ? [{ out: normal(we.out), dockerd: normal(they.out) }] : []),
      ...(wanted && !wanted.test(we.out) ? [{ out: we.out, wanted: String(wanted) }] : []),
    ];
    return problems.map((problem) => ({ run, ...problem, err: we.err.trim().slice(0, 300) }));
  });
}

describe('the docker CLI', () => {
  const rooms: Room[] = [];
  let ours: ApiServer;
  let dockerds: Map<string, Answer>;

  beforeAll(async () => {
    const [here, there] = [await Room.open('cli-ours'), await Room.open('cli-dockerd')];
    rooms.push(here, there);
    ours = await startEstiba(here, `cli${process.pid % 100_000}`);
    dockerds = tour(await startDockerd(there));
  });
  afterAll(async () => {
    for (const room of rooms) await room.end();
  });

  it('is shown more than a hundred lines', () => {
    expect(TOUR.length).toBeGreaterThan(100);
  });

  it.each([undefined, '1.41', '1.30'])('answers as dockerd does, API version %s', (version) => {
    expect(differences(tour(ours, version), dockerds)).toEqual([]);
  });
});
