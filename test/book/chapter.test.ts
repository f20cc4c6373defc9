import { describe, expect, it } from 'vitest';
import { agrees, examplesOf } from './chapter.ts';

describe('the examples of a chapter', () => {
  it('are the commands of its console blocks, with what they print', () => {
    const chapter = ['text', '```console', '$ echo a \\', '> b', 'a b', '$ true', '```', '```c', '$ no', '```'].join(
      '\n',
    );
    expect(examplesOf(chapter)).toEqual([
      { line: 3, command: 'echo a \\\nb', output: ['a b'] },
      { line: 6, command: 'true', output: [] },
    ]);
  });

  it('agree with an output in which … stands for a part of a line or for lines', () => {
    expect(agrees(['pid … of 2', '…', 'end'], ['pid 17 of 2', 'x', 'y', 'end  '])).toBe(true);
    expect(agrees(['…'], [])).toBe(true);
    expect(agrees(['a.c'], ['abc'])).toBe(false);
    expect(agrees(['a'], ['a', 'b'])).toBe(false);
    expect(agrees(['a', 'b'], ['a'])).toBe(false);
  });
});
