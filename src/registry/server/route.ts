import { refuse } from '#registry/server/errors.ts';
import { type Digest, isDigest } from '#spec/image/digest.ts';

/** What a request may need the right to do, in a repository. */
export type Action = 'pull' | 'push' | 'delete';

/** A repository's tag, or the digest of one of its manifests. */
export type ManifestReference = { tag: string; digest?: never } | { digest: Digest; tag?: never };

/** One endpoint of the distribution specification, its parameters parsed. */
export type Route =
  | { to: 'base' }
  | { to: 'token' }
  | { to: 'catalog' }
  | { to: 'uploads'; repository: string }
  | { to: 'upload'; repository: string; id: string }
  | { to: 'blob'; repository: string; digest: Digest }
  | { to: 'manifest'; repository: string; reference: ManifestReference }
  | { to: 'tags'; repository: string }
  | { to: 'referrers'; repository: string; digest: Digest };

/** Clients of old limit `host:port/name` to 255 characters, so names leave room for a host (distribution spec, "Pulling manifests"). */
export const REPOSITORY_MAX_LENGTH = 229;
const REPOSITORY = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;

export function isRepository(name: string): boolean {
  // The length first: the expression is linear on names this short, whatever is in them.
  return name.length <= REPOSITORY_MAX_LENGTH && REPOSITORY.test(name);
}

export function isTag(tag: string): boolean {
  return TAG.test(tag);
}

/** The methods of each endpoint and the right each one needs; anything else is 405. */
export const METHODS: Readonly<Record<Route['to'], Readonly<Record<string, Action | 'login' | 'nothing'>>>> = {
  base: { GET: 'login', HEAD: 'login' },
  token: { GET: 'nothing', POST: 'nothing' },
  catalog: { GET: 'nothing' },
  uploads: { POST: 'push' },
  upload: { GET: 'push', HEAD: 'push', PATCH: 'push', PUT: 'push', DELETE: 'push' },
  blob: { GET: 'pull', HEAD: 'pull', DELETE: 'delete' },
  manifest: { GET: 'pull', HEAD: 'pull', PUT: 'push', DELETE: 'delete' },
  tags: { GET: 'pull' },
  referrers: { GET: 'pull' },
};

type Make = (repository: string, last: string) => Route;

/** Names contain slashes, so paths are read from their end. The upload rows stand first: `blobs/uploads/` would be a blob. */
const ROWS: readonly [RegExp, Make][] = [
  [/^\/v2\/(.+)\/blobs\/uploads\/?()$/, (repository) => ({ to: 'uploads', repository })],
  [/^\/v2\/(.+)\/blobs\/uploads\/([^/]+)$/, (repository, id) => ({ to: 'upload', repository, id })],
  [/^\/v2\/(.+)\/blobs\/([^/]+)$/, (repository, last) => ({ to: 'blob', repository, digest: digestIn(last) })],
  [
    /^\/v2\/(.+)\/manifests\/([^/]+)$/,
    (repository, last) => ({ to: 'manifest', repository, reference: referenceIn(last) }),
  ],
  [/^\/v2\/(.+)\/tags\/list()$/, (repository) => ({ to: 'tags', repository })],
  [/^\/v2\/(.+)\/referrers\/([^/]+)$/, (repository, last) => ({ to: 'referrers', repository, digest: digestIn(last) })],
];

/** Refuses unknown paths (404), and names, tags and digests that break their rules (400). */
export function parseRoute(path: string): Route {
  if (path === '/v2/' || path === '/v2') return { to: 'base' };
  if (path === '/v2/_catalog') return { to: 'catalog' };
  if (path === '/auth/token') return { to: 'token' };
  for (const [pattern, make] of ROWS) {
    const match = pattern.exec(path);
    if (!match) continue;
    const repository = decode(match[1] ?? '');
    if (!isRepository(repository)) refuse('NAME_INVALID', undefined, { detail: { name: repository.slice(0, 255) } });
    return make(repository, decode(match[2] ?? ''));
  }
  return refuse('UNSUPPORTED', 'no such endpoint', { status: 404 });
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return refuse('NAME_INVALID', 'the path is not percent-encoded UTF-8');
  }
}

function digestIn(text: string): Digest {
  return isDigest(text)
    ? text
    : refuse('DIGEST_INVALID', 'not a sha256 or sha512 digest', { detail: text.slice(0, 160) });
}

function referenceIn(text: string): ManifestReference {
  if (text.includes(':')) return { digest: digestIn(text) };
  return isTag(text)
    ? { tag: text }
    : refuse('MANIFEST_INVALID', 'not a tag or digest', { detail: text.slice(0, 160) });
}
