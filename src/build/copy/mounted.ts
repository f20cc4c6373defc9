import { createReadStream, lstatSync, readdirSync, readlinkSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import { byBytes, type FileInfo, type SourceTree } from '#build/context/tree.ts';

const READ_BYTES = 256 * 1024;

/**
 * A mounted root as a source. Who asks has resolved the path inside it (`resolveIn`), and it is read-only: no name in it
 * can become a link between the look and the use. `xattrs` are read by the executor, below a path (Node.js has no call).
 */
export class MountedTree implements SourceTree {
  readonly what: string;
  readonly root: string;
  readonly #readXattrs: (directory: string) => Promise<ReadonlyMap<string, ReadonlyMap<string, Uint8Array>>>;
  #xattrs: { below: string; found: ReadonlyMap<string, ReadonlyMap<string, Uint8Array>> } | undefined;

  constructor(
    what: string,
    root: string,
    readXattrs: (directory: string) => Promise<ReadonlyMap<string, ReadonlyMap<string, Uint8Array>>>,
  ) {
    this.what = what;
    this.root = root;
    this.#readXattrs = readXattrs;
  }

  /** Not asked of the thread pool: the answer is in memory, and the way there and back costs ten times as much. */
  lstat(path: string): FileInfo | undefined {
    const stat = statOf(join(this.root, path));
    if (!stat) return undefined;
    const linkTarget = stat.isSymbolicLink() ? readlinkSync(join(this.root, path)) : '';
    const xattrs = this.#attributesOf(path);
    return { ...infoOf(stat, linkTarget), ...(xattrs ? { xattrs } : {}) };
  }

  list(path: string): string[] {
    return readdirSync(join(this.root, path)).sort(byBytes);
  }

  open(path: string): AsyncIterable<Buffer> {
    return createReadStream(join(this.root, path), { highWaterMark: READ_BYTES });
  }

  /** Stages and images are known by the keys of their steps: what they hold needs no other. */
  contentKey(): string {
    return '';
  }

  /** From here on `lstat` tells of attributes below that path. */
  async loadXattrs(path: string): Promise<void> {
    this.#xattrs = { below: path, found: await this.#readXattrs(join(this.root, path)) };
  }

  #attributesOf(path: string): ReadonlyMap<string, Uint8Array> | undefined {
    if (!this.#xattrs) return undefined;
    const { below, found } = this.#xattrs;
    if (below !== '' && path !== below && !path.startsWith(`${below}/`)) return undefined;
    const known = found.get(below === '' ? path : path.slice(below.length + 1));
    const kept = [...(known ?? [])].filter(([name]) => !name.startsWith('trusted.overlay.'));
    return kept.length > 0 ? new Map(kept) : undefined;
  }
}

export function infoOf(stat: Stats, linkTarget: string): FileInfo {
  const device = stat.isCharacterDevice() || stat.isBlockDevice() ? BigInt(stat.rdev) : 0n;
  return {
    type: typeOf(stat),
    mode: stat.mode & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
    size: stat.isFile() ? stat.size : 0,
    mtimeSec: Math.floor(stat.mtimeMs / 1000),
    linkTarget,
    // gnu_dev_major/minor(3).
    deviceMajor: Number((device >> 8n) & 0xfffn),
    deviceMinor: Number((device & 0xffn) | ((device >> 12n) & 0xf_ff00n)),
    ...(stat.nlink > 1 && !stat.isDirectory() ? { inode: `${stat.dev}:${stat.ino}` } : {}),
  };
}

function typeOf(stat: Stats): FileInfo['type'] {
  if (stat.isDirectory()) return 'dir';
  if (stat.isSymbolicLink()) return 'symlink';
  if (stat.isCharacterDevice()) return 'char';
  if (stat.isBlockDevice()) return 'block';
  return stat.isFIFO() || stat.isSocket() ? 'fifo' : 'file';
}

function statOf(path: string): Stats | undefined {
  try {
    return lstatSync(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}
