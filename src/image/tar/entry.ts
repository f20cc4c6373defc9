/** One member of an archive, all its extensions applied and every field within its bounds. */
export interface TarEntry {
  type: EntryType;
  /** Relative, normalized: no leading slash, no `.`, `..` or empty parts; `''` is the root itself. */
  path: string;
  /** Permission, set-id and sticky bits only. */
  mode: number;
  uid: number;
  gid: number;
  uname: string;
  gname: string;
  mtimeSec: number;
  mtimeNsec: number;
  /** Bytes of the file when unpacked; sparse files count their holes. */
  size: number;
  /** Of a symbolic link: as it is. Of a hard link: a path like `path`. */
  linkTarget: string;
  deviceMajor: number;
  deviceMinor: number;
  xattrs: ReadonlyMap<string, Uint8Array> | undefined;
  /** Where the data lies in the file; undefined: all of it, without holes. */
  sparse: readonly SparseExtent[] | undefined;
}

/** What nobody says of a member is as of an empty file of root's, from the beginning of time. */
export function entryWith(said: Pick<TarEntry, 'path'> & Partial<TarEntry>): TarEntry {
  return {
    type: 'file',
    mode: 0o644,
    uid: 0,
    gid: 0,
    uname: '',
    gname: '',
    mtimeSec: 0,
    mtimeNsec: 0,
    size: 0,
    linkTarget: '',
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: undefined,
    sparse: undefined,
    ...said,
  };
}

export type EntryType = 'file' | 'hardlink' | 'symlink' | 'char' | 'block' | 'dir' | 'fifo';

export interface SparseExtent {
  offset: number;
  length: number;
}

export const BLOCK = 512;

/** What an archive may ask of us at most. Beyond it lies either damage or malice. */
export interface TarLimits {
  /** Unpacked bytes of all files together, holes not counted. */
  contentBytes: number;
  entries: number;
}

export const DEFAULT_LIMITS: TarLimits = { contentBytes: 256 * 1024 ** 3, entries: 4_000_000 };
/** A file of 8 TiB is what ext4 and EROFS both hold with 4 KiB blocks and room to spare. */
export const FILE_MAX_BYTES = 2 ** 43;
/** PATH_MAX and NAME_MAX of Linux. */
export const PATH_MAX = 4096;
export const NAME_MAX = 255;
/** All extended headers of one entry. */
export const PAX_MAX_BYTES = 1024 * 1024;
export const SPARSE_MAX_EXTENTS = 65_536;
/** XATTR_SIZE_MAX and XATTR_LIST_MAX. */
export const XATTR_MAX_BYTES = 65_536;
