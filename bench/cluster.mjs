// A cluster of one node, from nothing: until it is Ready, a Deployment of 3, 1 → 50 pods, a pod's replacement; and what it needs at rest.
//
//   node bench/cluster.mjs [ROUNDS] [--trace] [--profile DIR]
//
// Medians; exit 1 when a goal is missed. Needs root and `make build`. `--trace` shows what a Deployment waits for, as a client sees
// it; `--profile` leaves a CPU profile of the daemon while it brings up fifty pods.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { commandLine, runSources } from './common/command.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const { words, count } = commandLine('node bench/cluster.mjs [ROUNDS] [--trace] [--profile DIR]', {
  flags: { trace: { type: 'boolean' }, profile: { type: 'string' } },
  mostWords: 1,
});
count(words[0], 3);
await runSources(join(root, 'bench/cluster.ts'), process.argv.slice(2), {
  env: { ESTIBA: process.env.ESTIBA ?? join(root, 'bin/estiba') },
  cgroups: (pid) => new RegExp(`^tb\\d+${pid % 10_000}$`), // as test/cluster/machine.ts names its machines
});
