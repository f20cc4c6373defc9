import { randomUUID } from 'node:crypto';
import { writeBlob } from '#image/content.ts';
import { accepts, parseAccept } from '#registry/http/accept.ts';
import { currentOf } from '#registry/server/adopt.ts';
import { matches } from '#registry/server/blobs.ts';
import { refuse } from '#registry/server/errors.ts';
import type { Exchange } from '#registry/server/exchange.ts';
import { childrenOf, DOCKER_LIST, type ManifestFacts, OCI_INDEX, readManifest } from '#registry/server/manifest.ts';
import type { ManifestRecord } from '#registry/server/repositories.ts';
import { isTag, type ManifestReference } from '#registry/server/route.ts';
import { holding, type Services } from '#registry/server/services.ts';
import { algorithmOf, type Digest, digestOf, isDigest } from '#spec/image/digest.ts';

type At = { repository: string; reference: ManifestReference };

/** GET and HEAD of a manifest (end-3). */
export async function serveManifest(x: Exchange, at: At, s: Services): Promise<void> {
  const record = await negotiate(x, at, await find(x, at, s), s);
  const headers = {
    'content-type': record.mediaType,
    'docker-content-digest': record.digest,
    etag: `"${record.digest}"`,
    vary: 'Accept',
  };
  if (matches(x.header('if-none-match'), record.digest)) return x.answer(304, headers);
  const full = { ...headers, 'content-length': String(record.sizeBytes) };
  if (x.method === 'HEAD') return x.head(200, full);
  await x.stream(200, full, await s.content.open(record.digest));
}

/** PUT of a manifest (end-7), by digest or tag; `?tag=` adds tags to a push by digest. Its bytes are kept as they came. */
export async function putManifest(x: Exchange, at: At, s: Services): Promise<void> {
  const { repository, reference } = at;
  const tags = tagsOf(x, reference);
  const bytes = await x.readAll(s.limits.manifestMaxBytes);
  const digest = expectedDigest(x, reference, bytes);
  const facts = readManifest(bytes, (x.header('content-type') ?? '').split(';')[0]?.trim().toLowerCase() ?? '');
  const { mediaType, subject, artifactType } = facts;
  const referrer = { ...(subject ? { subject } : {}), ...(artifactType ? { artifactType } : {}) };
  await holding(s, digest, `registry push to ${repository}`, () =>
    s.repositories.exclusively(repository, async () => {
      await checkPreconditions(x, at, s);
      await checkReferences(repository, facts, s);
      await writeBlob(s.content, `registry-manifest/${randomUUID()}`, [bytes], { digest });
      await s.repositories.putManifest(
        repository,
        { digest, mediaType, sizeBytes: bytes.byteLength, ...referrer },
        tags,
      );
      for (const tag of tags) await s.names.tagged(repository, tag, { digest, mediaType }, x.header('host'));
    }),
  );
  x.answer(201, {
    location: `/v2/${repository}/manifests/${digest}`,
    'docker-content-digest': digest,
    ...(facts.subject ? { 'oci-subject': facts.subject } : {}),
    ...(tags.length > 0 && reference.digest ? { 'oci-tag': tags.join(', ') } : {}),
  });
}

/** DELETE (end-9) of a tag, or of a manifest with every tag that names it. */
export async function deleteManifest(x: Exchange, at: At, s: Services): Promise<void> {
  const { repository, reference } = at;
  await s.repositories.exclusively(repository, async () => {
    await checkPreconditions(x, at, s);
    if (reference.tag !== undefined) {
      if (!(await s.repositories.deleteTag(repository, reference.tag))) return unknown(at);
      return s.names.untagged(repository, reference.tag);
    }
    const tags = await s.repositories.deleteManifest(repository, reference.digest);
    if (!tags) return unknown(at);
    for (const tag of tags) await s.names.untagged(repository, tag);
  });
  x.answer(202);
}

async function find(x: Exchange, at: At, s: Services): Promise<ManifestRecord> {
  const { repository, reference } = at;
  const digest = reference.digest ?? (await currentOf(repository, reference.tag, x.header('host'), s));
  return (digest && (await s.repositories.manifest(repository, digest))) || unknown(at);
}

