import type { Stats } from 'node:fs';
import { type FileHandle, lstat, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import { type EntryType, entryWith, type TarEntry } from '#image/tar/entry.ts';
import { endOfArchive, header, padding } from '#image/tar/writer.ts';
import { openAny, openFile, type Seen, walkDirectory } from '#kernel/beneath.ts';
import { type IdMapping, toContainerId } from '#kernel/idmap.ts';

/**
 * What a container changed, from overlayfs' upper directory alone, without reading the layers below: a character device
 * 0:0 is a removed name, `trusted.overlay.opaque` (`user.overlay.opaque` without the host's root) a directory that hides what was
 * below it.
 */
export interface Change {
  /** Relative to the root, without a leading slash. */
  path: string;
  kind: 'added' | 'changed' | 'deleted';
}

export type Xattrs = ReadonlyMap<string, ReadonlyMap<string, Uint8Array>>;

/** `docker diff`: needs to know what the layers below have. `existsBelow` looks into them, uppermost first. */
export async function* changes(upper: string, existsBelow: (path: string) => Promise<boolean>): AsyncGenerator<Change> {
  for await (const { path, stat } of walkDirectory(upper)) {
    if (path === '') continue;
    if (isWhiteout(stat)) yield { path, kind: 'deleted' };
    else yield { path, kind: (await existsBelow(path)) ? 'changed' : 'added' };
  }
}

/**
 * True if one of the layers (uppermost first) shows that path; a whiteout ends the search. Attributes are not read: below a directory
 * that a middle layer made opaque, `docker diff` says changed of what was added.
 */
export async function existsInLayers(lower: readonly string[], path: string): Promise<boolean> {
  const parts = path.split('/');
  for (const layer of lower) {
    for (let depth = 1; depth <= parts.length; depth++) {
      const stat = await lstat(join(layer, ...parts.slice(0, depth))).catch(gone);
      if (!stat) break;
      if (isWhiteout(stat)) return false;
      if (depth === parts.length) return true;
    }
  }
  return false;
}

export interface TarOptions {
  /**
   * The attribute that marks opaque directories of an upper directory (`Rootfs.opaqueXattr`). False: a whole tree (export) has no
   * whiteouts to write, and a device 0:0 is then a device.
   */
  whiteouts: string | false;
  /** What a path of the tree is called in the archive; itself when absent. */
  rename?: (path: string) => string;
  /** Of a container with a user namespace: owners are written as they are inside. */
  ids?: readonly IdMapping[] | undefined;
  /** Nothing is written as younger than this (SOURCE_DATE_EPOCH). */
  newestSec?: number;
}

/** A tree as a tar: with `whiteouts`, upper directory → OCI layer (image-spec, layer.md). The same tree gives the same bytes. */
export async function* tarOf(tree: AsyncIterable<Seen>, xattrs: Xattrs, options: TarOptions): AsyncGenerator<Buffer> {
  const { newestSec = Number.MAX_SAFE_INTEGER, rename = (path: string): string => path } = options;
  const clamp = (entry: TarEntry): TarEntry => ({ ...entry, mtimeSec: Math.min(entry.mtimeSec, newestSec) });
  const ahead = new ReadAhead();
  for await (const { seen, entry } of members(tree, xattrs, options.ids)) {
    const { path, stat } = seen;
    if (options.whiteouts !== false && isWhiteout(stat)) {
      ahead.add(header(clamp(emptyFile(rename(whiteoutOf(path)), stat))));
      continue;
    }
    const named = clamp({ ...entry, path: rename(path) });
    if (entry.type === 'hardlink') named.linkTarget = rename(entry.linkTarget);
    if (entry.type !== 'file') ahead.add(header(named));
    else if (entry.size <= SMALL_BYTES) await ahead.addFile(seen.access, named);
    else {
      yield* ahead.take();
      yield* fileOf(seen.access, named);
    }
    if (options.whiteouts !== false && isOpaque(xattrs.get(path), options.whiteouts))
      ahead.add(header(clamp(emptyFile(rename(path === '' ? '.wh..wh..opq' : `${path}/.wh..wh..opq`), stat))));
    if (ahead.isFull) yield* ahead.take();
  }
  yield* ahead.take();
  yield endOfArchive();
}

/** What a tar would hold of a tree, in its order: hard links known by their first name, sockets (which live with their process) left out. */
export async function* members(
  tree: AsyncIterable<Seen>,
  xattrs: Xattrs,
  ids?: readonly IdMapping[],
): AsyncGenerator<{ seen: Seen; entry: TarEntry }> {
  const links = new Map<string, string>();
  for await (const seen of tree) {
    const { path, stat } = seen;
    if (stat.isSocket()) continue;
    const inode = `${stat.dev}:${stat.ino}`;
    const first = stat.nlink > 1 && !stat.isDirectory() ? links.get(inode) : undefined;
    if (first === undefined && stat.nlink > 1) links.set(inode, path);
    const linkTarget = stat.isSymbolicLink() && first === undefined ? await readlink(seen.access).catch(gone) : '';
    if (linkTarget === undefined) continue; // something else now
    const entry = entryOf(seen, xattrs.get(path), linkTarget, first);
    yield { seen, entry: ids ? { ...entry, uid: insideId(ids, entry.uid), gid: insideId(ids, entry.gid) } : entry };
  }
}

/** What is mounted with ids of the host's own (a bind of a host directory) is left as it is: such ids never lie in a container's range. */
export function insideId(ids: readonly IdMapping[], id: number): number {
  return toContainerId(ids, id) ?? id;
}

function entryOf(
  { path, stat }: Seen,
  xattrs: ReadonlyMap<string, Uint8Array> | undefined,
  linkTarget: string,
  linkedTo: string | undefined,
): TarEntry {
  const type: EntryType = linkedTo === undefined ? typeOf(stat) : 'hardlink';
  const isDevice = type === 'char' || type === 'block';
  return {
    type,
    path,
    mode: stat.mode & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
    uname: '',
    gname: '',
    ...timeOf(stat),
    size: type === 'file' ? stat.size : 0,
    linkTarget: linkedTo ?? linkTarget,
    deviceMajor: isDevice ? majorOf(stat.rdev) : 0,
    deviceMinor: isDevice ? minorOf(stat.rdev) : 0,
    xattrs: type === 'hardlink' ? undefined : withoutOverlay(xattrs),
    sparse: undefined,
  };
}

const SMALL_BYTES = 64 * 1024;
const AHEAD_MOST = 32;

/** Small files are read while those before them go out: each is opened in its turn, since a name holds only then. */
class ReadAhead {
  #parts: Promise<Buffer>[] = [];

  get isFull(): boolean {
    return this.#parts.length >= AHEAD_MOST;
  }

  add(part: Buffer): void {
    this.#parts.push(Promise.resolve(part));
  }

  async addFile(access: string, entry: TarEntry): Promise<void> {
    const handle = await openAny(access);
    if (!handle) return; // a container put something else in its place
    const part = readSmall(handle, entry);
    part.catch(() => undefined); // thrown by `take`; until then nobody listens
    this.#parts.push(part);
  }

  async *take(): AsyncGenerator<Buffer> {
    const parts = this.#parts;
    this.#parts = [];
    for (const part of parts) yield await part;
  }
}

async function readSmall(handle: FileHandle, entry: TarEntry): Promise<Buffer> {
  try {
    if (!(await handle.stat()).isFile()) return Buffer.alloc(0);
    const content = Buffer.alloc(entry.size);
    for (let done = 0; done < content.length; ) {
      const { bytesRead } = await handle.read(content, done, content.length - done, done);
      if (bytesRead === 0) break; // cut meanwhile: the rest is zeros
      done += bytesRead;
    }
    return Buffer.concat([header(entry), content, padding(entry.size)]);
  } finally {
    await handle.close();
  }
}

/** Its size is promised in the header: a file that grows or shrinks meanwhile is cut or filled up, as GNU tar does. */
async function* fileOf(access: string, entry: TarEntry): AsyncGenerator<Buffer> {
  const handle = await openFile(access);
  if (!handle) return; // a container put something else in its place
  try {
    yield header(entry);
    let left = entry.size;
    while (left > 0) {
      const chunk = Buffer.allocUnsafe(Math.min(left, READ_BYTES));
      const { bytesRead } = await handle.read(chunk, 0, chunk.length, entry.size - left);
      if (bytesRead === 0) chunk.fill(0);
      const part = bytesRead === 0 ? chunk : chunk.subarray(0, bytesRead);
      left -= part.length;
      yield part;
    }
    yield padding(entry.size);
  } finally {
    await handle.close();
  }
}

const READ_BYTES = 256 * 1024;

function emptyFile(path: string, stat: Stats): TarEntry {
  return entryWith({ path, mode: 0, ...timeOf(stat) });
}

function whiteoutOf(path: string): string {
  const slash = path.lastIndexOf('/') + 1;
  return `${path.slice(0, slash)}.wh.${path.slice(slash)}`;
}

/** An upper directory that hides what is below it. */
export function isOpaque(xattrs: ReadonlyMap<string, Uint8Array> | undefined, attribute: string): boolean {
  return Buffer.from(xattrs?.get(attribute) ?? '').toString() === 'y';
}

/** What upper directories have in the place of a name that was removed. */
export function isWhiteout(stat: Stats): boolean {
  return stat.isCharacterDevice() && stat.rdev === 0;
}

function typeOf(stat: Stats): Exclude<EntryType, 'hardlink'> {
  if (stat.isDirectory()) return 'dir';
  if (stat.isSymbolicLink()) return 'symlink';
  if (stat.isCharacterDevice()) return 'char';
  if (stat.isBlockDevice()) return 'block';
  return stat.isFIFO() ? 'fifo' : 'file';
}

/** Whole seconds, as Docker and BuildKit write layers: a double of milliseconds does not hold nanoseconds. */
function timeOf(stat: Stats): { mtimeSec: number; mtimeNsec: number } {
  return { mtimeSec: Math.floor(stat.mtimeMs / 1000), mtimeNsec: 0 };
}

/** What overlayfs keeps for itself, in the host's namespace and (`userxattr`) in others. */
const OVERLAY_OWN = /^(?:trusted|user)\.overlay\./;

function withoutOverlay(xattrs: ReadonlyMap<string, Uint8Array> | undefined): Map<string, Uint8Array> | undefined {
  if (!xattrs) return undefined;
  const kept = [...xattrs].filter(([name]) => !OVERLAY_OWN.test(name) && name !== 'security.selinux');
  return kept.length > 0 ? new Map(kept) : undefined;
}

/** gnu_dev_major/minor(3) of st_rdev. */
function majorOf(device: number): number {
  return Number((BigInt(device) >> 8n) & 0xfffn);
}

function minorOf(device: number): number {
  return Number((BigInt(device) & 0xffn) | ((BigInt(device) >> 12n) & 0xf_ff00n));
}

function gone(error: unknown): undefined {
  const errno = errnoOf(error);
  if (errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'EINVAL') return undefined;
  throw error;
}
