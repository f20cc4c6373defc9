import { readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { cgroupsLeftBy } from '../left-cgroups.ts';
import { type Example, examplesOf } from './chapter.ts';
import { expectSaid, Shell } from './shell.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const BOOK = join(ROOT, 'docs/book');

/**
 * Every command of the book is run, in the order in which a reader types it: one shell a chapter, in an empty directory and in
 * a mount, pid and network namespace of its own: what a chapter leaves behind ends with its shell. Cgroups are the machine's: a chapter
 * removes its own, and when it is cut short they are removed for it.
 */
describe('the book', async () => {
  const chapters = (await readdir(BOOK)).filter((name) => /^\d\d-.*\.md$/.test(name)).sort();

  it.each(chapters)('%s prints what it says', async (name) => {
    const examples = examplesOf(await readFile(join(BOOK, name), 'utf8'));
    expect(examples.length).toBeGreaterThan(0);
    const sweep = cgroupsLeftBy(namedIn(examples));
    const shell = await Shell.open();
    // Not at the end of this block: that is never come to when a command does not end and the test takes too long.
    onTestFinished(async ({ task }) => {
      await shell[Symbol.asyncDispose]();
      if (task.result?.state === 'fail') await sweep();
    });
    for (const example of examples) expectSaid(name, example, await shell.run(example.command));
  });
});

/** Cgroups at the top of a hierarchy whose name is a word of a command, as those of `--name book3` and `estiba-oci create one` are. */
function namedIn(examples: readonly Example[]): RegExp {
  const words = new Set(examples.flatMap(({ command }) => command.match(/[\w-]+/g) ?? []));
  return new RegExp(`^/sys/fs/cgroup/([^/]+/)?(${[...words].join('|')})(/|$)`);
}
