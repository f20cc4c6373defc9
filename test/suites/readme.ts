import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

export const ROOT = resolve(import.meta.dirname, '../..');
export const README = readFileSync(join(ROOT, 'README.md'), 'utf8');

/** What stands below a heading (`## A tour`), to the next of its level or a higher one. */
export function section(heading: string): string {
  const lines = README.split('\n');
  const from = lines.indexOf(heading);
  if (from < 0) throw new Error(`README.md has no '${heading}'`);
  const level = heading.indexOf(' ');
  const ends = (line: string): boolean => /^#+ /.test(line) && line.indexOf(' ') <= level;
  const length = lines.slice(from + 1).findIndex(ends);
  const to = length < 0 ? lines.length : from + 1 + length;
  // Lines before it are kept empty, so that what fails is named by its line in the file.
  return lines.map((line, i) => (i > from && i < to ? line : '')).join('\n');
}