function unknown(at: At): never {
  return refuse('MANIFEST_UNKNOWN', undefined, { detail: { reference: at.reference.tag ?? at.reference.digest } });
}

/**
 * A client that asks by tag, and says that it understands image manifests but no index, gets the index's linux/amd64 image,
 * as it would from Docker Hub. Everything else is served as stored: a digest must give its bytes, and a client that cannot
 * read what it gets says so better than a 404 would.
 */
async function negotiate(x: Exchange, at: At, record: ManifestRecord, s: Services): Promise<ManifestRecord> {
  const accepted = parseAccept(x.header('accept'));
  const isIndex = record.mediaType === OCI_INDEX || record.mediaType === DOCKER_LIST;
  if (at.reference.tag === undefined || !isIndex || accepts(accepted, record.mediaType)) return record;
  const children = childrenOf(await s.content.read(record.digest, s.limits.manifestMaxBytes));
  for (const child of children) {
    if (child.os !== 'linux' || child.architecture !== 'amd64') continue;
    const found = await s.repositories.manifest(at.repository, child.digest);
    if (found && accepts(accepted, found.mediaType)) return found;
  }
  return record;
}

/** Tags one request may set at once. */
const TAGS_MAX = 64;

function tagsOf(x: Exchange, reference: ManifestReference): string[] {
  if (reference.tag !== undefined) return [reference.tag];
  const tags = [...new Set(x.query.getAll('tag'))];
  if (tags.length > TAGS_MAX) refuse('TOOMANYREQUESTS', `at most ${TAGS_MAX} tags at once`, { status: 414 });
  const wrong = tags.find((tag) => !isTag(tag));
  if (wrong !== undefined) refuse('MANIFEST_INVALID', 'not a tag', { detail: wrong.slice(0, 160) });
  return tags;
}

/** The digest the manifest will be known by: the one it is pushed by, else SHA-256; `?digest=` names another for a push by tag. */
function expectedDigest(x: Exchange, reference: ManifestReference, bytes: Buffer): Digest {
  const asked = reference.digest ?? x.query.get('digest') ?? undefined;
  if (asked === undefined) return digestOf(bytes);
  if (!isDigest(asked)) return refuse('DIGEST_INVALID', 'the digest parameter is not a sha256 or sha512 digest');
  const actual = digestOf(bytes, algorithmOf(asked));
  if (actual !== asked) refuse('DIGEST_INVALID', `the manifest's digest is ${actual}`, { detail: { digest: asked } });
  return actual;
}

/** `If-Match` and `If-None-Match: *` let clients change tags, such as referrer lists, without losing each other's writes. */
async function checkPreconditions(x: Exchange, { repository, reference }: At, s: Services): Promise<void> {
  const [ifMatch, ifNoneMatch] = [x.header('if-match'), x.header('if-none-match')];
  if (ifMatch === undefined && ifNoneMatch === undefined) return;
  const digest = reference.digest ?? (await s.repositories.tag(repository, reference.tag))?.digest;
  const present = digest && (await s.repositories.manifest(repository, digest)) ? digest : undefined;
  const holds = ifMatch === undefined || (present !== undefined && matches(ifMatch, present));
  const excluded = present !== undefined && matches(ifNoneMatch, present);
  if (!holds || excluded) refuse('DENIED', `the reference is at ${present ?? 'nothing'} now`, { status: 412 });
}

/** Unless sparse manifests are wanted, everything but the subject must be there (distribution spec, "Push"): a manifest in the registry can be pulled whole. */
async function checkReferences(repository: string, facts: ManifestFacts, s: Services): Promise<void> {
  if (s.sparse) return;
  const blobs = await Promise.all(
    facts.blobs.map(async (d) => ((await s.repositories.blob(repository, d)) ? [] : [d])),
  );
  const manifests = await Promise.all(
    facts.manifests.map(async (d) => ((await s.repositories.manifest(repository, d)) ? [] : [d])),
  );
  const [missing] = [...blobs, ...manifests].flat();
  if (missing)
    refuse('MANIFEST_BLOB_UNKNOWN', `push ${missing} to this repository first`, { detail: { digest: missing } });
}
