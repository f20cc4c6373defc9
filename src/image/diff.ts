import { constants, type Stats } from 'node:fs';
import { lstat, open, readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import { OPAQUE_XATTR } from '#image/layer/tree.ts';
import type { EntryType, TarEntry } from '#image/tar/entry.ts';
import { endOfArchive, header, padding } from '#image/tar/writer.ts';

/**
 * What a container changed, from overlayfs' upper directory alone, without reading the layers below: a character device
 * 0:0 is a removed name, `trusted.overlay.opaque` a directory that hides what was below it.
 */
export interface Change {
  /** Relative to the root, without a leading slash. */
  path: string;
  kind: 'added' | 'changed' | 'deleted';
}

interface Found {
  path: string;
  stat: Stats;
  opaque: boolean;
}

type Xattrs = ReadonlyMap<string, ReadonlyMap<string, Uint8Array>>;

/** Every file of a directory tree, parents first, names in byte order, links not followed. */
async function* walk(root: string, xattrs: Xattrs): AsyncGenerator<Found> {
  const pending: string[] = [''];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    const stat = await lstat(join(root, path)).catch(gone);
    if (!stat) continue; // removed meanwhile by the container
    const opaque = Buffer.from(xattrs.get(path)?.get(OPAQUE_XATTR) ?? '').toString() === 'y';
    yield { path, stat, opaque };
    if (!stat.isDirectory()) continue;
    const names = await readdir(join(root, path)).catch(gone);
    for (const name of (names ?? []).sort().reverse()) pending.push(path === '' ? name : `${path}/${name}`);
  }
}

/** `docker diff`: needs to know what the layers below have. `existsBelow` looks into them, uppermost first. */
export async function* changes(
  upper: string,
  xattrs: Xattrs,
  existsBelow: (path: string) => Promise<boolean>,
): AsyncGenerator<Change> {
  for await (const { path, stat } of walk(upper, xattrs)) {
    if (path === '') continue;
    if (isWhiteout(stat)) yield { path, kind: 'deleted' };
    else yield { path, kind: (await existsBelow(path)) ? 'changed' : 'added' };
  }
}

/** True if one of the layers (uppermost first) shows that path; a whiteout or an opaque directory ends the search. */
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
  /** Whole trees (export) have no whiteouts to write: a device 0:0 is then a device. */
  whiteouts: boolean;
}

/** The tree as a tar: with `whiteouts`, upper directory → OCI layer (image-spec, layer.md). The same tree gives the same bytes. */
export async function* tarOf(root: string, xattrs: Xattrs, options: TarOptions): AsyncGenerator<Buffer> {
  const links = new Map<string, string>();
  for await (const { path, stat, opaque } of walk(root, xattrs)) {
    if (options.whiteouts && isWhiteout(stat)) {
      yield header(emptyFile(whiteoutOf(path), stat));
      continue;
    }
    if (stat.isSocket()) continue; // sockets live with their process; no tar holds them
    const first = stat.nlink > 1 && !stat.isDirectory() ? links.get(`${stat.dev}:${stat.ino}`) : undefined;
    if (first === undefined && stat.nlink > 1) links.set(`${stat.dev}:${stat.ino}`, path);
    const entry = await entryOf(root, path, stat, xattrs.get(path), first);
    if (entry.type === 'file') yield* fileOf(root, entry);
    else yield header(entry);
    if (options.whiteouts && opaque)
      yield header(emptyFile(path === '' ? '.wh..wh..opq' : `${path}/.wh..wh..opq`, stat));
  }
  yield endOfArchive();
}

async function entryOf(
  root: string,
  path: string,
  stat: Stats,
  xattrs: ReadonlyMap<string, Uint8Array> | undefined,
  linkedTo: string | undefined,
): Promise<TarEntry> {
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
    linkTarget: type === 'symlink' ? await readlink(join(root, path)) : (linkedTo ?? ''),
    deviceMajor: isDevice ? majorOf(stat.rdev) : 0,
    deviceMinor: isDevice ? minorOf(stat.rdev) : 0,
    xattrs: type === 'hardlink' ? undefined : withoutOverlay(xattrs),
    sparse: undefined,
  };
}

/** Its size is promised in the header: a file that grows or shrinks meanwhile is cut or filled up, as GNU tar does. */
async function* fileOf(root: string, entry: TarEntry): AsyncGenerator<Buffer> {
  // O_NOFOLLOW: a container may put a link in the file's place between our look and this.
  const handle = await open(join(root, entry.path), constants.O_RDONLY | constants.O_NOFOLLOW).catch(gone);
  if (!handle) return;
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
  return {
    type: 'file',
    path,
    mode: 0,
    uid: 0,
    gid: 0,
    uname: '',
    gname: '',
    ...timeOf(stat),
    size: 0,
    linkTarget: '',
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: undefined,
    sparse: undefined,
  };
}

function whiteoutOf(path: string): string {
  const slash = path.lastIndexOf('/') + 1;
  return `${path.slice(0, slash)}.wh.${path.slice(slash)}`;
}

function isWhiteout(stat: Stats): boolean {
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

function withoutOverlay(xattrs: ReadonlyMap<string, Uint8Array> | undefined): Map<string, Uint8Array> | undefined {
  if (!xattrs) return undefined;
  const kept = [...xattrs].filter(([name]) => !name.startsWith('trusted.overlay.') && name !== 'security.selinux');
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
  if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ELOOP') return undefined;
  throw error;
}
