import type { Clock } from '#base/clock.ts';
import type { ContentStore } from '#image/content.ts';
import { reachable } from '#image/graph.ts';
import type { Image, ImageStore } from '#image/images.ts';
import type { LayerStore } from '#image/layers.ts';
import type { SnapshotStore } from '#image/snapshots.ts';
import type { Digest } from '#spec/image/digest.ts';

export interface Collected {
  blobs: Digest[];
  layers: Digest[];
  evicted: Digest[];
  freedBytes: number;
}

export interface CollectOptions {
  content: ContentStore;
  images: ImageStore;
  layers: LayerStore;
  snapshots: SnapshotStore;
  clock: Clock;
  /** Who else keeps blobs (the registry's repositories, the build cache): every digest they need, not followed further. */
  roots: readonly (() => Promise<Iterable<Digest>>)[];
  /** Who else keeps unpacked layers, by diff id. */
  layerRoots?: readonly (() => Iterable<Digest>)[];
  /** Blobs used since then stay: somebody may be about to name them. */
  graceMs: number;
  /** Above it, images that no container uses go, the least recently used first. */
  budgetBytes?: number;
}

/**
 * Removes what nothing needs: first images beyond the budget, then layers that neither an image nor a container stands on,
 * then blobs that no root reaches. Cut at any point it has removed only what nobody needs; the next run goes on.
 */
export async function collect(o: CollectOptions): Promise<Collected> {
  await o.snapshots.settled();
  const evicted = await evictToBudget(o);
  const needed = await reachable(o.content, o.images.targets());
  for (const root of o.roots) for (const digest of await root()) needed.add(digest);
  const [layers, layerBytes] = await collectLayers(o);
  const [blobs, blobBytes] = await collectBlobs(o, needed);
  await dropStaleDownloads(o);
  return { blobs, layers, evicted, freedBytes: layerBytes + blobBytes };
}

/** A pull that broke off goes on where it stood; after a week nobody is coming back for it. */
const STALE_DOWNLOAD_MS = 7 * 86_400_000;

async function dropStaleDownloads(o: CollectOptions): Promise<void> {
  for (const { ref, updatedAtMs, held } of await o.content.ingests()) {
    if (held || !ref.startsWith('download/') || o.clock.now() - updatedAtMs < STALE_DOWNLOAD_MS) continue;
    await (await o.content.ingest(ref)).abort();
  }
}

async function evictToBudget(o: CollectOptions): Promise<Digest[]> {
  if (o.budgetBytes === undefined) return [];
  let used = await usedBytes(o);
  const evicted: Digest[] = [];
  for (const image of candidates(await o.images.list(), o.snapshots)) {
    if (used <= o.budgetBytes) break;
    await o.images.evict(
      image,
      `images take ${used} bytes, the budget is ${o.budgetBytes}; last used ${new Date(image.usedAtMs).toISOString()}`,
    );
    evicted.push(image.id);
    used -= await bytesOnlyOf(image, o);
  }
  return evicted;
}

/** Unused images, least recently used first. Pure. */
export function candidates(images: readonly Image[], snapshots: Pick<SnapshotStore, 'usersOf'>): Image[] {
  const unused = images.filter((image) => {
    const top = image.platform.config.rootfs.diff_ids.at(-1);
    return top === undefined || snapshots.usersOf(top).length === 0;
  });
  return unused.sort((a, b) => a.usedAtMs - b.usedAtMs);
}

/** What its removal sets free: blobs and layers that no remaining image shares. */
async function bytesOnlyOf(image: Image, o: CollectOptions): Promise<number> {
  const others = await o.images.list();
  const shared = new Set(others.flatMap((other) => other.platform.config.rootfs.diff_ids));
  const sharedBlobs = new Set(others.flatMap((other) => other.platform.manifest.layers.map((layer) => layer.digest)));
  const layers = image.platform.config.rootfs.diff_ids
    .filter((d) => !shared.has(d))
    .map((d) => o.layers.get(d)?.imageBytes ?? 0);
  const blobs = image.platform.manifest.layers.filter((l) => !sharedBlobs.has(l.digest)).map((l) => l.size);
  return [...layers, ...blobs].reduce((sum, bytes) => sum + bytes, 0);
}

export async function usedBytes(o: Pick<CollectOptions, 'content' | 'layers'>): Promise<number> {
  let used = o.layers.list().reduce((sum, layer) => sum + layer.imageBytes, 0);
  for await (const blob of o.content.list()) used += blob.sizeBytes;
  return used;
}

async function collectLayers(o: CollectOptions): Promise<[Digest[], number]> {
  const needed = new Set((await o.images.list()).flatMap((image) => image.platform.config.rootfs.diff_ids));
  for (const root of o.layerRoots ?? []) for (const diffId of root()) needed.add(diffId);
  const gone: Digest[] = [];
  let bytes = 0;
  for (const layer of o.layers.list()) {
    if (needed.has(layer.diffId) || o.snapshots.usersOf(layer.diffId).length > 0 || o.layers.isHeld(layer.diffId))
      continue;
    await o.layers.remove(layer.diffId);
    gone.push(layer.diffId);
    bytes += layer.imageBytes;
  }
  return [gone, bytes];
}

async function collectBlobs(o: CollectOptions, needed: ReadonlySet<Digest>): Promise<[Digest[], number]> {
  const gone: Digest[] = [];
  let bytes = 0;
  for await (const blob of o.content.list()) {
    // Files know fractions of a millisecond, the clock does not: a blob of this very moment must not look younger than now.
    const ageMs = o.clock.now() - Math.floor(blob.usedAtMs);
    if (needed.has(blob.digest) || ageMs < o.graceMs) continue;
    if (!(await o.content.remove(blob.digest))) continue;
    gone.push(blob.digest);
    bytes += blob.sizeBytes;
  }
  return [gone, bytes];
}
