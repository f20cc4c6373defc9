import { type Readable, Transform } from 'node:stream';
import { type Clock, sleep } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import type { Random } from '#base/random.ts';
import type { ContentStore } from '#image/content.ts';
import type { RegistryClient } from '#registry/client/client.ts';
import { TransferBroken } from '#registry/client/errors.ts';
import type { ProgressSink } from '#registry/client/progress.ts';
import { BODY_RETRIES, delayBeforeRetry } from '#registry/client/retry.ts';
import type { Digest } from '#spec/image/digest.ts';

export interface UploadOptions {
  content: ContentStore;
  clock: Clock;
  random: Random;
  onProgress: ProgressSink;
  signal?: AbortSignal | undefined;
  /** Repositories of the same registry that have the blob, as far as we know: it is linked instead of sent. */
  mountFrom?: (digest: Digest) => readonly string[];
  /** Bytes of one request; without it a blob is sent in one piece. For proxies that limit bodies. */
  chunkBytes?: number;
}

const PROGRESS_EVERY_MS = 100;

/**
 *     HEAD ─ there ─▶ done
 *       └▶ POST mount ─ 201 ─▶ done
 *            └▶ PATCH … PATCH ─▶ PUT ─▶ done
 *                 └─ broken ─▶ GET status ─ known ─▶ PATCH from there
 *                                └─ forgotten ─▶ POST, from the start (also when PUT finds it so)
 */
export async function uploadBlob(
  client: RegistryClient,
  repository: string,
  digest: Digest,
  size: number,
  o: UploadOptions,
): Promise<void> {
  if (await client.hasBlob(repository, digest, o.signal)) {
    o.onProgress({ at: 'layer', digest, state: 'present' });
    return;
  }
  const [from] = o.mountFrom?.(digest).filter((name) => name !== repository) ?? [];
  const started = await client.startUpload(repository, from === undefined ? undefined : { digest, from }, o.signal);
  if (started.mounted) {
    o.onProgress({ at: 'layer', digest, state: 'mounted', ...(from === undefined ? {} : { from }) });
    return;
  }
  let upload = await sendAll(client, repository, digest, size, started.upload, o);
  for (let anews = 0; !(await finished(client, repository, upload, digest, anews, o)); anews++)
    upload = await sendAll(client, repository, digest, size, await anew(client, repository, o), o);
  o.onProgress({ at: 'layer', digest, state: 'done' });
}

/** How often a registry may lose an upload that it has taken whole. */
const ANEWS_MAX = 2;

/** False: the registry, killed meanwhile, has forgotten the upload or cannot make sense of it any more (docker-registry answers 404). */
async function finished(
  client: RegistryClient,
  repository: string,
  upload: URL,
  digest: Digest,
  anews: number,
  o: UploadOptions,
): Promise<boolean> {
  try {
    await client.finishUpload(repository, upload, digest, o.signal);
    return true;
  } catch (error) {
    if (!isCode(error, 'REGISTRY_ANSWERED')) throw error;
    // Blobs are sent unverified, since the registry compares the digest. When it differs, find out whose fault it is.
    if (error.data['code'] === 'DIGEST_INVALID') await o.content.verify(digest);
    if (error.data['status'] === 404 && anews < ANEWS_MAX) return false;
    throw error;
  }
}

async function sendAll(
  client: RegistryClient,
  repository: string,
  digest: Digest,
  size: number,
  start: URL,
  o: UploadOptions,
): Promise<URL> {
  let upload = start;
  let offset = 0;
  for (let attempt = 1; offset < size; ) {
    const bytes = Math.min(size - offset, o.chunkBytes ?? size);
    const ranged = offset > 0 || bytes < size;
    try {
      const stream = counting(
        await o.content.open(digest, { offset, length: bytes, unverified: true }),
        digest,
        offset,
        size,
        o,
      );
      upload = await client.patchUpload(repository, upload, { offset, bytes, stream, ranged }, o.signal);
      offset += bytes;
      attempt = 1;
    } catch (error) {
      o.signal?.throwIfAborted();
      if (!mayPass(error)) throw error;
      const inMs = delayBeforeRetry(BODY_RETRIES, attempt, o.random.next(), undefined);
      if (inMs === undefined)
        throw new TransferBroken({ host: client.host, digest, atBytes: offset }, { cause: error });
      o.onProgress({ at: 'layer', digest, state: 'retrying', doneBytes: offset, totalBytes: size, inMs });
      await sleep(o.clock, inMs, o.signal);
      const known = await statusOf(client, repository, upload, o);
      if (known === 'unreachable') {
        attempt++;
        continue;
      }
      attempt = known && known.offset > offset ? 1 : attempt + 1;
      if (known && known.offset <= size) ({ offset, upload } = known);
      else [offset, upload] = [0, await anew(client, repository, o)];
    }
  }
  return upload;
}

async function statusOf(
  client: RegistryClient,
  repository: string,
  upload: URL,
  o: UploadOptions,
): Promise<{ offset: number; upload: URL } | undefined | 'unreachable'> {
  try {
    return await client.uploadStatus(repository, upload, o.signal);
  } catch (error) {
    if (isCode(error, 'REGISTRY_UNREACHABLE')) return 'unreachable';
    throw error;
  }
}

async function anew(client: RegistryClient, repository: string, o: UploadOptions): Promise<URL> {
  const started = await client.startUpload(repository, undefined, o.signal);
  if (started.mounted) throw new RangeError('a registry mounted what was not asked for');
  return started.upload;
}

/** A line that broke, a server that restarts, or one that stands elsewhere than we think (416). */
function mayPass(error: unknown): boolean {
  if (isCode(error, 'REGISTRY_UNREACHABLE')) return true;
  const status = isCode(error, 'REGISTRY_ANSWERED') ? Number(error.data['status']) : 0;
  return status === 416 || status === 404 || status >= 500;
}

function counting(from: Readable, digest: Digest, offset: number, totalBytes: number, o: UploadOptions): Readable {
  let doneBytes = offset;
  let toldMs = Number.NEGATIVE_INFINITY;
  const meter = new Transform({
    highWaterMark: 256 * 1024,
    transform(chunk: Buffer, _, done) {
      doneBytes += chunk.byteLength;
      const nowMs = o.clock.monotonic();
      if (nowMs - toldMs >= PROGRESS_EVERY_MS) {
        toldMs = nowMs;
        o.onProgress({ at: 'layer', digest, state: 'uploading', doneBytes, totalBytes });
      }
      done(null, chunk);
    },
  });
  from.on('error', (error) => meter.destroy(error));
  meter.on('close', () => from.destroy());
  return from.pipe(meter);
}
