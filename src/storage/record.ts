import { crc32 } from 'node:zlib';
import type { JournalRecord } from '#storage/local.ts';
import type { ChangeEntry } from '#storage/mvcc.ts';

/**
 * One record of the log, little endian:
 *
 *      0  u32  magic "ESR1"
 *      4  u32  CRC-32 of everything after this field
 *      8  u32  length of the payload
 *     12  u48  how much of this file was synced when the record was made; tells a torn tail from a damaged middle
 *     18  payload
 *
 *     change   1, u48 revision, u32 entries; each: u8 flags, u16+key, u48 create, u48 version, u8+lease, u32+u32 CRC+value
 *     grant    2, u8+lease, u48 ttl in ms
 *     revoke   3, u8+lease
 *     compact  4, u48 revision
 *     header   5, u48 revision, u48 compacted: the first record of a base
 *     key      6, u16+key, u32 versions, newest first; each: u48 mod, then as an entry without its key
 *     mark     7: nothing but "all before me is synced"; written at close and at the end of a base
 */
export type LogRecord =
  | JournalRecord
  | { kind: 'header'; revision: number; compacted: number }
  | { kind: 'key'; key: string; versions: StoredVersion[] }
  | { kind: 'mark' };

export interface StoredVersion {
  modRevision: number;
  createRevision: number;
  version: number;
  lease: string | undefined;
  value: Uint8Array | undefined;
}

export const HEADER_BYTES = 18;
export const MAGIC = 0x31525345;
/** A transaction's values, 1 024 keys and what surrounds them; a key with its whole history can be larger and is split. */
export const RECORD_MAX_BYTES = 64 * 1024 * 1024;
/** The CRC of a value stands before its bytes. */
export const VALUE_CRC_BYTES = 4;

const DELETED = 1;

export interface Encoded {
  bytes: Buffer;
  /** Offsets of the values within `bytes`, in order of the entries; undefined for deletes. */
  valueAt: (number | undefined)[];
}

export function encodeRecord(record: LogRecord, syncedBytes: number): Encoded {
  const w = new Writer(sizeOf(record));
  const valueAt: (number | undefined)[] = [];
  w.at = HEADER_BYTES;
  switch (record.kind) {
    case 'change':
      w.u8(1).u48(record.revision).u32(record.entries.length);
      for (const e of record.entries)
        valueAt.push(
          w
            .u8(e.value === undefined ? DELETED : 0)
            .text16(e.key)
            .tail(e),
        );
      break;
    case 'grant':
      w.u8(2).text8(record.lease).u48(record.ttlMs);
      break;
    case 'revoke':
      w.u8(3).text8(record.lease);
      break;
    case 'compact':
      w.u8(4).u48(record.revision);
      break;
    case 'header':
      w.u8(5).u48(record.revision).u48(record.compacted);
      break;
    case 'key':
      w.u8(6).text16(record.key).u32(record.versions.length);
      for (const v of record.versions)
        valueAt.push(
          w
            .u8(v.value === undefined ? DELETED : 0)
            .u48(v.modRevision)
            .tail(v),
        );
      break;
    case 'mark':
      w.u8(7);
  }
  const bytes = w.buffer.subarray(0, w.at);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt32LE(bytes.length - HEADER_BYTES, 8);
  bytes.writeUIntLE(syncedBytes, 12, 6);
  bytes.writeUInt32LE(crc32(bytes.subarray(8)), 4);
  return { bytes, valueAt };
}

/** Length of the whole record at `at`, or why there is none. `'short'`: the bytes end before it does. */
export function recordLength(bytes: Buffer, at: number): number | 'short' | 'bad' {
  if (bytes.length - at < HEADER_BYTES) return 'short';
  if (bytes.readUInt32LE(at) !== MAGIC) return 'bad';
  const length = HEADER_BYTES + bytes.readUInt32LE(at + 8);
  if (length > RECORD_MAX_BYTES) return 'bad';
  if (bytes.length - at < length) return 'short';
  return crc32(bytes.subarray(at + 8, at + length)) === bytes.readUInt32LE(at + 4) ? length : 'bad';
}

export function syncedBefore(bytes: Buffer, at: number): number {
  return bytes.readUIntLE(at + 12, 6);
}

/** A record read back: `R` is what `place` made of where a value lies, and no byte of it is looked at. */
export type StoredRecord<R> =
  | { kind: 'change'; revision: number; entries: Placed<ChangeEntry, R>[] }
  | { kind: 'key'; key: string; versions: Placed<StoredVersion, R>[] }
  | Exclude<LogRecord, { kind: 'change' | 'key' }>;
type Placed<T, R> = Omit<T, 'value'> & { value: R | undefined };

/**
 * The record at `at`, which `recordLength` has found whole. A start reads thousands of them, in code that has not been compiled yet: so
 * it makes no more objects than it keeps.
 */
