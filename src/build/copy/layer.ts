import { createHash, type Hash } from 'node:crypto';
import { byBytes, type FileInfo, PLAIN_DIRECTORY, type SourceTree } from '#build/context/tree.ts';
import { resolveIn } from '#build/copy/resolve.ts';
import { below, type Selection } from '#build/copy/select.ts';
import { CopyConflict } from '#build/errors.ts';
import type { TarEntry } from '#image/tar/entry.ts';
import { endOfArchive, header, padding } from '#image/tar/writer.ts';

export interface Placement {
  /** Absolute; with a slash at its end it is a directory. */
  destination: string;
  /** What the layer lies on. With `--link` an empty tree: nothing below is looked at. */
  root: SourceTree;
  /** Undefined keeps the owner that the file has in its source. */
  owner: { uid: number; gid: number } | undefined;
  mode: ((mode: number, isDirectory: boolean) => number) | undefined;
  parents: boolean;
  /** SOURCE_DATE_EPOCH: nothing in the layer is younger. */
  newestSec: number | undefined;
}

interface Placed {
  info: FileInfo;
  /** Where its bytes are. */
  source?: { tree: SourceTree; path: string };
}

/**
 * Puts selections below a destination: which file of a layer comes from where. Directories on the way are those of the root
 * below, with their owners and modes (an overlay shows the uppermost), or made anew.
 */
export class LayerContents {
  readonly #files = new Map<string, Placed>();
  readonly #root: SourceTree;
  readonly #placement: Placement;
  /** A directory as written → where it really is, links of the root followed. */
  readonly #directories = new Map<string, string>();
  readonly #made = new Set<string>();
  #newestSec = 0;

  constructor(placement: Placement) {
    this.#placement = placement;
    this.#root = placement.root;
  }

  get isEmpty(): boolean {
    return this.#files.size === 0;
  }

