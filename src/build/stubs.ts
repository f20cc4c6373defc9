import { lstat, rmdir, unlink, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import type { MountedTree } from '#build/copy/mounted.ts';
import { resolveIn } from '#build/copy/resolve.ts';

/**
 * Mount points that the runtime makes in a root are not what a command wrote: they are noted before it runs and taken away after
 * it, if nothing was put there.
 */
export interface Stubs {
  /** Paths in the root that do not exist yet, outermost first. */
  missing: string[];
  /** The directories they are made in, with their times. */
  parents: Map<string, { atimeMs: number; mtimeMs: number }>;
}

/** Where every container has something mounted (`engine/core/oci.ts`). */
const ALWAYS = ['proc', 'dev', 'sys', 'etc/hosts', 'etc/hostname', 'etc/resolv.conf'];

export async function noteStubs(root: MountedTree, targets: readonly string[]): Promise<Stubs> {
  const missing = new Set<string>();
  const parents: Stubs['parents'] = new Map();
  for (const target of [...ALWAYS, ...targets]) {
    const { path, info } = await resolveIn(root, target);
    if (info) continue;
    const parts = path.split('/');
    for (let depth = 1; depth <= parts.length; depth++) {
      const at = parts.slice(0, depth).join('/');
      if (await root.lstat(at)) continue;
      missing.add(at);
      const parent = parts.slice(0, depth - 1).join('/');
      const stat = await lstat(join(root.root, parent)).catch(absent);
      if (stat) parents.set(parent, { atimeMs: stat.atimeMs, mtimeMs: stat.mtimeMs });
    }
  }
  return { missing: [...missing].sort(), parents };
}

/** `upper`: the directory that holds what the command wrote. */
export async function removeStubs(upper: string, stubs: Stubs): Promise<void> {
  for (const path of [...stubs.missing].reverse()) {
    const stat = await lstat(join(upper, path)).catch(absent);
    if (stat?.isDirectory()) await rmdir(join(upper, path)).catch(notEmpty);
    else if (stat?.isFile() && stat.size === 0) await unlink(join(upper, path));
  }
  for (const [path, { atimeMs, mtimeMs }] of stubs.parents) {
    const stat = await lstat(join(upper, path)).catch(absent);
    if (stat?.isDirectory()) await utimes(join(upper, path), atimeMs / 1000, mtimeMs / 1000);
  }
}

function absent(error: unknown): undefined {
  if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
  throw error;
}

/** The command put something there: it stays. */
function notEmpty(error: unknown): void {
  if (errnoOf(error) !== 'ENOTEMPTY') throw error;
}
