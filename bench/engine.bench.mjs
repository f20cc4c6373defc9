// The engine over its REST API, beside dockerd and Podman where they are installed, in rooms of their own (unshare -m -n):
//   node bench/engine.bench.mjs [--only estiba,dockerd,podman] [--rounds N] [--work PART-OF-A-ROW'S-NAME]
// The work: create+start+wait+remove, fifty containers by four clients, exec, log lines, start of a daemon with a hundred known
// containers, memory, a published port (by wrk), idle CPU. Gaps between rounds on purpose: a loop without pauses hides what the kernel makes you wait for.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { commandLine } from './common/command.mjs';
import { atEnd, takeBack, textOr } from './common/end.mjs';
import { ThinClient } from './common/thin-client.mjs';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const ENGINES = ['estiba', 'dockerd', 'podman'];
const { values, count, refuse } = commandLine(
  "node bench/engine.bench.mjs [--only estiba,dockerd,podman] [--rounds N] [--work PART-OF-A-ROW'S-NAME]",
  { flags: { only: { type: 'string' }, rounds: { type: 'string' }, work: { type: 'string' } } },
);
const ROUNDS = count(values.rounds, 20);
const WANTED = values.only?.split(',') ?? ENGINES;
const WORK_WANTED = values.work ?? '';
for (const name of WANTED) if (!ENGINES.includes(name)) refuse(`no engine: ${name}`);
/** As in start.bench.mjs: a daemon that has run for a while has compiled what it runs. The peers warm up alike. */
const WARM_ROUNDS = 30;
const GAP_MS = 20;
const IDLE_MS = 60_000; // idle: this long after the last request
const IDLE_CONTAINERS = 100; // what the first of them make the engine load is not theirs, and falls by number
const IDLE_CPU_MS = 30_000;
const LOG_LINES = 2_000_000; // of 100 bytes
const MIB = 1024 * 1024;

