import type { Clock } from '#base/clock.ts';
import { array, boolean, integer, type Out, object, optional, string } from '#base/shape.ts';
import type { Background } from '#build/background.ts';
import type { StepLayer } from '#build/layers.ts';
import type { ContentStore } from '#image/content.ts';
import type { ImageStore } from '#image/images.ts';
import type { LayerStore } from '#image/layers.ts';
import type { SnapshotStore } from '#image/snapshots.ts';
import { type Digest, isDigest } from '#spec/image/digest.ts';
import { Records } from '#storage/records.ts';
import type { Store } from '#storage/store.ts';

/**
 * What steps gave, by their keys, in the node's store:
 *
 *     build/steps/<key>       the stack of layers that the step ends with
 *     build/packed/<diffId>   the compressed blob of a layer made here
 *
 * A record whose layers were taken away is forgotten when it is found. Its bytes belong to the disk budget: `roots` keeps them
 * from garbage collection, `prune` gives them up, the least recently used first.
 */
const digest = string({ match: /^sha(?:256:[a-f0-9]{64}|512:[a-f0-9]{128})$/, says: 'is no digest' }) as (
  value: unknown,
  path: string,
) => Digest;
const blob = object({ mediaType: string(), digest, size: integer({ min: 0 }) });
const stepShape = object({
  title: string(),
  layers: array(object({ diffId: digest, blob, made: optional(boolean()) })),
  /** Whether the step added the last of them. */
  own: integer({ min: 0, max: 1 }),
  createdAtMs: integer(),
  usedAtMs: integer(),
  uses: integer({ min: 0 }),
  /** What it did and to what, by the layers that it read instead of the steps that made them: see `equal`. */
  inputs: optional(string()),
  /** Of a copy from another stage: digest of all that it put, times apart. */
  files: optional(string()),
});
export type StepRecord = Out<typeof stepShape>;

/** What is remembered of a step; `createdAtMs` of one that was known by another key. */
export type StepResult = Omit<StepRecord, 'createdAtMs' | 'usedAtMs' | 'uses'> & { createdAtMs?: number };

export interface StepCacheOptions {
  store: Store;
  content: ContentStore;
  layers: LayerStore;
  snapshots: SnapshotStore;
  images: ImageStore;
  background: Background;
  clock: Clock;
}

export interface PruneWish {
  /** Everything goes, not only what no image uses. */
  all?: boolean;
  /** Stop when no more than this is left. */
  keepBytes?: number;
  /** Only what was not used since. */
  unusedSinceMs?: number;
  /** Only these. */
  ids?: readonly string[];
}

export interface CacheEntry {
  id: string;
  title: string;
  bytes: number;
  createdAtMs: number;
  usedAtMs: number;
  uses: number;
  /** An image stands on its layer. */
  shared: boolean;
}

/** The time of the last use is written at most so often: a cached build must not write. */
const USE_EVERY_MS = 600_000;

export class StepCache {
  readonly #o: StepCacheOptions;
  readonly #steps: Records<StepRecord>;
  readonly #blobs: Records<StepLayer['blob']>;
  readonly #known = new Map<string, StepRecord>();
  /** Keys by their records' `inputs`. */
  readonly #byInputs = new Map<string, Set<string>>();
  readonly #packed = new Map<Digest, StepLayer['blob']>();
  /** Layers that builds under way stand on, counted. */
  readonly #held = new Map<Digest, number>();

  private constructor(options: StepCacheOptions) {
    this.#o = options;
    this.#steps = new Records(options.store, 'build/steps/', stepShape);
    this.#blobs = new Records(options.store, 'build/packed/', blob);
  }

