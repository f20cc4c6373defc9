import { existsSync, readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';

/** Deep enough for a suite that makes its cgroups inside its own. */
const DEPTH = 6;

/**
 * Peers' suites leave cgroups behind under any runtime: runc's takes its pods' out of the v1 hierarchies alone, runtime-tools keeps
 * `cgrouptest`. Of those that `made` knows, all that were not there at this call are removed by the function it returns.
 */
export function cgroupsLeftBy(made: RegExp): () => void {
  const before = new Set(cgroups('/sys/fs/cgroup', DEPTH));
  return () => {
    const after = cgroups('/sys/fs/cgroup', DEPTH);
    for (const path of after.reverse()) if (made.test(path) && !before.has(path)) rmdirSync(path);
  };
}

/** Each before those inside it. */
function cgroups(root: string, depth: number): string[] {
  if (depth === 0 || !existsSync(root)) return []; // gone since its parent was read
  return readdirSync(root, { withFileTypes: true }).flatMap((entry) => {
    const path = join(root, entry.name);
    return entry.isDirectory() ? [path, ...cgroups(path, depth - 1)] : [];
  });
}
