import { type LayerTree, type Node, OPAQUE_XATTR } from '#image/layer/tree.ts';

/**
 * EROFS images (Linux, Documentation/filesystems/erofs.rst; fs/erofs/erofs_fs.h), uncompressed:
 *
 *     block 0        1024 bytes nothing, then the super block
 *     block 1 …      file contents, each from a block's start, in the order in which they came out of the tar
 *     then           larger directories and long link targets, each from a block's start
 *     meta block …   inodes (64 bytes), each followed by its attributes and, where small, by its contents
 *
 * An inode is known by its place: nid = (offset − meta start) / 32.
 */
export const EROFS_BLOCK = 4096;
const BLOCK_BITS = 12;
const SUPER_OFFSET = 1024;
const MAGIC = 0xe0f5e1e2;
const INODE_BYTES = 64;
const SLOT_BYTES = 32;
/** Nothing has nid 0, since programs skip directory entries with inode number 0. */
const FIRST_INODE_AT = 64;
/** Contents up to here stand behind the inode: one read fetches both, and no block is left half empty. */
export const INLINE_MAX_BYTES = 2048;
/** Block addresses have 32 bits. */
export const EROFS_MAX_BYTES = 2 ** 32 * EROFS_BLOCK;

const LAYOUT_PLAIN = 0;
const LAYOUT_INLINE = 2;

const S_IFMT: Record<Node['type'], number> = {
  file: 0o100000,
  dir: 0o040000,
  symlink: 0o120000,
  char: 0o020000,
  block: 0o060000,
  fifo: 0o010000,
};
/** `d_type` as EROFS keeps it (EROFS_FT_*). */
const FILE_TYPE: Record<Node['type'], number> = { file: 1, dir: 2, char: 3, block: 4, fifo: 5, symlink: 7 };

/** EROFS_XATTR_INDEX_*: the longest prefix that fits; the rest of the name is stored. */
const XATTR_PREFIXES: [prefix: string, index: number][] = [
  ['system.posix_acl_access', 2],
  ['system.posix_acl_default', 3],
  ['user.', 1],
  ['trusted.', 4],
  ['security.', 6],
];

export function blocksOf(bytes: number): number {
  return Math.ceil(bytes / EROFS_BLOCK);
}

/** What follows the file contents: its bytes begin at `startBlock`; the super block goes to block 0. */
export interface ErofsTail {
  bytes: Buffer;
  superBlock: Buffer;
  inodes: number;
}

/**
 * Lays out everything but the contents of files that have blocks of their own (`node.data` is their first block).
 * `startBlock` is the first free block behind them.
 */
export function layOut(tree: LayerTree, startBlock: number): ErofsTail {
  const order = inOrder(tree.root);
  const place = new Map<Node, Placed>();
  let bulkBlocks = 0;
  let metaBytes = FIRST_INODE_AT;
  for (const node of order) {
    const placed = measure(node);
    if ((node.type === 'dir' || node.type === 'symlink') && placed.inlineBytes === 0) {
      node.data = startBlock + bulkBlocks;
      bulkBlocks += blocksOf(node.size);
    }
    placed.at = freeSlot(metaBytes, placed);
    metaBytes = placed.at + placed.bytes;
    place.set(node, placed);
  }

  const metaStart = bulkBlocks * EROFS_BLOCK;
  const bytes = Buffer.alloc(metaStart + blocksOf(metaBytes) * EROFS_BLOCK);
  const nidOf = (node: Node): number => (place.get(node) as Placed).at / SLOT_BYTES;
  writeTree(tree.root, tree.root, (node, parent) => {
    const placed = place.get(node) as Placed;
    if (placed.written) return;
    placed.written = true;
    const at = metaStart + placed.at;
    writeInode(bytes, at, node, placed);
    const out = placed.inlineBytes > 0 ? at + INODE_BYTES + placed.xattrBytes : (node.data - startBlock) * EROFS_BLOCK;
    if (node.type === 'dir') writeDirectory(bytes, out, node, nidOf(node), nidOf(parent), nidOf);
    else if (node.type === 'symlink') bytes.write(node.linkTarget, out, 'utf8');
    else if (node.inline) bytes.set(node.inline, out);
  });
  const blocks = startBlock + bytes.length / EROFS_BLOCK;
  return {
    bytes,
    superBlock: superBlock(blocks, startBlock + bulkBlocks, nidOf(tree.root), order.length),
    inodes: order.length,
  };
}

