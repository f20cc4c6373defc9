import type { Clock } from '#base/clock.ts';
import { describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';

/** Looks at something at an interval for all who want to know, and at nothing while nobody does. */
export class Ticker<T> {
  readonly #clock: Clock;
  readonly #everyMs: number;
  readonly #look: () => T;
  readonly #log: Logger;
  readonly #listeners = new Set<(seen: T) => void>();
  #cancel: (() => void) | undefined;

  constructor({ clock, everyMs, look, log }: { clock: Clock; everyMs: number; look: () => T; log: Logger }) {
    this.#log = log;
    this.#clock = clock;
    this.#everyMs = everyMs;
    this.#look = look;
  }

  /** Calls back now and at each interval; returns what ends it. */
  subscribe(listener: (seen: T) => void): () => void {
    this.#listeners.add(listener);
    this.#tell([listener]);
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
    this.#tell([...this.#listeners]);
  }

  /** A look that fails is told of, and the next one comes in its time. */
  #tell(listeners: readonly ((seen: T) => void)[]): void {
    try {
      const seen = this.#look();
      for (const listener of listeners) listener(seen);
    } catch (error) {
      this.#log.error('the dashboard has no figures', { error: describeChain(error) });
    }
  }
}
