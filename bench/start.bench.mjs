// A container's life, create + start + wait + delete of `true`, through a warm spawner, beside the same kernel work in C (floor.c):
// mount, pid, ipc, uts, net and cgroup namespaces, an overlay, every cgroup hierarchy, a seccomp filter as long as Docker's.
//
// The container goes with its end, so its overlay is volatile, as the engine mounts it for `--rm`; the floor's, like that of a container
// that stays, is synced when it is unmounted, and the last row compares like with like.
//
//   node bench/start.bench.mjs [ROUNDS]          prints medians, ratios and the memory that a shim holds; exit 1 when a goal is missed
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';
import { commandLine } from './common/command.mjs';
import { atEnd, takeBack } from './common/end.mjs';

const RATIO_GOAL = 1.5;
const PSS_GOAL_KIB = 64;
const { words, count } = commandLine('node bench/start.bench.mjs [ROUNDS]', { mostWords: 1 });
const ROUNDS = count(words[0], 6);
const PER_ROUND = 20;
/** "Warm" is a daemon that has started some containers: what V8 compiles a second time it has compiled by then. */
const WARM_STARTS = 100;
const here = fileURLToPath(new URL('.', import.meta.url));
const dir = mkdtempSync(join(tmpdir(), 'estiba-bench-start-'));

// A run root is volatile and mostly tmpfs, as /run is on a machine with systemd.
const runRoot = mkdtempSync('/dev/shm/estiba-bench-start-');
/** Of the floor: it names its cgroups by its pid. */
const floors = [];
let root;
atEnd(() => {
  const cgroups = new RegExp(`^(estiba-bench-${process.pid}|floor-(${floors.join('|')}))-`);
  takeBack({ dirs: [dir, runRoot], cgroups });
  root?.remove();
});

const parts = ['#shim/spawner.ts', '#kernel/plan/handmade.ts'].map((m) => `export * from '${m}';`).join('');
const bundle = join(dir, 'bench.mjs');
buildSync({
  stdin: { contents: parts, resolveDir: here },
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  outfile: bundle,
});
process.env.ESTIBA_INIT ??= join(here, '../native/build/estiba-init');
const { Spawner, handmadePlan, busyboxRoot } = await import(bundle);

root = busyboxRoot('bench-start');
const filterFile = join(dir, 'filter');
const seccomp = dockerSizedFilter();
writeFileSync(filterFile, seccomp);
const parents = cgroupParents();
const unified = parents.findIndex((parent) => !existsSync(join(parent, 'tasks')));
execFileSync('cc', ['-O2', '-static', '-o', join(dir, 'floor'), join(here, 'floor.c')]);
const spawner = await Spawner.start(join(dir, 'spawner.sock'));

const PHASES = ['create', 'start', 'wait', 'delete'];
const phases = Object.fromEntries(PHASES.map((phase) => [phase, []]));
let serial = 0;
let missed = false;
try {
  await ours(WARM_STARTS, 0);
  await compare(
    'one after the other',
    (n) => ours(n, 0),
    (n) => floor(n, 0),
  );
  process.stdout.write(`${''.padEnd(22)} ${PHASES.map((p) => `${p} ${median(phases[p]).toFixed(2)}`).join(', ')}\n`);
  await compare(
    'with 50 ms between',
    (n) => ours(n, 50),
    (n) => floor(n, 50),
  );
  await compare(
    'four at once',
    async (n) => (await Promise.all([1, 2, 3, 4].map(() => ours(n / 4, 0)))).flat(),
    async (n) => (await Promise.all([1, 2, 3, 4].map(() => floor(n / 4, 0)))).flat(),
  );
  await compare(
    'root synced at its end',
    (n) => ours(n, 0, false),
    (n) => floor(n, 0),
  );
  await memory();
} finally {
  await spawner.quit();
}
process.exitCode = missed ? 1 : 0;

/** Rounds of both in turn: what else the machine does meets both alike. */
async function compare(what, runOurs, runFloor) {
  const us = [];
  const c = [];
  for (let round = 0; round < ROUNDS; round++) {
    c.push(...(await runFloor(PER_ROUND)));
    us.push(...(await runOurs(PER_ROUND)));
  }
  const ratio = median(us) / median(c);
  missed ||= ratio > RATIO_GOAL;
  const row = `floor ${median(c).toFixed(2)} ms, estiba ${median(us).toFixed(2)} ms (p95 ${percentile(us, 0.95).toFixed(2)}), ratio ${ratio.toFixed(2)}`;
  process.stdout.write(`${what.padEnd(22)} ${row}${ratio > RATIO_GOAL ? `  MISSED: goal ${RATIO_GOAL}` : ''}\n`);
}