interface Placed {
  at: number;
  /** All that stands together: inode, attributes, inline contents. */
  bytes: number;
  xattrs: [name: string, value: Uint8Array][];
  xattrBytes: number;
  inlineBytes: number;
  written: boolean;
}

/** Root first: its nid has to fit in 16 bits. A node with several names appears once. */
function inOrder(root: Node): Node[] {
  const seen = new Set<Node>([root]);
  for (const node of seen) for (const child of node.children?.values() ?? []) seen.add(child);
  return [...seen];
}

function measure(node: Node): Placed {
  const xattrs: [string, Uint8Array][] = [...(node.xattrs ?? [])];
  if (node.opaque) xattrs.push([OPAQUE_XATTR, Buffer.from('y')]);
  const xattrBytes = bytesOfXattrs(xattrs);
  if (node.type === 'dir') node.size = directoryBytes(node);
  if (node.type === 'symlink') node.size = Buffer.byteLength(node.linkTarget);
  const isBulk = node.type === 'dir' || node.type === 'symlink';
  const inlineBytes = node.inline || (isBulk && fitsInline(node.size, xattrBytes)) ? node.size : 0;
  return { at: 0, bytes: INODE_BYTES + xattrBytes + inlineBytes, xattrs, xattrBytes, inlineBytes, written: false };
}

/** The next free slot. What stands together with inline contents must not cross a block's end, and an inode never does. */
function freeSlot(free: number, placed: Placed): number {
  const at = Math.ceil(free / SLOT_BYTES) * SLOT_BYTES;
  const room = EROFS_BLOCK - (at % EROFS_BLOCK);
  const together = placed.inlineBytes > 0 ? placed.bytes : INODE_BYTES;
  return together <= room ? at : at + room;
}

function writeTree(node: Node, parent: Node, visit: (node: Node, parent: Node) => void): void {
  const pending: [Node, Node][] = [[node, parent]];
  for (let next = pending.pop(); next; next = pending.pop()) {
    const [at, above] = next;
    visit(at, above);
    for (const child of at.children?.values() ?? []) pending.push([child, at]);
  }
}

function writeInode(b: Buffer, at: number, node: Node, placed: Placed): void {
  const layout = placed.inlineBytes > 0 ? LAYOUT_INLINE : LAYOUT_PLAIN;
  b.writeUInt16LE(1 | (layout << 1), at); // version 1: the 64-byte inode, with time and 32-bit ids
  b.writeUInt16LE(placed.xattrBytes === 0 ? 0 : (placed.xattrBytes - 12) / 4 + 1, at + 2);
  b.writeUInt16LE(S_IFMT[node.type] | node.mode, at + 4);
  b.writeBigUInt64LE(BigInt(node.size), at + 8);
  b.writeUInt32LE(addressOf(node, placed), at + 16);
  b.writeUInt32LE(placed.at / SLOT_BYTES, at + 20);
  b.writeUInt32LE(node.uid, at + 24);
  b.writeUInt32LE(node.gid, at + 28);
  b.writeBigInt64LE(BigInt(node.mtimeSec), at + 32);
  b.writeUInt32LE(node.mtimeNsec, at + 40);
  b.writeUInt32LE(node.links, at + 44);
  writeXattrs(b, at + INODE_BYTES, placed);
}

function addressOf(node: Node, placed: Placed): number {
  if (node.type === 'char' || node.type === 'block') return encodeDevice(node.deviceMajor, node.deviceMinor);
  if (node.type === 'fifo') return 0;
  return placed.inlineBytes > 0 || node.size === 0 ? 0xffff_ffff : node.data;
}

/** new_encode_dev(): 12 bits of major between 8 low and 12 high bits of minor. */
function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

// -- attributes: a head of 12 bytes (no shared ones), then entries padded to 4

function bytesOfXattrs(xattrs: readonly [string, Uint8Array][]): number {
  return xattrs.length === 0 ? 0 : 12 + xattrs.reduce((sum, [name, value]) => sum + xattrEntryBytes(name, value), 0);
}

