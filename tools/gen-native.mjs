// Writes native/ops.gen.h from src/kernel/plan/ops.ts: codes, argument signatures, and one struct of arguments an operation,
// so that the C reader checks every plan by the same table that TypeScript encodes it from.
//
//   node tools/gen-native.mjs           writes the header
//   node tools/gen-native.mjs --check   exit 1 when it is out of date
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

const LETTERS = { str: 's', strs: 'S', u32: 'u', u64: 'U', u32s: 'V', bytes: 'b', slot: 'f' };
const CONSTANTS = /^(NO_SLOT|SLOTS|MKDIR_|CHDIR_|CREATE_|TARGET_)/;

const ops = await load('../src/kernel/plan/ops.ts');
const header = render(ops);
const path = fileURLToPath(new URL('../native/ops.gen.h', import.meta.url));
if (!process.argv.includes('--check')) writeFileSync(path, header);
else if (readFileSync(path, 'utf8') !== header) {
  process.stderr.write('native/ops.gen.h is older than src/kernel/plan/ops.ts: run node tools/gen-native.mjs\n');
  process.exit(1);
}

/** Node 20 cannot import TypeScript; esbuild strips the types, and the module has no state. */
async function load(relative) {
  const file = fileURLToPath(new URL(relative, import.meta.url));
  const { outputFiles } = buildSync({ entryPoints: [file], bundle: true, format: 'esm', write: false });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].text).toString('base64')}`);
}

function render({ OPS, ...rest }) {
  const rows = Object.entries(OPS).sort(([, a], [, b]) => a.code - b.code);
  const codes = new Set(rows.map(([, row]) => row.code));
  if (codes.size !== rows.length) throw new Error('two operations share a code');
  const most = Math.max(...rows.map(([, row]) => Object.keys(row.args).length));
  const defines = Object.entries(rest).filter(([name]) => CONSTANTS.test(name));
  return [
    '/* Written by tools/gen-native.mjs from src/kernel/plan/ops.ts. Do not edit.',
    ' * Signature letters: s str, S strs, u u32, U u64, V u32s, b bytes, f slot. */',
    ...defines.map(([name, value]) => `#define ${name} 0x${value.toString(16)}u`),
    `#define MAX_OP_CODE ${Math.max(...codes)}`,
    `#define MAX_OP_ARGS ${most}`,
    '',
    '/* X(name, code, signature) */',
    '#define FOR_EACH_OP(X) \\',
    rows
      .map(
        ([name, row]) =>
          `\tX(${name}, ${row.code}, "${Object.values(row.args)
            .map((k) => LETTERS[k])
            .join('')}")`,
      )
      .join(' \\\n'),
    '',
    'union args {',
    '\tstruct arg all[MAX_OP_ARGS];',
    ...rows
      .filter(([, row]) => Object.keys(row.args).length > 0)
      .map(([name, row]) => `\tstruct { struct arg ${Object.keys(row.args).join(', ')}; } ${name};`),
    '};',
    '',
  ].join('\n');
}
