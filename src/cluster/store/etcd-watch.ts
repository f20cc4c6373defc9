import type { ClientDuplexStream, ServiceError } from '@grpc/grpc-js';
import { type Clock, sleep } from '#base/clock.ts';
import { Compacted, StoreClosed } from '#storage/errors.ts';
import type { KeyValue, Watch, WatchBatch, WatchEvent, WatchQuery } from '#storage/store.ts';
import { StoreTimeout } from './errors.ts';
import type { EtcdClient, WireKeyValue, WireWatch } from './etcd-client.ts';

/**
 * One watch on a stream of its own. A stream that breaks (a member goes, a network hiccup) is opened again after what has been
 * delivered, so the reader notices nothing; only a compaction it slept through ends it.
 */
interface WatchParts {
  client: EtcdClient;
  clock: Clock;
  query: WatchQuery & { fromRevision: number };
  range: { key: Buffer; range_end?: Buffer };
  show: (kv: WireKeyValue) => KeyValue;
  /** The store's present revision, read through consensus. */
  current: () => Promise<number>;
  ended: (watch: EtcdWatch) => void;
}

type Item = { batch: WatchBatch } | { error: Error };

/** Messages held for a slow reader; then the stream is paused and etcd holds them. */
const MAX_QUEUED = 64;
const REOPEN_MS = 100;
/**
 * etcd before 3.4.25 may send the answer to a progress request ahead of events that are already in its outgoing queue (etcd-io/etcd
 * issue 15220). The queue is emptied one message a turn, so the answers to two more requests come after them.
 */
const PROGRESS_ROUNDS = 3;

export class EtcdWatch implements Watch {
  readonly #p: WatchParts;
  #next: number;
  #call: ClientDuplexStream<object, object> | undefined;
  #queue: Item[] = [];
  #wake: () => void = () => undefined;
  #cancelled = false;
  #waiting: { go: (revision: number) => void; fail: (error: Error) => void }[] = [];

  constructor(parts: WatchParts) {
    this.#p = parts;
    this.#next = parts.query.fromRevision;
    this.#open();
  }

  cancel(): void {
    if (this.#cancelled) return;
    this.#cancelled = true;
    this.#call?.cancel();
    this.#p.ended(this);
    this.#fail(new StoreClosed({ why: 'the watch has ended' }));
    this.#wake();
  }

  async progress(): Promise<number> {
    if (this.#cancelled) throw new StoreClosed({ why: 'the watch has ended' });
    const revision = await this.#p.current();
    let reached = 0;
    for (let round = 0; round < PROGRESS_ROUNDS || reached < revision; round++) {
      if (this.#next > revision) break; // events up to there have been delivered
      reached = await this.#ask();
      if (reached < revision) await sleep(this.#p.clock, 5);
    }
    // What has arrived must also have been taken by the reader.
    while (this.#queue.length > 0) {
      if (this.#cancelled) throw new StoreClosed({ why: 'the watch has ended' });
      await new Promise((done) => setImmediate(done));
    }
    return revision;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WatchBatch> {
    try {
      for (;;) {
        const item = this.#queue.shift();
        if (this.#queue.length < MAX_QUEUED / 2) this.#call?.resume();
        if (item && 'error' in item) throw item.error;
        if (item) yield item.batch;
        else if (this.#cancelled) return;
        else
          await new Promise<void>((go) => {
            this.#wake = go;
          });
      }
    } finally {
      this.cancel();
    }
  }

  #ask(): Promise<number> {
    return new Promise((go, fail) => {
      if (this.#cancelled) {
        fail(new StoreClosed({ why: 'the watch has ended' }));
        return;
      }
      this.#waiting.push({ go, fail });
      this.#call?.write({ progress_request: {} });
    });
  }

  #open(): void {
    const { query, range, client } = this.#p;
    const call = client.stream('Watch', 'Watch');
    this.#call = call;
    call.on('data', (message: WireWatch) => this.#take(message));
    call.on('error', (error) => this.#broken(call, error as ServiceError));
    call.on('end', () => this.#broken(call, undefined));
    call.write({ create_request: { ...range, start_revision: this.#next, prev_kv: query.prevKv ?? false } });
    // Progress asked for on the stream before is asked for again.
    for (const _ of this.#waiting) call.write({ progress_request: {} });
  }

  #take(message: WireWatch): void {
    const revision = Number(message.header?.revision ?? 0);
    if (message.canceled) {
      const compacted = Number(message.compact_revision ?? 0);
      this.#push({
        error:
          compacted > 0
            ? new Compacted({ asked: this.#next, compacted })
            : new StoreClosed({ why: message.cancel_reason ?? 'etcd ended the watch' }),
      });
      return;
    }
    const events = (message.events ?? []).map((e) => this.#event(e));
    const last = events.at(-1);
    if (last) {
      const at = last.type === 'put' ? last.kv.modRevision : last.modRevision;
      this.#next = at + 1;
      this.#push({ batch: { revision: at, events } });
      if (this.#queue.length >= MAX_QUEUED) this.#call?.pause();
    } else if (!message.created) this.#waiting.shift()?.go(revision);
  }

  #event(e: NonNullable<WireWatch['events']>[number]): WatchEvent {
    const kv = this.#p.show(e.kv ?? {});
    const prev = e.prev_kv ? { prev: this.#p.show(e.prev_kv) } : {};
    return e.type === 1
      ? { type: 'delete', key: kv.key, modRevision: kv.modRevision, ...prev }
      : { type: 'put', kv, ...prev };
  }

  #broken(call: ClientDuplexStream<object, object>, error: ServiceError | undefined): void {
    if (this.#cancelled || call !== this.#call) return;
    this.#call = undefined;
    const why = error ? this.#p.client.refusal(error, 'Watch') : undefined;
    if (why && !(why instanceof StoreTimeout)) {
      this.#push({ error: why });
      return;
    }
    this.#p.clock.after(REOPEN_MS, () => {
      if (!this.#cancelled && !this.#p.client.closed) this.#open();
    });
  }

  #push(item: Item): void {
    this.#queue.push(item);
    if ('error' in item) this.#fail(item.error);
    this.#wake();
  }

  #fail(error: Error): void {
    for (const waiter of this.#waiting.splice(0)) waiter.fail(error);
  }
}
