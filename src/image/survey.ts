import { TooManyFiles } from '#image/errors.ts';

/**
 * Where the bytes of an image are: which layer brought them, whether a layer above hides them again, and what lies there more
 * than once. Layers are read one after the other, lowest first, each over what those below have left visible:
 *
 *     a name taken away (whiteout, opaque directory) ──▶ 'removed'
 *     a name given to something else                 ──▶ 'replaced', or 'copied' when the content is the same again: only
 *                                                         mode, owner or time changed, and the file travels twice
 */
export interface Listed {
  name: string;
  /** `other`: links, devices, pipes; they hold no bytes. */
  kind: 'dir' | 'file' | 'other' | 'whiteout';
  bytes: number;
  /** The same for all names of one file; undefined where it has only this one. */
  inode?: string;
}

/** One unpacked layer. Paths are relative to its root, which is `''`. */
export interface LayerReader {
  list(directory: string): Listed[];
  isOpaque(directory: string): boolean;
  /** Digest of the file's content, or of its beginning. */
  digest(path: string, firstBytes?: number): string;
}

export interface Survey {
  /** Lowest first. */
  layers: LayerSurvey[];
  /** What the files of all layers hold. */
  bytes: number;
  /** What is left of it for a container to see. */
  visibleBytes: number;
  files: number;
  /** Bytes that a layer above hides, and those of visible files beyond the first of the same content. */
  wasted: Record<HiddenHow | 'duplicated', number>;
  /** 1 when nothing is wasted. */
  efficiency: number;
  /** The biggest. */
  hidden: Hidden[];
  duplicates: Duplicate[];
}

export interface LayerSurvey {
  bytes: number;
  files: number;
  /** Names that are new, that stand in place of others, and that are taken away. */
  added: number;
  replaced: number;
  removed: number;
  /** Bytes of this layer that a layer above hides. */
  hiddenBytes: number;
  /** Bytes below that this layer hides. */
  hidesBytes: number;
  /** Its biggest directories and files. */
  tree: TreeNode;
}

export interface TreeNode {
  /** One name, or several where each directory holds nothing but the next: `usr/lib`. */
  name: string;
  bytes: number;
  files: number;
  children: TreeNode[];
}

export type HiddenHow = 'replaced' | 'removed' | 'copied';

export interface Hidden {
  path: string;
  bytes: number;
  /** Layers by position, lowest is 0. */
  layer: number;
  hiddenBy: number;
  how: HiddenHow;
}

export interface Duplicate {
  /** Of each. */
  bytes: number;
  copies: number;
  /** Some of them. */
  files: { path: string; layer: number }[];
}

/** Smaller files are not compared: what they waste together is less than reading them costs. */
export const COMPARED_MIN_BYTES = 4096;
/** What differs mostly differs here. */
const BEGINNING_BYTES = 16_384;
/** Of one content, for the answer. */
const COPIES_NAMED = 8;
/** About 500 bytes of memory each. */
const FILES_MAX = 2_000_000;

interface Content {
  bytes: number;
  layer: number;
  path: string;
  /** Names that are visible. */
  names: number;
}

/** A name in the merged tree: a directory, or anything else. */
type Place = { children: Map<string, Place> } | { content: Content };

interface Size {
  bytes: number;
  files: number;
  children: Map<string, Size>;
}

type Kept = Hidden & { content: Content; replacement?: Content };

