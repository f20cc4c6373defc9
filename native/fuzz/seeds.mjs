// Writes native/fuzz/seeds from real plans: node native/fuzz/seeds.mjs. Every operation occurs, so that the fuzzer begins with all of them.
import { mkdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

const here = fileURLToPath(new URL('.', import.meta.url));
const modules = ['#kernel/plan/wire.ts', '#kernel/plan/handmade.ts', '#kernel/plan/ops.ts', '#shim/frames.ts'];
const outfile = join(tmpdir(), `estiba-seeds-${process.pid}.mjs`);
buildSync({
  stdin: { contents: modules.map((m) => `export * from '${m}';`).join(''), resolveDir: here },
  bundle: true,
  platform: 'node',
  format: 'esm',
  outfile,
});
const { OPS, encodeOptions, encodePlan, handmadeExec, handmadePlan } = await import(outfile);
const put = (name, bytes) => writeFileSync(join(here, 'seeds', name), bytes);
mkdirSync(join(here, 'seeds'), { recursive: true });

const container = handmadePlan({
  rootfs: '/r',
  argv: ['true'],
  cgroups: ['/c'],
  seccomp: new Uint8Array(16),
  awaitStart: true,
});
put('container.plan', encodePlan(container));
put('exec.plan', encodePlan(handmadeExec(7, ['sh'], { terminal: { rows: 1, cols: 2 } })));
put('request.frame', Buffer.concat([encodeOptions({ dir: '/d', log: '/l', terminal: true }), encodePlan(container)]));

const VALUES = { str: 'a', strs: ['b', ''], u32: 1, u64: 2n, u32s: [3, 4], bytes: new Uint8Array([5]), slot: 6 };
const steps = Object.entries(OPS)
  .filter(([op]) => !['fork', 'clone', 'cloneInto', 'exec'].includes(op))
  .map(([op, row]) => ({
    op,
    where: 'host',
    because: '',
    ...Object.fromEntries(Object.entries(row.args).map(([k, v]) => [k, VALUES[v]])),
  }));
put('every-operation.plan', encodePlan({ steps }));
put(
  'undo.plan',
  encodePlan({
    steps: [
      { ...steps[0], undo: [steps[1], steps[2]] },
      { ...steps[1], undo: [steps[3]] },
    ],
  }),
);