/** True when contents of that size can stand behind the inode and its attributes. */
export function mayBeInline(node: Node, size: number): boolean {
  return size > 0 && fitsInline(size, bytesOfXattrs([...(node.xattrs ?? [])]));
}

function fitsInline(size: number, xattrBytes: number): boolean {
  return size <= INLINE_MAX_BYTES && INODE_BYTES + xattrBytes + size <= EROFS_BLOCK;
}

function xattrEntryBytes(name: string, value: Uint8Array): number {
  return Math.ceil((4 + Buffer.byteLength(xattrName(name).rest) + value.length) / 4) * 4;
}

function xattrName(name: string): { index: number; rest: string } {
  for (const [prefix, index] of XATTR_PREFIXES)
    if (name.startsWith(prefix)) return { index, rest: name.slice(prefix.length) };
  return { index: 0, rest: name };
}

function writeXattrs(b: Buffer, at: number, placed: Placed): void {
  let next = at + 12;
  for (const [name, value] of placed.xattrs) {
    const { index, rest } = xattrName(name);
    b.writeUInt8(Buffer.byteLength(rest), next);
    b.writeUInt8(index, next + 1);
    b.writeUInt16LE(value.length, next + 2);
    const written = b.write(rest, next + 4, 'utf8');
    b.set(value, next + 4 + written);
    next += xattrEntryBytes(name, value);
  }
}

// -- directories: blocks of [entry × n][names], sorted by bytes over all blocks; an entry is nid, name offset, type

const DIRENT_BYTES = 12;

interface Dirent {
  name: Buffer;
  node: Node | 'self' | 'parent';
}

function direntsOf(node: Node): Dirent[] {
  const list: Dirent[] = [...(node.children ?? [])].map(([name, child]) => ({ name: Buffer.from(name), node: child }));
  list.push({ name: Buffer.from('.'), node: 'self' }, { name: Buffer.from('..'), node: 'parent' });
  return list.sort((a, b) => Buffer.compare(a.name, b.name));
}

/** Entries block by block. */
function* direntBlocks(dirents: readonly Dirent[]): Generator<Dirent[]> {
  let block: Dirent[] = [];
  let used = 0;
  for (const dirent of dirents) {
    const bytes = DIRENT_BYTES + dirent.name.length;
    if (used + bytes > EROFS_BLOCK) {
      yield block;
      block = [];
      used = 0;
    }
    block.push(dirent);
    used += bytes;
  }
  yield block;
}

function directoryBytes(node: Node): number {
  let full = 0;
  let last = 0;
  for (const block of direntBlocks(direntsOf(node))) {
    full += last === 0 ? 0 : EROFS_BLOCK;
    last = block.reduce((sum, d) => sum + DIRENT_BYTES + d.name.length, 0);
  }
  return full + last;
}

function writeDirectory(
  b: Buffer,
  start: number,
  node: Node,
  self: number,
  parent: number,
  nidOf: (node: Node) => number,
): void {
  let at = start;
  for (const block of direntBlocks(direntsOf(node))) {
    let nameOffset = block.length * DIRENT_BYTES;
    for (const [i, dirent] of block.entries()) {
      const entryAt = at + i * DIRENT_BYTES;
      const nid = dirent.node === 'self' ? self : dirent.node === 'parent' ? parent : nidOf(dirent.node);
      b.writeBigUInt64LE(BigInt(nid), entryAt);
      b.writeUInt16LE(nameOffset, entryAt + 8);
      b.writeUInt8(typeof dirent.node === 'string' ? FILE_TYPE.dir : FILE_TYPE[dirent.node.type], entryAt + 10);
      b.set(dirent.name, at + nameOffset);
      nameOffset += dirent.name.length;
    }
    at += EROFS_BLOCK;
  }
}

function superBlock(blocks: number, metaBlock: number, rootNid: number, inodes: number): Buffer {
  const b = Buffer.alloc(128);
  b.writeUInt32LE(MAGIC, 0);
  b.writeUInt8(BLOCK_BITS, 12);
  b.writeUInt16LE(rootNid, 14);
  b.writeBigUInt64LE(BigInt(inodes), 16);
  b.writeUInt32LE(blocks, 36);
  b.writeUInt32LE(metaBlock, 40);
  return b;
}

export const SUPER_BLOCK_OFFSET = SUPER_OFFSET;
