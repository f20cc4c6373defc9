/** Time as an argument. Real clocks are chosen in `app`; tests and the simulation bring their own. */
export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now(): number;
  /** Milliseconds that never go back; for durations. */
  monotonic(): number;
  /** Calls `fn` once after `delayMs`; returns what cancels it. */
  after(delayMs: number, fn: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(delayMs, fn) {
    const timer = setTimeout(fn, delayMs);
    return () => clearTimeout(timer);
  },
};

export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const onAbort = (): void => {
      cancel();
      reject(signal?.reason);
    };
    const cancel = clock.after(delayMs, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

type Timer = { atMs: number; sequence: number; fn: (() => void) | undefined };

/** A clock that stands still until told to advance. Timers fire in order of their time, then of their making. */
export class FakeClock implements Clock {
  #nowMs: number;
  #sequence = 0;
  /** A binary heap by time, then sequence: simulations hold a hundred thousand timers. Cancelled ones stay until they surface. */
  readonly #timers: Timer[] = [];

  constructor(startMs = Date.UTC(2026, 0, 1)) {
    this.#nowMs = startMs;
  }

  now(): number {
    return this.#nowMs;
  }

  monotonic(): number {
    return this.#nowMs;
  }

  after(delayMs: number, fn: () => void): () => void {
    const timer: Timer = { atMs: this.#nowMs + Math.max(0, delayMs), sequence: this.#sequence++, fn };
    push(this.#timers, timer);
    return () => {
      timer.fn = undefined;
    };
  }

  /** Time of the next timer, or undefined when none waits. */
  nextAt(): number | undefined {
    return this.#next()?.atMs;
  }

  /** Advances by `ms`, firing what falls due on the way; lets promises settle before, and between timers. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    await settle();
    for (let next = this.#next(); next && next.atMs <= endMs; next = this.#next()) {
      pop(this.#timers);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.fn?.();
      await settle();
    }
    this.#nowMs = endMs;
    await settle();
  }

  #next(): Timer | undefined {
    while (this.#timers[0] && !this.#timers[0].fn) pop(this.#timers);
    return this.#timers[0];
  }
}

function earlier(a: Timer | undefined, b: Timer | undefined): boolean {
  if (!a || !b) return a !== undefined;
  return a.atMs !== b.atMs ? a.atMs < b.atMs : a.sequence < b.sequence;
}

function push(heap: Timer[], timer: Timer): void {
  let at = heap.length;
  for (let up = (at - 1) >> 1; at > 0 && earlier(timer, heap[up]); up = (at - 1) >> 1) {
    heap[at] = heap[up] as Timer;
    at = up;
  }
  heap[at] = timer;
}

function pop(heap: Timer[]): void {
  const last = heap.pop();
  if (!last || heap.length === 0) return;
  let at = 0;
  for (;;) {
    let down = 2 * at + 1;
    if (down >= heap.length) break;
    if (earlier(heap[down + 1], heap[down])) down++;
    if (!earlier(heap[down], last)) break;
    heap[at] = heap[down] as Timer;
    at = down;
  }
  heap[at] = last;
}

function settle(): Promise<void> {
  return new Promise((done) => setImmediate(done));
}
