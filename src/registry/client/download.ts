import type { Readable } from 'node:stream';
import { type Clock, sleep } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import { KeyedSerial } from '#base/queue.ts';
import type { Random } from '#base/random.ts';
import type { ContentStore, Ingest } from '#image/content.ts';
import { RegistryMisbehaved, TransferBroken } from '#registry/client/errors.ts';
import type { ProgressSink } from '#registry/client/progress.ts';
import { BODY_RETRIES, delayBeforeRetry } from '#registry/client/retry.ts';
import type { Digest } from '#spec/image/digest.ts';

export interface BlobWanted {
  digest: Digest;
  size: number;
  /** For the user's eyes: which blob of what. */
  what: string;
}

/** Where a blob's bytes come from: a repository, or a foreign layer's own place. */
export interface BlobSource {
  host: string;
  /** The bytes from `offset` on, or from wherever the source begins instead. */
  open(offset: number, signal: AbortSignal | undefined): Promise<{ body: Readable; startsAt: number }>;
}

export interface DownloadOptions {
  content: ContentStore;
  clock: Clock;
  random: Random;
  onProgress: ProgressSink;
  signal?: AbortSignal | undefined;
}

/** Between two progress events of one layer. */
const PROGRESS_EVERY_MS = 100;

/**
 * Blobs into the content store. A transfer that breaks, here or in an earlier life, goes on where it ended (`Range`); the
 * digest is that of all bytes, wherever they came from. Two pulls that want the same blob fetch it once.
 */
export class Downloader {
  readonly #underWay = new KeyedSerial<Digest>('download');

  /** Fetches unless present; resolves with whether bytes had to be moved. */
  fetch(source: BlobSource, blob: BlobWanted, o: DownloadOptions): Promise<boolean> {
    return this.#underWay.run(blob.digest, async () => {
      const { digest, size } = blob;
      const present = await o.content.info(digest);
      if (present) {
        o.onProgress({ at: 'layer', digest, state: 'present' });
        return false;
      }
      const ingest = await o.content.ingest(`download/${digest}`, { maxBytes: size });
      try {
        await receive(source, blob, ingest, o);
        o.onProgress({ at: 'layer', digest, state: 'verifying' });
        await ingest.commit(digest, size);
      } catch (error) {
        // Only a broken line leaves something worth keeping: everything else would fail the same way again.
        const keep = isCode(error, 'REGISTRY_TRANSFER_BROKEN', 'REGISTRY_UNREACHABLE') || o.signal?.aborted;
        await (keep ? ingest.close() : ingest.abort());
        if (isCode(error, 'BLOB_TOO_LARGE'))
          throw misbehaved(source, blob, `it sends more than the ${size} bytes announced`);
        throw error;
      }
      o.onProgress({ at: 'layer', digest, state: 'done' });
      return true;
    });
  }
}

async function receive(source: BlobSource, blob: BlobWanted, ingest: Ingest, o: DownloadOptions): Promise<void> {
  const { digest, size } = blob;
  for (let attempt = 1; ingest.offset < size; attempt++) {
    const before = ingest.offset;
    try {
      await receiveOnce(source, blob, ingest, o);
      if (ingest.offset < size) throw new TransferBroken({ host: source.host, digest, atBytes: ingest.offset });
    } catch (error) {
      o.signal?.throwIfAborted();
      if (!isCode(error, 'REGISTRY_TRANSFER_BROKEN', 'REGISTRY_UNREACHABLE')) throw error;
      if (ingest.offset > before) attempt = 1;
      const inMs = delayBeforeRetry(BODY_RETRIES, attempt, o.random.next(), undefined);
      if (inMs === undefined) throw error;
      o.onProgress({ at: 'layer', digest, state: 'retrying', doneBytes: ingest.offset, totalBytes: size, inMs });
      await sleep(o.clock, inMs, o.signal);
    }
  }
}

async function receiveOnce(source: BlobSource, blob: BlobWanted, ingest: Ingest, o: DownloadOptions): Promise<void> {
  const { digest, size } = blob;
  const { body, startsAt } = await source.open(ingest.offset, o.signal);
  // A registry without ranges begins anew: what is here already is passed over, not written twice.
  let toSkip = ingest.offset - startsAt;
  let toldMs = Number.NEGATIVE_INFINITY;
  try {
    for await (const part of body) {
      let bytes = part as Buffer;
      if (toSkip > 0) {
        const skipped = Math.min(toSkip, bytes.byteLength);
        toSkip -= skipped;
        bytes = bytes.subarray(skipped);
      }
      if (bytes.byteLength > 0) await ingest.append(bytes);
      const nowMs = o.clock.monotonic();
      if (nowMs - toldMs < PROGRESS_EVERY_MS) continue;
      toldMs = nowMs;
      o.onProgress({ at: 'layer', digest, state: 'downloading', doneBytes: ingest.offset, totalBytes: size });
    }
  } catch (cause) {
    body.destroy();
    // What the content store refuses is no broken line.
    if (isCode(cause, 'BLOB_TOO_LARGE') || (cause as NodeJS.ErrnoException).code === 'ENOSPC') throw cause;
    throw new TransferBroken({ host: source.host, digest, atBytes: ingest.offset }, { cause });
  }
}

function misbehaved(source: BlobSource, blob: BlobWanted, why: string): Error {
  return new RegistryMisbehaved({ host: source.host, request: `${blob.what} ${blob.digest}`, why });
}
