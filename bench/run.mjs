// Every benchmark in turn, each beside its peers: node bench/run.mjs [NAME…]. One that fails, or misses its goal, is named at the end.
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { commandLine, runToEnd } from './common/command.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const files = readdirSync(here)
  .filter((name) => name.endsWith('.mjs') && name !== 'run.mjs')
  .sort();
const { words: wanted, refuse } = commandLine('node bench/run.mjs [NAME…]', { mostWords: files.length });
for (const name of wanted) if (!files.some((file) => file.startsWith(name))) refuse(`no benchmark: ${name}`);
const missed = [];
for (const file of files) {
  if (wanted.length > 0 && !wanted.some((name) => file.startsWith(name))) continue;
  process.stdout.write(`\n== ${file}\n`);
  if ((await runToEnd(process.execPath, [here + file])) !== 0) missed.push(file);
}
process.stdout.write(missed.length === 0 ? '\nall goals met\n' : `\nfailed or missed a goal: ${missed.join(', ')}\n`);
process.exitCode = missed.length === 0 ? 0 : 1;
