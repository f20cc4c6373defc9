import { createHash } from 'node:crypto';
import { ContextInvalid } from '#build/errors.ts';
import type { Digest } from '#spec/image/digest.ts';

/** What a tree says of one of its files. */
export interface FileInfo {
  type: 'file' | 'dir' | 'symlink' | 'char' | 'block' | 'fifo';
  /** Permission, set-id and sticky bits. */
  mode: number;
  uid: number;
  gid: number;
  size: number;
  mtimeSec: number;
  linkTarget: string;
  deviceMajor: number;
  deviceMinor: number;
  xattrs?: ReadonlyMap<string, Uint8Array>;
  /** The same for all names of one file. */
  inode?: string;
}

/**
 * Where files come from: a build context, or the mounted root of a stage or image. Paths are relative, without a slash at
 * either end; `''` is the top. Nothing here follows a link: `resolve.ts` does, inside the tree.
 */
export interface SourceTree {
  /** As errors call it: `the build context`. */
  readonly what: string;
  lstat(path: string): FileInfo | undefined | Promise<FileInfo | undefined>;
  /** Names in a directory, in byte order. */
  list(path: string): string[] | Promise<string[]>;
  open(path: string): AsyncIterable<Buffer>;
  /** What stands for the file's bytes in a cache key. */
  contentKey(path: string): string | Promise<string>;
}

/** A file of a context: its bytes lie in the file store under their digest. */
export interface ContextNode extends FileInfo {
  digest?: Digest;
  children?: Map<string, ContextNode>;
}

export interface ContextLimits {
  entries: number;
  contentBytes: number;
}

/** Forgotten trees of node_modules hold some 100 000 files; a million take about 1.2 GB of memory here, and more is nobody's wish. */
export const CONTEXT_LIMITS: ContextLimits = { entries: 1_000_000, contentBytes: 256 * 1024 ** 3 };

/** A directory that nobody describes. */
export const PLAIN_DIRECTORY: FileInfo = {
  type: 'dir',
  mode: 0o755,
  uid: 0,
  gid: 0,
  size: 0,
  mtimeSec: 0,
  linkTarget: '',
  deviceMajor: 0,
  deviceMinor: 0,
};

/** A build context in memory: about 1.2 KB a file, its bytes elsewhere. */
export class ContextTree {
  readonly root: ContextNode = { ...PLAIN_DIRECTORY, children: new Map() };
  readonly #limits: ContextLimits;
  readonly #hidden = new Set<string>();
  #entries = 0;
  #contentBytes = 0;
  #rootTold = false;

  constructor(limits: ContextLimits = CONTEXT_LIMITS) {
    this.#limits = limits;
  }

  get entries(): number {
    return this.#entries;
  }

  /** Whether mode and owner of the top were said, as an archive's `./` does. */
  get rootTold(): boolean {
    return this.#rootTold;
  }

  get contentBytes(): number {
    return this.#contentBytes;
  }

  /** Puts a file in; what had its name goes. CONTEXT_INVALID for a path that leads through a link or a file. */
  add(path: string, node: ContextNode): void {
    this.#count(path, node);
    if (path === '') {
      if (node.type !== 'dir') throw new ContextInvalid({ path: '/', rule: 'the top of a context is a directory' });
      Object.assign(this.root, { ...node, children: this.root.children });
      this.#rootTold = true;
      return;
    }
    const slash = path.lastIndexOf('/');
    const siblings = this.#directory(slash < 0 ? '' : path.slice(0, slash));
    const name = path.slice(slash + 1);
    const present = siblings.get(name);
    // A directory told of after its files keeps them.
    const children = node.type === 'dir' ? (present?.children ?? new Map<string, ContextNode>()) : undefined;
    siblings.set(name, { ...node, ...(children ? { children } : {}) });
  }

  /** A second name of a file that is there. */
  link(path: string, target: string): void {
    const node = this.find(target);
    if (!node || node.type === 'dir')
      throw new ContextInvalid({ path, rule: `is a hard link to ${target}, which is no file before it` });
    this.add(path, node);
  }

  find(path: string): ContextNode | undefined {
    let at: ContextNode | undefined = this.root;
    if (path === '') return at;
    for (const part of path.split('/')) at = at?.children?.get(part);
    return at;
  }

  /** A file that the builder itself reads, and no COPY sees. */
  hide(path: string, isHidden: boolean): void {
    if (isHidden) this.#hidden.add(path);
    else this.#hidden.delete(path);
  }

  isHidden(path: string): boolean {
    return this.#hidden.has(path);
  }

  remove(path: string): void {
    const slash = path.lastIndexOf('/');
    this.find(slash < 0 ? '' : path.slice(0, slash))?.children?.delete(path.slice(slash + 1));
  }

  /** Every file with its path, directories before what they hold. */
  *walk(): Generator<[path: string, node: ContextNode]> {
    const pending: [string, ContextNode][] = [['', this.root]];
    for (let next = pending.pop(); next; next = pending.pop()) {
      const [path, node] = next;
      if (path !== '') yield next;
      const names = [...(node.children?.keys() ?? [])].sort().reverse();
      for (const name of names)
        pending.push([path === '' ? name : `${path}/${name}`, node.children?.get(name) as ContextNode]);
    }
  }

  #directory(path: string): Map<string, ContextNode> {
    let at = this.root;
    for (const part of path === '' ? [] : path.split('/')) {
      let next = at.children?.get(part);
      if (!next) {
        next = { ...PLAIN_DIRECTORY, children: new Map() };
        at.children?.set(part, next);
      }
      if (!next.children)
        throw new ContextInvalid({ path, rule: `leads through ${part}, which is a ${next.type} and no directory` });
      at = next;
    }
    return at.children as Map<string, ContextNode>;
  }

  #count(path: string, node: ContextNode): void {
    this.#entries++;
    this.#contentBytes += node.type === 'file' ? node.size : 0;
    if (this.#entries > this.#limits.entries)
      throw new ContextInvalid({ path, rule: `is beyond the ${this.#limits.entries} files that a context may have` });
    if (this.#contentBytes > this.#limits.contentBytes)
      throw new ContextInvalid({ path, rule: `makes the context larger than ${this.#limits.contentBytes} bytes` });
  }
}

/** The tree as a source; bytes come from `open`. */
export function treeSource(
  tree: ContextTree,
  what: string,
  open: (digest: Digest) => AsyncIterable<Buffer>,
): SourceTree {
  return {
    what,
    lstat: (path) => (tree.isHidden(path) ? undefined : tree.find(path)),
    list: (path) => {
      const names = [...(tree.find(path)?.children?.keys() ?? [])].sort(byBytes);
      return names.filter((name) => !tree.isHidden(path === '' ? name : `${path}/${name}`));
    },
    open: (path) => {
      const node = tree.find(path);
      if (!node?.digest) throw new ContextInvalid({ path, rule: 'has no bytes' });
      return open(node.digest);
    },
    contentKey: (path) => tree.find(path)?.digest ?? '',
  };
}

/** One digest for all that a tree holds: names, bytes, modes, owners, link targets; not times. */
export function treeDigest(tree: ContextTree): string {
  const hash = createHash('sha256');
  for (const [path, node] of tree.walk())
    hash.update(
      `${path}\0${node.type}\0${node.mode}\0${node.uid}\0${node.gid}\0${node.digest ?? node.linkTarget}\0${node.deviceMajor}:${node.deviceMinor}\n`,
    );
  return hash.digest('hex');
}

export function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
