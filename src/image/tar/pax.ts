import { aclFromText } from '#image/tar/acl.ts';
import { PAX_MAX_BYTES, SPARSE_MAX_EXTENTS, type SparseExtent, XATTR_MAX_BYTES } from '#image/tar/entry.ts';
import { broken, decodeUtf8 } from '#image/tar/header.ts';

/** Extended header records (POSIX.1-2001 pax): `LENGTH KEY=VALUE\n`, LENGTH counting all of itself. Values are bytes. */
export type PaxRecords = Map<string, Uint8Array>;

export function parsePax(body: Buffer, into: PaxRecords, sparsePairs: Uint8Array[]): void {
  let at = 0;
  while (at < body.length) {
    const blank = body.indexOf(0x20, at);
    // A length of more than 10 digits is longer than any body.
    if (blank < 0 || blank - at > 10) broken('has an extended header that cannot be read');
    const digits = body.toString('latin1', at, blank);
    const end = at + Number(digits);
    if (!/^[1-9]\d*$/.test(digits) || end > body.length || body[end - 1] !== 0x0a)
      broken('has an extended header with a wrong length');
    const equals = body.indexOf(0x3d, blank + 1);
    if (equals < 0 || equals >= end) broken('has an extended header without a key');
    const key = decodeUtf8(body.subarray(blank + 1, equals), 'key in its extended header');
    const value = body.subarray(equals + 1, end - 1);
    if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') sparsePairs.push(value);
    else if (value.length === 0 && !key.startsWith('SCHILY.xattr.'))
      into.delete(key); // an empty value takes the key back
    else into.set(key, Buffer.from(value));
    at = end;
  }
  if (sparsePairs.length > SPARSE_MAX_EXTENTS * 2) broken('has too many extents');
}

export function paxText(records: PaxRecords, key: string): string | undefined {
  const value = records.get(key);
  return value && decodeUtf8(value, key);
}

export function paxInteger(records: PaxRecords, key: string): number | undefined {
  const text = paxText(records, key);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!/^-?\d{1,19}$/.test(text)) broken(`has a ${key} that is not a number`);
  if (value < 0) broken(`has a negative ${key}`);
  if (!Number.isSafeInteger(value)) broken(`has a ${key} that is too large`);
  return value;
}

/** Seconds with a fraction of any length, cut to nanoseconds towards the past, as the kernel keeps time. */
export function paxTime(records: PaxRecords, key: string): { sec: number; nsec: number } | undefined {
  const text = paxText(records, key);
  if (text === undefined) return undefined;
  const match = /^(-?)(\d{1,15})(?:\.(\d*))?$/.exec(text);
  if (!match) return broken(`has a ${key} that is not a time`);
  const sec = Number(match[2]);
  const nsec = Number((match[3] ?? '').slice(0, 9).padEnd(9, '0'));
  if (match[1] === '') return { sec, nsec };
  return nsec === 0 ? { sec: -sec, nsec: 0 } : { sec: -sec - 1, nsec: 1_000_000_000 - nsec };
}

/** `SCHILY.xattr.NAME` (star, GNU tar, Go), `LIBARCHIVE.xattr.NAME` (bsdtar), `SCHILY.acl.*` (GNU tar --acls). */
export function paxXattrs(records: PaxRecords): Map<string, Uint8Array> | undefined {
  let result: Map<string, Uint8Array> | undefined;
  let total = 0;
  const add = (name: string, value: Uint8Array): void => {
    if (name === '' || Buffer.byteLength(name) > 255 || name.includes('\0'))
      broken(`has an attribute with the name ${JSON.stringify(name.slice(0, 100))}`);
    total += name.length + value.length;
    if (value.length > XATTR_MAX_BYTES || total > PAX_MAX_BYTES) broken(`has an attribute ${name} that is too large`);
    result ??= new Map();
    result.set(name, value);
  };
  for (const [key, value] of records) {
    if (key.startsWith('LIBARCHIVE.xattr.')) {
      add(decodeName(key.slice(17)), Buffer.from(Buffer.from(value).toString('latin1'), 'base64'));
    } else if (key === 'SCHILY.acl.access' || key === 'SCHILY.acl.default') {
      add(`system.posix_acl_${key.slice(11)}`, aclFromText(decodeUtf8(value, key)));
    } else if (key === 'RHT.security.selinux') {
      add('security.selinux', value);
    }
  }
  // The exact form wins over the others.
  for (const [key, value] of records) if (key.startsWith('SCHILY.xattr.')) add(key.slice(13), value);
  return result;
}

function decodeName(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return broken('has an attribute name that cannot be decoded');
  }
}

/** Extents must ascend, lie within the file and not overlap. */
export function checkExtents(numbers: readonly number[], realSize: number): SparseExtent[] {
  if (numbers.length % 2 !== 0) broken('has a sparse map with an odd count');
  if (numbers.length > SPARSE_MAX_EXTENTS * 2) broken('has too many extents');
  const extents: SparseExtent[] = [];
  let end = 0;
  for (let i = 0; i < numbers.length; i += 2) {
    const offset = numbers[i] as number;
    const length = numbers[i + 1] as number;
    if (
      !Number.isSafeInteger(offset) ||
      !Number.isSafeInteger(length) ||
      offset < end ||
      length < 0 ||
      offset + length > realSize
    ) {
      broken('has a sparse map that is out of order or beyond its size');
    }
    end = offset + length;
    if (length > 0) extents.push({ offset, length });
  }
  return extents;
}