  static async open(options: StepCacheOptions): Promise<StepCache> {
    const cache = new StepCache(options);
    for (const [key, record] of await cache.#steps.all()) cache.#note(key, record);
    for (const [diffId, packed] of await cache.#blobs.all()) if (isDigest(diffId)) cache.#packed.set(diffId, packed);
    return cache;
  }

  find(key: string): StepRecord | undefined {
    return this.#known.get(key);
  }

  /** Known at once; written when `stored` says that its layers are there for good, and nobody waits for that. */
  remember(key: string, step: StepResult, stored: Promise<void>): StepRecord {
    const nowMs = this.#o.clock.now();
    const record: StepRecord = { createdAtMs: nowMs, ...step, usedAtMs: nowMs, uses: 0 };
    this.#note(key, record);
    const write = stored.then(() => (this.#known.get(key) === record ? this.#steps.put(key, record) : undefined));
    this.#o.background.add('the record of a step', write);
    return record;
  }

  /**
   * What did the same to the same layers, whatever steps these came from: when a stage was run again and its files came out as they
   * were, what stands on them has not changed.
   */
  equal(inputs: string): StepRecord[] {
    return [...(this.#byInputs.get(inputs) ?? [])].flatMap((key) => this.#known.get(key) ?? []);
  }

  async forget(key: string): Promise<void> {
    const inputs = this.#known.get(key)?.inputs ?? '';
    this.#known.delete(key);
    const keys = this.#byInputs.get(inputs);
    keys?.delete(key);
    if (keys?.size === 0) this.#byInputs.delete(inputs);
    await this.#steps.remove(key);
  }

  #note(key: string, record: StepRecord): void {
    this.#known.set(key, record);
    if (record.inputs === undefined) return;
    const keys = this.#byInputs.get(record.inputs) ?? new Set();
    this.#byInputs.set(record.inputs, keys.add(key));
  }

  touch(key: string): void {
    const record = this.#known.get(key);
    if (!record) return;
    record.uses++;
    const nowMs = this.#o.clock.now();
    if (nowMs - record.usedAtMs < USE_EVERY_MS) return;
    record.usedAtMs = nowMs;
    void this.#steps.put(key, record); // the use is a hint; the answer does not wait for it
  }

  packed(diffId: Digest): StepLayer['blob'] | undefined {
    return this.#packed.get(diffId);
  }

  async rememberPacked(diffId: Digest, packed: StepLayer['blob']): Promise<void> {
    this.#packed.set(diffId, packed);
    await this.#blobs.put(diffId, packed);
  }

  /** A running build's layers stay; what is answered lets go of them. */
  hold(layers: readonly StepLayer[]): () => void {
    for (const { diffId } of layers) this.#held.set(diffId, (this.#held.get(diffId) ?? 0) + 1);
    return () => {
      for (const { diffId } of layers) {
        const left = (this.#held.get(diffId) ?? 1) - 1;
        if (left > 0) this.#held.set(diffId, left);
        else this.#held.delete(diffId);
      }
    };
  }

  /** Blobs that garbage collection leaves alone. */
  roots(): Set<Digest> {
    const roots = new Set<Digest>();
    for (const record of this.#known.values())
      for (const layer of record.layers) {
        roots.add(layer.blob.digest);
        const packed = this.#packed.get(layer.diffId);
        if (packed) roots.add(packed.digest);
      }
    return roots;
  }

  /** Unpacked layers that garbage collection leaves alone. */
  layerRoots(): Set<Digest> {
    const roots = new Set<Digest>(this.#held.keys());
    for (const record of this.#known.values()) for (const layer of record.layers) roots.add(layer.diffId);
    return roots;
  }

  /** Each step with what it takes on disk by itself; a layer that several gave counts once. */
  async list(): Promise<CacheEntry[]> {
    const inImages = await this.#imageLayers();
    const counted = new Set<Digest>();
    return [...this.#known].map(([id, record]) => {
      const top = record.own === 1 ? record.layers.at(-1) : undefined;
      const isFirst = top !== undefined && !counted.has(top.diffId);
      if (top) counted.add(top.diffId);
      return {
        id,
        title: record.title,
        bytes: isFirst ? this.#bytesOf(top) : 0,
        createdAtMs: record.createdAtMs,
        usedAtMs: record.usedAtMs,
        uses: record.uses,
        shared: top !== undefined && inImages.has(top.diffId),
      };
    });
  }

  /** Gives up steps; their layers and blobs go at once unless an image, a container or a running build stands on them. */
  async prune(wish: PruneWish): Promise<{ ids: string[]; freedBytes: number }> {
    await this.#o.snapshots.settled();
    const entries = (await this.list()).sort((a, b) => a.usedAtMs - b.usedAtMs);
    let total = entries.reduce((sum, entry) => sum + entry.bytes, 0);
    const gone: string[] = [];
    let freedBytes = 0;
    for (const entry of entries) {
      if (wish.keepBytes !== undefined && total <= wish.keepBytes) break;
      if (wish.unusedSinceMs !== undefined && entry.usedAtMs > wish.unusedSinceMs) continue;
      if (wish.ids && !wish.ids.some((id) => entry.id.startsWith(id))) continue;
      if (entry.shared && !wish.all) continue;
      const record = this.#known.get(entry.id);
      await this.forget(entry.id);
      gone.push(entry.id);
      total -= entry.bytes;
      const top = record?.own === 1 ? record.layers.at(-1) : undefined;
      if (top) freedBytes += await this.#release(top);
    }
    return { ids: gone, freedBytes };
  }

  async #release(layer: StepLayer): Promise<number> {
    if (this.layerRoots().has(layer.diffId) || (await this.#imageLayers()).has(layer.diffId)) return 0;
    if (this.#o.snapshots.usersOf(layer.diffId).length > 0) return 0;
    const bytes = this.#bytesOf(layer);
    await this.#o.layers.remove(layer.diffId);
    await this.#o.content.remove(layer.blob.digest);
    const packed = this.#packed.get(layer.diffId);
    if (packed) {
      this.#packed.delete(layer.diffId);
      await this.#blobs.remove(layer.diffId);
      await this.#o.content.remove(packed.digest);
    }
    return bytes;
  }

  #bytesOf(layer: StepLayer): number {
    const unpacked = this.#o.layers.get(layer.diffId)?.imageBytes ?? 0;
    return unpacked + (this.#packed.get(layer.diffId)?.size ?? layer.blob.size);
  }

  async #imageLayers(): Promise<Set<Digest>> {
    return new Set((await this.#o.images.list()).flatMap((image) => image.platform.config.rootfs.diff_ids));
  }
}
