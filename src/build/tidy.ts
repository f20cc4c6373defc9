import { statfs } from 'node:fs/promises';
import type { PruneWish } from '#build/cache.ts';
import type { BuildNode } from '#build/node.ts';
import { usedBytes } from '#image/gc.ts';

/** One thing that builds keep, as `docker system df` and `docker builder prune` know it. */
export interface CacheUse {
  id: string;
  type: 'regular' | 'exec.cachemount' | 'source.local';
  description: string;
  bytes: number;
  createdAtMs: number;
  usedAtMs: number;
  uses: number;
  inUse: boolean;
  shared: boolean;
}

export interface PruneAllWish extends PruneWish {
  /** Only things of these types. */
  types?: readonly string[];
}

/** Files of all contexts count as one. */
const FILES_ID = 'context-files';

export async function cacheUse({ cache, cacheMounts, files }: BuildNode): Promise<CacheUse[]> {
  const steps = (await cache.list()).map(
    (entry): CacheUse => ({ ...entry, type: 'regular', description: entry.title, inUse: false }),
  );
  const mounts = (await cacheMounts.list()).map(
    (mount): CacheUse => ({
      ...mount,
      type: 'exec.cachemount',
      description: 'RUN --mount=type=cache',
      createdAtMs: mount.usedAtMs,
      uses: 0,
      shared: false,
    }),
  );
  let bytes = 0;
  let usedAtMs = 0;
  for await (const file of files.list()) {
    bytes += file.sizeBytes;
    usedAtMs = Math.max(usedAtMs, file.usedAtMs);
  }
  const contexts: CacheUse = {
    id: FILES_ID,
    type: 'source.local',
    description: 'files of build contexts',
    bytes,
    createdAtMs: usedAtMs,
    usedAtMs,
    uses: 0,
    inUse: false,
    shared: false,
  };
  return bytes > 0 ? [...steps, ...mounts, contexts] : [...steps, ...mounts];
}

/**
 * Gives up what builds keep. Without `all`, what an image stands on stays; files of contexts and cache mounts are never needed: the
 * next build sends or fills them again.
 */
export async function pruneAll(node: BuildNode, wish: PruneAllWish): Promise<{ ids: string[]; freedBytes: number }> {
  const { cache, cacheMounts, files } = node;
  const wants = (type: CacheUse['type']): boolean => !wish.types || wish.types.includes(type);
  const isOld = (usedAtMs: number): boolean => wish.unusedSinceMs === undefined || usedAtMs <= wish.unusedSinceMs;
  const ids: string[] = [];
  let freedBytes = 0;
  let total = (await cacheUse(node)).reduce((sum, use) => sum + use.bytes, 0);
  const isEnough = (): boolean => wish.keepBytes !== undefined && total <= wish.keepBytes;
  const free = (bytes: number): void => {
    freedBytes += bytes;
    total -= bytes;
  };
  if (wants('source.local') && (!wish.ids || wish.ids.includes(FILES_ID))) {
    const known = [];
    for await (const file of files.list()) known.push(file);
    for (const file of known.sort((a, b) => a.usedAtMs - b.usedAtMs)) {
      if (isEnough() || !isOld(file.usedAtMs)) break;
      await files.remove(file.digest);
      free(file.sizeBytes);
    }
    if (known.length > 0 && !isEnough()) ids.push(FILES_ID);
  }
  if (wants('exec.cachemount')) {
    const mounts = (await cacheMounts.list()).sort((a, b) => a.usedAtMs - b.usedAtMs);
    for (const mount of mounts) {
      if (isEnough() || mount.inUse || !isOld(mount.usedAtMs)) continue;
      if (wish.ids && !wish.ids.some((id) => mount.id.startsWith(id))) continue;
      await cacheMounts.remove(mount.id);
      ids.push(mount.id);
      free(mount.bytes);
    }
  }
  if (wants('regular') && !isEnough()) {
    const others = (await cacheUse(node)).filter((use) => use.type !== 'regular');
    const rest = others.reduce((sum, use) => sum + use.bytes, 0);
    const keep = wish.keepBytes === undefined ? {} : { keepBytes: Math.max(0, wish.keepBytes - rest) };
    const steps = await cache.prune({ ...wish, ...keep });
    ids.push(...steps.ids);
    freedBytes += steps.freedBytes;
  }
  return { ids, freedBytes };
}

/** Without a word from the operator, builds keep at most this part of the disk. */
const SHARE_OF_DISK = 0.1;

/** What builds may keep when blobs and layers of all kinds must not take more than `budgetBytes`. */
export async function roomForCache(
  node: BuildNode,
  dataRoot: string,
  budgetBytes: number | undefined,
): Promise<number> {
  if (budgetBytes === undefined) {
    const { blocks, bsize } = await statfs(dataRoot);
    return Math.floor(blocks * bsize * SHARE_OF_DISK);
  }
  const uses = await cacheUse(node);
  const kept = uses.reduce((sum, use) => sum + use.bytes, 0);
  const beside = uses.reduce((sum, use) => sum + (use.type === 'regular' ? 0 : use.bytes), 0);
  const excess = (await usedBytes(node)) + beside - budgetBytes;
  return Math.max(0, kept - Math.max(0, excess));
}