/** `top`: how many of the biggest files, directories and duplicates are named. TOO_MANY_FILES beyond a bound. */
export function survey(readers: readonly LayerReader[], top: number): Survey {
  const surveyor = new Surveyor(readers);
  const layers = readers.map((_, layer) => surveyor.read(layer, top));
  const { hidden, root } = surveyor;
  for (const one of hidden) if (isCopy(readers, one)) one.how = 'copied';
  for (const { bytes, layer, hiddenBy } of hidden) {
    const [from, by] = [layers[layer], layers[hiddenBy]];
    if (from) from.hiddenBytes += bytes;
    if (by) by.hidesBytes += bytes;
  }
  const duplicates = duplicatesOf(readers, contentsOf(root));
  const wasted = { removed: 0, replaced: 0, copied: 0, duplicated: 0 };
  for (const { how, bytes } of hidden) wasted[how] += bytes;
  for (const { bytes, copies } of duplicates) wasted.duplicated += bytes * (copies - 1);
  const bytes = sum(layers.map((layer) => layer.bytes));
  const hiddenBytes = wasted.removed + wasted.replaced + wasted.copied;
  return {
    layers,
    bytes,
    visibleBytes: bytes - hiddenBytes,
    files: sum(layers.map((layer) => layer.files)),
    wasted,
    efficiency: bytes === 0 ? 1 : 1 - (hiddenBytes + wasted.duplicated) / bytes,
    hidden: hidden
      .sort((a, b) => b.bytes - a.bytes || byName(a.path, b.path))
      .slice(0, top)
      .map(({ path, bytes, layer, hiddenBy, how }) => ({ path, bytes, layer, hiddenBy, how })),
    duplicates: duplicates.slice(0, top),
  };
}

/** Reads layers upwards into one tree of what is visible, and keeps what each hides. */
class Surveyor {
  readonly root = new Map<string, Place>();
  readonly hidden: Kept[] = [];
  readonly #readers: readonly LayerReader[];
  #files = 0;

  constructor(readers: readonly LayerReader[]) {
    this.#readers = readers;
  }

  read(layer: number, top: number): LayerSurvey {
    const counts = { added: 0, replaced: 0, removed: 0 };
    const names = new Map<string, Content>();
    const size = this.#directory({ layer, names, counts }, '', this.root);
    const { bytes, files } = size;
    return { bytes, files, ...counts, hiddenBytes: 0, hidesBytes: 0, tree: biggest(size, top) };
  }

  #directory(at: Reading, path: string, visible: Map<string, Place>): Size {
    const size: Size = { bytes: 0, files: 0, children: new Map() };
    for (const listed of this.#readers[at.layer]?.list(path) ?? []) {
      const below = visible.get(listed.name);
      const child = path === '' ? listed.name : `${path}/${listed.name}`;
      if (listed.kind === 'whiteout') {
        if (below) this.#hide(below, child, at.layer, 'removed');
        if (visible.delete(listed.name)) at.counts.removed++;
        continue;
      }
      const inside =
        listed.kind === 'dir'
          ? this.#directory(at, child, this.#enter(at, child, listed.name, below, visible))
          : this.#file(at, child, listed, below, visible);
      size.children.set(listed.name, inside);
      size.bytes += inside.bytes;
      size.files += inside.files;
    }
    return size;
  }

  /** The directory as it is visible from here on: merged with what is below unless that is hidden. */
  #enter(
    at: Reading,
    path: string,
    name: string,
    below: Place | undefined,
    visible: Map<string, Place>,
  ): Map<string, Place> {
    if (below && 'children' in below) {
      if (this.#readers[at.layer]?.isOpaque(path)) {
        for (const [inside, place] of below.children) this.#hide(place, `${path}/${inside}`, at.layer, 'removed');
        at.counts.removed += below.children.size;
        below.children.clear();
      }
      return below.children;
    }
    if (below) {
      this.#hide(below, path, at.layer, 'replaced');
      at.counts.replaced++;
    }
    const children = new Map<string, Place>();
    visible.set(name, { children });
    return children;
  }

  #file(at: Reading, path: string, listed: Listed, below: Place | undefined, visible: Map<string, Place>): Size {
    if (++this.#files > FILES_MAX) throw new TooManyFiles({ limit: FILES_MAX });
    const known = listed.inode === undefined ? undefined : at.names.get(listed.inode);
    const content = known ?? { bytes: listed.bytes, layer: at.layer, path, names: 0 };
    content.names++;
    if (listed.inode !== undefined) at.names.set(listed.inode, content);
    if (below) this.#hide(below, path, at.layer, 'replaced', content);
    if (below) at.counts.replaced++;
    else at.counts.added++;
    visible.set(listed.name, { content });
    return { bytes: known ? 0 : listed.bytes, files: 1, children: new Map() };
  }

  #hide(place: Place, path: string, hiddenBy: number, how: HiddenHow, replacement?: Content): void {
    if ('children' in place) {
      for (const [name, inside] of place.children) this.#hide(inside, `${path}/${name}`, hiddenBy, how);
      return;
    }
    const { content } = place;
    content.names--;
    // With another name left its bytes are still of use.
    if (content.names > 0 || content.bytes === 0) return;
    const { bytes, layer } = content;
    this.hidden.push({ path, bytes, layer, hiddenBy, how, content, ...(replacement ? { replacement } : {}) });
  }
}