async function ours(count, gapMs, volatile = true) {
  const times = [];
  for (let i = 0; i < count; i++) {
    if (gapMs) await new Promise((done) => setTimeout(done, gapMs));
    const c = describe(['true'], volatile);
    const home = join(runRoot, `h${serial}`);
    mkdirSync(home);
    const marks = [performance.now()];
    const mark = () => marks.push(performance.now());
    const shim = await spawner.create(handmadePlan(c), { dir: home });
    mark();
    await shim.start();
    mark();
    const { code } = await shim.wait();
    mark();
    await spawner.run(deletion(c));
    mark();
    shim.close();
    times.push(marks[4] - marks[0]);
    PHASES.forEach((phase, n) => {
      phases[phase].push(marks[n + 1] - marks[n]);
    });
    if (code !== 0) throw new Error(`status ${code}`);
  }
  return times;
}

function describe(argv, volatile = true) {
  const n = ++serial;
  const cgroups = parents.map((p) => join(p, `estiba-bench-${process.pid}-${n}`));
  const v2 = cgroups[unified];
  const overlay = { upper: join(dir, `u${n}`), work: join(dir, `w${n}`), merged: join(dir, `m${n}`), volatile };
  return { rootfs: root.rootfs, argv, overlay, cgroups, ...(v2 ? { bornIn: v2 } : {}), seccomp, awaitStart: true };
}

function deletion(c) {
  const { upper, work, merged } = c.overlay;
  const host = (step) => ({ where: 'host', because: 'delete', ...step });
  return {
    steps: [
      host({ op: 'umount', target: merged, flags: 2 }),
      ...[work, upper, merged].map((path) => host({ op: 'removeTree', path })),
      ...c.cgroups.map((path) => host({ op: 'removeCgroup', path })),
    ],
  };
}

function floor(count, gapMs) {
  const work = join(dir, `floor${++serial}`);
  mkdirSync(work);
  const child = spawn(join(dir, 'floor'), [root.rootfs, work, String(count), String(gapMs), filterFile, ...parents], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  floors.push(child.pid);
  let out = '';
  child.stdout.on('data', (chunk) => {
    out += chunk;
  });
  return new Promise((resolve, reject) => {
    child.once('close', (code) => {
      if (code === 0) resolve(out.trim().split('\n').map(Number));
      else reject(new Error(`floor ended with ${code}`));
    });
  });
}

/** Twenty idle containers that have logged something: what each shim keeps. */
async function memory() {
  const COUNT = 20;
  const running = [];
  for (let i = 0; i < COUNT; i++) {
    const c = describe(['sh', '-c', 'echo hello; sleep 1000']);
    const home = join(runRoot, `h${serial}`);
    mkdirSync(home);
    const shim = await spawner.create(handmadePlan(c), { dir: home, log: { driver: 'cri', path: `${home}.log` } });
    await shim.start();
    running.push({ c, shim, home });
  }
  await new Promise((done) => setTimeout(done, 2500));
  const pss = running.map(({ home }) => {
    const pid = readFileSync(join(home, 'pid'), 'utf8').split(' ')[0];
    return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]);
  });
  for (const { c, shim } of running) {
    await shim.shutdown();
    await spawner.run(deletion(c));
  }
  const held = median(pss);
  missed ||= held > PSS_GOAL_KIB;
  process.stdout.write(
    `${'memory'.padEnd(22)} ${held} KiB PSS a shim${held > PSS_GOAL_KIB ? `  MISSED: goal ${PSS_GOAL_KIB}` : ''}\n`,
  );
}

/** Every v1 hierarchy, and the v2 one. */
function cgroupParents() {
  const base = '/sys/fs/cgroup';
  if (existsSync(join(base, 'cgroup.controllers'))) return [base];
  return readdirSync(base)
    .map((name) => join(base, name))
    .filter((path) => existsSync(join(path, 'cgroup.procs')) && statSync(path).isDirectory());
}

/** As many instructions as Docker's allow-list compiles to: load, 300 comparisons with a return each, a default. */
function dockerSizedFilter() {
  const out = Buffer.alloc(8 * 602);
  const put = (i, code, jt, jf, k) => {
    out.writeUInt16LE(code, i * 8);
    out[i * 8 + 2] = jt;
    out[i * 8 + 3] = jf;
    out.writeUInt32LE(k, i * 8 + 4);
  };
  put(0, 0x20, 0, 0, 0);
  for (let n = 0; n < 300; n++) {
    put(1 + 2 * n, 0x15, 0, 1, n);
    put(2 + 2 * n, 0x06, 0, 0, 0x7fff0000);
  }
  put(601, 0x06, 0, 0, 0x7fff0000);
  return out;
}

function median(values) {
  return percentile(values, 0.5);
}

function percentile(values, p) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))];
}
