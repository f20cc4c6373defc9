import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import { QueueFull } from '#base/queue.ts';

/** What a reconciler answers: look again after a time, or nothing more to do until something changes. */
export interface Requeue {
  afterMs?: number;
}
export const DONE: Requeue = {};

export interface WorkQueueOptions<K extends string> {
  name: string;
  clock: Clock;
  work: (key: K) => Promise<Requeue>;
  /** Told of every failure, before the key waits and comes back. */
  onError: (key: K, error: unknown, failures: number) => void;
  concurrency?: number;
  backoffMs?: { base: number; max: number };
  bound?: number;
}

const BACKOFF_MS = { base: 10, max: 60_000 };
const BOUND = 1_000_000;

/**
 * Keys to work on. A key is never worked on twice at once: when it is added meanwhile it comes again afterwards, once. A failing
 * key waits `base · 2^failures`, up to `max`.
 *
 *     add ──▶ ready ──▶ active ──▶ (added meanwhile: ready)
 *              ▲           └ failed, or `afterMs` ──▶ waiting ─┐
 *              └────────────────────────────────────────────┘
 */
export class WorkQueue<K extends string = string> {
  readonly #options: WorkQueueOptions<K>;
  readonly #ready = new Set<K>();
  readonly #active = new Set<K>();
  readonly #again = new Set<K>();
  readonly #waiting = new Map<K, { atMs: number; cancel: () => void }>();
  readonly #failures = new Map<K, number>();
  #started = false;
  #pumping = false;
  #idle: (() => void)[] = [];

  constructor(options: WorkQueueOptions<K>) {
    this.#options = options;
  }

  /** Keys that are ready or worked on; those that wait for their time do not count. */
  get depth(): number {
    return this.#ready.size + this.#active.size;
  }

  add(key: K): void {
    if (this.#active.has(key)) {
      this.#again.add(key);
      return;
    }
    const bound = this.#options.bound ?? BOUND;
    if (this.#ready.size >= bound) throw new QueueFull({ queue: this.#options.name, bound });
    this.#ready.add(key);
    this.#schedulePump();
  }

  /** The earliest of several times counts. */
  addAfter(key: K, delayMs: number): void {
    if (delayMs <= 0) {
      this.add(key);
      return;
    }
    const { clock } = this.#options;
    const atMs = clock.monotonic() + delayMs;
    const waiting = this.#waiting.get(key);
    if (waiting && waiting.atMs <= atMs) return;
    waiting?.cancel();
    const cancel = clock.after(delayMs, () => {
      this.#waiting.delete(key);
      this.add(key);
    });
    this.#waiting.set(key, { atMs, cancel });
  }

  start(): void {
    this.#started = true;
    this.#schedulePump();
  }

  /** Takes no more keys and waits for those being worked on. */
  async stop(): Promise<void> {
    this.#started = false;
    for (const { cancel } of this.#waiting.values()) cancel();
    this.#waiting.clear();
    this.#ready.clear();
    if (this.#active.size > 0) await new Promise<void>((done) => this.#idle.push(done));
  }

  // In a microtask: a burst of events for one key makes one run.
  #schedulePump(): void {
    if (this.#pumping || !this.#started) return;
    this.#pumping = true;
    queueMicrotask(() => {
      this.#pumping = false;
      this.#pump();
    });
  }

  #pump(): void {
    const limit = this.#options.concurrency ?? 4;
    for (const key of this.#ready) {
      if (!this.#started || this.#active.size >= limit) return;
      this.#ready.delete(key);
      this.#active.add(key);
      void this.#run(key);
    }
  }

  async #run(key: K): Promise<void> {
    try {
      const { afterMs } = await this.#options.work(key);
      this.#failures.delete(key);
      if (afterMs !== undefined && this.#started) this.#addAfterWork(key, afterMs);
    } catch (error) {
      const failures = (this.#failures.get(key) ?? 0) + 1;
      this.#failures.set(key, failures);
      this.#options.onError(key, error, failures);
      const { base, max } = this.#options.backoffMs ?? BACKOFF_MS;
      // A conflict says that newer news is on its way: the first retry need not wait for a slow hand.
      const delayMs = Math.min(max, base * 2 ** Math.min(failures - 1, 30));
      if (this.#started) this.#addAfterWork(key, isCode(error, 'KUBE_CONFLICT') && failures === 1 ? 1 : delayMs);
    }
    this.#active.delete(key);
    if (this.#again.delete(key) && this.#started) this.#ready.add(key);
    this.#schedulePump();
    if (this.#active.size === 0) for (const done of this.#idle.splice(0)) done();
  }

  /** As addAfter, while the key still counts as active: zero means once more right after this run. */
  #addAfterWork(key: K, delayMs: number): void {
    if (delayMs <= 0) this.#again.add(key);
    else this.addAfter(key, delayMs);
  }
}
