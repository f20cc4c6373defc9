// Bundles src/app/*.ts into dist/, one script a process, each with V8's code cache beside it: starting `estiba-oci` from
// sources costs 150 ms, from a bundle 90, with the cache 45 (Node 20). Node.js 22 has such a cache of its own, but 20 is what
// machines here have.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { bundleOfAContainer, takeSnapshot } from './snapshot.mjs';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const OUT = join(ROOT, 'dist');
const REHEARSAL_MOST_MS = 60_000;
const EXECUTOR = join(ROOT, 'native/build/estiba-init');
/** One row a process: entry, and arguments that warm its cache: what they run is compiled when it starts next. */
const ENTRIES = [
  { name: 'oci', warm: planOfAContainer },
  { name: 'planner', program: EXECUTOR, warm: callOfAPlanner },
  // A thread of the daemon, not a process: loaded as it is.
  { name: 'layer-worker', source: 'src/image/layer/worker.ts', thread: true },
  { name: 'daemon', rehearse: startOfADaemon },
  { name: 'registry', warm: () => ['--help'] },
  { name: 'cli', warm: () => ['--help'] },
];

const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
const commit = gitCommit();
mkdirSync(OUT, { recursive: true });
// Until all is built nothing starts from the snapshot of what was here before.
rmSync(join(OUT, 'planner.flags'), { force: true });
for (const entry_ of ENTRIES) {
  const { name, source = `src/app/${name}.ts`, thread = false, program, rehearse, warm = () => ['--version'] } = entry_;
  const entry = join(ROOT, source);
  const outfile = join(OUT, `${name}.cjs`);
  rmSync(join(OUT, `${name}.cache`), { force: true }); // before its script is another: V8 tells them apart by their length alone
  const { outputFiles } = await build({
    write: false,
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: 'node',
    // CommonJS: vm.Script, which takes a cache, knows no modules.
    format: 'cjs',
    target: 'node20.19',
    packages: 'external',
    // import() of a package becomes require(): a vm.Script has nobody to ask for modules.
    supported: { 'dynamic-import': false },
    sourcemap: 'linked',
    minifySyntax: true,
    // Without comments all is ASCII: V8 keeps such a source in one byte a character, and the loader has nothing to decode.
    minifyWhitespace: true,
    lineLimit: 200, // Node.js prints the line that threw
    define: {
      'import.meta.url': '__moduleUrl',
      ESTIBA_VERSION: JSON.stringify(version),
      ESTIBA_COMMIT: JSON.stringify(commit),
      ESTIBA_SECCOMP: JSON.stringify(digestOf('src/kernel/seccomp', 'src/kernel/linux')),
    },
    banner: { js: "const __moduleUrl = require('node:url').pathToFileURL(__filename).href;" },
    logLevel: 'warning',
  });
  for (const { path, contents } of outputFiles) replace(path, contents);
  if (thread) continue;
  if (readFileSync(outfile).some((byte) => byte > 0x7f))
    throw new Error(`${outfile} is not ASCII: write \\u escapes in regular expressions`);
  replace(join(OUT, `${name}.run.cjs`), loader(name));
  if (rehearse?.(join(OUT, `${name}.run.cjs`))) continue;
  // The loader writes the cache when asked to, after a real run: so the functions that ran are in it, and no others.
  const env = { ...process.env, ESTIBA_WRITE_CACHE: '1' };
  execFileSync(program ?? process.execPath, program ? warm() : [join(OUT, `${name}.run.cjs`), ...warm()], {
    env,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}
rmSync(join(OUT, 'warm'), { recursive: true, force: true });
writeFileSync(join(OUT, 'planner.flags'), snapshotFlags());
takeSnapshot();
await buildPage();

/** Whole or not at all: a program that starts meanwhile would find an empty script, do nothing, and end with 0. */
function replace(path, contents) {
  writeFileSync(`${path}.new`, contents);
  renameSync(`${path}.new`, path);
}

/** The dashboard's page, as one html, one script and one style sheet: nothing comes from anywhere else. */
async function buildPage() {
  const [from, to] = [join(ROOT, 'src/web/page'), join(OUT, 'web')];
  await build({
    entryPoints: [
      { in: join(from, 'main.tsx'), out: 'page' },
      { in: join(from, 'page.css'), out: 'page' },
    ],
    outdir: to,
    bundle: true,
    format: 'esm',
    target: 'es2022',
    minify: true,
    jsx: 'automatic',
    jsxImportSource: 'preact',
    // Who passes the bundle on passes the notices on.
    legalComments: 'eof',
    logLevel: 'warning',
  });
  copyFileSync(join(from, 'index.html'), join(to, 'index.html'));
}

/**
 * Planning a container with a seccomp profile goes through most of what `run` needs, and changes nothing: with these
 * functions in the cache a start takes 12 ms less than with those of `features` alone.
 */
function planOfAContainer() {
  return ['--plan', 'create', '--bundle', bundleOfAContainer(OUT, join(OUT, 'warm')), 'warm'];
}

/** A whole start, with namespaces of its own around it. False where nobody may have them: the cache holds less then, and a start takes longer. */
function startOfADaemon(script) {
  const directory = mkdtempSync(join(tmpdir(), 'estiba-rehearsal-'));
  const around = ['-m', '-n', '-p', '-f', '--kill-child', '--mount-proc'];
  try {
    execFileSync('unshare', [...around, process.execPath, join(ROOT, 'tools/rehearse.mjs'), script, directory], {
      stdio: ['ignore', 'ignore', 'pipe'],
      timeout: REHEARSAL_MOST_MS,
    });
    return true;
  } catch (error) {
    console.error(
      `no start of the daemon could be rehearsed for its cache: ${String(error.stderr || error.message).trim()}`,
    );
    return false;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** What the snapshot is taken and started with; tools/snapshot.mjs and native/front.c read it. */
function snapshotFlags() {
  const build = createHash('sha256').update(readFileSync(join(OUT, 'planner.cjs')));
  const flags = [
    // No hash seed of its own: making one takes a tenth of the start, and a single call gives nobody the time to guess it.
    '--no-rehash-snapshot',
    // Nothing runs often enough to be compiled a second time, nor needs threads for it.
    '--no-sparkplug',
    '--no-opt',
    '--v8-pool-size=0',
  ];
  return [build.digest('hex').slice(0, 16), ...flags].map((line) => `${line}\n`).join('');
}

/** Loads NAME.cjs with its cache. A cache of another Node.js is refused by V8 and left alone. */
function loader(name) {
  return `'use strict';
const { readFileSync, renameSync, writeFileSync } = require('node:fs');
const { Script } = require('node:vm');
const file = require('node:path').join(__dirname, ${JSON.stringify(`${name}.cjs`)});
const cache = file.replace(/cjs$/, 'cache');
const read = (path) => { try { return readFileSync(path); } catch { return undefined; } };
const source = readFileSync(file, 'latin1');
const cachedData = read(cache);
const wrapped = '(function (exports, require, module, __filename, __dirname) {' + source + '\\n})';
const script = new Script(wrapped, { filename: file, ...(cachedData ? { cachedData } : {}) });
const module_ = { exports: {} };
script.runInThisContext()(module_.exports, require, module_, file, __dirname);
if (process.env.ESTIBA_WRITE_CACHE === '1')
  process.once('exit', () => {
    writeFileSync(cache + '.new', script.createCachedData());
    renameSync(cache + '.new', cache);
  });
`;
}

/** The same plan as `bin/estiba-oci` has it made: by a planner behind the native front. */
function callOfAPlanner() {
  const [script, launcher] = [join(OUT, 'planner.run.cjs'), join(ROOT, 'bin/estiba-oci')];
  return ['oci-alone', process.execPath, script, ROOT, launcher, ...planOfAContainer()];
}

/** Of all sources in these folders: what they compile to is kept on disk under it. */
function digestOf(...folders) {
  const hash = createHash('sha256');
  for (const folder of folders)
    for (const name of readdirSync(join(ROOT, folder)).sort())
      if (name.endsWith('.ts')) hash.update(name).update(readFileSync(join(ROOT, folder, name)));
  return hash.digest('hex');
}

function gitCommit() {
  try {
    return execFileSync('git', ['-C', ROOT, 'rev-parse', '--short=12', 'HEAD'], { encoding: 'utf8' }).trim();
  } catch {
    return 'unknown'; // a source archive
  }
}
