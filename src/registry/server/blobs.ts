import { isCode } from '#base/errors.ts';
import type { Ingest } from '#image/content.ts';
import { parseChunkRange, parseRange } from '#registry/http/range.ts';
import type { Principal } from '#registry/server/access.ts';
import { refuse } from '#registry/server/errors.ts';
import type { Exchange } from '#registry/server/exchange.ts';
import { isRepository } from '#registry/server/route.ts';
import { holding, type Services } from '#registry/server/services.ts';
import { type Digest, isDigest } from '#spec/image/digest.ts';

/** GET and HEAD of a blob (end-2), with ranges and entity tags. A digest names its bytes for ever, so caches may keep them. */
export async function serveBlob(x: Exchange, at: { repository: string; digest: Digest }, s: Services): Promise<void> {
  const { digest } = at;
  const link = await s.repositories.blob(at.repository, digest);
  const sizeBytes = link && (await s.content.info(digest))?.sizeBytes;
  if (sizeBytes === undefined) return refuse('BLOB_UNKNOWN', undefined, { detail: { digest } });

  const headers = {
    'content-type': 'application/octet-stream',
    'docker-content-digest': digest,
    etag: `"${digest}"`,
    'accept-ranges': 'bytes',
    'cache-control': 'max-age=31536000, immutable',
  };
  if (matches(x.header('if-none-match'), digest)) return x.answer(304, headers);
  const ifRange = x.header('if-range');
  const range =
    ifRange === undefined || ifRange === headers.etag ? parseRange(x.header('range'), sizeBytes) : undefined;
  if (range === 'unsatisfiable') {
    return refuse('SIZE_INVALID', 'range not satisfiable', {
      status: 416,
      headers: { 'content-range': `bytes */${sizeBytes}` },
    });
  }
  const status = range ? 206 : 200;
  const length = range ? range.last - range.first + 1 : sizeBytes;
  const full = {
    ...headers,
    'content-length': String(length),
    ...(range ? { 'content-range': `bytes ${range.first}-${range.last}/${sizeBytes}` } : {}),
  };
  if (x.method === 'HEAD' || length === 0) return x.head(status, full);
  await x.stream(status, full, await s.content.open(digest, range && { offset: range.first, length }));
}

/** DELETE of a blob (end-10) removes it from this repository; its bytes go with the last link, when garbage is collected. */
export async function deleteBlob(x: Exchange, at: { repository: string; digest: Digest }, s: Services): Promise<void> {
  const removed = await s.repositories.exclusively(at.repository, () =>
    s.repositories.unlinkBlob(at.repository, at.digest),
  );
  if (!removed) refuse('BLOB_UNKNOWN', undefined, { detail: { digest: at.digest } });
  x.answer(202);
}

/**
 * POST (end-4a, 4b, 11): mounts a blob from another repository, takes one that comes with the request, or opens an upload.
 */
export async function startUpload(
  x: Exchange,
  at: { repository: string },
  s: Services,
  principal: Principal,
): Promise<void> {
  const { repository } = at;
  const mount = x.query.get('mount');
  if (mount !== null && (await mountBlob(x, repository, digestParameter(mount), s, principal))) {
    return created(x, repository, digestParameter(mount));
  }
  const digest = x.query.get('digest');
  if (digest !== null) digestParameter(digest);
  const id = await s.uploads.create(repository);
  if (digest === null) return progress(x, 202, { repository, id }, 0);
  await s.uploads.use(repository, id, async (ingest, signal) => {
    try {
      await x.readInto(ingest, { maxBytes: s.limits.blobMaxBytes }, signal);
    } catch (error) {
      // Nobody learns this upload's name, so nobody could resume it.
      await discard({ repository, id }, ingest, s);
      throw error;
    }
    await complete({ repository, id }, ingest, digestParameter(digest), s);
  });
  created(x, repository, digestParameter(digest));
}

/** GET (end-13): how far the upload got. */
export async function uploadStatus(x: Exchange, at: { repository: string; id: string }, s: Services): Promise<void> {
  const offset = await s.uploads.use(at.repository, at.id, async (ingest) => ingest.offset);
  progress(x, 204, at, offset);
}

/** PATCH (end-5): the next chunk, or with no `Content-Range` whatever follows. */
export async function patchUpload(x: Exchange, at: { repository: string; id: string }, s: Services): Promise<void> {
  const offset = await s.uploads.use(at.repository, at.id, async (ingest, signal) => {
    checkChunk(x, at, ingest.offset);
    await x.readInto(ingest, { maxBytes: s.limits.blobMaxBytes }, signal);
    return ingest.offset;
  });
  progress(x, 202, at, offset);
}

