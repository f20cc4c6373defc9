import type { Readable } from 'node:stream';
import type { Digest } from '#spec/image/digest.ts';

/**
 * Bytes by digest. A blob is visible whole or not at all; what is visible is durable. Its digest is checked when it is
 * written, and again when it is used.
 */
export interface ContentStore {
  info(digest: Digest): Promise<BlobInfo | undefined>;

  /**
   * The blob as a stream; BLOB_NOT_FOUND. Read whole, it is verified on the way: the stream ends with BLOB_DAMAGED instead
   * of its end. A part (`offset`, `length` in bytes) cannot be verified; `verify` first where that matters. `unverified` is
   * for a reader whose other end compares the digest anyway, such as a registry that is pushed to: hashing the blob here too
   * would cost as much as sending it.
   */
  open(digest: Digest, part?: { offset?: number; length?: number; unverified?: boolean }): Promise<Readable>;

  /** A small blob whole and verified: manifests, configurations. BLOB_TOO_LARGE above `maxBytes`. */
  read(digest: Digest, maxBytes: number): Promise<Buffer>;

  /** A small blob whose bytes are in memory: visible and durable at once, with no transfer that could be taken up again. */
  put(bytes: Uint8Array): Promise<BlobInfo>;

  /** Reads the blob through and throws BLOB_DAMAGED if it changed. */
  verify(digest: Digest): Promise<void>;

  /**
   * Begins or takes up again the transfer named `ref` (any string; a digest or an upload's id). What an earlier try
   * wrote is still there: continue at `offset`. INGEST_BUSY while somebody else holds it.
   */
  ingest(ref: string, options?: IngestOptions): Promise<Ingest>;

  /** Transfers that have begun and not ended, held by somebody or left over. */
  ingests(): Promise<{ ref: string; offset: number; updatedAtMs: number; held: boolean }[]>;

  /**
   * What a running operation needs and garbage collection must leave alone, until released. Leases live in memory: after
   * a crash no operation runs.
   */
  lease(because: string): ContentLease;

  /** Garbage collection's: leased blobs stay, and false is answered. */
  remove(digest: Digest): Promise<boolean>;

  list(): AsyncIterable<BlobInfo & { usedAtMs: number }>;
}

export interface BlobInfo {
  digest: Digest;
  sizeBytes: number;
}

export interface IngestOptions {
  /** BLOB_TOO_LARGE as soon as more arrives. Default `BLOB_MAX_BYTES`. */
  maxBytes?: number;
}

/** A single blob may have 1 TiB; tar layers in the wild stay below 100 GB. */
export const BLOB_MAX_BYTES = 2 ** 40;

/** One writer appends in order. Not thread-safe: one `append` at a time. */
export interface Ingest {
  readonly ref: string;
  /** Bytes received so far. */
  readonly offset: number;
  /** The file that grows, for a reader in another thread that keeps pace; none in memory. It stays open to who has opened it. */
  readonly path: string | undefined;
  /** How much of `path` can be read; the newest bytes may still wait to be written together. */
  readonly readableBytes: number;
  append(chunk: Uint8Array): Promise<void>;
  /**
   * Verifies, makes durable and visible, and ends the transfer; DIGEST_MISMATCH or SIZE_MISMATCH remove it. With the
   * digest present already nothing changes and it succeeds. Without `expected` the sha256 digest is computed.
   */
  commit(expected?: Digest, sizeBytes?: number): Promise<BlobInfo>;
  /** Lets go; what has arrived is kept for a later try. */
  close(): Promise<void>;
  /** Lets go and removes what has arrived. */
  abort(): Promise<void>;
}

export interface ContentLease {
  readonly because: string;
  add(digest: Digest): void;
  release(): void;
}

/** A whole blob from a source: what most callers want. On any failure nothing of it is left. */
export async function writeBlob(
  store: ContentStore,
  ref: string,
  body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  expected: { digest?: Digest; sizeBytes?: number; maxBytes?: number } = {},
): Promise<BlobInfo> {
  const maxBytes = expected.maxBytes ?? expected.sizeBytes;
  const options = maxBytes === undefined ? {} : { maxBytes };
  let ingest = await store.ingest(ref, options);
  if (ingest.offset > 0) {
    // Of a process that was killed: the source begins anew, and without an expected digest nobody would notice the two in one.
    await ingest.abort();
    ingest = await store.ingest(ref, options);
  }
  try {
    for await (const chunk of body) await ingest.append(chunk);
    return await ingest.commit(expected.digest, expected.sizeBytes);
  } catch (error) {
    await ingest.abort();
    throw error;
  }
}
