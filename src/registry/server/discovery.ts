import { nextLink } from '#registry/http/link.ts';
import type { Principal } from '#registry/server/access.ts';
import { refuse } from '#registry/server/errors.ts';
import type { Exchange } from '#registry/server/exchange.ts';
import { annotationsOf, OCI_INDEX } from '#registry/server/manifest.ts';
import type { ManifestRecord, Page } from '#registry/server/repositories.ts';
import type { Services } from '#registry/server/services.ts';
import type { Digest } from '#spec/image/digest.ts';

/** GET of tags (end-8a, 8b), in lexical order without regard to case, in pages of `n` after `last`. */
export async function listTags(x: Exchange, at: { repository: string }, s: Services): Promise<void> {
  const { repository: name } = at;
  const own = [...s.names.list()].filter(({ repository }) => repository === name).map(({ tag }) => tag);
  if (own.length === 0 && !(await s.repositories.exists(name))) refuse('NAME_UNKNOWN', undefined, { detail: { name } });
  const limit = pageSize(x, s);
  const last = x.query.get('last') ?? '';
  const tags: string[] = [];
  let more = limit > 0;
  for (let after = last; more && tags.length < limit; ) {
    const page = await s.repositories.tags(name, after, limit - tags.length);
    // What was adopted from the node and has gone there is unlinked later.
    tags.push(...page.items.filter(({ tag, adopted }) => !adopted || own.includes(tag)).map(({ tag }) => tag));
    after = page.items.at(-1)?.tag ?? after;
    more = page.more;
  }
  const merged = merge({ items: tags, more }, own, { after: last, limit, order: tagOrder });
  x.json({ name, tags: merged.items }, linkAfter(x, merged.more ? merged.items.at(-1) : undefined, limit));
}

/** As `Repositories` keeps them: without regard to case, and by case where that is all that differs. */
function tagOrder(a: string, b: string): number {
  const [x, y] = [`${a.toLowerCase()}!${a}`, `${b.toLowerCase()}!${b}`];
  return x < y ? -1 : x > y ? 1 : 0;
}

/** What the node has joins a page of what was pushed; nothing that comes after the page's end gets in. */
function merge(
  pushed: Page<string>,
  own: readonly string[],
  o: { after: string; limit: number; order: (a: string, b: string) => number },
): Page<string> {
  if (o.limit === 0) return { items: [], more: false };
  const rest = own.filter((name) => o.after === '' || o.order(name, o.after) > 0);
  const all = [...new Set([...pushed.items, ...rest])].sort(o.order);
  return { items: all.slice(0, o.limit), more: pushed.more || all.length > o.limit };
}

/** GET of `/v2/_catalog` (Docker's registry API): the repositories the client may pull from, those of the node's own images too. */
export async function listRepositories(x: Exchange, s: Services, principal: Principal): Promise<void> {
  const limit = pageSize(x, s);
  const after = x.query.get('last') ?? '';
  const own = [...s.names.list()].map(({ repository }) => repository).filter((name) => principal.may('pull', name));
  const repositories: string[] = [];
  let last = after;
  let more = limit > 0;
  while (more && repositories.length < limit) {
    const page = await s.repositories.list(last, limit - repositories.length);
    repositories.push(...page.items.filter((name) => principal.may('pull', name)));
    last = page.items.at(-1) ?? last;
    more = page.more;
  }
  const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
  const merged = merge({ items: repositories, more }, own, { after, limit, order });
  x.json({ repositories: merged.items }, linkAfter(x, merged.more ? merged.items.at(-1) : undefined, limit));
}

/** Bytes of annotations in one page of referrers; with more, the page ends early. */
const REFERRERS_PAGE_BYTES = 4 << 20;

/** GET of referrers (end-12a, 12b): an index made on the spot. A subject that nobody refers to, or that is not there, has none. */
export async function listReferrers(
  x: Exchange,
  at: { repository: string; digest: Digest },
  s: Services,
): Promise<void> {
  const wanted = x.query.get('artifactType');
  const limit = Math.max(1, pageSize(x, s));
  const page = await s.repositories.referrers(at.repository, at.digest, x.query.get('last') ?? '', limit);
  const manifests: object[] = [];
  let bytes = 0;
  let last: string | undefined;
  let full = false;
  for (const record of page.items) {
    if (wanted !== null && record.artifactType !== wanted) continue;
    bytes += record.sizeBytes;
    if (manifests.length > 0 && bytes > REFERRERS_PAGE_BYTES) {
      full = true;
      break;
    }
    manifests.push(await descriptorOf(record, s));
    last = record.digest;
  }
  const next = full ? last : page.more ? page.items.at(-1)?.digest : undefined;
  x.json(
    { schemaVersion: 2, mediaType: OCI_INDEX, manifests },
    {
      'content-type': OCI_INDEX,
      ...(wanted === null ? {} : { 'oci-filters-applied': 'artifactType' }),
      ...linkAfter(x, next, limit),
    },
  );
}

async function descriptorOf(record: ManifestRecord, s: Services): Promise<object> {
  const { mediaType, digest, sizeBytes: size, artifactType } = record;
  const annotations = annotationsOf(await s.content.read(digest, s.limits.manifestMaxBytes));
  return {
    mediaType,
    digest,
    size,
    ...(artifactType ? { artifactType } : {}),
    ...(annotations ? { annotations } : {}),
  };
}

/** `n` of the query; absent or above the bound, the bound itself, and a `Link` tells that there is more. */
function pageSize(x: Exchange, s: Services): number {
  const text = x.query.get('n');
  if (text === null) return s.limits.pageMax;
  if (!/^\d{1,9}$/.test(text)) return refuse('UNSUPPORTED', 'n is not a number', { status: 400 });
  return Math.min(Number(text), s.limits.pageMax);
}

function linkAfter(x: Exchange, last: string | undefined, limit: number): Record<string, string> {
  if (last === undefined) return {};
  const query = new URLSearchParams(x.query);
  query.set('n', String(limit));
  query.set('last', last);
  return { link: nextLink(`${x.path}?${query}`) };
}
