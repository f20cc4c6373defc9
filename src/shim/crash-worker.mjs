// Started by shim.host.test.ts, to be killed: starts a spawner and COUNT containers that write numbered lines, then prints the
// spawner's pid. In a process of its own, compiled on the fly, because a test cannot kill the one it runs in.
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

const [dir, rootfs, count] = process.argv.slice(2);
const here = fileURLToPath(new URL('.', import.meta.url));
const bundle = join(dir, 'worker.mjs');
buildSync({
  stdin: {
    contents:
      "export * from '#shim/spawner.ts'; export * from '#kernel/plan/handmade.ts'; export * from '#kernel/plan/execute.ts';",
    resolveDir: here,
  },
  alias: {},
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  outfile: bundle,
});
process.env.ESTIBA_INIT ??= join(here, '../../native/build/estiba-init');
const { Spawner, handmadePlan } = await import(bundle);

const spawner = await Spawner.start(join(dir, 'spawner.sock'));
for (let i = 0; i < Number(count); i++) {
  const home = join(dir, `c${i}`);
  mkdirSync(home);
  const script = `for n in $(seq 1 200); do echo $n; usleep 10000; done; exit ${i}`;
  const plan = handmadePlan({ rootfs, argv: ['sh', '-c', script], awaitStart: true });
  const shim = await spawner.create(plan, { dir: home, log: { driver: 'cri', path: `${home}.log` } });
  await shim.start();
}
// Shims are forks of the spawner and have its command line; pids wrap around, so the lowest need not be the oldest. The spawner is
// the one whose parent is none of them.
const alike = readdirSync('/proc').filter((p) => /^\d+$/.test(p) && cmdline(p).includes(join(dir, 'spawner.sock')));
const pid = alike.find((p) => !alike.includes(parentOf(p)));
process.stdout.write(`${pid}\n`);
setInterval(() => undefined, 1000);

function parentOf(pid) {
  return /^PPid:\s*(\d+)$/m.exec(readProc(pid, 'status'))?.[1] ?? alike[0];
}

function cmdline(pid) {
  return readProc(pid, 'cmdline');
}

// On a busy machine the first containers end, and their shims with them, while the last ones are made.
function readProc(pid, file) {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}
