import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { expandWord, expandWords } from '#spec/dockerfile/expand.ts';

// BuildKit's tables of words and what they expand to: `PLATFORM|word | result`, and `word | first,second`.
const shell = join(process.env['BUILDKIT_PARSER'] ?? '', '../shell');

describe("BuildKit's expansion tables", () => {
  it('single words', () => {
    const env = new Map([
      ['PWD', '/home'],
      ['SHELL', 'bash'],
      ['KOREAN', '한국어'],
      ['NULL', ''],
    ]);
    const wrong: string[] = [];
    for (const line of rows('envVarTest')) {
      const [platform, word = '', expected = ''] = line.split('|').map((cell) => cell.trim());
      if (platform === 'W') continue;
      const result = attempt(() => expandWord(word, env));
      if (result !== expected) wrong.push(`${word}: ${result}, not ${expected}`);
    }
    expect(wrong).toEqual([]);
  });

  it('lists of words', () => {
    const env = new Map<string, string>();
    const wrong: string[] = [];
    for (const line of rows('wordsTest')) {
      const set = /^ENV (\w+)=(.*)$/.exec(line);
      if (set?.[1]) {
        env.set(set[1], set[2] ?? '');
        continue;
      }
      const at = line.lastIndexOf(' | ');
      const [word, expected] = [line.slice(0, at).trimStart(), line.slice(at + 3).trimStart()];
      const result = attempt(() => expandWords(word, env).join(','));
      if (result !== expected) wrong.push(`${word}: ${result}, not ${expected}`);
    }
    expect(wrong).toEqual([]);
  });
});

function attempt(run: () => string): string {
  try {
    return run();
  } catch {
    return 'error';
  }
}

function rows(name: string): string[] {
  if (!existsSync(join(shell, name)))
    throw new Error(`BUILDKIT_PARSER must name BuildKit's frontend/dockerfile/parser; ${shell} has no ${name}`);
  return readFileSync(join(shell, name), 'utf8')
    .split('\n')
    .filter((line) => line.trim() !== '' && !line.startsWith('#'));
}
