import { isCode } from '#base/errors.ts';
import type { KubeObject, StoredObject } from '#cluster/store/objects.ts';
import { keyOf } from '#cluster/store/objects.ts';
import type { Resource } from '../resources/table.ts';
import { isEverything, type Selection, selects } from '../selectors.ts';
import { badRequest, expired, timedOut } from '../status.ts';
import type { Registry } from './registry.ts';

export interface ListQuery {
  namespace: string | undefined;
  selection: Selection;
  /** 0: everything. */
  limit: number;
  continueToken: string;
  resourceVersion: string;
  resourceVersionMatch: string;
}

export interface Listing {
  items: KubeObject[];
  revision: number;
  continueToken: string;
  remaining: number | undefined;
}

/** Pages read from the store at once while looking for what a selection wants. */
const STORE_PAGE = 500;
const WAIT_FOR_REVISION = 1_000_000_000;

export async function listObjects(registry: Registry, resource: Resource, query: ListQuery): Promise<Listing> {
  const version = parseVersion(query.resourceVersion);
  const exact = query.resourceVersionMatch === 'Exact';
  if (query.resourceVersionMatch !== '' && query.resourceVersion === '')
    throw badRequest('resourceVersionMatch is forbidden unless resourceVersion is provided');
  if (query.continueToken !== '' && query.resourceVersion !== '' && query.resourceVersion !== '0')
    throw badRequest('specifying resource version is not allowed when using continue');
  if (exact && version === 0) throw badRequest('resourceVersionMatch "Exact" is forbidden for resourceVersion "0"');
  const paged = query.continueToken !== '' || exact || (query.limit > 0 && query.resourceVersion !== '0');
  if (paged) return listFromStore(registry, resource, query, exact ? version : undefined);
  if (query.resourceVersion === '') await registry.cache.fresh();
  else if (version > registry.cache.revision + WAIT_FOR_REVISION)
    throw timedOut(`Too large resource version: ${version}, current: ${registry.cache.revision}`);
  else await registry.cache.waitFor(version);
  return listFromCache(registry, resource, query);
}

export function parseVersion(text: string): number {
  if (text === '') return 0;
  if (!/^\d{1,15}$/.test(text)) throw badRequest(`invalid resource version ${JSON.stringify(text)}`);
  return Number(text);
}

function listFromCache(registry: Registry, resource: Resource, query: ListQuery): Listing {
  const found: StoredObject[] = [];
  const all = isEverything(query.selection);
  for (const stored of registry.cache.resource(resource.storage).all(query.namespace)) {
    if (all || selects(query.selection, stored.object, resource.fields)) found.push(stored);
  }
  found.sort((a, b) => (a.key < b.key ? -1 : 1));
  return {
    items: found.map((s) => s.object),
    revision: registry.cache.revision,
    continueToken: '',
    remaining: undefined,
  };
}

/** A list in pages is one snapshot: all pages come from the revision of the first. */
async function listFromStore(
  registry: Registry,
  resource: Resource,
  query: ListQuery,
  exactRevision: number | undefined,
): Promise<Listing> {
  const token = query.continueToken === '' ? undefined : parseToken(query.continueToken);
  const under = keyOf(resource.storage, { namespace: query.namespace });
  const items: KubeObject[] = [];
  const limit = query.limit > 0 ? query.limit : Number.POSITIVE_INFINITY;
  let revision = token?.revision ?? exactRevision;
  let after = token ? under + token.after : undefined;
  try {
    for (;;) {
      const page = await registry.store.page({ under, after, revision, limit: Math.min(STORE_PAGE, limit) });
      revision = page.revision;
      for (const [i, stored] of page.items.entries()) {
        after = stored.key;
        if (!selects(query.selection, stored.object, resource.fields)) continue;
        items.push(stored.object);
        if (items.length < limit) continue;
        const left = page.items.length - i - 1 + page.remaining;
        const remaining = isEverything(query.selection) ? left : undefined;
        return {
          items,
          revision,
          continueToken: left === 0 ? '' : makeToken(revision, after.slice(under.length)),
          remaining: left === 0 ? undefined : remaining,
        };
      }
      if (!page.more) return { items, revision, continueToken: '', remaining: undefined };
    }
  } catch (error) {
    if (isCode(error, 'STORE_COMPACTED'))
      throw expired(
        'The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.',
      );
    if (isCode(error, 'STORE_FUTURE_REVISION'))
      throw timedOut(`Too large resource version: ${revision ?? 0}, current: ${registry.cache.revision}`);
    throw error;
  }
}

function makeToken(revision: number, after: string): string {
  return Buffer.from(JSON.stringify({ v: 'meta.k8s.io/v1', rv: revision, start: after })).toString('base64url');
}

function parseToken(text: string): { revision: number; after: string } {
  try {
    const { v, rv, start } = JSON.parse(Buffer.from(text, 'base64url').toString('utf8')) as {
      v: unknown;
      rv: unknown;
      start: unknown;
    };
    if (
      v === 'meta.k8s.io/v1' &&
      Number.isInteger(rv) &&
      Number(rv) > 0 &&
      typeof start === 'string' &&
      [...start].every((c) => c > '\0' && c <= '\ud7ff')
    )
      return { revision: Number(rv), after: start };
  } catch (error) {
    throw badRequest('continue key is not valid: it cannot be decoded', error);
  }
  throw badRequest('continue key is not valid: incorrect version or content');
}
