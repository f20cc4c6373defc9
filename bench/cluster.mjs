// A cluster of one node, from nothing: until it is Ready, a Deployment of 3, 1 → 50 pods, a pod's replacement; and what it needs at rest.
//
//   node bench/cluster.mjs [ROUNDS] [--trace] [--profile DIR]
//
// Medians; exit 1 when a goal is missed. Needs root and `make build`. `--trace` shows what a Deployment waits for, as a client sees
// it; `--profile` leaves a CPU profile of the daemon while it brings up fifty pods.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const dir = mkdtempSync(join(tmpdir(), 'estiba-bench-cluster-'));
try {
  await build({
    entryPoints: [join(root, 'bench/cluster.ts')],
    outfile: join(dir, 'cluster.mjs'),
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    logLevel: 'error',
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
  });
  const env = { ...process.env, ESTIBA: process.env.ESTIBA ?? join(root, 'bin/estiba') };
  const done = spawnSync(process.execPath, [join(dir, 'cluster.mjs'), ...process.argv.slice(2)], {
    stdio: 'inherit',
    env,
  });
  process.exitCode = done.status ?? 1;
} finally {
  rmSync(dir, { recursive: true, force: true });
}
