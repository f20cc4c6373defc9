// Every benchmark in turn, each beside its peers: node bench/run.mjs [NAME…]. One that fails, or misses its goal, is named at the end.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const wanted = process.argv.slice(2);
const missed = [];
for (const file of readdirSync(here)
  .filter((name) => name.endsWith('.mjs') && name !== 'run.mjs')
  .sort()) {
  if (wanted.length > 0 && !wanted.some((name) => file.startsWith(name))) continue;
  process.stdout.write(`\n== ${file}\n`);
  const { status } = spawnSync(process.execPath, [here + file], { stdio: 'inherit' });
  if (status !== 0) missed.push(file);
}
process.stdout.write(missed.length === 0 ? '\nall goals met\n' : `\nfailed or missed a goal: ${missed.join(', ')}\n`);
process.exitCode = missed.length === 0 ? 0 : 1;
