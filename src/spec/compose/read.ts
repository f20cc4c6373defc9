import { asMap } from './merge.ts';
import { type MapTree, refuse, type Tree } from './tree.ts';

/** Readers of values. Numbers and booleans may come as text: interpolation makes text of everything. */
export function text(tree: Tree, path: string): string {
  if (tree.is !== 'scalar' || tree.value === null) return refuse(tree.at, path, 'must be a string');
  return tree.text;
}

export function integer(tree: Tree, path: string): number {
  const value = tree.is === 'scalar' ? Number(tree.text === '' ? Number.NaN : tree.text) : Number.NaN;
  return Number.isInteger(value) ? value : refuse(tree.at, path, 'must be an integer');
}

export function decimal(tree: Tree, path: string): number {
  const value = tree.is === 'scalar' && tree.text !== '' ? Number(tree.text) : Number.NaN;
  return Number.isFinite(value) ? value : refuse(tree.at, path, 'must be a number');
}

export function bool(tree: Tree, path: string): boolean {
  const value = tree.is === 'scalar' ? tree.text.toLowerCase() : '';
  if (['true', 'yes', 'on', 'y', '1'].includes(value)) return true;
  if (['false', 'no', 'off', 'n', '0'].includes(value)) return false;
  return refuse(tree.at, path, 'must be a boolean');
}

const UNITS_MS: Record<string, number> = { us: 0.001, ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** `1m30s`, `500ms`; in milliseconds. */
export function duration(tree: Tree, path: string): number {
  const value = tree.is === 'scalar' ? tree.text : '';
  if (value === '0') return 0;
  if (!/^(\d+(?:\.\d+)?(us|ms|s|m|h))+$/.test(value)) return refuse(tree.at, path, `must be a duration such as 1m30s`);
  let ms = 0;
  for (const [, amount, unit = ''] of value.matchAll(/(\d+(?:\.\d+)?)(us|ms|s|m|h)/g))
    ms += Number(amount) * (UNITS_MS[unit] ?? 0);
  return ms;
}

/** `50M`, `1gb`, `2b`; powers of 1024, as the specification counts. */
export function bytes(tree: Tree, path: string): number {
  const match = tree.is === 'scalar' ? /^(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?$/i.exec(tree.text) : null;
  if (!match) return refuse(tree.at, path, 'must be a size such as 512m');
  const [, amount, unit = ''] = match;
  return Math.floor(Number(amount) * 1024 ** ['', 'k', 'm', 'g', 't'].indexOf(unit.toLowerCase()));
}

export function list(tree: Tree, path: string): readonly Tree[] {
  return tree.is === 'list' ? tree.items : refuse(tree.at, path, 'must be a list');
}

export function texts(tree: Tree, path: string): string[] {
  return list(tree, path).map((item, i) => text(item, `${path}[${i}]`));
}

/** A list, or one string for a list of one. */
export function textsOrOne(tree: Tree, path: string): string[] {
  return tree.is === 'scalar' ? [text(tree, path)] : texts(tree, path);
}

export function map(tree: Tree, path: string): MapTree {
  // `name:` with nothing behind it is an empty mapping.
  if (tree.is === 'scalar' && tree.value === null) return { is: 'map', at: tree.at, entries: new Map() };
  return tree.is === 'map' ? tree : refuse(tree.at, path, 'must be a mapping');
}

/** `{A: x, B: }` or `["A=x", "B"]`; null is "taken from outside". */
export function named(tree: Tree, path: string): Record<string, string | null> {
  const out: Record<string, string | null> = Object.create(null);
  for (const [key, value] of map(asMap(tree), path).entries) {
    if (value.is !== 'scalar') refuse(value.at, `${path}.${key}`, 'must be a string, number or boolean');
    out[key] = value.value === null ? null : value.text;
  }
  return out;
}

export function namedTexts(tree: Tree, path: string): Record<string, string> {
  return Object.fromEntries(Object.entries(named(tree, path)).map(([k, v]) => [k, v ?? '']));
}

/** A command: a list as it is, a string split as a shell would, null for the image's own. */
export function command(tree: Tree, path: string): readonly string[] | null {
  if (tree.is === 'scalar' && tree.value === null) return null;
  if (tree.is === 'list') return texts(tree, path);
  const words = splitWords(text(tree, path));
  return words ?? refuse(tree.at, path, 'a quote is not closed');
}

/** Words of a command line: quotes and backslashes as in a shell, nothing expanded. Undefined when a quote is not closed. */
export function splitWords(line: string): string[] | undefined {
  const words: string[] = [];
  let word: string | undefined;
  let quote = '';
  for (let i = 0; i < line.length; i++) {
    const c = line[i] ?? '';
    if (quote !== '') {
      if (c === quote) quote = '';
      else if (c === '\\' && quote === '"' && /["\\$`]/.test(line[i + 1] ?? '')) word += line[++i] ?? '';
      else word += c;
    } else if (c === '"' || c === "'") {
      quote = c;
      word ??= '';
    } else if (/\s/.test(c)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? '') + (c === '\\' && i + 1 < line.length ? (line[++i] ?? '') : c);
  }
  if (quote !== '') return undefined;
  return word === undefined ? words : [...words, word];
}

/** Refuses what is neither known nor an `x-` extension, with the nearest known name. */
export function onlyKnown(tree: MapTree, known: ReadonlySet<string>, path: string): void {
  for (const [key, value] of tree.entries) {
    if (known.has(key) || key.startsWith('x-')) continue;
    const near = [...known].find((k) => distanceOne(k, key));
    refuse(
      value.at,
      path === '' ? key : `${path}.${key}`,
      `is not a known attribute${near ? `; did you mean ${near}?` : ''}`,
    );
  }
}

/** One letter added, missing, changed or swapped. */
function distanceOne(a: string, b: string): boolean {
  if (Math.abs(a.length - b.length) > 1) return false;
  let i = 0;
  while (i < a.length && a[i] === b[i]) i++;
  const [x, y] = [a.slice(i), b.slice(i)];
  const swapped = x.length > 1 && x[0] === y[1] && x[1] === y[0] && x.slice(2) === y.slice(2);
  return x.slice(1) === y || x === y.slice(1) || x.slice(1) === y.slice(1) || swapped;
}