  async place(selection: Selection): Promise<void> {
    const { destination, parents } = this.#placement;
    const { tree, path, info, files } = selection;
    for (const file of files) this.#newestSec = Math.max(this.#newestSec, this.#clamp(file.info.mtimeSec));
    const to = destination.replace(/^\/+|\/+$/g, '');
    if (info.type === 'dir') {
      const target = await this.#directory(parents ? below(to, selection.name) : to);
      if (parents) await this.#describe(target, files[0]?.info);
      for (const file of files)
        if (file.path !== '') await this.#put(below(target, file.path), tree, below(path, file.path), file.info);
      // Like `mkdir -p` where the source is an empty directory: it is there, though nothing lies in it.
      if (files.length === 1 || selection.describes) await this.#describe(target, info);
      return;
    }
    const intoDirectory = parents || destination.endsWith('/') || (await this.#isDirectory(to));
    const target = intoDirectory ? below(to, selection.name) : to;
    await this.#put(target, tree, path, info);
  }

  /** A directory of its own: WORKDIR. Nothing happens when it is there. */
  async makeDirectory(path: string, mtimeSec: number): Promise<void> {
    this.#newestSec = mtimeSec;
    await this.#directory(path.replace(/^\/+|\/+$/g, ''));
  }

  /** Of all that the layer's tar will hold, times apart; what it needs is read once more for it. */
  async digest(): Promise<string> {
    const hash = createHash('sha256');
    for await (const _ of this.tar(hash));
    return hash.digest('hex');
  }

  /** The layer's tar: parents first, names in byte order. The same contents give the same bytes. `timeless` takes in all but times. */
  async *tar(timeless?: Hash): AsyncGenerator<Buffer> {
    const links = new Map<string, string>();
    for (const path of [...this.#files.keys()].sort(byBytes)) {
      const { info, source } = this.#files.get(path) as Placed;
      const first = info.inode === undefined ? undefined : links.get(info.inode);
      if (info.inode !== undefined && first === undefined) links.set(info.inode, path);
      const entry = entryOf(path, this.#made.has(path) ? { ...info, mtimeSec: this.#newestSec } : info, first);
      timeless?.update(header({ ...entry, mtimeSec: 0 }));
      yield header(entry);
      if (entry.type !== 'file' || !source) continue;
      for await (const chunk of exactly(source.tree.open(source.path), entry.size)) {
        timeless?.update(chunk);
        yield chunk;
      }
      yield padding(entry.size);
    }
    yield endOfArchive();
  }

  async #put(written: string, tree: SourceTree, path: string, info: FileInfo): Promise<void> {
    if (info.type === 'dir') {
      const target = await this.#directory(written);
      await this.#describe(target, info);
      return;
    }
    const slash = written.lastIndexOf('/');
    const directory = slash < 0 ? '' : await this.#directory(written.slice(0, slash));
    const target = below(directory, written.slice(slash + 1));
    const present = this.#files.get(target)?.info ?? (await this.#root.lstat(target));
    if (present?.type === 'dir') throw new CopyConflict({ path: target, rule: 'it is a directory' });
    this.#files.set(target, { info: this.#owned(info), source: { tree, path } });
  }

  /** A copied directory gives its mode and owner to one that is made, not to one that was there. */
  async #describe(target: string, info: FileInfo | undefined): Promise<void> {
    if (!info || !this.#made.has(target)) return;
    this.#made.delete(target);
    this.#files.set(target, { info: this.#owned(info) });
  }

  async #isDirectory(written: string): Promise<boolean> {
    if (written === '') return true;
    const { path, info } = await resolveIn(this.#root, written);
    return info?.type === 'dir' || this.#files.get(path)?.info.type === 'dir';
  }

  /** The directory of that name with all above it, in the layer; what it really is called. */
  async #directory(written: string): Promise<string> {
    const known = this.#directories.get(written);
    if (known !== undefined) return known;
    const slash = written.lastIndexOf('/');
    const parent = written === '' ? '' : await this.#directory(slash < 0 ? '' : written.slice(0, slash));
    const path = written === '' ? '' : below(parent, written.slice(slash + 1));
    const target = await this.#enter(path);
    this.#directories.set(written, target);
    return target;
  }

  async #enter(path: string): Promise<string> {
    const placed = this.#files.get(path)?.info;
    if (placed) {
      if (placed.type !== 'dir') throw new CopyConflict({ path, rule: `it is a ${placed.type}` });
      return path;
    }
    const found = await resolveIn(this.#root, path);
    if (found.path !== path) return this.#directory(found.path); // a link of the root
    if (found.info && found.info.type !== 'dir') throw new CopyConflict({ path, rule: `it is a ${found.info.type}` });
    if (found.info) {
      if (path !== '') this.#files.set(path, { info: found.info });
      return path;
    }
    if (path === '') return path;
    this.#made.add(path);
    this.#files.set(path, { info: { ...PLAIN_DIRECTORY, ...this.#placement.owner } });
    return path;
  }

  #owned(info: FileInfo): FileInfo {
    const { owner, mode } = this.#placement;
    const changed = mode && info.type !== 'symlink' ? { mode: mode(info.mode, info.type === 'dir') } : {};
    return { ...info, ...owner, ...changed, mtimeSec: this.#clamp(info.mtimeSec) };
  }

  #clamp(seconds: number): number {
    return Math.min(seconds, this.#placement.newestSec ?? Number.MAX_SAFE_INTEGER);
  }
}

function entryOf(path: string, info: FileInfo, linkedTo: string | undefined): TarEntry {
  return {
    type: linkedTo === undefined ? info.type : 'hardlink',
    path,
    mode: info.mode,
    uid: info.uid,
    gid: info.gid,
    uname: '',
    gname: '',
    mtimeSec: info.mtimeSec,
    mtimeNsec: 0,
    size: info.type === 'file' && linkedTo === undefined ? info.size : 0,
    linkTarget: linkedTo ?? info.linkTarget,
    deviceMajor: info.deviceMajor,
    deviceMinor: info.deviceMinor,
    xattrs: linkedTo === undefined ? info.xattrs : undefined,
    sparse: undefined,
  };
}

/** The header has promised a size: more is cut, less is filled up. */
async function* exactly(body: AsyncIterable<Buffer>, size: number): AsyncGenerator<Buffer> {
  let left = size;
  for await (const chunk of body) {
    const part = chunk.length > left ? chunk.subarray(0, left) : chunk;
    left -= part.length;
    if (part.length > 0) yield part;
  }
  while (left > 0) {
    const zeros = Buffer.alloc(Math.min(left, 65_536));
    left -= zeros.length;
    yield zeros;
  }
}

/** A tree without anything: the root of `scratch`, and what `--link` looks at. */
export const EMPTY_TREE: SourceTree = {
  what: 'an empty root',
  lstat: (path) => (path === '' ? PLAIN_DIRECTORY : undefined),
  list: () => [],
  open: () => ({ async *[Symbol.asyncIterator]() {} }),
  contentKey: () => '',
};
