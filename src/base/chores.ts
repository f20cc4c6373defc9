import type { Clock } from '#base/clock.ts';

/** Longer than a short container takes from its start to its end, so that neither falls into it. */
const QUIET_MS = 15;
/** Where nobody ever pauses, no more than so many wait, and none for longer than this. */
const MOST_WAITING = 8;
const MOST_WAIT_MS = 1000;

/**
 * What has to be done and nobody waits for, put off until no container has come or gone for a moment: making a namespace and dropping
 * one take the kernel milliseconds, of which those who wait for a container get the larger part. One after the other, in their order.
 */
export class Chores {
  readonly #clock: Clock;
  readonly #waiting: (() => Promise<void>)[] = [];
  #line: Promise<void> = Promise.resolve();
  /** When the oldest of those that wait came. */
  #sinceMs = 0;
  #cancel: () => void = () => undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `work` tells of its failures itself. What is answered does it at once, if it waits still: for who needs it done. */
  add(work: () => Promise<void>): () => void {
    if (this.#waiting.length === 0) this.#sinceMs = this.#clock.monotonic();
    this.#waiting.push(work);
    if (this.#waiting.length > MOST_WAITING) this.#next();
    this.stir();
    return () => {
      const at = this.#waiting.indexOf(work);
      if (at >= 0) this.#waiting.splice(at, 1).forEach((now) => void now());
    };
  }

  /** Somebody came: not now. */
  stir(): void {
    if (this.#waiting.length === 0 || this.#clock.monotonic() - this.#sinceMs > MOST_WAIT_MS) return;
    this.#cancel();
    this.#cancel = this.#clock.after(QUIET_MS, () => void this.flush());
  }

  /** All that waits is done. */
  async flush(): Promise<void> {
    this.#cancel();
    while (this.#waiting.length > 0) this.#next();
    await this.#line;
  }

  #next(): void {
    const work = this.#waiting.shift();
    if (work) this.#line = this.#line.then(work);
  }
}