/** One engine in a room of its own. */
class Engine {
  constructor(name) {
    this.name = name;
    this.dir = mkdtempSync(join(tmpdir(), `estiba-bench-${name}-`));
    // What a boot takes lies in memory, as /run mostly does; on a disk its small files would be measured as well.
    this.run = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), `estiba-bench-${name}-`));
    this.socket = join(this.run, 'docker.sock');
    this.client = new ThinClient(this.socket);
    this.daemonName = `bench${process.pid % 10_000}`;
    /** Of all its containers: runtimes name cgroups by them. */
    this.ids = [];
  }

  /** A room whose end is the end of all in it; ours, however it comes, is the end of the room. */
  async open() {
    const script = 'mount --make-rprivate /; ip link set lo up; echo up; exec sleep infinity';
    const room = ['unshare', '-m', '-n', '-p', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', script];
    this.room = spawn('setpriv', ['--pdeathsig', 'KILL', ...room], { stdio: ['ignore', 'pipe', 'ignore'] });
    await once(this.room.stdout, 'data');
    this.init = childOf(this.room.pid);
    await this.start();
  }

  command() {
    const { dir, run, socket } = this;
    switch (this.name) {
      case 'estiba':
        return [
          join(ROOT, 'bin/estiba'),
          'daemon',
          '--only',
          'engine',
          '--name',
          this.daemonName,
          '--data-root',
          join(dir, 'data'),
          '--run-root',
          run,
          '--bootstrap',
          'off',
        ];
      case 'dockerd':
        return [
          'dockerd',
          '--data-root',
          join(dir, 'data'),
          '--exec-root',
          join(run, 'exec'),
          '--pidfile',
          join(dir, 'pid'),
          '-H',
          `unix://${socket}`,
          '--exec-opt',
          'native.cgroupdriver=cgroupfs',
          '--storage-driver',
          'overlay2',
          '--oom-score-adjust',
          '0',
          '--live-restore',
        ];
      case 'podman':
        return [
          'podman',
          '--root',
          join(dir, 'data'),
          '--runroot',
          join(run, 'exec'),
          '--cgroup-manager',
          'cgroupfs',
          '--runtime',
          'runc',
          'system',
          'service',
          '-t',
          '0',
          `unix://${socket}`,
        ];
    }
  }

  /** Milliseconds to the first answer. */
  async start() {
    rmSync(this.socket, { force: true });
    const began = performance.now();
    this.process = spawn('nsenter', ['-t', this.init, '-m', '-n', '-p', '--', ...this.command()], {
      stdio: ['ignore', 'ignore', 'ignore'],
      env: { ...process.env, CONTAINERS_CONF: this.podmanConf() },
    });
    for (;;) {
      const answer = await this.ask('GET', '/_ping').catch(() => undefined);
      if (answer?.status === 200) return performance.now() - began;
      if (performance.now() - began > 60_000) throw new Error(`${this.name} does not answer`);
      await sleep(2);
    }
  }

  podmanConf() {
    const path = join(this.dir, 'containers.conf');
    const nofile = execFileSync('sh', ['-c', 'ulimit -Hn']).toString().trim();
    writeFileSync(
      path,
      `[containers]\ndefault_ulimits = ["nofile=${nofile}:${nofile}", "nproc=32768:32768"]\n[engine]\ncgroup_manager = "cgroupfs"\n`,
    );
    return path;
  }

  async stop(signal = 'SIGTERM') {
    process.kill(Number(childOf(this.process.pid)), signal); // nsenter waits for it, and passes no signal on
    await until(() => this.process.exitCode !== null || this.process.signalCode !== null, 20_000);
  }

  ask(method, path, body) {
    const type = Buffer.isBuffer(body) ? 'application/x-tar' : 'application/json';
    const bytes = body === undefined || Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
    return this.client.ask(method, `/v1.41${path}`, bytes, type);
  }

  async must(method, path, body) {
    const answer = await this.ask(method, path, body);
    if (answer.status >= 300 && answer.status !== 304)
      throw new Error(`${this.name} ${method} ${path}: ${answer.status} ${answer.text.slice(0, 300)}`);
    return answer.text === '' ? undefined : answer.text;
  }

  async create(cmd, more = {}) {
    const { Id } = JSON.parse(await this.must('POST', '/containers/create', { Image: 'bench', Cmd: cmd, ...more }));
    this.ids.push(Id);
    return Id;
  }

  /** Containers that run and do nothing. */
  async sleepers(count) {
    const ids = [];
    for (let i = 0; i < count; i++) {
      ids.push(await this.create(['sleep', '1000']));
      await this.must('POST', `/containers/${ids[i]}/start`);
    }
    return ids;
  }

  async removeAll(ids) {
    for (const id of ids) await this.must('DELETE', `/containers/${id}?force=1`);
  }

  /** Of the daemon and its resident helpers, in bytes; shims are counted with containers. */
  memory() {
    const wanted = {
      estiba: /daemon\.run|estiba-net|spawner|cli\.run\.cjs edge/,
      dockerd: /dockerd|containerd/,
      podman: /podman/,
    };
    return this.pss((pid) => wanted[this.name].test(commandLineOf(pid)) && !isShim(pid));
  }

  shims() {
    return this.pss(isShim);
  }

  pss(wanted) {
    return this.pids(wanted).reduce((sum, pid) => sum + pss(pid), 0);
  }

  /** Of the room alone: containers have namespaces of their own. */
  pids(wanted) {
    const here = readlinkSync(`/proc/${this.init}/ns/pid`);
    return readdirSync('/proc').filter(
      (pid) => /^\d+$/.test(pid) && readlinkOr(`/proc/${pid}/ns/pid`) === here && wanted(pid),
    );
  }

  async close() {
    await this.stop().catch((error) => process.stderr.write(`${this.name} does not stop: ${error.message}\n`));
    this.client.close();
    this.takeBack();
  }

  takeBack() {
    if (this.room?.exitCode === null && this.room.signalCode === null) this.room.kill('SIGKILL');
    const cgroups = new RegExp([`^${this.daemonName}$`, ...this.ids].join('|'));
    takeBack({ dirs: [this.dir, this.run], cgroups });
  }

  /** Requests a second of `wrk` in the engine's room: two connections, so that the ways are compared and not the cores. */
  requests(port) {
    const out = execFileSync(
      'nsenter',
      ['-t', this.init, '-n', 'wrk', '-t1', '-c2', '-d3', `http://127.0.0.1:${port}/`],
      { stdio: ['ignore', 'pipe', 'ignore'] },
    ).toString();
    return Number(/Requests\/sec:\s+([\d.]+)/.exec(out)?.[1] ?? Number.NaN);
  }

  /** CPU seconds so far of all that runs in the room, by the nanoseconds that the kernel's scheduler counts for each thread. */
  cpuSeconds() {
    const threads = this.pids(() => true).flatMap((pid) =>
      readdirOr(`/proc/${pid}/task`).map((thread) => `/proc/${pid}/task/${thread}/schedstat`),
    );
    return threads.reduce((sum, path) => sum + Number.parseInt(textOr(path, '0'), 10), 0) / 1e9;
  }
}

