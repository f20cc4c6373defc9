// How many pods a second the scheduler places: decisions alone, and bound through the real API server in one process.
//
//   node bench/scheduler.mjs [NODES] [PODS]
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const [nodes = '1000', pods = '5000'] = process.argv.slice(2);
const root = mkdtempSync(join(tmpdir(), 'estiba-bench-scheduler-'));
try {
  await build({
    entryPoints: [fileURLToPath(new URL('scheduler.ts', import.meta.url))],
    outfile: join(root, 'scheduler.mjs'),
    bundle: true,
    platform: 'node',
    format: 'esm',
    logLevel: 'error',
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
  });
  execFileSync(process.execPath, [join(root, 'scheduler.mjs'), nodes, pods], { stdio: 'inherit' });
} finally {
  rmSync(root, { recursive: true, force: true });
}
