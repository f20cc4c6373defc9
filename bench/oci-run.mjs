// `run` of `true` by command line, with Docker's seccomp profile and all namespaces: runc and crun beside us, in turn, in one run.
//
//   node bench/oci-run.mjs [ROUNDS [HOME]]      medians and ratios; exit 1 when we are not faster than runc with a planner
//
// HOME is an installation to measure in this tree's place: where npm or dpkg has put the package.
import { execFileSync, spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';
import { commandLine } from './common/command.mjs';
import { atEnd, breathe, takeBack } from './common/end.mjs';

const { words, count } = commandLine('node bench/oci-run.mjs [ROUNDS [HOME]]', { mostWords: 2 });
const ROUNDS = count(words[0], 20);
const tree = fileURLToPath(new URL('..', import.meta.url));
const root = words[1] ?? tree;
const dir = mkdtempSync(join(tmpdir(), 'estiba-bench-oci-'));
atEnd(() => takeBack({ dirs: [dir] }));
const ours = join(root, 'bin/estiba-oci');
const socket = join(dir, 'planner.sock');

const module = join(dir, 'profile.mjs');
buildSync({
  stdin: {
    contents: "export { dockerDefaultProfile, resolveProfile } from '#kernel/seccomp/docker.ts';",
    resolveDir: tree,
  },
  bundle: true,
  platform: 'node',
  format: 'esm',
  outfile: module,
});
const { dockerDefaultProfile, resolveProfile } = await import(module);

mkdirSync(join(dir, 'rootfs/bin'), { recursive: true });
copyFileSync('/bin/busybox', join(dir, 'rootfs/bin/busybox'));
symlinkSync('busybox', join(dir, 'rootfs/bin/true'));
execFileSync(ours, ['spec', '--bundle', dir], { env: { ...process.env, ESTIBA_OCI_PLANNER: 'off' } });
const config = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8'));
const { bounding } = config.process.capabilities;
Object.assign(config.process, {
  terminal: false,
  args: ['true'],
  capabilities: { bounding, effective: bounding, permitted: bounding },
});
const kernelRelease = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim();
config.linux.seccomp = resolveProfile(dockerDefaultProfile(), bounding, { nodeArch: process.arch, kernelRelease });
writeFileSync(join(dir, 'config.json'), JSON.stringify(config));

spawn(process.execPath, [join(root, 'dist/planner.run.cjs'), socket], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
const runtimes = {
  'estiba-oci, planner': [ours, { ESTIBA_OCI_PLANNER: socket }],
  'estiba-oci alone': [ours, { ESTIBA_OCI_PLANNER: 'off' }],
  runc: ['runc', {}],
  crun: ['crun', {}],
};
const times = Object.fromEntries(Object.keys(runtimes).map((name) => [name, []]));
const broken = {};
while (!existsSync(socket)) await new Promise((done) => setTimeout(done, 20));
for (let round = -2; round < ROUNDS; round++) {
  for (const [name, [program, env]] of Object.entries(runtimes)) {
    if (broken[name]) continue;
    await breathe();
    const begun = performance.now();
    try {
      execFileSync(
        program,
        [
          '--root',
          join(dir, 'state', program.split('/').at(-1)),
          'run',
          '--bundle',
          dir,
          `bench-${process.pid}-${round + 2}-${Object.keys(runtimes).indexOf(name)}`,
        ],
        {
          env: { ...process.env, ...env },
          stdio: ['ignore', 'ignore', 'pipe'],
        },
      );
      if (round >= 0) times[name].push(performance.now() - begun);
    } catch (error) {
      broken[name] = String(error.stderr ?? error.message)
        .trim()
        .split('\n')[0];
    }
  }
}

const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
const runc = median(times.runc);
for (const [name, list] of Object.entries(times)) {
  const row = broken[name]
    ? `not run: ${broken[name]}`
    : `${median(list).toFixed(1)} ms, ${(median(list) / runc).toFixed(2)} of runc`;
  process.stdout.write(`${name.padEnd(22)} ${row}\n`);
}
process.exitCode = median(times['estiba-oci, planner']) < runc ? 0 : 1;
