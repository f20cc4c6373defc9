import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type ApiServer, ESTIBA, startEstiba } from '../../test/suites/room/engine.ts';
import { Room, RUNTIME, waitFor } from '../../test/suites/room/room.ts';

const NAME = `fgn${process.pid % 100_000}`;
const PORT = 18_411;

/** Ours as another's, which any machine with our build has; runc, as packages install it; crun, as on a host of cgroup v1 alone. */
const RUNTIMES = ['ours', 'runc', 'crun1'] as const;

/** Containers of other OCI runtimes under `estiba daemon`; every line is one of the docker CLI. */
describe('containers on another OCI runtime', () => {
  let room: Room;
  let server: ApiServer;
  const run = (line: string): ReturnType<ApiServer['sh']> => server.sh(line);
  const sh = (line: string): string => server.ok(line);
  const inspect = (name: string, format: string): string => sh(`docker inspect ${name} --format '{{${format}}}'`);
  const until = (says: () => boolean, what: string): Promise<void> => waitFor(says, 15_000, what);
  const ended = (name: string): Promise<void> =>
    until(() => inspect(name, '.State.Status') === 'exited', `the end of ${name}`);
  const inRun = (name: string): string => join(room.dir, 'estiba-run', name);
  const start = async (): Promise<void> => {
    const others = ['crun1', 'gone', 'late', 'stray'].map((name) => `${name}=${join(room.dir, name)}`);
    const flags = [`ours=${RUNTIME}`, ...others].flatMap((text) => ['--add-runtime', text]);
    server = await startEstiba(room, NAME, ...flags);
  };
  const kill9 = async (): Promise<void> => {
    const pid = Number(readFileSync(inRun('daemon.lock'), 'utf8').split(' ')[0]);
    process.kill(pid, 'SIGKILL');
    await until(() => !existsSync(`/proc/${pid}`), 'the daemon to end');
  };
  const program = (name: string, script: string): void =>
    writeFileSync(join(room.dir, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  /** Everything that a container of these holds on the host. */
  const left = (): string[] => {
    const places = [...readdirSync(inRun('.')).filter((name) => name.startsWith('oci')), 'bundles', 'shims'];
    const states = places
      .filter((place) => existsSync(inRun(place)))
      .flatMap((place) => readdirSync(inRun(place)).map((id) => `${place}/${id}`));
    const groups = readdirSync('/sys/fs/cgroup', { withFileTypes: true })
      .filter((d) => d.isDirectory())
      .map(({ name }) => join('/sys/fs/cgroup', name, NAME))
      .filter((parent) => existsSync(parent))
      .flatMap((parent) => readdirSync(parent, { withFileTypes: true }).filter((d) => d.isDirectory()))
      .map(({ name }) => `cgroup ${name}`);
    const mounts = room.run('grep', ['-c', `${inRun('roots')}/`, '/proc/self/mountinfo']).out.trim();
    return [...states, ...groups, ...(mounts === '0' ? [] : [`${mounts} roots`])];
  };
  const nothingLeft = (): Promise<void> => until(() => left().length === 0, `nothing left of ${left()}`);

  beforeAll(async () => {
    room = await Room.open('foreign');
    // crun refuses a host that has cgroup v1 and v2 side by side.
    const hide = 'grep -q " /sys/fs/cgroup/unified " /proc/self/mountinfo && umount -l /sys/fs/cgroup/unified';
    program('crun1', `exec unshare -m --propagation private sh -c '${hide}; exec crun "$@"' crun "$@"`);
    await start();
    for (const name of ['runc', 'crun'])
      if (room.run(name, ['--version']).code !== 0)
        throw new Error(`${name} is missing: tools/setup.sh suites installs it`);
  });
  afterEach(async () => {
    run('docker rm -fv $(docker ps -aq)');
    await nothingLeft();
  });
  afterAll(async () => {
    await kill9();
    expect(room.run(ESTIBA, ['daemon', '--remove', '--name', NAME, ...roots()]).code).toBe(0);
    await room.end();
  });
  const roots = (): string[] => ['--data-root', join(room.dir, 'estiba-data'), '--run-root', inRun('')];

  it('docker info lists them with their paths, and ours as the one of containers that name none', () => {
    const { Runtimes, DefaultRuntime } = JSON.parse(sh("docker info --format '{{json .}}'"));
    expect(DefaultRuntime).toBe('estiba');
    expect(Runtimes).toMatchObject({ estiba: { path: 'estiba-init' }, ours: { path: RUNTIME } });
    expect(Runtimes.runc.path).toMatch(/^\/.*\/runc$/);
  });

  it('one that is not there is an error of the create, in Docker’s words', () => {
    const { code, err } = run('docker create --runtime nosuch busybox');
    expect(code).not.toBe(0);
    expect(err).toContain('unknown or invalid runtime name: nosuch');
    expect(sh('docker ps -aq')).toBe('');
  });

  describe.each(RUNTIMES)('%s', (runtime) => {
    const flags = `--runtime ${runtime}`;

    it.each(['json-file', 'local'])(
      'runs a program with its output, its log by %s, and its exit status',
      async (driver) => {
        const line = `docker run --name said ${flags} --log-driver ${driver} busybox sh -c 'echo out; echo err >&2; exit 7'`;
        const { code, out, err } = run(line);
        expect([code, out, err]).toEqual([7, 'out\n', 'err\n']);
        expect(inspect('said', '.HostConfig.Runtime')).toBe(runtime);
        expect(sh('docker logs said 2>&1').split('\n').sort()).toEqual(['err', 'out']);
        sh('docker rm said');
        await nothingLeft();
      },
    );

    it('gives standard input, and a terminal with a size that changes', () => {
      expect(sh(`echo in | docker run -i --rm ${flags} busybox cat`)).toBe('in');
      sh(`docker run -dit --name tty ${flags} busybox sh -c 'read word; echo $word; stty size; tty; exit 5'`);
      const types = 'echo typed; until docker inspect tty | grep -q exited; do sleep 0.1; done';
      const seen = sh(
        `(${types}) | script -qec 'stty rows 31 cols 97; docker attach tty' /dev/null || true`,
      ).replaceAll('\r', '');
      // The client makes it one line higher first, so that a program which asks for its size by a signal hears of it.
      expect(seen).toMatch(/typed\n3[12] 97\n\/dev\/(pts\/0|console)/);
      expect(inspect('tty', '.State.ExitCode')).toBe('5');
      sh('docker rm tty');
    });

    it('runs further programs: exit status, user, input, a terminal, one that is not there', async () => {
      sh(`docker run -d --name box ${flags} busybox sleep 1000`);
      expect(run('docker exec box sh -c "echo in; exit 9"')).toMatchObject({ code: 9, out: 'in\n' });
      expect(sh('docker exec -u 12:34 -w /tmp -e A=b box sh -c "id -u; id -g; pwd; echo $A"')).toMatch(
        /^12\n34\n\/tmp/,
      );
      expect(sh('echo typed | docker exec -i box cat')).toBe('typed');
      expect(sh('docker exec -t box tty').trim()).toMatch(/^\/dev\/pts\/\d/);
      const { code, out } = run('docker exec box nosuch 2>&1');
      expect([code, out]).toEqual([
        127,
        expect.stringMatching(/^OCI runtime exec failed: .*nosuch.* not found in \$PATH/),
      ]);
      expect(readdirSync(inRun(`bundles/${inspect('box', '.Id')}`)).filter((f) => f.startsWith('exec-'))).toEqual([]);
      sh('docker rm -f box');
    });

    it('is signalled, stopped and killed, with the exit status of each', () => {
      const trap = `sh -c 'trap "echo hup" HUP; trap "exit 3" TERM; echo on; while :; do sleep 0.1; done'`;
      sh(`docker run -d --name sig ${flags} busybox ${trap}`);
      sh('until docker logs sig | grep on; do sleep 0.1; done');
      sh('docker kill -s HUP sig; until docker logs sig | grep hup; do sleep 0.1; done');
      sh('docker stop -t 10 sig');
      expect(inspect('sig', '.State.ExitCode')).toBe('3');
      sh('docker start sig; docker kill sig');
      expect(inspect('sig', '.State.ExitCode')).toBe('137');
      sh('docker rm sig');
    });

    it('is paused, updated, measured, and removed while it is paused', async () => {
      sh(`docker run -d --name held ${flags} --memory 64m busybox sleep 1000`);
      sh('docker pause held');
      expect(inspect('held', '.State.Status')).toBe('paused');
      sh('docker unpause held');
      expect(sh('docker exec held echo thawed')).toBe('thawed');
      sh('docker update --memory 48m --memory-swap 48m --pids-limit 50 held');
      expect(sh("docker stats --no-stream --format '{{.MemUsage}}' held")).toMatch(/ 48MiB$/);
      expect(sh('docker top held')).toContain('sleep 1000');
      sh('docker pause held; docker rm -f held');
    });

    it('tells an end for memory', async () => {
      sh(
        `docker run --name big ${flags} --memory 16m --memory-swap 16m busybox sh -c 'head -c 64m /dev/zero | tail' || true`,
      );
      expect(inspect('big', '.State.OOMKilled')).toBe('true');
      sh('docker rm big');
    });

    it('publishes a port, has names, volumes and a limit of its own on sockets', () => {
      sh(`docker network create mesh`);
      const limits = '--ulimit nofile=99:99 --sysctl net.core.somaxconn=77 --domainname d.x --init';
      sh(
        `docker run -d --name web ${flags} --network mesh -p 127.0.0.1:${PORT}:80 -v data:/www ${limits} busybox httpd -f -h /www`,
      );
      sh('docker exec web sh -c "echo served > /www/a"');
      expect(sh(`timeout 5 busybox wget -qO- http://127.0.0.1:${PORT}/a`)).toBe('served');
      expect(sh(`docker run --rm ${flags} --network mesh busybox wget -qO- http://web/a`)).toBe('served');
      const seen = sh(
        'docker exec web sh -c "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/domainname; ulimit -n; cat /proc/1/comm"',
      );
      expect(seen.split('\n').slice(0, 2)).toEqual(['77', 'd.x']);
      expect(seen).toContain('estiba-init');
      sh('docker rm -f web; docker network rm mesh; docker volume rm data');
    });

    it('starts again by its policy, and is probed', async () => {
      sh(`docker run -d --name again ${flags} --restart on-failure:2 busybox false`);
      await until(() => inspect('again', '.RestartCount') === '2', 'two restarts');
      await ended('again');
      sh(
        `docker run -d --name well ${flags} --health-cmd 'test -e /ok' --health-interval 100ms busybox sh -c 'touch /ok; sleep 1000'`,
      );
      await until(() => inspect('well', '.State.Health.Status') === 'healthy', 'a good probe');
      sh('docker rm -f again well');
    });

    it('outlives a daemon that is killed: its log, its exec’s and its own exit status are known', async () => {
      const count = `sh -c 'for i in $(seq 40); do echo line $i; sleep 0.1; done; exit 6'`;
      sh(`docker run -d --name on ${flags} busybox ${count}; docker run -d --name stays ${flags} busybox sleep 1000`);
      const exec = sh(
        `docker exec -d stays sh -c 'sleep 2; exit 4'; curl -sf --unix-socket ${server.socket} http://d/containers/stays/json`,
      );
      const [id] = (JSON.parse(exec) as { ExecIDs: string[] }).ExecIDs;
      const pid = inspect('stays', '.State.Pid');
      await kill9();
      await start();
      expect(inspect('stays', '.State.Pid')).toBe(pid);
      expect(sh('docker exec stays echo here')).toBe('here');
      await ended('on');
      expect(inspect('on', '.State.ExitCode')).toBe('6');
      expect(sh('docker logs on').split('\n')).toEqual(Array.from({ length: 40 }, (_, i) => `line ${i + 1}`));
      const look = (): { Running: boolean; ExitCode: number } =>
        JSON.parse(sh(`curl -sf --unix-socket ${server.socket} http://d/exec/${id}/json`));
      await until(() => !look().Running, 'the end of the exec');
      expect(look().ExitCode).toBe(4);
      sh('docker stop -t 0 stays; docker rm on stays');
    });

    it('a start that fails says why in the runtime’s words, and leaves nothing', async () => {
      sh(`docker create --name bad ${flags} busybox nosuch`);
      const { code, err } = run('docker start bad');
      expect(code).toBe(1);
      expect(err).toMatch(/OCI runtime create failed: .*nosuch.* not found in \$PATH/);
      expect(inspect('bad', '.State.ExitCode')).toBe('127');
      expect(left()).toEqual([]);
      expect(run(`docker run --rm ${flags} --sysctl kernel.nosuch=1 busybox true`).code).not.toBe(0);
      sh('docker rm bad');
    });

    it('what the kernel shows of it is told, and that its steps are the runtime’s own', () => {
      sh(`docker run -d --name seen ${flags} --memory 32m busybox sleep 1000`);
      const estiba = (line: string): string => sh(`ESTIBA_RUN_ROOT=${inRun('')} ${ESTIBA} ${line}`);
      const xray = estiba('xray seen');
      expect(xray).toContain(`${runtime}, whose steps are its own`);
      expect(xray).toMatch(/limit.memory +32 MiB/);
      expect(xray).not.toContain('wished');
      expect(estiba(`run --plan ${flags} busybox true`)).toMatch(
        new RegExp(`--root ${inRun(`oci-${runtime}`)} .* create `),
      );
      expect(estiba('audit host')).toMatch(/nothing amiss; .*1 bundles of other runtimes/);
      sh('docker rm -f seen');
    });

    it('what it would leave undone is refused', () => {
      const refused = (wish: string): string => run(`${ESTIBA} create ${flags} ${wish} busybox true`).err;
      expect(refused('--annotation estiba.landlock.ro=/bin')).toContain(
        `estiba.landlock.ro is not for runtime ${runtime}`,
      );
      expect(sh('docker ps -aq')).toBe('');
    });
  });

  it('a create that a killed daemon cut off is swept', async () => {
    program('late', `case "$*" in *" create "*) sleep 1;; esac; exec ${RUNTIME} "$@"`);
    sh('docker create --name cut --runtime late busybox sleep 1000');
    sh(
      'docker start cut >/dev/null 2>&1 & until ls -A estiba-run/bundles/*/create.log estiba-run/shims/*/pid 2>/dev/null | grep -q .; do sleep 0.02; done',
    );
    await kill9();
    await start();
    expect(inspect('cut', '.State.Status')).toBe('created');
    await nothingLeft();
    expect(sh('docker start cut && docker exec cut echo whole')).toBe('cut\nwhole');
    sh('docker rm -f cut');
  });

  it('a runtime that has gone from the host keeps nothing of what it made', async () => {
    program('gone', `exec ${RUNTIME} "$@"`);
    sh('docker run -d --name orphan --runtime gone busybox sleep 1000');
    room.run('rm', [join(room.dir, 'gone')]);
    expect(run('docker pause orphan').err).toContain('OCI runtime pause failed');
    sh('docker rm -f orphan');
    await nothingLeft();
    const { err } = run('docker run --rm --runtime gone busybox true');
    expect(err).toMatch(/OCI runtime create failed: .*gone.*no such file or directory/);
    await nothingLeft();
  });

  it('one that refuses this host says so itself, and leaves nothing', () => {
    const { code, err } = run('docker run --rm --runtime crun busybox true');
    if (code !== 0) expect(err).toMatch(/OCI runtime create failed: .*cgroup.* \(runtime crun\)/);
  });

  it('a process that is not the runtime’s child is not taken for the container', async () => {
    program('stray', `for a; do [ "$p" = --pid-file ] && echo 1 > "$a"; p=$a; done`);
    const { err } = run('docker run --rm --runtime stray busybox true');
    expect(err).toMatch(/OCI runtime create failed: .*holds no pid/);
    await nothingLeft();
  });
});
