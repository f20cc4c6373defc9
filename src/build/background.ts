import { describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';

/** What goes on after its result has been handed on: writes that nobody waits for. Failures are logged; `idle` waits for the end of all. */
export class Background {
  readonly #running = new Set<Promise<void>>();
  readonly #log: Logger;

  constructor(log: Logger) {
    this.#log = log;
  }

  add(what: string, work: Promise<unknown>): void {
    const told = work.then(
      () => undefined,
      (error: unknown) => this.#log.error('work beside a build failed', { what, error: describeChain(error) }),
    );
    this.#running.add(told);
    void told.finally(() => this.#running.delete(told));
  }

  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }
}
