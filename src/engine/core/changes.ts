import type { Stats } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import { existsInLayers, insideId, isWhiteout } from '#image/diff.ts';
import type { IdMapping } from '#kernel/idmap.ts';

export interface Changed {
  path: string;
  kind: 'added' | 'changed' | 'deleted';
}

/**
 * What every root has below its image (`root-bottom.ts`), or the runtime made to mount something on. They are no change of the
 * container's: Docker makes the same in a layer of its own, which neither diff nor commit shows.
 */
const MOUNT_POINTS = new Set([
  '/.dockerenv',
  '/dev',
  '/dev/console',
  '/dev/mqueue',
  '/dev/pts',
  '/dev/shm',
  '/etc/hostname',
  '/etc/hosts',
  '/etc/mtab',
  '/etc/resolv.conf',
  '/proc',
  '/sys',
]);

/** True for a file in the upper directory that is only there to be mounted on, as it is where the bottom's was hidden. */
export function isMountPoint(path: string, stat: Stats, isEmptyDirectory: boolean): boolean {
  if (!MOUNT_POINTS.has(path)) return false;
  return stat.isDirectory() ? isEmptyDirectory : stat.isFile() && stat.size === 0;
}

/**
 * True for a whiteout of what only the bottom has. In an image it would hide the next container's; Docker's are above an image's
 * layers, and there whatever it removes.
 */
export async function hidesBottomAlone(path: string, stat: Stats, lower: readonly string[]): Promise<boolean> {
  return isWhiteout(stat) && MOUNT_POINTS.has(path) && !(await existsInLayers(lower, path.slice(1)));
}

/** Leaves mount points out, and directories that are in the upper directory for the sake of one alone. */
export async function withoutMountPoints(
  changes: readonly Changed[],
  upper: string,
  lower: readonly string[],
  ids: readonly IdMapping[] = [],
): Promise<Changed[]> {
  const kept: Changed[] = [];
  const suspects: Changed[] = [];
  for (const change of changes) {
    const isPoint = change.kind === 'added' && (await isPointIn(upper, change.path));
    if (isPoint) continue;
    const holdsOne = change.kind === 'changed' && [...MOUNT_POINTS].some((p) => p.startsWith(`${change.path}/`));
    (holdsOne ? suspects : kept).push(change);
  }
  for (const suspect of suspects) {
    const hasOther = kept.some(({ path }) => path.startsWith(`${suspect.path}/`));
    if (hasOther || !(await looksAsBelow(upper, lower, suspect.path, ids))) kept.push(suspect);
  }
  return kept.sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function isPointIn(upper: string, path: string): Promise<boolean> {
  if (!MOUNT_POINTS.has(path)) return false;
  const stat = await lstat(join(upper, path)).catch(absent);
  if (!stat) return false;
  const names = stat.isDirectory() ? await readdir(join(upper, path)) : [];
  return isMountPoint(
    path,
    stat,
    names.every((name) => MOUNT_POINTS.has(`${path}/${name}`)),
  );
}

async function looksAsBelow(
  upper: string,
  lower: readonly string[],
  path: string,
  ids: readonly IdMapping[],
): Promise<boolean> {
  const above = await lstat(join(upper, path)).catch(absent);
  for (const layer of lower) {
    const below = await lstat(join(layer, path)).catch(absent);
    if (!below) continue;
    const isSame = (a: number, b: number): boolean => insideId(ids, a) === b;
    return above?.mode === below.mode && isSame(above.uid, below.uid) && isSame(above.gid, below.gid);
  }
  return false;
}

function absent(error: unknown): undefined {
  if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
  throw error;
}
