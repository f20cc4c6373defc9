import { fail } from '#base/shape.ts';
import { parseDurationNs } from '#base/units.ts';
import type { Builder } from '#build/builder.ts';
import type { CacheUse } from '#build/tidy.ts';
import { flag, integer, textOf } from '#engine/api/docker/query.ts';
import type { ApiRequest } from '#engine/api/server.ts';
import { type Filters, parseFilters } from '#spec/docker/filters.ts';

/** `POST /build/prune`: what is not used goes, or with `all` everything that no running build needs. */
export async function prune(builder: Builder, { query }: ApiRequest): Promise<object> {
  const filters = parseFilters(textOf(query, 'filters')).allow(
    'until',
    'id',
    'type',
    'unused-for',
    'inuse',
    'shared',
    'private',
    'description',
  );
  const until = filters.get('until')[0] ?? filters.get('unused-for')[0];
  const uses = await builder.usage();
  const keepBytes = keptBytes(
    {
      reserved: integer(query, 'reserved-space') ?? integer(query, 'keep-storage'),
      mostUsed: integer(query, 'max-used-space'),
      leastFree: integer(query, 'min-free-space'),
    },
    { used: uses.reduce((sum, use) => sum + use.bytes, 0), free: await builder.freeBytes() },
  );
  const { ids, freedBytes } = await builder.prune({
    all: flag(query, 'all'),
    ...(keepBytes === undefined ? {} : { keepBytes }),
    ...(until === undefined ? {} : { unusedSinceMs: sinceMs(builder, until) }),
    ...(namesOnes(filters) ? { ids: uses.filter((use) => isWanted(use, filters)).map((use) => use.id) } : {}),
    ...(filters.has('type') ? { types: filters.get('type') } : {}),
  });
  return { CachesDeleted: ids, SpaceReclaimed: freedBytes };
}

const OF_ONES = ['id', 'inuse', 'shared', 'private', 'description'];

function namesOnes(filters: Filters): boolean {
  return OF_ONES.some((name) => filters.has(name));
}

function isWanted(use: CacheUse, filters: Filters): boolean {
  const is = (name: string, value: boolean): boolean => (filters.flag(name) ?? value) === value;
  return (
    filters.any('id', (id) => use.id.startsWith(id)) &&
    filters.any('description', (text) => use.description.includes(text)) &&
    is('inuse', use.inUse) &&
    is('shared', use.shared) &&
    is('private', !use.shared)
  );
}

/**
 * As BuildKit reckons: at most so much is used, less where the disk must have more free, never below what is reserved. Undefined:
 * nothing is kept for its size.
 */
export function keptBytes(
  wish: { reserved: number | undefined; mostUsed: number | undefined; leastFree: number | undefined },
  now: { used: number; free: number },
): number | undefined {
  if (!wish.reserved && !wish.mostUsed && !wish.leastFree) return undefined;
  const most = wish.mostUsed || (wish.leastFree ? now.used : 0);
  const excess = Math.max(0, (wish.leastFree ?? 0) - now.free);
  return Math.max(0, Math.min(most, now.used - excess), wish.reserved ?? 0);
}

/** A duration back from now, or a moment. */
function sinceMs(builder: Builder, text: string): number {
  const ns = parseDurationNs(text);
  if (ns !== undefined) return builder.node.clock.now() - ns / 1e6;
  const seconds = Number(text);
  const ms = Number.isNaN(seconds) ? Date.parse(text) : seconds * 1000;
  return Number.isNaN(ms) ? fail('filters.until', text, 'is neither a duration nor a time') : ms;
}
