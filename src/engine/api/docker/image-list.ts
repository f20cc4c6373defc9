import { fail } from '#base/shape.ts';
import { parseDurationNs } from '#base/units.ts';
import { parseTime } from '#engine/api/docker/time.ts';
import type { Image } from '#engine/core/images.ts';
import { type Filters, labelMatches } from '#spec/docker/filters.ts';

/** Which images `docker images` shows, youngest first. `before` and `since` were looked up. Pure. */
export function selectImages(
  images: readonly Image[],
  filters: Filters,
  near: { before?: Image; since?: Image; nowMs: number },
): Image[] {
  filters.allow('before', 'dangling', 'label', 'reference', 'since', 'until');
  const dangling = filters.flag('dangling');
  const until = filters.get('until')[0];
  const untilMs = until === undefined ? Number.POSITIVE_INFINITY : timeOf(until, near.nowMs);
  return images
    .filter(
      (image) =>
        (dangling === undefined || dangling === isDangling(image)) &&
        filters.every('label', (label) => labelMatches(image.platform.config.config?.Labels, label)) &&
        (near.before === undefined || createdMs(image) < createdMs(near.before)) &&
        (near.since === undefined || createdMs(image) > createdMs(near.since)) &&
        createdMs(image) < untilMs &&
        filters.any('reference', (pattern) => namesOf(image).some((name) => referenceMatches(name, pattern))),
    )
    .map((image) => (filters.has('reference') ? withNames(image, filters.get('reference')) : image))
    .sort((a, b) => createdMs(b) - createdMs(a) || (a.id < b.id ? -1 : 1));
}

/** Asked for by name, an image shows the names that were asked for. */
function withNames(image: Image, patterns: readonly string[]): Image {
  const wanted = (name: string): boolean => patterns.some((pattern) => referenceMatches(name, pattern));
  return { ...image, repoTags: image.repoTags.filter(wanted), repoDigests: image.repoDigests.filter(wanted) };
}

export function isDangling(image: Image): boolean {
  return image.repoTags.length === 0;
}

export function timeOf(text: string, nowMs: number): number {
  return (
    parseTime(text, nowMs, parseDurationNs) ?? fail('filters.until', text, 'is neither a time nor a duration like 24h')
  );
}

export function createdMs(image: Image): number {
  const ms = Date.parse(image.platform.config.created ?? '');
  return Number.isNaN(ms) ? image.createdAtMs : ms;
}

/** `web:1`, `web`, of every name an image has. */
function namesOf({ repoTags, repoDigests }: Image): string[] {
  return [...repoTags, ...repoDigests];
}

/** Docker's `reference` filter: a pattern as path.Match has it, against the familiar name with and without its tag. */
export function referenceMatches(name: string, pattern: string): boolean {
  const glob = new RegExp(
    `^${pattern
      .replace(/[.+^${}()|\\]/g, '\\$&')
      .replace(/\*/g, '[^/]*')
      .replace(/\?/g, '[^/]')}$`,
  );
  return glob.test(name) || glob.test(name.replace(/(:[^:/]+|@.+)$/, ''));
}
