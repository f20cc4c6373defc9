import { readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { examplesOf } from './chapter.ts';
import { expectSaid, Shell } from './shell.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const BOOK = join(ROOT, 'docs/book');

/**
 * Every command of the book is run, in the order in which a reader types it: one shell a chapter, in an empty directory and in
 * a mount, pid and network namespace of its own: what a chapter leaves behind ends with its shell.
 */
describe('the book', async () => {
  const chapters = (await readdir(BOOK)).filter((name) => /^\d\d-.*\.md$/.test(name)).sort();

  it.each(chapters)('%s prints what it says', async (name) => {
    const examples = examplesOf(await readFile(join(BOOK, name), 'utf8'));
    expect(examples.length).toBeGreaterThan(0);
    await using shell = await Shell.open();
    for (const example of examples) expectSaid(name, example, await shell.run(example.command));
  });
});
