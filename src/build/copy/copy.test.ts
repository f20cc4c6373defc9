import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ContextNode, ContextTree, type SourceTree, treeSource } from '#build/context/tree.ts';
import { EMPTY_TREE, LayerContents, type Placement } from '#build/copy/layer.ts';
import { select, selectionKey } from '#build/copy/select.ts';
import { TarReader } from '#image/tar/reader.ts';

const NODE: Omit<ContextNode, 'type'> = {
  mode: 0o644,
  uid: 0,
  gid: 0,
  size: 0,
  mtimeSec: 7,
  linkTarget: '',
  deviceMajor: 0,
  deviceMinor: 0,
};

/** `a/b` is a file, `a/` a directory, `a -> b` a link. */
function treeOf(...names: string[]): SourceTree {
  const tree = new ContextTree();
  for (const name of names) {
    const [path = '', target] = name.split(' -> ');
    if (target !== undefined) tree.add(path, { ...NODE, type: 'symlink', linkTarget: target });
    else if (path.endsWith('/')) tree.add(path.slice(0, -1), { ...NODE, type: 'dir', mode: 0o755 });
    else tree.add(path, { ...NODE, type: 'file', digest: `sha256:${'0'.repeat(64)}` });
  }
  return treeSource(tree, 'the build context', async function* () {});
}

const PLAIN = { parents: false, excludes: [] as string[], unpack: false };
const CONTEXT = treeOf(
  'a.txt',
  'b.txt',
  'src/x.js',
  'src/deep/y.js',
  'src/deep/z.md',
  'empty/',
  'l -> src/deep',
  'out -> /../../etc',
);

async function taken(source: string, options: Partial<typeof PLAIN> = {}): Promise<string[]> {
  const selections = await select(CONTEXT, source, { ...PLAIN, ...options });
  return selections.flatMap((s) =>
    s.files.filter((f) => f.info.type !== 'dir').map((f) => [s.name, f.path].filter(Boolean).join(':')),
  );
}

describe('select', () => {
  it.each([
    ['a.txt', {}, ['a.txt']],
    ['*.txt', {}, ['a.txt', 'b.txt']],
    ['/src/', {}, ['src:deep/y.js', 'src:deep/z.md', 'src:x.js']],
    ['../../a.txt', {}, ['a.txt']],
    ['s?c/x.js', {}, ['x.js']],
    ['l', {}, ['l:y.js', 'l:z.md']],
    ['src', { excludes: ['*.md', 'x.js'] }, ['src:deep/y.js', 'src:deep/z.md']],
    ['src', { excludes: ['**/*.md'] }, ['src:deep/y.js', 'src:x.js']],
    ['*.txt', { excludes: ['b*'] }, ['a.txt']],
    ['src/**/*.js', { parents: true }, ['src/deep/y.js', 'src/x.js']],
    ['src/./deep', { parents: true }, ['deep:y.js', 'deep:z.md']],
    ['src/./deep/*.js', { parents: true }, ['deep/y.js']],
  ])('%s %j takes %j', async (source, options, expected) => {
    expect(await taken(source, options)).toEqual(expected);
  });

  it.each([
    ['A.txt', 'is a.txt meant?'],
    ['src/x.jsx', 'is x.js meant?'],
    ['nothing*', 'see .dockerignore'],
    ['out/passwd', 'see .dockerignore'],
  ])('%s is missing, with a way on: %s', async (source, hint) => {
    await expect(taken(source)).rejects.toMatchObject({
      code: 'COPY_SOURCE_MISSING',
      hint: expect.stringContaining(hint),
    });
  });

  it('never takes anything from outside, whatever path and links', async () => {
    const part = fc.constantFrom('..', '.', 'a', 'b', 'l', 'm', '');
    const path = fc.array(part, { minLength: 1, maxLength: 5 }).map((p) => p.join('/'));
    await fc.assert(
      fc.asyncProperty(path, path, path, async (source, one, two) => {
        const tree = treeOf('a/b', `l -> ${one || '.'}`, `a/m -> ${two || '.'}`);
        const selections = await select(tree, source, PLAIN).catch(() => []);
        for (const { path: at, files } of selections)
          for (const file of files) expect(`${at}/${file.path}`.split('/')).not.toContain('..');
      }),
    );
  });

  it('has one key for the same content, and another for other names, modes and bytes', async () => {
    const key = async (...names: string[]): Promise<string> => selectionKey(await select(treeOf(...names), '/', PLAIN));
    expect(await key('a', 'b')).toBe(await key('b', 'a'));
    expect(await key('a', 'b')).not.toBe(await key('a', 'c'));
    expect(await key('a', 'b -> x')).not.toBe(await key('a', 'b -> y'));
  });
});

async function placed(source: string, placement: Partial<Placement>, root = EMPTY_TREE): Promise<string[]> {
  const contents = new LayerContents({
    destination: '/',
    root,
    owner: undefined,
    mode: undefined,
    parents: false,
    newestSec: undefined,
    ...placement,
  });
  for (const one of await select(CONTEXT, source, { ...PLAIN, parents: placement.parents ?? false }))
    await contents.place(one);
  const names: string[] = [];
  const reader = new TarReader('test', {
    entry: (e) => names.push(`${e.path}${e.type === 'dir' ? '/' : ''}`),
    data: () => undefined,
    end: () => undefined,
  });
  for await (const chunk of contents.tar()) reader.push(chunk);
  reader.finish();
  return names;
}

describe('LayerContents', () => {
  const root = treeOf('real/lib/', 'lib -> real/lib', 'etc/passwd', 'file');

  it.each([
    ['a.txt', '/x', ['x']],
    ['a.txt', '/x/', ['x/', 'x/a.txt']],
    ['a.txt', '/etc', ['etc/', 'etc/a.txt']],
    ['a.txt', '/lib/', ['real/', 'real/lib/', 'real/lib/a.txt']],
    ['a.txt', '/lib/new/n', ['real/', 'real/lib/', 'real/lib/new/', 'real/lib/new/n']],
    [
      'src',
      '/lib',
      ['real/', 'real/lib/', 'real/lib/deep/', 'real/lib/deep/y.js', 'real/lib/deep/z.md', 'real/lib/x.js'],
    ],
    ['empty', '/e', ['e/']],
  ])('%s to %s', async (source, destination, expected) => {
    expect(await placed(source, { destination }, root)).toEqual(expected);
  });

  it('does not look below with --link', async () => {
    expect(await placed('a.txt', { destination: '/lib/' })).toEqual(['lib/', 'lib/a.txt']);
  });

  it('keeps parents where it is asked to', async () => {
    expect(await placed('src/deep/*.js', { destination: '/p/', parents: true })).toEqual([
      'p/',
      'p/src/',
      'p/src/deep/',
      'p/src/deep/y.js',
    ]);
  });

  it.each([
    ['a.txt', '/file/x', 'cannot copy to /file: it is a file'],
    ['src', '/file', 'cannot copy to /file: it is a file'],
  ])('%s to %s: %s', async (source, destination, message) => {
    await expect(placed(source, { destination }, root)).rejects.toThrow(message);
  });
});
