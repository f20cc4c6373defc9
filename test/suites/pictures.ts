import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';

/** Where a suite's pictures go: below `ESTIBA_PICTURES`, which CI keeps (.ci/run), or in the tree's cache. */
export function picturesOf(suite: string): string {
  const root = process.env['ESTIBA_PICTURES'] ?? join(import.meta.dirname, '../../.cache/screenshots');
  const directory = join(resolve(root), suite);
  mkdirSync(directory, { recursive: true });
  return directory;
}
