import type { Clock } from '#base/clock.ts';
import { assert } from '#base/errors.ts';
import { Compacted, LeaseNotFound, StoreClosed } from '#storage/errors.ts';
import { type Change, type ChangeEntry, checkRange, checkTxn, compareAll, Mvcc, type Version } from '#storage/mvcc.ts';
import type {
  KeyValue,
  Lease,
  LeaseId,
  RangeQuery,
  RangeResult,
  Store,
  StoreStatus,
  Txn,
  TxnOp,
  TxnOpResult,
  TxnResult,
  Watch,
  WatchQuery,
} from '#storage/store.ts';
import { type Feed, LocalWatch } from '#storage/watch.ts';

/**
 * A store in this process: an `Mvcc` index that decides, and a journal that makes the decision last.
 *
 *     txn ── decide against the newest state ──▶ journal.append ──▶ index.apply ──▶ journal.synced ──▶ answer
 *
 * Transactions are decided one after the other without waiting for the disk; many share one sync. Answers, ranges and
 * watches only ever show what is synced; the answer to a lazy transaction alone comes before.
 */
export interface Journal<R> {
  /** Takes a record in, in order, and says at once where its values will lie. Refuses STORE_FULL and STORE_BROKEN. */
  append(record: JournalRecord): (R | undefined)[];
  /** Hands the kernel all that was appended before: a kill of this process loses it no more, a power cut may. */
  written(): void;
  /** Resolves when all that was appended before is durable. */
  synced(): Promise<void>;
  read(ref: R): Uint8Array;
  /** The bytes of this version are not needed any more. */
  forget(version: Version<R>): void;
  /** Until the returned function is called, what `read` was promised stays readable, forgotten or not. */
  hold(): () => void;
  usage(): { usedBytes: number; limitBytes: number };
  close(): Promise<void>;
}

export type JournalRecord =
  | ({ kind: 'change' } & Change)
  | { kind: 'grant'; lease: LeaseId; ttlMs: number }
  | { kind: 'revoke'; lease: LeaseId }
  | { kind: 'compact'; revision: number };

interface LiveLease {
  ttlMs: number;
  expiresAtMs: number;
  keys: Set<string>;
}

export interface LocalStoreOptions<R> {
  journal: Journal<R>;
  clock: Clock;
  /** State read back by the journal's owner; a new index when absent. */
  index?: Mvcc<R>;
  leases?: ReadonlyMap<LeaseId, number>;
  /** History kept without anybody asking: compaction runs when twice as many revisions are held. Absent: only `compact` forgets. */
  keepRevisions?: number;
}

export class LocalStore<R> implements Store {
  readonly #index: Mvcc<R>;
  readonly #journal: Journal<R>;
  readonly #clock: Clock;
  readonly #keepRevisions: number;
  readonly #watches = new Set<LocalWatch<R>>();
  readonly #leases = new Map<LeaseId, LiveLease>();
  #nextLease = 1n;
  #durable: number;
  #closed = false;
  #cancelExpiry: (() => void) | undefined;
  #cancelSettling: (() => void) | undefined;

  constructor(options: LocalStoreOptions<R>) {
    this.#journal = options.journal;
    this.#clock = options.clock;
    this.#index = options.index ?? new Mvcc<R>();
    this.#index.onDropped((version) => options.journal.forget(version));
    this.#keepRevisions = options.keepRevisions ?? Number.POSITIVE_INFINITY;
    this.#durable = this.#index.revision;
    for (const [id, ttlMs] of options.leases ?? []) this.#adoptLease(id, ttlMs);
    if (this.#leases.size > 0) {
      this.#index.all(({ key, lease }) => lease !== undefined && this.#leases.get(lease)?.keys.add(key));
    }
    this.#armExpiry();
  }