export function decodeRecord<R>(bytes: Buffer, at: number, place: (at: number, length: number) => R): StoredRecord<R> {
  const r = new Reader(bytes, at + HEADER_BYTES);
  const kind = r.u8();
  switch (kind) {
    case 1: {
      const revision = r.u48();
      const entries: Placed<ChangeEntry, R>[] = [];
      for (let left = r.u32(); left > 0; left--) {
        const flags = r.u8();
        const key = r.text16();
        const [createRevision, version, lease] = [r.u48(), r.u48(), r.lease()];
        entries.push({ key, createRevision, version, lease, value: r.value(flags, place) });
      }
      return { kind: 'change', revision, entries };
    }
    case 2:
      return { kind: 'grant', lease: r.text8(), ttlMs: r.u48() };
    case 3:
      return { kind: 'revoke', lease: r.text8() };
    case 4:
      return { kind: 'compact', revision: r.u48() };
    case 5:
      return { kind: 'header', revision: r.u48(), compacted: r.u48() };
    case 6: {
      const key = r.text16();
      const versions: Placed<StoredVersion, R>[] = [];
      for (let left = r.u32(); left > 0; left--) {
        const flags = r.u8();
        const [modRevision, createRevision, version, lease] = [r.u48(), r.u48(), r.u48(), r.lease()];
        versions.push({ modRevision, createRevision, version, lease, value: r.value(flags, place) });
      }
      return { kind: 'key', key, versions };
    }
    case 7:
      return { kind: 'mark' };
    default:
      throw new RangeError(`record kind ${kind}`);
  }
}

/** What an entry of a change or of a base takes, keys counted as their longest UTF-8. */
function sizeOf(record: LogRecord): number {
  const fixed = HEADER_BYTES + 64;
  if (record.kind === 'change') {
    return record.entries.reduce((sum, e) => sum + 64 + e.key.length * 3 + (e.value?.length ?? 0), fixed);
  }
  if (record.kind === 'key') {
    return record.versions.reduce((sum, v) => sum + 64 + (v.value?.length ?? 0), fixed + record.key.length * 3);
  }
  return fixed;
}

class Writer {
  readonly buffer: Buffer;
  at = 0;

  constructor(size: number) {
    this.buffer = Buffer.allocUnsafe(size);
  }

  u8(value: number): this {
    this.at = this.buffer.writeUInt8(value, this.at);
    return this;
  }

  u32(value: number): this {
    this.at = this.buffer.writeUInt32LE(value, this.at);
    return this;
  }

  u48(value: number): this {
    this.at = this.buffer.writeUIntLE(value, this.at, 6);
    return this;
  }

  text8(text: string): this {
    const length = this.buffer.write(text, this.at + 1, 'latin1');
    this.u8(length);
    this.at += length;
    return this;
  }

  text16(text: string): this {
    const length = this.buffer.write(text, this.at + 2, 'utf8');
    this.at = this.buffer.writeUInt16LE(length, this.at) + length;
    return this;
  }

  /** Create, version, lease and value; answers where the value lies. */
  tail(e: {
    createRevision: number;
    version: number;
    lease: string | undefined;
    value: Uint8Array | undefined;
  }): number | undefined {
    this.u48(e.createRevision)
      .u48(e.version)
      .text8(e.lease ?? '');
    if (e.value === undefined) return undefined;
    this.u32(e.value.length).u32(crc32(e.value));
    const at = this.at;
    this.buffer.set(e.value, at);
    this.at += e.value.length;
    return at;
  }
}

class Reader {
  readonly #buffer: Buffer;
  readonly #view: DataView;
  at: number;

  constructor(buffer: Buffer, at: number) {
    this.#buffer = buffer;
    this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
    this.at = at;
  }

  u8(): number {
    return this.#view.getUint8(this.at++);
  }

  u32(): number {
    this.at += 4;
    return this.#view.getUint32(this.at - 4, true);
  }

  u48(): number {
    this.at += 6;
    return this.#view.getUint32(this.at - 6, true) + 2 ** 32 * this.#view.getUint16(this.at - 2, true);
  }

  value<R>(flags: number, place: (at: number, length: number) => R): R | undefined {
    if (flags & DELETED) return undefined;
    const length = this.u32();
    const at = this.at + VALUE_CRC_BYTES;
    this.at = at + length;
    return place(at, length);
  }

  lease(): string | undefined {
    return this.text8() || undefined;
  }

  text8(): string {
    const length = this.u8();
    if (length === 0) return '';
    this.at += length;
    return this.#buffer.toString('latin1', this.at - length, this.at);
  }

  text16(): string {
    const length = this.#view.getUint16(this.at, true);
    this.at += 2 + length;
    return this.#buffer.toString('utf8', this.at - length, this.at);
  }
}