const WORK = {
  async 'create+start+wait+remove, ms'(engine) {
    return median(ROUNDS, async () => {
      const id = await engine.create(['true']);
      await engine.must('POST', `/containers/${id}/start`);
      await engine.must('POST', `/containers/${id}/wait`);
      await engine.must('DELETE', `/containers/${id}`);
    });
  },
  async '50 containers, 4 clients: create / start / stop / delete, s'(engine) {
    const ids = [];
    const handled = ['sh', '-c', 'trap "exit 0" TERM; while :; do sleep 1000 & wait; done'];
    const phases = [
      async () => void ids.push(await engine.create(handled)),
      (i) => engine.must('POST', `/containers/${ids[i]}/start`),
      (i) => engine.must('POST', `/containers/${ids[i]}/stop?t=10`),
      (i) => engine.must('DELETE', `/containers/${ids[i]}`),
    ];
    const seconds = [];
    for (const phase of phases) {
      const began = performance.now();
      let next = 0;
      const client = async () => {
        for (let i = next++; i < 50; i = next++) await phase(i);
      };
      await Promise.all([client(), client(), client(), client()]);
      seconds.push((performance.now() - began) / 1000);
    }
    return `${seconds.map((s) => s.toFixed(2)).join(' / ')} = ${seconds.reduce((a, b) => a + b).toFixed(2)}`;
  },
  async 'exec true, ms'(engine) {
    const id = await engine.create(['sleep', '1000']);
    await engine.must('POST', `/containers/${id}/start`);
    const result = await median(ROUNDS, async () => {
      const { Id } = JSON.parse(
        await engine.must('POST', `/containers/${id}/exec`, { Cmd: ['true'], AttachStdout: true, AttachStderr: true }),
      );
      await engine.must('POST', `/exec/${Id}/start`, { Detach: false, Tty: false });
    });
    await engine.must('DELETE', `/containers/${id}?force=1`);
    return result;
  },
  async '200 MB of log lines: written / read, s'(engine) {
    const line = 'x'.repeat(99);
    const more = { HostConfig: { LogConfig: { Type: 'json-file', Config: {} } } };
    if (engine.name === 'estiba') more.HostConfig.LogConfig.Config = { 'max-size': '1g' }; // the others do not rotate by default
    const id = await engine.create(['sh', '-c', `yes ${line} | head -n ${LOG_LINES}`], more);
    let began = performance.now();
    await engine.must('POST', `/containers/${id}/start`);
    await engine.must('POST', `/containers/${id}/wait`);
    const written = (performance.now() - began) / 1000;
    began = performance.now();
    const { size } = await engine.ask('GET', `/containers/${id}/logs?stdout=1&stderr=1`);
    const read = (performance.now() - began) / 1000;
    await engine.must('DELETE', `/containers/${id}`);
    return `${written.toFixed(2)} / ${read.toFixed(2)}${size < LOG_LINES * 100 ? ` (only ${size} bytes)` : ''}`;
  },
  async 'memory: idle / per running container, PSS; idle CPU with 100 of them, % of a core'(engine) {
    await engine.removeAll(await engine.sleepers(20)); // what a first use loads is the daemon's, not a container's
    await sleep(IDLE_MS);
    const idle = engine.memory();
    const ids = await engine.sleepers(IDLE_CONTAINERS);
    await sleep(IDLE_MS);
    const [shim, grown] = [engine.shims() / IDLE_CONTAINERS, (engine.memory() - idle) / IDLE_CONTAINERS];
    const before = engine.cpuSeconds();
    await sleep(IDLE_CPU_MS);
    const percent = (100_000 * (engine.cpuSeconds() - before)) / IDLE_CPU_MS;
    await engine.removeAll(ids);
    const each = `${kib(shim + grown)} KiB (its shim ${kib(shim)})`;
    return `${(idle / MIB).toFixed(0)} MiB / ${each}; ${percent.toFixed(2)}`;
  },
  async 'published port, requests/s: host / port, share'(engine) {
    // The same server twice, the host's own node: in the room beside the engine, and in a container.
    const serve = (port) => [
      process.execPath,
      '-e',
      `require('node:http').createServer((_, answer) => answer.end('hello')).listen(${port})`,
    ];
    const enter = ['--pdeathsig', 'KILL', 'nsenter', '-t', engine.init, '-n', '--'];
    const host = spawn('setpriv', [...enter, ...serve(18_381)], { stdio: 'ignore' });
    const Binds = ['/usr', '/lib', '/lib64'].filter((path) => existsSync(path)).map((path) => `${path}:${path}:ro`);
    const PortBindings = { '80/tcp': [{ HostPort: '18380' }] };
    const id = await engine.create(serve(80), { ExposedPorts: { '80/tcp': {} }, HostConfig: { Binds, PortBindings } });
    await engine.must('POST', `/containers/${id}/start`);
    await sleep(1000);
    const [direct, published] = [engine.requests(18_381), engine.requests(18_380)];
    host.kill();
    await engine.must('DELETE', `/containers/${id}?force=1`);
    return `${direct.toFixed(0)} / ${published.toFixed(0)}, ${(published / direct).toFixed(2)}`;
  },
  async 'daemon start to first answer, 100 known containers, ms'(engine) {
    const ids = [];
    for (let i = 0; i < 100; i++) ids.push(await engine.create(['sleep', '1000']));
    await engine.stop();
    const ms = await engine.start();
    await engine.removeAll(ids);
    return ms.toFixed(0);
  },
};

