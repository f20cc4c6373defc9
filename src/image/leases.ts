import type { ContentLease } from '#image/content.ts';
import type { Digest } from '#spec/image/digest.ts';

/** Who holds which blob, counted. */
export class LeaseTable {
  readonly #holders = new Map<Digest, number>();

  isHeld(digest: Digest): boolean {
    return this.#holders.has(digest);
  }

  take(because: string): ContentLease {
    const digests = new Set<Digest>();
    return {
      because,
      add: (digest) => {
        if (digests.has(digest)) return;
        digests.add(digest);
        this.#holders.set(digest, (this.#holders.get(digest) ?? 0) + 1);
      },
      release: () => {
        for (const digest of digests) {
          const left = (this.#holders.get(digest) ?? 1) - 1;
          if (left > 0) this.#holders.set(digest, left);
          else this.#holders.delete(digest);
        }
        digests.clear();
      },
    };
  }
}
