import { Readable } from 'node:stream';
import type { Clock } from '#base/clock.ts';
import type { BlobInfo, ContentLease, ContentStore, Ingest, IngestOptions } from '#image/content.ts';
import { BLOB_MAX_BYTES } from '#image/content.ts';
import {
  BlobDamaged,
  BlobNotFound,
  BlobTooLarge,
  DigestMismatch,
  IngestBusy,
  IngestClosed,
  SizeMismatch,
} from '#image/errors.ts';
import { LeaseTable } from '#image/leases.ts';
import { algorithmOf, type Digest, digestOf } from '#spec/image/digest.ts';

/** The content store of tests: same rules, nothing outlives it. */
export class MemoryContentStore implements ContentStore {
  readonly #blobs = new Map<Digest, { bytes: Buffer; usedAtMs: number }>();
  readonly #ingests = new Map<string, MemoryIngest>();
  readonly #leases = new LeaseTable();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async info(digest: Digest): Promise<BlobInfo | undefined> {
    const blob = this.#blobs.get(digest);
    return blob && { digest, sizeBytes: blob.bytes.length };
  }

  async open(digest: Digest, part: { offset?: number; length?: number; unverified?: boolean } = {}): Promise<Readable> {
    const bytes = this.#use(digest);
    const { offset = 0, length = bytes.length, unverified = false } = part;
    if (offset === 0 && length >= bytes.length && !unverified) this.#check(digest, bytes);
    return Readable.from([bytes.subarray(offset, offset + length)], { objectMode: false });
  }

  async read(digest: Digest, maxBytes: number): Promise<Buffer> {
    const bytes = this.#use(digest);
    if (bytes.length > maxBytes) throw new BlobTooLarge({ what: digest, limitBytes: maxBytes });
    this.#check(digest, bytes);
    return Buffer.from(bytes);
  }

  async put(bytes: Uint8Array): Promise<BlobInfo> {
    const digest = digestOf(bytes);
    if (!this.#blobs.has(digest)) this.#blobs.set(digest, { bytes: Buffer.from(bytes), usedAtMs: this.#clock.now() });
    return { digest, sizeBytes: bytes.length };
  }

  async verify(digest: Digest): Promise<void> {
    this.#check(digest, this.#use(digest));
  }

  async ingest(ref: string, { maxBytes = BLOB_MAX_BYTES }: IngestOptions = {}): Promise<Ingest> {
    const ingest = this.#ingests.get(ref) ?? new MemoryIngest(ref);
    if (ingest.held) throw new IngestBusy({ ref });
    ingest.hold(maxBytes, this.#clock, {
      keep: (bytes, digest) => {
        this.#ingests.delete(ref);
        if (!this.#blobs.has(digest)) this.#blobs.set(digest, { bytes, usedAtMs: this.#clock.now() });
      },
      drop: () => void this.#ingests.delete(ref),
    });
    this.#ingests.set(ref, ingest);
    return ingest;
  }

  async ingests(): Promise<{ ref: string; offset: number; updatedAtMs: number; held: boolean }[]> {
    return [...this.#ingests.values()].map(({ ref, offset, updatedAtMs, held }) => ({
      ref,
      offset,
      updatedAtMs,
      held,
    }));
  }

  lease(because: string): ContentLease {
    return this.#leases.take(because);
  }

  async remove(digest: Digest): Promise<boolean> {
    if (this.#leases.isHeld(digest)) return false;
    this.#blobs.delete(digest);
    return true;
  }

  async *list(): AsyncIterable<BlobInfo & { usedAtMs: number }> {
    for (const [digest, { bytes, usedAtMs }] of [...this.#blobs]) yield { digest, sizeBytes: bytes.length, usedAtMs };
  }

  /** For tests: the bytes as they lie there, to be changed. */
  raw(digest: Digest): Buffer {
    return this.#use(digest);
  }

  #use(digest: Digest): Buffer {
    const blob = this.#blobs.get(digest);
    if (!blob) throw new BlobNotFound({ digest });
    blob.usedAtMs = this.#clock.now();
    return blob.bytes;
  }

  #check(digest: Digest, bytes: Buffer): void {
    const actual = digestOf(bytes, algorithmOf(digest));
    if (actual === digest) return;
    this.#blobs.delete(digest);
    throw new BlobDamaged({ digest, actual, path: 'memory' });
  }
}

interface Ends {
  keep(bytes: Buffer, digest: Digest): void;
  drop(): void;
}

class MemoryIngest implements Ingest {
  readonly ref: string;
  readonly path = undefined;
  readonly readableBytes = 0;
  offset = 0;
  held = false;
  updatedAtMs = 0;
  #chunks: Buffer[] = [];
  #maxBytes = 0;
  #clock: Clock | undefined;
  #ends: Ends | undefined;

  constructor(ref: string) {
    this.ref = ref;
  }

  hold(maxBytes: number, clock: Clock, ends: Ends): void {
    this.held = true;
    this.#maxBytes = maxBytes;
    this.#clock = clock;
    this.#ends = ends;
  }

  async append(chunk: Uint8Array): Promise<void> {
    if (!this.held) throw new IngestClosed({ ref: this.ref });
    if (this.offset + chunk.length > this.#maxBytes)
      throw new BlobTooLarge({ what: this.ref, limitBytes: this.#maxBytes });
    this.#chunks.push(Buffer.from(chunk));
    this.offset += chunk.length;
    this.updatedAtMs = this.#clock?.now() ?? 0;
  }

  async commit(expected?: Digest, sizeBytes?: number): Promise<BlobInfo> {
    if (!this.held) throw new IngestClosed({ ref: this.ref });
    const bytes = Buffer.concat(this.#chunks);
    const actual = digestOf(bytes, expected ? algorithmOf(expected) : 'sha256');
    try {
      if (sizeBytes !== undefined && sizeBytes !== bytes.length) {
        throw new SizeMismatch({ what: this.ref, expected: sizeBytes, actual: bytes.length });
      }
      if (expected !== undefined && expected !== actual) throw new DigestMismatch({ what: this.ref, expected, actual });
      this.#ends?.keep(bytes, actual);
      return { digest: actual, sizeBytes: bytes.length };
    } finally {
      await this.abort();
    }
  }

  async close(): Promise<void> {
    this.held = false;
  }

  async abort(): Promise<void> {
    if (!this.held) return;
    this.held = false;
    this.#ends?.drop();
  }
}