const results = {};
for (const name of WANTED) {
  const engine = new Engine(name);
  atEnd(() => engine.takeBack());
  try {
    await engine.open();
    await engine.must('POST', '/images/create?fromSrc=-&repo=bench', busybox(engine.dir));
    for (const [what, work] of Object.entries(WORK).filter(([what]) => what.includes(WORK_WANTED))) {
      results[what] ??= {};
      results[what][name] = await work(engine).catch((error) => `failed: ${error.message.slice(0, 120)}`);
      process.stderr.write(`${name}: ${what}: ${results[what][name]}\n`);
    }
  } finally {
    await engine.close();
  }
}
process.stdout.write(`| work | ${WANTED.join(' | ')} |\n| --- |${' --- |'.repeat(WANTED.length)}\n`);
for (const [what, row] of Object.entries(results))
  process.stdout.write(`| ${what} | ${WANTED.map((name) => row[name] ?? '').join(' | ')} |\n`);

async function median(rounds, work) {
  const times = [];
  for (let i = -WARM_ROUNDS; i < rounds; i++) {
    const began = performance.now();
    await work();
    if (i >= 0) times.push(performance.now() - began);
    await sleep(GAP_MS);
  }
  return times.sort((a, b) => a - b)[Math.floor(rounds / 2)].toFixed(1);
}

function busybox(dir) {
  const root = join(dir, 'rootfs');
  execFileSync('sh', [
    '-ec',
    `mkdir -p ${root}/bin ${root}/proc ${root}/sys ${root}/dev ${root}/tmp ${root}/etc; cp /bin/busybox ${root}/bin; for a in $(busybox --list); do [ $a = busybox ] || ln -s busybox ${root}/bin/$a; done`,
  ]);
  return execFileSync('tar', ['-C', root, '-cf', '-', '.'], { maxBuffer: 64 * MIB });
}

function kib(bytes) {
  return Math.round(bytes / 1024);
}

/** The first; as nsenter and unshare have one at most. */
function childOf(pid) {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ')[0];
}

async function until(check, ms) {
  for (const end = performance.now() + ms; !check(); await sleep(10))
    if (performance.now() > end) throw new Error('waited too long');
}

function readlinkOr(path) {
  try {
    return readlinkSync(path);
  } catch {
    return undefined; // of a process that has just ended
  }
}

function readdirOr(path) {
  try {
    return readdirSync(path);
  } catch {
    return []; // of a process that has just ended
  }
}

function commandLineOf(pid) {
  return textOr(`/proc/${pid}/cmdline`, '').replaceAll('\0', ' ');
}

/** By the name that the kernel has of it: our shims are forks of the spawner, with its command line. */
function isShim(pid) {
  return /^(estiba-shim|containerd-shim|conmon)/.test(textOr(`/proc/${pid}/comm`, ''));
}

/** Nothing of one that has just ended. */
function pss(pid) {
  return Number(/^Pss:\s+(\d+)/m.exec(textOr(`/proc/${pid}/smaps_rollup`, ''))?.[1] ?? 0) * 1024;
}
