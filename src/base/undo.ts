import { messageOf } from '#base/errors.ts';

type Step = { what: string; run: () => unknown };

/**
 * What has to be taken back when a later step fails, unwound last-in first-out unless kept:
 *
 *     await using undo = new Undo();
 *     const link = await network.plug(id);
 *     undo.add('link', () => network.unplug(link));
 *     …
 *     undo.keep();
 *
 * A failing step is reported and the rest goes on: a disposer that threw would hide the first error in a SuppressedError.
 * Undo is for failures; for crashes write the intent first and sweep at start.
 */
export class Undo implements AsyncDisposable {
  #steps: Step[] = [];
  readonly #report: (what: string, error: unknown) => void;

  constructor(report: (what: string, error: unknown) => void = reportToStderr) {
    this.#report = report;
  }

  add(what: string, run: () => unknown): void {
    this.#steps.push({ what, run });
  }

  /**
   * For what is acquired beside something else: taken back too when the other fails while this is still under way, which the unwinding
   * then waits for. Its own failure is told where the promise is awaited.
   */
  acquire<T>(what: string, acquiring: Promise<T>, release: (held: T) => unknown): Promise<T> {
    const settled = acquiring.then(
      (held) => () => release(held),
      () => () => undefined, // it holds nothing
    );
    this.add(what, async () => (await settled)());
    return acquiring;
  }

  /** From here on nothing is taken back. */
  keep(): void {
    this.#steps = [];
  }

  /** Unwinds now; a second call does nothing. */
  async unwind(): Promise<void> {
    for (let step = this.#steps.pop(); step; step = this.#steps.pop()) {
      try {
        await step.run();
      } catch (error) {
        this.#report(step.what, error);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.unwind();
  }
}

function reportToStderr(what: string, error: unknown): void {
  process.stderr.write(`undo ${what}: ${messageOf(error)}\n`);
}
