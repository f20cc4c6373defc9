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

/** A clock that stands still until told to advance. Timers fire in order of their time, then of their making. */
export class FakeClock implements Clock {
  #nowMs: number;
  #sequence = 0;
  #timers: { atMs: number; sequence: number; fn: () => void }[] = [];

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
    const timer = { atMs: this.#nowMs + Math.max(0, delayMs), sequence: this.#sequence++, fn };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((t) => t !== timer);
    };
  }

  /** Time of the next timer, or undefined when none waits. */
  nextAt(): number | undefined {
    return this.#next()?.atMs;
  }

  /** Advances by `ms`, firing what falls due on the way; lets promises settle between timers. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    for (let next = this.#next(); next && next.atMs <= endMs; next = this.#next()) {
      const due = next;
      this.#timers = this.#timers.filter((t) => t !== due);
      this.#nowMs = due.atMs;
      due.fn();
      await settle();
    }
    this.#nowMs = endMs;
    await settle();
  }

  #next(): { atMs: number; sequence: number; fn: () => void } | undefined {
    let best: { atMs: number; sequence: number; fn: () => void } | undefined;
    for (const timer of this.#timers) {
      if (!best || timer.atMs < best.atMs || (timer.atMs === best.atMs && timer.sequence < best.sequence)) best = timer;
    }
    return best;
  }
}

function settle(): Promise<void> {
  return new Promise((done) => setImmediate(done));
}