  async range(query: RangeQuery): Promise<RangeResult> {
    this.#checkOpen();
    checkRange(query);
    if (query.revision !== undefined) this.#index.checkReadable(query.revision);
    if (query.revision !== undefined && query.revision > this.#durable) await this.#settled();
    const revision = this.#durable;
    const { versions, count } = this.#index.select(query, query.revision ?? revision, wanted(query));
    const release = this.#journal.hold();
    const items = await this.#inSlices(versions, (v) => this.#show(v, query.keysOnly)).finally(release);
    return { items, count, more: count > items.length && query.countOnly !== true, revision };
  }

  async txn(txn: Txn): Promise<TxnResult> {
    this.#checkOpen();
    checkTxn(txn);
    const decision = this.#decide(txn);
    if (decision.entries.length > 0) {
      this.#commit({ kind: 'change', revision: decision.revision, entries: decision.entries });
    }
    if (txn.lazy) this.#settleSoon();
    else await this.#settled();
    this.#forgetOldHistory();
    return { succeeded: decision.succeeded, revision: decision.revision, results: decision.results };
  }

  watch(query: WatchQuery): Watch {
    this.#checkOpen();
    checkRange(query);
    const feed: Feed<R> = {
      durable: () => this.#durable,
      changes: (from, to) => {
        if (from <= this.#index.compactedRevision) {
          throw new Compacted({ asked: from, compacted: this.#index.compactedRevision });
        }
        return this.#index.changes(from, to);
      },
      show: (version) => this.#show(version),
      ended: (watch) => this.#watches.delete(watch),
    };
    const watch = new LocalWatch(feed, query);
    this.#watches.add(watch);
    return watch;
  }

  async compact(revision: number): Promise<void> {
    this.#checkOpen();
    await this.#settled();
    await this.#compact(revision);
    await this.#journal.synced();
  }

  async #compact(revision: number): Promise<void> {
    const slices = this.#index.compact(revision);
    slices.next();
    this.#journal.append({ kind: 'compact', revision });
    for (const _ of slices) await pause();
  }

  async status(): Promise<StoreStatus> {
    this.#checkOpen();
    return {
      revision: this.#durable,
      compactedRevision: this.#index.compactedRevision,
      ...this.#journal.usage(),
    };
  }

  async grant(ttlMs: number): Promise<Lease> {
    this.#checkOpen();
    const id = String(this.#nextLease);
    this.#journal.append({ kind: 'grant', lease: id, ttlMs });
    this.#adoptLease(id, ttlMs);
    this.#armExpiry();
    await this.#settled();
    return { id, ttlMs };
  }

  async keepAlive(id: LeaseId): Promise<Lease> {
    this.#checkOpen();
    const lease = this.#lease(id);
    lease.expiresAtMs = this.#clock.monotonic() + lease.ttlMs;
    return { id, ttlMs: lease.ttlMs };
  }

  async revoke(id: LeaseId): Promise<void> {
    this.#checkOpen();
    this.#endLease(id);
    await this.#settled();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelExpiry?.();
    this.#cancelSettling?.();
    for (const watch of this.#watches) watch.cancel();
    await this.#journal.close();
  }

  /** Leases with their TTL in milliseconds, for the journal's next base. */
  leases(): Map<LeaseId, number> {
    return new Map([...this.#leases].map(([id, { ttlMs }]) => [id, ttlMs]));
  }

  #checkOpen(): void {
    if (this.#closed) throw new StoreClosed({ why: 'close was called' });
  }

  // -- transactions

  /** What the transaction would write and answer, seen against the newest state; nothing is changed yet. */
  #decide(txn: Txn): { succeeded: boolean; revision: number; entries: ChangeEntry[]; results: TxnOpResult[] } {
    const succeeded = compareAll(this.#index, txn.when ?? [], (v) => this.#value(v));
    const ops = succeeded ? txn.ops : (txn.otherwise ?? []);
    const next = this.#index.revision + 1;
    const written = new Map<string, ChangeEntry>();
    const results = ops.map((op) => this.#decideOp(op, next, written));
    const entries = [...written.values()];
    return { succeeded, revision: entries.length > 0 ? next : this.#index.revision, entries, results };
  }

  #decideOp(op: TxnOp, revision: number, written: Map<string, ChangeEntry>): TxnOpResult {
    switch (op.do) {
      case 'put': {
        if (op.lease !== undefined) this.#lease(op.lease);
        const prev = this.#index.newest(op.key);
        written.set(op.key, {
          key: op.key,
          value: op.value,
          createRevision: prev?.createRevision ?? revision,
          version: (prev?.version ?? 0) + 1,
          lease: op.lease,
        });
        return { do: 'put', ...(op.prevKv && prev ? { prev: this.#show(prev) } : {}) };
      }
      case 'delete': {
        const { versions } = this.#index.select(op, revision, Number.POSITIVE_INFINITY);
        const present = versions.filter((v) => written.get(v.key)?.version !== 0);
        for (const v of present) written.set(v.key, tombstone(v.key));
        return { do: 'delete', deleted: present.length, prev: op.prevKv ? present.map((v) => this.#show(v)) : [] };
      }
      case 'range':
        return { do: 'range', ...this.#rangeWithin(op, revision, written) };
    }
  }

  /** A range inside a transaction sees what the transaction wrote before it. */
  #rangeWithin(op: TxnOp & { do: 'range' }, revision: number, written: Map<string, ChangeEntry>) {
    const { versions } = this.#index.select(op, revision, Number.POSITIVE_INFINITY);
    const seen = new Map(versions.map((v) => [v.key, () => this.#show(v, op.keysOnly)]));
    for (const entry of written.values()) {
      if (op.end === undefined ? entry.key !== op.key : entry.key < op.key || (op.end !== '' && entry.key >= op.end))
        continue;
      if (entry.version === 0) seen.delete(entry.key);
      else seen.set(entry.key, () => showEntry(entry, revision, op.keysOnly));
    }
    const keys = [...seen.keys()].sort(byCodeUnits);
    const items = keys.slice(0, wanted(op)).map((key) => {
      const show = seen.get(key);
      assert(show, 'a listed key is in the map');
      return show();
    });
    return { items, count: keys.length, more: keys.length > items.length && op.countOnly !== true };
  }

  #commit(change: { kind: 'change' } & Change): void {
    for (const entry of change.entries) {
      const before = this.#index.newest(entry.key)?.lease;
      if (before !== undefined) this.#leases.get(before)?.keys.delete(entry.key);
    }
    const refs = this.#journal.append(change);
    this.#index.apply(change, refs);
    for (const entry of change.entries) {
      if (entry.lease !== undefined) this.#leases.get(entry.lease)?.keys.add(entry.key);
    }
  }

  /** Waits until the newest state is durable, then lets watches see it. */
  async #settled(): Promise<void> {
    const revision = this.#index.revision;
    await this.#journal.synced();
    if (revision <= this.#durable) return;
    this.#durable = revision;
    for (const watch of this.#watches) watch.wake();
  }

  /** One sync for all that is written lazily within a while, if no other transaction has had one by then. */
  #settleSoon(): void {
    this.#journal.written();
    this.#cancelSettling ??= this.#clock.after(LAZY_MS, () => {
      this.#cancelSettling = undefined;
      this.#settled().catch(() => undefined); // the journal is broken then, and every call says so
    });
  }

  #forgetOldHistory(): void {
    const oldest = this.#durable - this.#keepRevisions;
    if (this.#closed || oldest - this.#index.compactedRevision < this.#keepRevisions) return;
    // Nobody waits for it, nor for its record, which goes to the disk with the next one. A broken journal refuses that with its own error.
    this.#compact(oldest).catch(() => undefined);
  }

  // -- values

  #value(version: Version<R>): Uint8Array {
    assert(version.ref !== undefined, 'a version that is not a delete has a value');
    return this.#journal.read(version.ref);
  }

  #show(version: Version<R>, keysOnly = false): KeyValue {
    return {
      key: version.key,
      value: keysOnly ? EMPTY : this.#value(version),
      createRevision: version.createRevision,
      modRevision: version.modRevision,
      version: version.version,
      ...(version.lease === undefined ? {} : { lease: version.lease }),
    };
  }

  async #inSlices<T, U>(items: readonly T[], map: (item: T) => U): Promise<U[]> {
    const result: U[] = [];
    let sliceEndsMs = this.#clock.monotonic() + SLICE_MS;
    for (const item of items) {
      result.push(map(item));
      if (result.length % 256 !== 0 || this.#clock.monotonic() < sliceEndsMs) continue;
      await pause();
      sliceEndsMs = this.#clock.monotonic() + SLICE_MS;
    }
    return result;
  }

  // -- leases

  #lease(id: LeaseId): LiveLease {
    const lease = this.#leases.get(id);
    if (!lease) throw new LeaseNotFound({ lease: id });
    return lease;
  }

  #adoptLease(id: LeaseId, ttlMs: number): void {
    // After a restart each lease gets its whole TTL again, as etcd does on a change of leader.
    this.#leases.set(id, { ttlMs, expiresAtMs: this.#clock.monotonic() + ttlMs, keys: new Set() });
    if (BigInt(id) >= this.#nextLease) this.#nextLease = BigInt(id) + 1n;
  }

  #endLease(id: LeaseId): void {
    const { keys } = this.#lease(id);
    const entries = [...keys].sort(byCodeUnits).map(tombstone);
    // The keys go first: cut between the two records, the lease is still there and ends once more.
    if (entries.length > 0) this.#commit({ kind: 'change', revision: this.#index.revision + 1, entries });
    this.#journal.append({ kind: 'revoke', lease: id });
    this.#leases.delete(id);
  }

  /** One timer for the lease that ends first; a keepAlive only moves the time, the timer looks again when it fires. */
  #armExpiry(): void {
    this.#cancelExpiry?.();
    this.#cancelExpiry = undefined;
    let first = Number.POSITIVE_INFINITY;
    for (const lease of this.#leases.values()) first = Math.min(first, lease.expiresAtMs);
    if (this.#closed || first === Number.POSITIVE_INFINITY) return;
    this.#cancelExpiry = this.#clock.after(Math.max(0, first - this.#clock.monotonic()), () => this.#expire());
  }

  #expire(): void {
    const nowMs = this.#clock.monotonic();
    for (const [id, lease] of this.#leases) {
      if (lease.expiresAtMs > nowMs) continue;
      try {
        this.#endLease(id);
      } catch {
        return; // The journal is broken: every call says so, and leases do not end while nothing can be written.
      }
    }
    this.#settled().catch(() => undefined); // as above: who calls next hears of a broken journal
    this.#armExpiry();
  }
}

const EMPTY = new Uint8Array(0);
/** How long one call may hold the event loop before it lets others run. */
const SLICE_MS = 4;
/** How long a lazy transaction waits for another one's sync. */
const LAZY_MS = 50;

function wanted(query: { limit?: number; countOnly?: boolean }): number {
  if (query.countOnly) return 0;
  return query.limit === undefined || query.limit === 0 ? Number.POSITIVE_INFINITY : query.limit;
}

function tombstone(key: string): ChangeEntry {
  return { key, value: undefined, createRevision: 0, version: 0, lease: undefined };
}

function showEntry(entry: ChangeEntry, revision: number, keysOnly = false): KeyValue {
  return {
    key: entry.key,
    value: keysOnly || entry.value === undefined ? EMPTY : entry.value,
    createRevision: entry.createRevision,
    modRevision: revision,
    version: entry.version,
    ...(entry.lease === undefined ? {} : { lease: entry.lease }),
  };
}

function byCodeUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function pause(): Promise<void> {
  return new Promise((done) => setImmediate(done));
}
