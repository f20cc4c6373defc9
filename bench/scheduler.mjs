// How many pods a second the scheduler places: decisions alone, and bound through the real API server in one process.
//
//   node bench/scheduler.mjs [NODES] [PODS]
import { fileURLToPath } from 'node:url';
import { commandLine, runSources } from './common/command.mjs';

const { words, count } = commandLine('node bench/scheduler.mjs [NODES] [PODS]', { mostWords: 2 });
const sizes = [count(words[0], 1000), count(words[1], 5000)].map(String);
await runSources(fileURLToPath(new URL('scheduler.ts', import.meta.url)), sizes);