interface Reading {
  layer: number;
  /** Contents by inode. */
  names: Map<string, Content>;
  counts: { added: number; replaced: number; removed: number };
}

function isCopy(readers: readonly LayerReader[], { content, replacement }: Kept): boolean {
  if (!replacement || replacement.bytes !== content.bytes || content.bytes < COMPARED_MIN_BYTES) return false;
  return digestIn(readers, content) === digestIn(readers, replacement);
}

function digestIn(readers: readonly LayerReader[], { layer, path }: Content, firstBytes?: number): string {
  return readers[layer]?.digest(path, firstBytes) ?? '';
}

/** Visible contents, each once whatever names it has. */
function contentsOf(root: Map<string, Place>): Set<Content> {
  const found = new Set<Content>();
  const pending = [root];
  for (let at = pending.pop(); at; at = pending.pop())
    for (const place of at.values()) {
      if ('children' in place) pending.push(place.children);
      else found.add(place.content);
    }
  return found;
}

/** Only files of one size are read, first their beginnings; those that waste most stand first. */
function duplicatesOf(readers: readonly LayerReader[], contents: Iterable<Content>): Duplicate[] {
  const big = [...contents].filter(({ bytes }) => bytes >= COMPARED_MIN_BYTES);
  const same = groups(big, ({ bytes }) => String(bytes))
    .flatMap((group) => groups(group, (one) => digestIn(readers, one, BEGINNING_BYTES)))
    .flatMap((group) => groups(group, (one) => digestIn(readers, one)));
  const duplicates = same.map((group) => ({
    bytes: group[0]?.bytes ?? 0,
    copies: group.length,
    files: group
      .map(({ path, layer }) => ({ path, layer }))
      .sort((a, b) => a.layer - b.layer || byName(a.path, b.path))
      .slice(0, COPIES_NAMED),
  }));
  return duplicates.sort((a, b) => b.bytes * (b.copies - 1) - a.bytes * (a.copies - 1));
}

/** Those that share a key with another. */
function groups<T>(all: readonly T[], keyOf: (one: T) => string): T[][] {
  const byKey = new Map<string, T[]>();
  for (const one of all) {
    const key = keyOf(one);
    const group = byKey.get(key);
    if (group) group.push(one);
    else byKey.set(key, [one]);
  }
  return [...byKey.values()].filter((group) => group.length > 1);
}

/** The root and the `count` biggest places below it, never one without the directory that it is in. */
function biggest(root: Size, count: number): TreeNode {
  const node = (name: string, { bytes, files }: Size): TreeNode => ({ name, bytes, files, children: [] });
  const top = node('', root);
  const candidates: { parent: TreeNode; name: string; size: Size }[] = [];
  const widen = (parent: TreeNode, { children }: Size): void => {
    for (const [name, size] of children) if (size.bytes > 0) candidates.push({ parent, ...through(name, size) });
  };
  widen(top, root);
  for (let taken = 0; taken < count && candidates.length > 0; taken++) {
    let best = 0;
    for (const [i, { size }] of candidates.entries()) if (size.bytes > (candidates[best]?.size.bytes ?? 0)) best = i;
    const [next] = candidates.splice(best, 1);
    if (!next) break;
    const made = node(next.name, next.size);
    next.parent.children.push(made);
    widen(made, next.size);
  }
  return top;
}

/** Down to where a directory holds more than one thing. */
function through(name: string, size: Size): { name: string; size: Size } {
  let [path, at] = [name, size];
  for (;;) {
    const [only] = at.children;
    if (at.children.size !== 1 || !only) return { name: path, size: at };
    path = `${path}/${only[0]}`;
    at = only[1];
  }
}

function byName(a: string, b: string): number {
  return a < b ? -1 : 1;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0);
}
