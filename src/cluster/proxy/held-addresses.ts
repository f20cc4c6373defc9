import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf } from '#base/errors.ts';

/**
 * Which addresses of `lo` are ours, a line each, in `R/lb-addresses`, which a reboot takes as it takes the addresses: a daemon with another pool, and
 * `--remove`, find and drop what an earlier one gave. Written before an address is given.
 */
export class HeldAddresses {
  readonly #path: string;

  constructor(runRoot: string) {
    this.#path = join(runRoot, 'lb-addresses');
  }

  read(): string[] {
    try {
      return readFileSync(this.#path, 'utf8').split('\n').filter(Boolean);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
  }

  write(addresses: Iterable<string>): void {
    writeFileSync(`${this.#path}.new`, [...addresses, ''].join('\n'));
    renameSync(`${this.#path}.new`, this.#path);
  }
}
