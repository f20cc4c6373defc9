import type { Io } from '#cli/verb.ts';
import type { Progress } from '#up/apply.ts';
import type { Change } from '#up/diff.ts';
import { nameOf } from '#up/objects.ts';

const SAYS: Readonly<Record<Change['kind'], string>> = {
  create: 'created',
  change: 'changed',
  same: 'as it was',
  remove: 'removed',
};

/**
 * What `up` does, as it does it. On a terminal the states of what is waited for stand below and are written over; elsewhere each
 * change of a state is one line.
 */
export class ProgressLines implements Progress {
  readonly #io: Io;
  readonly #said = new Map<string, string>();
  #shownLines = 0;

  constructor(io: Io) {
    this.#io = io;
  }

  applied(change: Change): void {
    if (change.kind === 'same') return;
    this.#io.stderr.write(`${nameOf(change.object)} ${SAYS[change.kind]}\n`);
  }

  waiting(states: Parameters<Progress['waiting']>[0]): void {
    const lines = states.map(({ name, readiness }) => `${name}: ${readiness.says}`);
    if (!this.#io.stderr.isTTY) {
      for (const [i, { name }] of states.entries()) {
        const line = lines[i] ?? '';
        if (this.#said.get(name) !== line) this.#io.stderr.write(`${line}\n`);
        this.#said.set(name, line);
      }
      return;
    }
    const width = Math.max(20, this.#io.stderr.columns - 1);
    const fitted = lines.map((l) => (l.length > width ? `${l.slice(0, width - 1)}…` : l));
    const up = this.#shownLines > 0 ? `\x1b[${this.#shownLines}A` : '';
    this.#io.stderr.write(`${up}${fitted.map((l) => `\x1b[2K${l}\n`).join('')}`);
    this.#shownLines = fitted.length;
  }

  /** From here on others write. */
  end(): void {
    this.#shownLines = 0;
  }
}
