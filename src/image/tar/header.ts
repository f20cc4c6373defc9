import { BLOCK, NAME_MAX, PATH_MAX } from '#image/tar/entry.ts';

/** Throws for a broken rule; the reader adds blob and entry. */
export class BrokenRule extends Error {}

export function broken(rule: string): never {
  throw new BrokenRule(rule);
}

/**
 * The header block (POSIX.1-1988 ustar; GNU tar's manual, "Basic Tar Format"):
 *
 *       0 name 100   100 mode 8   108 uid 8    116 gid 8     124 size 12      136 mtime 12   148 checksum 8   156 type 1
 *     157 link 100   257 magic 6  263 version 2 265 uname 32 297 gname 32     329 major 8    337 minor 8      345 prefix 155
 *     GNU: 345 atime 12  357 ctime 12  369 offset 12  381 long 4  386 four sparse entries of 24  482 extended  483 real size 12
 */
export interface RawHeader {
  type: string;
  name: string;
  link: string;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  mtimeSec: number;
  uname: string;
  gname: string;
  major: number;
  minor: number;
  isGnu: boolean;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export function isZeroBlock(b: Buffer, at: number): boolean {
  for (let i = at; i < at + BLOCK; i++) if (b[i] !== 0) return false;
  return true;
}

export function readHeader(b: Buffer, at: number): RawHeader {
  checkChecksum(b, at);
  const isUstar = b.toString('latin1', at + 257, at + 262) === 'ustar';
  const isGnu = isUstar && b[at + 262] === 0x20;
  const prefix = isUstar && !isGnu ? textField(b, at + 345, 155, 'prefix') : '';
  const name = textField(b, at, 100, 'name');
  return {
    type: String.fromCharCode(b[at + 156] ?? 0),
    name: prefix === '' ? name : `${prefix}/${name}`,
    link: textField(b, at + 157, 100, 'link name'),
    mode: numberField(b, at + 100, 8, 'mode'),
    uid: numberField(b, at + 108, 8, 'uid'),
    gid: numberField(b, at + 116, 8, 'gid'),
    size: numberField(b, at + 124, 12, 'size'),
    mtimeSec: numberField(b, at + 136, 12, 'mtime', true),
    uname: isUstar ? lenientField(b, at + 265, 32) : '',
    gname: isUstar ? lenientField(b, at + 297, 32) : '',
    major: isUstar ? numberField(b, at + 329, 8, 'device major') : 0,
    minor: isUstar ? numberField(b, at + 337, 8, 'device minor') : 0,
    isGnu,
  };
}

function checkChecksum(b: Buffer, at: number): void {
  let unsigned = 8 * 0x20;
  let signed = unsigned;
  for (let i = 0; i < BLOCK; i++) {
    if (i >= 148 && i < 156) continue;
    const byte = b[at + i] as number;
    unsigned += byte;
    signed += byte > 127 ? byte - 256 : byte;
  }
  const stored = numberField(b, at + 148, 8, 'checksum');
  // Old tars on machines with signed char summed signed bytes.
  if (stored !== unsigned && stored !== signed) broken('has a header whose checksum is wrong');
}

/** Octal text, or base 256 with the top bit set (GNU tar's manual, "Extensions"). */
export function numberField(b: Buffer, at: number, length: number, what: string, mayBeNegative = false): number {
  const first = b[at] as number;
  if (first & 0x80) return binaryField(b, at, length, what, mayBeNegative);
  let value = 0;
  let digits = 0;
  let i = at;
  const end = at + length;
  while (i < end && (b[i] === 0x20 || b[i] === 0)) i++;
  for (; i < end; i++) {
    const byte = b[i] as number;
    if (byte === 0x20 || byte === 0) break;
    if (byte < 0x30 || byte > 0x37) broken(`has a ${what} that is not an octal number`);
    value = value * 8 + byte - 0x30;
    digits++;
  }
  if (digits > 0 && !Number.isSafeInteger(value)) broken(`has a ${what} that is too large`);
  return value;
}

function binaryField(b: Buffer, at: number, length: number, what: string, mayBeNegative: boolean): number {
  const first = b[at] as number;
  const negative = (first & 0x40) !== 0;
  let value = negative ? BigInt(first & 0x7f) - 128n : BigInt(first & 0x7f);
  for (let i = at + 1; i < at + length; i++) value = (value << 8n) | BigInt(b[i] as number);
  if (value < 0n && !mayBeNegative) broken(`has a negative ${what}`);
  if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER))
    broken(`has a ${what} that is too large`);
  return Number(value);
}

export function textField(b: Buffer, at: number, length: number, what: string): string {
  let end = at;
  let ascii = true;
  const limit = at + length;
  for (; end < limit; end++) {
    const byte = b[end] as number;
    if (byte === 0) break;
    if (byte > 127) ascii = false;
  }
  if (ascii) return b.toString('latin1', at, end);
  return decodeUtf8(b.subarray(at, end), what);
}

/** User and group names are for people; a wrong byte in them harms nobody. */
function lenientField(b: Buffer, at: number, length: number): string {
  const end = b.indexOf(0, at);
  return b.toString('utf8', at, end < 0 || end > at + length ? at + length : end);
}

export function decodeUtf8(bytes: Uint8Array, what: string): string {
  try {
    return utf8.decode(bytes);
  } catch {
    return broken(`has a ${what} that is not UTF-8`);
  }
}

/** `./usr//bin/` → `usr/bin`. Leading slashes mean the root of the image, as every unpacker takes them. */
export function cleanPath(path: string, what: string): string {
  if (path.length > PATH_MAX || (path.length > PATH_MAX / 3 && Buffer.byteLength(path) > PATH_MAX))
    broken(`has a ${what} longer than ${PATH_MAX} bytes`);
  if (path.includes('\0')) broken(`has a NUL byte in its ${what}`);
  if (isClean(path)) return path;
  const parts = path.split('/').filter((p) => p !== '' && p !== '.');
  for (const part of parts) {
    if (part === '..') broken(`leaves the image by its ${what}`);
    if (Buffer.byteLength(part) > NAME_MAX) broken(`has a part longer than ${NAME_MAX} bytes in its ${what}`);
  }
  return parts.join('/');
}

/** The usual case without taking the path apart: no part that is empty, begins with a dot or could be too long. */
function isClean(path: string): boolean {
  const length = path.length;
  if (length === 0 || length > NAME_MAX / 3) return false;
  let start = true;
  for (let i = 0; i < length; i++) {
    const c = path.charCodeAt(i);
    if (start && (c === 0x2e || c === 0x2f)) return false;
    start = c === 0x2f;
  }
  return !start;
}
