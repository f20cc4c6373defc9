import { existsSync, readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { waitFor } from './cluster/machine.ts';

/** Deep enough for a suite that makes its cgroups inside its own. */
const DEPTH = 6;
const GONE_MS = 10_000;

/**
 * What a test leaves of cgroups when it is cut short, and what peers' suites leave under any runtime: runc's takes its pods' out of the v1
 * hierarchies alone, runtime-tools keeps `cgrouptest`. Of those that `made` knows, all that were not there at this call are removed by the
 * function it returns.
 */
export function cgroupsLeftBy(made: RegExp): () => Promise<void> {
  const before = new Set(cgroups('/sys/fs/cgroup', DEPTH));
  return async () => {
    const left = cgroups('/sys/fs/cgroup', DEPTH).filter((path) => made.test(path) && !before.has(path));
    for (const path of left.reverse()) await waitFor(`${path} to be empty`, GONE_MS, () => removed(path));
  };
}

/** False while a process is still in it: one that was killed leaves its cgroup a moment after it has left /proc. */
export function removed(cgroup: string): boolean {
  try {
    rmdirSync(cgroup);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EBUSY') return false;
    throw error;
  }
}

/** Each before those inside it. */
function cgroups(root: string, depth: number): string[] {
  if (depth === 0 || !existsSync(root)) return []; // gone since its parent was read
  return readdirSync(root, { withFileTypes: true }).flatMap((entry) => {
    const path = join(root, entry.name);
    return entry.isDirectory() ? [path, ...cgroups(path, depth - 1)] : [];
  });
}
