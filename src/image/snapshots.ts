import { existsSync, lstatSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { array, integer, object, oneOf, optional, string } from '#base/shape.ts';
import { type Change, changes, existsInLayers, tarOf } from '#image/diff.ts';
import { LayerInUse, SnapshotExists, SnapshotNotFound, TooManyLayers } from '#image/errors.ts';
import type { LayerStore } from '#image/layers.ts';
import { readXattrs } from '#image/xattrs.ts';
import { walkDirectory } from '#kernel/beneath.ts';
import { type IdMapping, toHostId } from '#kernel/idmap.ts';
import { MKDIR_MAY_EXIST } from '#kernel/plan/ops.ts';
import type { Plan, Step } from '#kernel/plan/plan.ts';
import { type Digest, parseDigest } from '#spec/image/digest.ts';
import { LAYERS_MAX } from '#spec/image/manifest.ts';
import { diskUsage } from '#storage/files.ts';
import { Records } from '#storage/records.ts';
import type { Store, TxnOp } from '#storage/store.ts';

/**
 * Root file systems: the layers of an image, and above them a directory of their own for what the container writes.
 *
 *     D/snapshots/<name>/fs       overlayfs' upper directory
 *     D/snapshots/<name>/work     its work directory
 *     D/layers/none               the lower directory of an image without layers
 *
 * The directories are made when they are first asked for, most often with the request that mounts them.
 *
 * A record with `state: going` is an intent: start finishes the removal; directories without a record go as well. Records are
 * written lazily: whoever has a root file system has a record of his own that is durable after it.
 */
export interface Rootfs {
  /** overlayfs' order, uppermost first; mounted. */
  lower: string[];
  upper: string;
  work: string;
  /** What overlayfs has to be told beside, and how it marks opaque directories then. */
  options: readonly string[];
  opaqueXattr: string;
  /**
   * Of a container with a user namespace: what is in `upper` belongs to ids as they are outside of it. The layers are everybody's, and so
   * they are mounted with this map (mount_setattr(2), MOUNT_ATTR_IDMAP) for the overlay to stand on.
   */
  ids?: readonly IdMapping[];
}

const recordShape = object({
  name: string({ match: /^[0-9a-z]{1,8}$/ }),
  state: oneOf('ready', 'going'),
  layers: array(string(), { max: LAYERS_MAX }),
  ids: optional(array(object({ containerID: integer(), hostID: integer(), size: integer() }))),
});
type SnapshotRecord = ReturnType<typeof recordShape>;

export interface SnapshotWish {
  volatile?: boolean;
  /** See `Rootfs.ids`. */
  ids?: readonly IdMapping[] | undefined;
}

export interface SnapshotStoreOptions {
  dataRoot: string;
  store: Store;
  layers: LayerStore;
  runPlan(plan: Plan): Promise<unknown>;
}

export class SnapshotStore {
  readonly #options: SnapshotStoreOptions;
  readonly #records: Records<SnapshotRecord>;
  readonly #known = new Map<string, SnapshotRecord>();
  /** Ids of those that a restart may forget: they have no records, and start removes their directories. */
  readonly #volatile = new Set<string>();
  readonly #removals = new Set<Promise<void>>();
  #nextName = 1;

  private constructor(options: SnapshotStoreOptions) {
    this.#options = options;
    this.#records = new Records(options.store, 'image/snapshots/', recordShape);
  }

  static async open(options: SnapshotStoreOptions): Promise<SnapshotStore> {
    const snapshots = new SnapshotStore(options);
    await mkdir(join(options.dataRoot, 'snapshots'), { recursive: true, mode: 0o700 });
    await mkdir(join(options.dataRoot, 'layers', 'none'), { recursive: true });
    await snapshots.#sweep();
    return snapshots;
  }

  /**
   * A root file system over these layers, lowest first, which are mounted from here on. Undone whole when it fails. `volatile`: nobody
   * looks for it after a restart, and so nothing about it has to reach the disk.
   */
  async prepare(id: string, layers: readonly Digest[], wish: SnapshotWish = {}): Promise<void> {
    const ops = await this.begin(id, layers, wish);
    try {
      if (ops.length > 0) await this.#options.store.txn({ ops, lazy: true });
    } catch (error) {
      await this.remove(id);
      throw error;
    }
  }

  /** As `prepare`, with its record answered instead of written: for an owner who writes it with his own. */
  async begin(id: string, layers: readonly Digest[], wish: SnapshotWish = {}): Promise<TxnOp[]> {
    if (this.#known.has(id)) throw new SnapshotExists({ id });
    if (layers.length > LAYERS_MAX) throw new TooManyLayers({ count: layers.length, limit: LAYERS_MAX });
    const name = (this.#nextName++).toString(36);
    const ids = wish.ids ? { ids: [...wish.ids] } : {};
    const record: SnapshotRecord = { name, state: 'ready', layers: [...layers], ...ids };
    this.#known.set(id, record); // from here its layers are in use
    if (wish.volatile) this.#volatile.add(id);
    try {
      await this.#lower(layers);
      return wish.volatile ? [] : [this.#records.op(id, record)];
    } catch (error) {
      await this.remove(id);
      throw error;
    }
  }

  /**
   * It goes: who asks for it finds it gone, and `remove` takes its data; after a crash the next start does, once what is answered
   * here is written. That is its owner's to do, in the transaction that forgets him.
   */
  retire(id: string): TxnOp[] {
    const record = this.#known.get(id);
    if (!record || record.state === 'going') return [];
    record.state = 'going';
    return this.#volatile.has(id) ? [] : [this.#records.op(id, record)];
  }

  /** Of a snapshot that is there, mounting layers that a reboot took out, and making its directories. */
  async rootfs(id: string): Promise<Rootfs> {
    const { rootfs, missing } = await this.toMount(id);
    if (missing.length > 0) await this.#options.runPlan({ steps: missing });
    return rootfs;
  }

  /** The same for whoever runs a plan anyway: `missing` makes the directories, and comes first in it. */
  async toMount(id: string): Promise<{ rootfs: Rootfs; missing: Step[] }> {
    const rootfs = await this.#rootfs(this.#get(id));
    return { rootfs, missing: existsSync(rootfs.work) ? [] : directories(id, rootfs) };
  }

  /** Its work directory, as long as it is there. */
  workOf(id: string): string | undefined {
    const record = this.#known.get(id);
    return record && this.#path(record, 'work');
  }

  /** The layers alone, mounted: for reading an image without a container. */
  async view(layers: readonly Digest[]): Promise<string[]> {
    return this.#lower(layers);
  }

  get overlayOptions(): readonly string[] {
    return this.#options.layers.overlayOptions;
  }

  has(id: string): boolean {
    return this.#known.has(id);
  }

  list(): string[] {
    return [...this.#known.keys()];
  }

  /** Who uses the layer: snapshots' ids. */
  usersOf(diffId: Digest): string[] {
    return [...this.#known].filter(([, record]) => record.layers.includes(diffId)).map(([id]) => id);
  }

  /** Bytes on disk and inodes of what was written. */
  usage(id: string): Promise<{ bytes: number; inodes: number }> {
    return diskUsage(this.#path(this.#get(id), 'fs'));
  }

  /** What `docker diff` lists. */
  async *changes(id: string): AsyncGenerator<Change> {
    const { upper, lower } = await this.rootfs(id);
    yield* changes(upper, (path) => existsInLayers(lower, path));
  }

  /** What was written, as an OCI layer (tar, not compressed); nothing in it younger than `newestSec`. */
  async *diff(id: string, wish: { newestSec?: number } = {}): AsyncGenerator<Buffer> {
    const { upper, ids } = await this.rootfs(id);
    const { layers, runPlan } = this.#options;
    const how = { whiteouts: layers.opaqueXattr, ids, ...wish };
    yield* tarOf(walkDirectory(upper), await readXattrs(upper, runPlan), how);
  }

  /**
   * Removes it with all that was written, and in the same request carries out `beside`; `first` takes it out of use. A second call, or one
   * for an unknown id, has only those to do.
   */
  remove(id: string, beside: readonly Step[] = [], first?: () => Promise<void>): Promise<void> {
    const removal = this.#remove(id, beside, first).finally(() => this.#removals.delete(removal));
    this.#removals.add(removal);
    return removal;
  }

  /** What is being removed is gone: it stands on its layers until then. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#removals);
  }

  /** Refuses to let a layer go that a snapshot stands on. */
  checkUnused(diffId: Digest): void {
    const [by] = this.usersOf(diffId);
    if (by !== undefined) throw new LayerInUse({ diffId, by: `container ${by}` });
  }

  async #remove(id: string, beside: readonly Step[], first?: () => Promise<void>): Promise<void> {
    await first?.();
    const record = this.#known.get(id);
    const ops = this.retire(id);
    if (ops.length > 0) await this.#options.store.txn({ ops, lazy: true });
    if (record) await this.#finishRemoval(id, record, beside);
    else if (beside.length > 0) await this.#options.runPlan({ steps: beside });
  }

  #get(id: string): SnapshotRecord {
    const record = this.#known.get(id);
    if (!record || record.state === 'going') throw new SnapshotNotFound({ id });
    return record;
  }

  async #rootfs(record: SnapshotRecord): Promise<Rootfs> {
    const lower = await this.#lower(record.layers.map(parseDigest));
    const { overlayOptions: options, opaqueXattr } = this.#options.layers;
    const own = { upper: this.#path(record, 'fs'), work: this.#path(record, 'work') };
    return { lower, ...own, options, opaqueXattr, ...(record.ids ? { ids: record.ids } : {}) };
  }

  async #lower(layers: readonly Digest[]): Promise<string[]> {
    if (layers.length === 0) return [join(this.#options.dataRoot, 'layers', 'none')];
    return this.#options.layers.mount(topmost(layers));
  }

  async #note(id: string, record: SnapshotRecord | undefined): Promise<void> {
    if (!this.#volatile.has(id)) await this.#records.note(id, record);
  }

  #path(record: SnapshotRecord, part: 'fs' | 'work' | ''): string {
    return join(this.#options.dataRoot, 'snapshots', record.name, part);
  }

  async #finishRemoval(id: string, record: SnapshotRecord, beside: readonly Step[] = []): Promise<void> {
    const because = `what ${id} wrote goes with it`;
    await this.#options.runPlan({
      steps: [{ op: 'removeTree', where: 'host', because, path: this.#path(record, '') }, ...beside],
    });
    await this.#note(id, undefined);
    this.#volatile.delete(id);
    this.#known.delete(id);
  }

  async #sweep(): Promise<void> {
    const names = new Set<string>();
    for (const [id, record] of await this.#records.all()) {
      this.#known.set(id, record);
      if (record.state === 'ready') names.add(record.name);
      else await this.#finishRemoval(id, record);
    }
    const directory = join(this.#options.dataRoot, 'snapshots');
    for (const name of await readdir(directory)) {
      if (!names.has(name)) await rm(join(directory, name), { recursive: true, force: true });
    }
    this.#nextName = Math.max(0, ...[...names].map((n) => Number.parseInt(n, 36))) + 1;
  }
}

/**
 * An image may name a layer twice (two steps that left the same, empty layers of old builders), and the kernel refuses to stack a
 * directory twice (ELOOP). The upper one alone gives the same tree: whatever the lower holds or hides, the upper does too.
 */
function topmost(layers: readonly Digest[]): Digest[] {
  return layers.filter((digest, i) => layers.lastIndexOf(digest) === i);
}

/** The last of them tells that all are there: whoever was cut off in their middle begins again. */
function directories(id: string, { lower, upper, work, ids }: Rootfs): Step[] {
  // The upper directory is the container's `/`: it looks as the lowest layer's root does.
  const { uid, gid, mode } = lstatSync(lower.at(-1) ?? '/');
  const common = { where: 'host', because: `what ${id} writes` } as const;
  return [
    { op: 'mkdir', ...common, path: dirname(upper), mode: 0o777, flags: MKDIR_MAY_EXIST },
    { op: 'mkdir', ...common, path: upper, mode: 0o755, flags: MKDIR_MAY_EXIST },
    { op: 'chown', ...common, path: upper, uid: outside(uid, ids), gid: outside(gid, ids) },
    { op: 'chmod', ...common, path: upper, mode: mode & 0o7777 },
    { op: 'mkdir', ...common, path: work, mode: 0o700, flags: MKDIR_MAY_EXIST },
  ];
}

/** An id that the map does not have is nobody's inside, whichever it is outside. */
function outside(id: number, ids: readonly IdMapping[] | undefined): number {
  return (ids && toHostId(ids, id)) ?? id;
}
