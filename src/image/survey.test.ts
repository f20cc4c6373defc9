import { describe, expect, it } from 'vitest';
import { type LayerReader, type Listed, type Survey, survey, type TreeNode } from '#image/survey.ts';

type File = string | { bytes: number; content?: string; inode?: string };
/** `d/`: an empty directory; `d/!`: it is opaque; `x: 'gone'`: a whiteout; `'link'`: something without bytes. */
type Layer = Record<string, File>;

function reader(layer: Layer): LayerReader {
  const paths = Object.keys(layer);
  return {
    isOpaque: (directory) => paths.includes(`${directory}/!`),
    list(directory) {
      const prefix = directory === '' ? '' : `${directory}/`;
      const below = paths.filter((path) => path.startsWith(prefix)).map((path) => path.slice(prefix.length));
      const names = new Set(
        below.map((path) => path.split('/')[0] ?? '').filter((name) => name !== '' && name !== '!'),
      );
      return [...names].sort().map((name): Listed => {
        const file = layer[prefix + name];
        if (file === undefined) return { name, kind: 'dir', bytes: 0 };
        if (typeof file === 'string') return { name, kind: file === 'gone' ? 'whiteout' : 'other', bytes: 0 };
        const { bytes, inode } = file;
        return { name, kind: 'file', bytes, ...(inode === undefined ? {} : { inode }) };
      });
    },
    digest(path, firstBytes) {
      const file = layer[path];
      const content = typeof file === 'object' ? (file.content ?? path) : '';
      return content.slice(0, firstBytes);
    },
  };
}

const look = (...layers: Layer[]): Survey => survey(layers.map(reader), 20);
const hidden = (s: Survey): string[] => s.hidden.map((h) => `${h.path} ${h.bytes} ${h.layer}→${h.hiddenBy} ${h.how}`);
const tree = ({ name, bytes, children }: TreeNode): unknown =>
  children.length === 0 ? `${name} ${bytes}` : [`${name} ${bytes}`, ...children.map(tree)];

describe('a survey of layers', () => {
  it('counts what each layer adds, replaces and removes, and whom that hides', () => {
    const seen = look(
      { big: { bytes: 5000 }, 'd/x': { bytes: 700 }, 'd/e/y': { bytes: 30 } },
      { big: { bytes: 6 }, d: 'gone', new: { bytes: 1 } },
      { 'd/x': { bytes: 2 } },
    );
    expect(hidden(seen)).toEqual(['big 5000 0→1 replaced', 'd/x 700 0→1 removed', 'd/e/y 30 0→1 removed']);
    expect(seen.layers.map(({ tree: _, ...counts }) => counts)).toEqual([
      { bytes: 5730, files: 3, added: 3, replaced: 0, removed: 0, hiddenBytes: 5730, hidesBytes: 0 },
      { bytes: 7, files: 2, added: 1, replaced: 1, removed: 1, hiddenBytes: 0, hidesBytes: 5730 },
      { bytes: 2, files: 1, added: 1, replaced: 0, removed: 0, hiddenBytes: 0, hidesBytes: 0 },
    ]);
    expect(seen).toMatchObject({ bytes: 5739, visibleBytes: 9, files: 6, wasted: { replaced: 5000, removed: 730 } });
    expect(seen.efficiency).toBeCloseTo(9 / 5739);
  });

  it('an opaque directory hides what lies in it below, a file hides a directory, and a directory a file', () => {
    const seen = look(
      { 'o/a': { bytes: 1 }, 'o/b/c': { bytes: 2 }, 'dir/x': { bytes: 4 }, file: { bytes: 8 } },
      { 'o/!': 'link', 'o/a': { bytes: 16 }, dir: { bytes: 32 }, 'file/y': { bytes: 64 } },
    );
    expect(hidden(seen).sort()).toEqual([
      'dir/x 4 0→1 replaced',
      'file 8 0→1 replaced',
      'o/a 1 0→1 removed',
      'o/b/c 2 0→1 removed',
    ]);
    expect(seen.visibleBytes).toBe(16 + 32 + 64);
  });

  it('a file of several names counts once, and is of use while one of them is left', () => {
    const two = { bytes: 100, inode: '7' };
    expect(look({ a: two, b: two }, { a: 'gone' })).toMatchObject({ bytes: 100, visibleBytes: 100, hidden: [] });
    const gone = look({ a: two, b: two }, { a: 'gone' }, { b: { bytes: 1 } });
    expect(hidden(gone)).toEqual(['b 100 0→2 replaced']);
  });

  it('tells a file that was copied for its mode from one that changed', () => {
    const seen = look(
      { same: { bytes: 9000, content: 'x' }, other: { bytes: 9000, content: 'y' }, small: { bytes: 9, content: 'z' } },
      { same: { bytes: 9000, content: 'x' }, other: { bytes: 9000, content: 'Y' }, small: { bytes: 9, content: 'z' } },
    );
    expect(hidden(seen)).toEqual([
      'other 9000 0→1 replaced',
      'same 9000 0→1 copied',
      'small 9 0→1 replaced', // too small to be read
    ]);
    expect(seen.wasted).toEqual({ removed: 0, replaced: 9009, copied: 9000, duplicated: 0 });
  });

  it('finds equal visible files, whatever layer they are in, and no others', () => {
    const long = 'a'.repeat(20_000);
    const seen = look(
      {
        one: { bytes: 5000, content: 'x' },
        begin: { bytes: 20_000, content: `${long}1` },
        hid: { bytes: 5000, content: 'x' },
      },
      { 'd/two': { bytes: 5000, content: 'x' }, end: { bytes: 20_000, content: `${long}2` }, hid: 'gone' },
    );
    expect(seen.duplicates).toEqual([
      {
        bytes: 5000,
        copies: 2,
        files: [
          { path: 'one', layer: 0 },
          { path: 'd/two', layer: 1 },
        ],
      },
    ]);
    expect(seen.wasted.duplicated).toBe(5000);
  });

  it('names the biggest places as a tree, each in the directory that it is in', () => {
    const layer = {
      'usr/lib/a': { bytes: 50 },
      'usr/lib/b': { bytes: 40 },
      'usr/bin/c': { bytes: 5 },
      'var/cache/apt/list': { bytes: 30 },
      etc: 'link',
    };
    const [one] = survey([reader(layer)], 5).layers;
    expect(one && tree(one.tree)).toEqual([' 125', ['usr 95', ['lib 90', 'a 50', 'b 40']], 'var/cache/apt/list 30']);
  });

  it('of nothing wastes nothing', () => {
    expect(look()).toMatchObject({ bytes: 0, efficiency: 1, layers: [] });
    expect(look({}, { x: 'gone' })).toMatchObject({ bytes: 0, efficiency: 1 });
  });
});
