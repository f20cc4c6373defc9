import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compileGlob } from '#spec/dockerfile/glob.ts';
import { parseIgnore } from '#spec/dockerfile/ignore.ts';

describe('compileGlob', () => {
  it.each([
    ['*.go', 'a.go', true],
    ['*.go', 'x/a.go', false],
    ['**/*.go', 'a.go', true],
    ['**/*.go', 'x/y/a.go', true],
    ['src/**', 'src/a/b', true],
    ['a?c', 'abc', true],
    ['a?c', 'a/c', false],
    ['arr[[]0].txt', 'arr[0].txt', true],
    ['[^a-c]x', 'dx', true],
    ['[^a-c]x', 'bx', false],
    ['a\\*b', 'a*b', true],
    ['a\\*b', 'axb', false],
    ['a.b', 'axb', false],
    ['x/**/y', 'x/y', true],
    ['x/**/y', 'x/a/b/y', true],
  ])('%s on %s is %s', (pattern, path, expected) => {
    expect(compileGlob(pattern)?.test(path)).toBe(expected);
  });

  it.each(['[a', 'x\\', '[z-a]'])('%s is malformed', (pattern) => expect(compileGlob(pattern)).toBeUndefined());

  it('answers or refuses any text', () => {
    fc.assert(fc.property(fc.string(), (text) => compileGlob(text) === undefined || true));
  });
});

describe('parseIgnore', () => {
  const ignored = (source: string, paths: string[]): string[] => paths.filter((p) => parseIgnore(source).isIgnored(p));

  it('takes a directory with all below it', () => {
    expect(ignored('node_modules\n', ['node_modules', 'node_modules/a/b', 'src/node_modules'])).toEqual([
      'node_modules',
      'node_modules/a/b',
    ]);
  });

  it('skips comments and blanks, cleans slashes and dots', () => {
    expect(ignored('# a\n\n  /b/ \n./c/../d\n', ['a', 'b/x', 'c', 'd'])).toEqual(['b/x', 'd']);
  });

  it('lets a later pattern take back what an earlier one took', () => {
    const paths = ['docs/a.md', 'docs/README.md', 'docs/sub/README.md'];
    expect(ignored('docs\n!docs/README.md', paths)).toEqual(['docs/a.md', 'docs/sub/README.md']);
    expect(ignored('*.md\n!README*.md\nREADME-secret.md', ['a.md', 'README.md', 'README-secret.md'])).toEqual([
      'a.md',
      'README-secret.md',
    ]);
  });

  it('ignores everything but what is named', () => {
    const ignore = parseIgnore('*\n!src\n!package.json');
    expect(['src/a/b', 'src', 'package.json', 'x', 'x/src'].filter((p) => !ignore.isIgnored(p))).toEqual([
      'src/a/b',
      'src',
      'package.json',
    ]);
    expect(ignore.mayHoldKept('src')).toBe(true);
    expect(ignore.mayHoldKept('node_modules')).toBe(false);
  });

  it('names the line of a malformed pattern', () => {
    expect(() => parseIgnore('a\n[b', 'x.dockerignore')).toThrow('x.dockerignore:2: [b is no pattern');
  });

  it('never lets the order of questions change the answer', () => {
    const name = fc.constantFrom('a', 'b', 'c');
    const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((p) => p.join('/'));
    const line = fc.tuple(fc.boolean(), path).map(([keep, p]) => (keep ? `!${p}` : p));
    fc.assert(
      fc.property(fc.array(line), fc.array(path), (lines, paths) => {
        const shared = parseIgnore(lines.join('\n'));
        for (const p of paths) expect(shared.isIgnored(p)).toBe(parseIgnore(lines.join('\n')).isIgnored(p));
      }),
    );
  });
});
