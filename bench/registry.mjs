// Builds and runs bench/registry.ts: node bench/registry.mjs (ROUNDS=5 for more rounds). Needs `make build`, skopeo, docker-registry.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const outfile = `${root}.cache/bench/registry/run.mjs`;
const entryPoints = [`${root}bench/registry.ts`];
await build({
  entryPoints,
  outfile,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20.19',
  packages: 'external',
});
execFileSync(process.execPath, [outfile], { stdio: 'inherit', cwd: root });
