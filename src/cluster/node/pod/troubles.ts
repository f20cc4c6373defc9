import type { Clock } from '#base/clock.ts';

/** Why a container, or the whole pod, does not come up at the moment, and when it is tried again. */
export interface Trouble {
  reason: string;
  message: string;
  failures: number;
  retryAtMs: number;
}

export interface Backoff {
  base: number;
  max: number;
}

/** The troubles of one pod, by container; each failure doubles the wait. */
export class Troubles {
  readonly #clock: Clock;
  readonly #known = new Map<string, Trouble>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(name: string, what: { reason: string; message: string; backoff: Backoff }): void {
    const { reason, message, backoff } = what;
    const failures = (this.#known.get(name)?.failures ?? 0) + 1;
    const delayMs = Math.min(backoff.max, backoff.base * 2 ** Math.min(failures - 1, 20));
    this.#known.set(name, { reason, message, failures, retryAtMs: this.#clock.now() + delayMs });
  }

  /** How long a new try has to wait; undefined: it may begin. A failed pull shows as waiting from the first look on. */
  waitMs(name: string): number | undefined {
    const trouble = this.#known.get(name);
    const leftMs = trouble ? trouble.retryAtMs - this.#clock.now() : 0;
    if (!trouble || leftMs <= 0) return undefined;
    if (trouble.reason === 'ErrImagePull') {
      trouble.reason = 'ImagePullBackOff';
      trouble.message = `Back-off pulling image: ErrImagePull: ${trouble.message}`;
    }
    return leftMs;
  }

  /** As the status says it. */
  shown(name: string): { reason: string; message: string } | undefined {
    const trouble = this.#known.get(name);
    return trouble && { reason: trouble.reason, message: trouble.message };
  }

  forget(name: string): void {
    this.#known.delete(name);
  }

  /** What has changed may have ended them: they are tried again at once. */
  forgetAll(which: (name: string, trouble: Trouble) => boolean): void {
    for (const [name, trouble] of this.#known) if (which(name, trouble)) this.#known.delete(name);
  }
}
