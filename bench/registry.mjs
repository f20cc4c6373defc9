// Builds and runs bench/registry.ts: node bench/registry.mjs (ROUNDS=5 for more rounds). Needs `make build`, skopeo, docker-registry.
import { fileURLToPath } from 'node:url';
import { commandLine, runSources } from './common/command.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
commandLine('[ROUNDS=N] node bench/registry.mjs');
process.chdir(root);
// As deep in the tree as test/suites/registry, whose processes it runs: they find the tree by their own place.
await runSources(`${root}bench/registry.ts`, [], { outfile: `${root}.cache/bench/registry/run.mjs` });
