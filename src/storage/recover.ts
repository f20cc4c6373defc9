import { closeSync, fsyncSync, ftruncateSync, openSync, readdirSync, readSync, statSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '#base/errors.ts';
import { StoreCorrupt } from '#storage/errors.ts';
import { ENTRY_BYTES, type ValueRef } from '#storage/journal.ts';
import { LogFile } from '#storage/logfile.ts';
import { Mvcc, type Version } from '#storage/mvcc.ts';
import {
  decodeRecord,
  HEADER_BYTES,
  MAGIC,
  RECORD_MAX_BYTES,
  recordLength,
  type StoredRecord,
  syncedBefore,
} from '#storage/record.ts';

/**
 * What a directory of logs says. Files:
 *
 *     00000007.base   everything that was true when log 8 began, written whole and renamed into place
 *     00000008.log    what happened since, record by record
 *     00000009.log    …
 *
 * Files older than the newest base are left-overs of a crash and go. A power cut can leave the end of the last log torn;
 * what is torn was never acknowledged. Anything else that does not read is damage, and no file is changed then.
 */
export interface Recovered {
  index: Mvcc<ValueRef>;
  leases: Map<string, number>;
  /** Log files still in use, oldest first, the last one to append to; none in a new directory. */
  logs: LogFile[];
  base: LogFile | undefined;
  liveBytes: number;
  /** Number the next file must have at least. */
  nextNumber: number;
}

export const BASE = '.base';
export const LOG = '.log';

export function fileName(number: number, kind: typeof BASE | typeof LOG): string {
  return `${String(number).padStart(8, '0')}${kind}`;
}

export function recover(directory: string): Recovered {
  const state = new Replay();
  const { base, logs, stale } = survey(directory);
  const baseFile = base === undefined ? undefined : state.readBase(join(directory, fileName(base, BASE)), base);
  const files: LogFile[] = [];
  for (const [i, number] of logs.entries()) {
    const later = logs.slice(i + 1).some((n) => statSync(join(directory, fileName(n, LOG))).size > 0);
    files.push(state.readLog(join(directory, fileName(number, LOG)), number, !later));
  }
  // Only now that all could be read: what no longer counts.
  for (const name of stale) unlinkSync(join(directory, name));
  return { ...state.finish(), logs: files, base: baseFile, nextNumber: Math.max(base ?? 0, ...logs, 0) + 1 };
}

function survey(directory: string): { base: number | undefined; logs: number[]; stale: string[] } {
  const names = readdirSync(directory).filter((n) => /^\d{8}\.(base|log)$/.test(n));
  const numbers = (kind: string): number[] =>
    names
      .filter((n) => n.endsWith(kind))
      .map((n) => Number.parseInt(n, 10))
      .sort((a, b) => a - b);
  const base = numbers(BASE).at(-1);
  const logs = numbers(LOG).filter((n) => n > (base ?? 0));
  const expected = logs.map((_, i) => (base ?? (logs[0] ?? 1) - 1) + 1 + i);
  if (logs.join() !== expected.join() || (base === undefined && logs.length > 0 && logs[0] !== 1)) {
    throw new StoreCorrupt({
      path: directory,
      offset: 0,
      what: `log files are missing: there are ${names.join(', ')}`,
    });
  }
  const used = new Set([...logs.map((n) => fileName(n, LOG)), ...(base === undefined ? [] : [fileName(base, BASE)])]);
  return { base, logs, stale: names.filter((n) => !used.has(n)) };
}

class Replay {
  readonly index = new Mvcc<ValueRef>();
  readonly #leases = new Map<string, number>();
  #liveBytes = 0;
  #compacted = 0;

  finish(): { index: Mvcc<ValueRef>; leases: Map<string, number>; liveBytes: number } {
    this.index.onDropped((version) => {
      this.#liveBytes -= bytesOf(version);
    });
    // Also when the base was written in the middle of a compaction.
    if (this.#compacted > this.index.compactedRevision) for (const _ of this.index.compact(this.#compacted));
    return { index: this.index, leases: this.#leases, liveBytes: this.#liveBytes };
  }

  readBase(path: string, number: number): LogFile {
    const file = new LogFile(path, number, 'r', statSync(path).size);
    let header: { revision: number; compacted: number } | undefined;
    let ended = false;
    const end = readRecords(file, (record) => {
      if (record.kind === 'header') header = record;
      else if (record.kind === 'grant') this.#leases.set(record.lease, record.ttlMs);
      else if (record.kind === 'mark') ended = true;
      else if (record.kind === 'key') {
        const { key } = record;
        const versions = record.versions.map(({ value: ref, ...rest }) => ({ key, ...rest, ref, older: undefined }));
        for (const v of versions) this.#liveBytes += bytesOf(v);
        this.index.load(versions);
      }
    });
    if (end !== file.end || !header || !ended) {
      throw new StoreCorrupt({ path, offset: end, what: 'a base is written whole before it gets its name' });
    }
    this.index.loaded(header.revision, header.compacted);
    this.#compacted = header.compacted;
    return file;
  }

  readLog(path: string, number: number, isLast: boolean): LogFile {
    const size = statSync(path).size;
    const file = new LogFile(path, number, 'r+', size);
    const end = readRecords(file, (record) => this.#apply(record));
    if (end < size) {
      const why = damageAfter(path, end, size);
      if (!isLast || why !== undefined) {
        file.close();
        throw new StoreCorrupt({ path, offset: end, what: why ?? 'a later log file has records' });
      }
      truncate(path, end);
      file.end = end;
      file.synced = end;
    }
    return file;
  }

  #apply(record: StoredRecord<ValueRef>): void {
    switch (record.kind) {
      case 'change': {
        for (const e of record.entries) this.#liveBytes += ENTRY_BYTES + e.key.length + (e.value?.length ?? 0);
        this.index.apply(
          record,
          record.entries.map((e) => e.value),
        );
        break;
      }
      case 'grant':
        this.#leases.set(record.lease, record.ttlMs);
        break;
      case 'revoke':
        this.#leases.delete(record.lease);
        break;
      case 'compact':
        this.#compacted = record.revision;
    }
  }
}

function bytesOf(version: Version<ValueRef>): number {
  return ENTRY_BYTES + version.key.length + (version.ref?.length ?? 0);
}

const READ_BYTES = 4 * 1024 * 1024;

/** Visits whole records from the start; returns the offset of the first byte that is not part of one. */
function readRecords(file: LogFile, visit: (record: StoredRecord<ValueRef>) => void): number {
  const fd = openSync(file.path, 'r');
  try {
    let buffer = Buffer.alloc(0);
    let bufferAt = 0;
    let at = 0;
    const place = (from: number, length: number): ValueRef => ({
      file,
      offset: bufferAt + from,
      length,
      bytes: undefined,
    });
    for (;;) {
      const length = recordLength(buffer, at - bufferAt);
      if (length === 'bad') return at;
      if (length === 'short') {
        const more = Buffer.allocUnsafe(Math.min(READ_BYTES, file.end - bufferAt - buffer.length));
        const got = readSync(fd, more, 0, more.length, bufferAt + buffer.length);
        if (got === 0) return at;
        const rest = buffer.subarray(at - bufferAt);
        buffer = rest.length === 0 ? more.subarray(0, got) : Buffer.concat([rest, more.subarray(0, got)]);
        bufferAt = at;
        if (buffer.length > RECORD_MAX_BYTES + READ_BYTES) return at;
        continue;
      }
      visit(decode(file.path, buffer, at - bufferAt, at, place));
      at += length;
    }
  } finally {
    closeSync(fd);
  }
}

function decode<R>(
  path: string,
  bytes: Buffer,
  at: number,
  offset: number,
  place: (at: number, length: number) => R,
): StoredRecord<R> {
  try {
    return decodeRecord(bytes, at, place);
  } catch (cause) {
    // Its CRC is right, so it was written like this: by a later version, or by a mistake of ours.
    throw new StoreCorrupt({ path, offset, what: `unknown record (${messageOf(cause)})` }, { cause });
  }
}

/**
 * Torn or damaged? A record behind the bad place that was made when more than the bad place had been synced proves that
 * acknowledged bytes have changed.
 */
function damageAfter(path: string, bad: number, size: number): string | undefined {
  const tail = Buffer.alloc(Math.min(size - bad, RECORD_MAX_BYTES));
  const fd = openSync(path, 'r');
  try {
    readSync(fd, tail, 0, tail.length, bad);
  } finally {
    closeSync(fd);
  }
  const magic = Buffer.alloc(4);
  magic.writeUInt32LE(MAGIC);
  for (let at = tail.indexOf(magic, 1); at >= 0; at = tail.indexOf(magic, at + 1)) {
    if (tail.length - at < HEADER_BYTES || syncedBefore(tail, at) <= bad) continue;
    if (typeof recordLength(tail, at) === 'number') {
      return `the record at byte ${bad + at} says that this place was written and synced`;
    }
  }
  return undefined;
}

function truncate(path: string, length: number): void {
  const fd = openSync(path, 'r+');
  try {
    ftruncateSync(fd, length);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
