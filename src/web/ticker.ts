import type { Clock } from '#base/clock.ts';

/** Looks at something at an interval for all who want to know, and at nothing while nobody does. */
export class Ticker<T> {
  readonly #clock: Clock;
  readonly #everyMs: number;
  readonly #look: () => T;
  readonly #listeners = new Set<(seen: T) => void>();
  #cancel: (() => void) | undefined;

  constructor({ clock, everyMs, look }: { clock: Clock; everyMs: number; look: () => T }) {
    this.#clock = clock;
    this.#everyMs = everyMs;
    this.#look = look;
  }

  /** Calls back now and at each interval; returns what ends it. */
  subscribe(listener: (seen: T) => void): () => void {
    this.#listeners.add(listener);
    listener(this.#look());
    this.#cancel ??= this.#clock.after(this.#everyMs, () => this.#tick());
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size > 0) return;
      this.#cancel?.();
      this.#cancel = undefined;
    };
  }

  #tick(): void {
    this.#cancel = this.#clock.after(this.#everyMs, () => this.#tick());
    const seen = this.#look();
    for (const listener of this.#listeners) listener(seen);
  }
}