/** PUT (end-6): the last bytes, if any, and the digest that all of it must have. */
export async function finishUpload(x: Exchange, at: { repository: string; id: string }, s: Services): Promise<void> {
  const digest = digestParameter(x.query.get('digest') ?? '');
  await s.uploads.use(at.repository, at.id, async (ingest, signal) => {
    checkChunk(x, at, ingest.offset);
    await x.readInto(ingest, { maxBytes: s.limits.blobMaxBytes }, signal);
    await complete(at, ingest, digest, s);
  });
  created(x, at.repository, digest);
}

export async function cancelUpload(x: Exchange, at: { repository: string; id: string }, s: Services): Promise<void> {
  await s.uploads.use(at.repository, at.id, (ingest) => discard(at, ingest, s));
  x.answer(204);
}

/** The order makes kill -9 harmless: durable bytes, then the durable link, then the answer. Bytes without a link are garbage. */
async function complete(
  at: { repository: string; id: string },
  ingest: Ingest,
  digest: Digest,
  s: Services,
): Promise<void> {
  await holding(s, digest, `registry upload to ${at.repository}`, async () => {
    try {
      const { sizeBytes } = await ingest.commit(digest);
      await s.repositories.exclusively(at.repository, () => s.repositories.linkBlob(at.repository, digest, sizeBytes));
    } catch (error) {
      if (!isCode(error, 'DIGEST_MISMATCH')) throw error;
      refuse('DIGEST_INVALID', error.message, { detail: { digest } });
    } finally {
      // Committed or not, the transfer has ended.
      s.uploads.forget(at.repository, at.id);
    }
  });
}

async function discard(at: { repository: string; id: string }, ingest: Ingest, s: Services): Promise<void> {
  await ingest.abort();
  s.uploads.forget(at.repository, at.id);
}

/** Repositories tried when a mount names no source. */
const MOUNT_SOURCES_MAX = 64;

/**
 * Without `from`, any repository the client may pull from will do: who can read the bytes may as well link them. A token
 * that was not issued for the source it names is answered with a challenge for both; where it names none, 202 is an answer
 * that every client understands.
 */
async function mountBlob(x: Exchange, to: string, digest: Digest, s: Services, principal: Principal): Promise<boolean> {
  const from = x.query.get('from');
  const candidates = from === null ? await s.repositories.holders(digest, MOUNT_SOURCES_MAX) : [from];
  const readable = candidates.filter((source) => isRepository(source) && principal.couldGet('pull', source));
  for (const source of readable.filter((name) => principal.may('pull', name))) {
    const mounted = await s.repositories.exclusively(source, async () => {
      const link = await s.repositories.blob(source, digest);
      if (!link || !(await s.content.info(digest))) return false;
      await s.repositories.linkBlob(to, digest, link.sizeBytes);
      return true;
    });
    if (mounted) return true;
  }
  const [named] = from === null ? [] : readable;
  if (named && !principal.may('pull', named) && (await s.repositories.blob(named, digest))) s.tokens.demandMount(x, to);
  return false;
}

/** Chunks come in order; 416 tells where the upload stands (distribution spec, "Pushing a blob in chunks"). */
function checkChunk(x: Exchange, at: { repository: string; id: string }, offset: number): void {
  const header = x.header('content-range');
  if (header === undefined) return;
  const range = parseChunkRange(header) ?? refuse('BLOB_UPLOAD_INVALID', 'Content-Range is not <first>-<last>');
  if (range.first !== offset) {
    refuse('BLOB_UPLOAD_INVALID', `the next byte expected is ${offset}`, { status: 416, headers: where(at, offset) });
  }
  const length = x.contentLength;
  if (length !== undefined && length !== range.last - range.first + 1) {
    refuse('SIZE_INVALID', `Content-Range spans ${range.last - range.first + 1} bytes, Content-Length says ${length}`);
  }
}

function progress(x: Exchange, status: number, at: { repository: string; id: string }, offset: number): void {
  x.answer(status, where(at, offset));
}

/** An empty upload has no last byte; like everyone since the first registry, it says 0-0 all the same. */
function where(at: { repository: string; id: string }, offset: number): Record<string, string> {
  return {
    location: `/v2/${at.repository}/blobs/uploads/${at.id}`,
    range: `0-${Math.max(0, offset - 1)}`,
    'docker-upload-uuid': at.id,
  };
}

function created(x: Exchange, repository: string, digest: Digest): void {
  x.answer(201, { location: `/v2/${repository}/blobs/${digest}`, 'docker-content-digest': digest });
}

function digestParameter(text: string): Digest {
  return isDigest(text) ? text : refuse('DIGEST_INVALID', 'the digest parameter is not a sha256 or sha512 digest');
}

export function matches(header: string | undefined, digest: Digest): boolean {
  if (header === undefined) return false;
  return header.split(',').some((tag) => ['*', `"${digest}"`, digest].includes(tag.trim().replace(/^W\//, '')));
}
