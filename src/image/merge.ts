import { lstatSync, readdirSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import { existsInLayers, isOpaque, isWhiteout, type Xattrs } from '#image/diff.ts';
import type { Seen } from '#kernel/beneath.ts';

/** A layer as it lies there: whiteouts are devices 0:0, and an attribute marks opaque directories, as in overlayfs' upper directory. */
export interface Level {
  directory: string;
  xattrs: Xattrs;
}

const FILES_A_TURN = 500;

export interface MergeOptions {
  /** Directories of the layers that the result will lie on, uppermost first. */
  below: readonly string[];
  opaqueXattr: string;
  /** Filled for each file before it is handed on. */
  xattrs: Map<string, ReadonlyMap<string, Uint8Array>>;
}

/** Several levels, uppermost first, as the one that does the same to what is below them. */
export async function* merged(levels: readonly Level[], o: MergeOptions): AsyncGenerator<Seen> {
  let count = 0;
  const pending: { path: string; levels: readonly Level[]; isHidden: boolean }[] = [
    { path: '', levels, isHidden: false },
  ];
  for (let at = pending.pop(); at; at = pending.pop()) {
    const { path } = at;
    const [top] = at.levels;
    const stat = top && statOf(join(top.directory, path));
    if (!top || !stat) continue;
    // A whiteout of what is not there would be listed: overlayfs looks for whiteouts in directories that several layers have.
    if (isWhiteout(stat) && (at.isHidden || !(await existsInLayers(o.below, path)))) continue;
    const { shown, isCut } = directoryLevels(at.levels, path, o.opaqueXattr);
    const own = top.xattrs.get(path);
    const known = isCut ? new Map([...(own ?? []), [o.opaqueXattr, Buffer.from('y')]]) : own;
    if (known) o.xattrs.set(path, known);
    yield { path, stat, access: join(top.directory, path) };
    if (++count % FILES_A_TURN === 0) await new Promise((go) => setImmediate(go)); // files answer at once: others want a turn
    const names = new Set(shown.flatMap((level) => readdirSync(join(level.directory, path))));
    for (const name of [...names].sort().reverse()) {
      const child = path === '' ? name : `${path}/${name}`;
      const having = shown.filter((level) => statOf(join(level.directory, child)));
      pending.push({ path: child, levels: having, isHidden: at.isHidden || isCut });
    }
  }
}

/**
 * The levels whose directory at `path` shows: down to one that hides what is below it, by being opaque, removed or no directory there.
 * Then what the base has at that path is hidden as well.
 */
function directoryLevels(
  levels: readonly Level[],
  path: string,
  opaqueXattr: string,
): { shown: Level[]; isCut: boolean } {
  const shown: Level[] = [];
  for (const level of levels) {
    const stat = statOf(join(level.directory, path));
    if (!stat) continue;
    if (!stat.isDirectory()) return { shown, isCut: shown.length > 0 };
    shown.push(level);
    if (isOpaque(level.xattrs.get(path), opaqueXattr)) return { shown, isCut: true };
  }
  return { shown, isCut: false };
}

function statOf(path: string): Stats | undefined {
  try {
    return lstatSync(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}
