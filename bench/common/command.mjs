// What all benchmarks do alike before they measure: they read their command line, or bundle and run the sources beside them.
import { spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { buildSync } from 'esbuild';
import { atEnd, SIGNALS, takeBack } from './end.mjs';

/**
 * Flags (as `parseArgs` has them) and words of the command line. One that is not known ends the program with the usage and status 2:
 * otherwise somebody waits minutes for a run that nobody asked for. `count` reads a whole number from 1 on, of rounds or the like;
 * `refuse` is for what only the benchmark can tell.
 */
export function commandLine(usage, { flags = {}, mostWords = 0 } = {}) {
  const refuse = (why) => {
    process.stderr.write(`${why}\nusage: ${usage}\n`);
    process.exit(2);
  };
  const { values, positionals: words } = parsed({ ...flags, help: { type: 'boolean', short: 'h' } }, refuse);
  if (values.help) {
    process.stdout.write(`usage: ${usage}\n`);
    process.exit();
  }
  if (words.length > mostWords) refuse(`one word too many: ${words[mostWords]}`);
  const count = (text, absent) => {
    if (text !== undefined && !/^[1-9]\d*$/.test(text)) refuse(`no whole number from 1 on: ${text}`);
    return Number(text ?? absent);
  };
  return { values, words, count, refuse };
}

function parsed(options, refuse) {
  try {
    return parseArgs({ options, allowPositionals: true });
  } catch (error) {
    return refuse(error.message);
  }
}

/**
 * Bundles a benchmark in TypeScript and runs it to its end. What it makes in its temporary directory goes with that, and the cgroups whose
 * names match `cgroups` of its pid. `outfile`: where the bundle has to lie, if it matters to it. Sets our exit status to its own.
 */
export async function runSources(entry, args, { env = {}, outfile, cgroups } = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'ebench-')); // short: sockets below it have 107 bytes for their paths (unix(7))
  let child;
  atEnd(() => takeBack({ dirs: [dir], cgroups: cgroups?.(child?.pid) }));
  const bundle = outfile ?? join(dir, 'run.mjs');
  buildSync({
    entryPoints: [entry],
    outfile: bundle,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    logLevel: 'error',
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
  });
  child = spawn(process.execPath, [bundle, ...args], {
    stdio: 'inherit',
    env: { ...process.env, ...env, TMPDIR: dir },
  });
  process.exitCode = await ended(child);
}

/** Runs a program to its end, and answers with its status. What tells us to end tells it first, and we wait until it has cleaned up. */
export async function runToEnd(command, args) {
  const child = spawn(command, args, { stdio: 'inherit' });
  let told = false;
  const pass = (signal) => {
    told = true;
    child.kill(signal);
  };
  for (const signal of SIGNALS) process.on(signal, pass);
  const status = await ended(child);
  for (const signal of SIGNALS) process.off(signal, pass);
  if (told) process.exit(1);
  return status;
}

function ended(child) {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (status) => resolve(status ?? 1));
  });
}
