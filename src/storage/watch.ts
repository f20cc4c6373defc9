import { StoreClosed } from '#storage/errors.ts';
import { inRange, type Version } from '#storage/mvcc.ts';
import type { KeyValue, Watch, WatchBatch, WatchEvent, WatchQuery } from '#storage/store.ts';

/** What a watch sees of its store. */
export interface Feed<R> {
  durable(): number;
  /** Changes with a revision in [from, to]; throws when `from` has been compacted. */
  changes(from: number, to: number): Iterable<Version<R>>;
  show(version: Version<R>): KeyValue;
  ended(watch: LocalWatch<R>): void;
}

/** A batch ends after the revision in which it reaches this many events. */
const BATCH_EVENTS = 1000;

/**
 * A watch is a position in the history, not a queue: a thousand readers that never read cost a thousand numbers.
 * `wake` only tells it that there may be more.
 */
export class LocalWatch<R> implements Watch {
  readonly #feed: Feed<R>;
  readonly #query: WatchQuery;
  #next: number;
  #cancelled = false;
  #sleepers: (() => void)[] = [];

  constructor(feed: Feed<R>, query: WatchQuery) {
    this.#feed = feed;
    this.#query = query;
    this.#next = query.fromRevision ?? feed.durable() + 1;
  }

  wake(): void {
    const sleepers = this.#sleepers;
    this.#sleepers = [];
    for (const go of sleepers) go();
  }

  cancel(): void {
    if (this.#cancelled) return;
    this.#cancelled = true;
    this.#feed.ended(this);
    this.wake();
  }

  async progress(): Promise<number> {
    for (;;) {
      if (this.#cancelled) throw new StoreClosed({ why: 'the watch has ended' });
      const durable = this.#feed.durable();
      if (this.#next > durable || !this.#pending(durable)) return durable;
      await new Promise<void>((go) => this.#sleepers.push(go));
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WatchBatch> {
    try {
      while (!this.#cancelled) {
        const batch = this.#take();
        if (batch) yield batch;
        else await new Promise<void>((go) => this.#sleepers.push(go));
      }
    } finally {
      this.cancel();
    }
  }

  #take(): WatchBatch | undefined {
    const durable = this.#feed.durable();
    if (this.#next > durable) return undefined;
    const events: WatchEvent[] = [];
    let seen = this.#next - 1;
    let full = false;
    for (const version of this.#feed.changes(this.#next, durable)) {
      full = events.length >= BATCH_EVENTS && version.modRevision > seen;
      if (full) break;
      seen = version.modRevision;
      if (inRange(version.key, this.#query)) events.push(this.#event(version));
    }
    if (!full) seen = durable;
    this.#next = seen + 1;
    // Those who wait for progress look again.
    this.wake();
    return events.length > 0 ? { revision: seen, events } : undefined;
  }

  #pending(durable: number): boolean {
    for (const version of this.#feed.changes(this.#next, durable)) if (inRange(version.key, this.#query)) return true;
    return false;
  }

  #event(version: Version<R>): WatchEvent {
    const older = version.older;
    const prev = this.#query.prevKv && older && older.version > 0 ? { prev: this.#feed.show(older) } : {};
    if (version.version === 0) return { type: 'delete', key: version.key, modRevision: version.modRevision, ...prev };
    return { type: 'put', kv: this.#feed.show(version), ...prev };
  }
}
