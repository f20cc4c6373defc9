// Takes the snapshot that `estiba-oci` starts from where no planner is resident (docs/decisions/0003): the heap of a planner that has
// rehearsed a call, all of it compiled. A start from it takes 60 % of one with the code cache.
//
//   node tools/snapshot.mjs      the build runs it, npm when it installs the package, and the Debian package's postinst
//
// It is bound to one Node.js and one kind of processor, so that no package can carry it. Its name says whose it is: of the build, and of
// the program that took it. native/front.c opens that name alone, and goes on with the cache where there is none.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const OUT = fileURLToPath(new URL('../dist', import.meta.url));
const NS_PER_S = 1_000_000_000n;

/** Beside the planner's script, or not at all: then it starts slower, which is no reason to fail. */
export function takeSnapshot(out = OUT) {
  const flagsFile = join(out, 'planner.flags');
  if (!existsSync(flagsFile)) return; // a tree that is not built
  const [build, ...flags] = readFileSync(flagsFile, 'utf8').trim().split('\n');
  const { size, mtimeNs } = statSync(process.execPath, { bigint: true });
  const name = `planner-${build}-${size}-${mtimeNs / NS_PER_S}.blob`;
  const room = join(out, `taking-${process.pid}`);
  try {
    removeLeftRooms(out);
    const bundle = bundleOfAContainer(out, room);
    const blob = join(room, name);
    const node = [...flags, '--no-warnings', '--snapshot-blob', blob, '--build-snapshot', join(out, 'planner.cjs')];
    // Up to where a plan would be carried out.
    const rehearsal = [room, '--root', join(room, 'state'), 'run', '--bundle', bundle, 'warm'];
    execFileSync(process.execPath, [...node, ...rehearsal], { stdio: ['ignore', 'ignore', 'inherit'] });
    // Whole or not at all: others may be starting from the one that is there, or taking another beside us.
    renameSync(blob, join(out, name));
    for (const other of snapshotsIn(out)) if (other !== name) rmSync(join(out, other), { force: true });
  } catch (error) {
    console.error(`estiba: no snapshot of the planner, so that estiba-oci starts slower: ${error.message}`);
  } finally {
    rmSync(room, { recursive: true, force: true });
  }
}

export const snapshotsIn = (out) => readdirSync(out).filter((name) => /^planner-.*\.blob$/.test(name));

/** Of those that were killed. */
function removeLeftRooms(out) {
  for (const name of readdirSync(out)) {
    const pid = /^taking-(\d+)$/.exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmSync(join(out, name), { recursive: true, force: true });
  }
}

/** A bundle in `directory` with what most containers wish for: what plans it is worth having compiled. */
export function bundleOfAContainer(out, directory) {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(join(directory, 'rootfs'), { recursive: true });
  execFileSync(process.execPath, [join(out, 'oci.run.cjs'), 'spec', '--bundle', directory]);
  const file = join(directory, 'config.json');
  const config = JSON.parse(readFileSync(file, 'utf8'));
  config.process.terminal = false;
  config.linux.resources = {
    ...config.linux.resources,
    memory: { limit: 2 ** 26 },
    cpu: { shares: 512 },
    pids: { limit: 9 },
  };
  config.linux.seccomp = {
    defaultAction: 'SCMP_ACT_ERRNO',
    architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
    syscalls: [
      { names: ['read', 'write', 'openat', 'close', 'mmap', 'execve'], action: 'SCMP_ACT_ALLOW' },
      { names: ['socket'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 40, op: 'SCMP_CMP_NE' }] },
      { names: ['clone'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 1, op: 'SCMP_CMP_MASKED_EQ' }] },
    ],
  };
  writeFileSync(file, JSON.stringify(config));
  return directory;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) takeSnapshot();
