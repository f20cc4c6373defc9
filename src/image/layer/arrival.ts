/**
 * A blob on its way: the file it is written to, and how much of it is there. Whoever writes calls `advance`, then `finish`
 * once it is verified, or `fail`; whoever unpacks reads along.
 */
export class Arrival {
  readonly path: string;
  readonly sizeBytes: number;
  #offset = 0;
  #failure: unknown;
  #ended = false;
  #listeners: (() => void)[] = [];

  constructor(path: string, sizeBytes: number) {
    this.path = path;
    this.sizeBytes = sizeBytes;
  }

  /** A blob that is in the store already. */
  static whole(path: string, sizeBytes: number): Arrival {
    const arrival = new Arrival(path, sizeBytes);
    arrival.advance(sizeBytes);
    arrival.finish();
    return arrival;
  }

  get offset(): number {
    return this.#offset;
  }

  get failure(): unknown {
    return this.#failure;
  }

  get hasEnded(): boolean {
    return this.#ended;
  }

  advance(offset: number): void {
    this.#offset = offset;
    this.#tell();
  }

  finish(): void {
    this.#ended = true;
    this.#tell();
  }

  fail(error: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#failure = error ?? new Error('the transfer was given up');
    this.#tell();
  }

  /** Resolves at the next change. */
  change(): Promise<void> {
    return new Promise((resolve) => this.#listeners.push(resolve));
  }

  /** Resolves when the blob is whole and verified; rejects with what made it fail. */
  async whole(): Promise<void> {
    while (!this.#ended) await this.change();
    if (this.#failure !== undefined) throw this.#failure;
  }

  #tell(): void {
    const listeners = this.#listeners;
    this.#listeners = [];
    for (const go of listeners) go();
  }
}
