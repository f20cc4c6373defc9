import { type FileHandle, open, rm } from 'node:fs/promises';
import { renameDurably, temporaryName } from '#storage/files.ts';
import type { ValueRef } from '#storage/journal.ts';
import type { Mvcc, Version } from '#storage/mvcc.ts';
import { encodeRecord, type LogRecord } from '#storage/record.ts';

export interface BaseSource {
  index: Mvcc<ValueRef>;
  /** Nothing newer goes into the base. */
  revision: number;
  leases: ReadonlyMap<string, number>;
  read(ref: ValueRef): Uint8Array;
}

/** References and where their values lie in the new file. */
export type Moved = { ref: ValueRef; offset: number }[];

const WRITE_BYTES = 1024 * 1024;
/** A key's history is split over records of about this size. */
const KEY_RECORD_BYTES = 4 * 1024 * 1024;

/** Writes a base in slices of about a megabyte, so that the event loop and the log's own syncs go on meanwhile. */
export async function writeBase(path: string, source: BaseSource): Promise<{ moved: Moved; bytes: number }> {
  const temporary = temporaryName(path);
  const handle = await open(temporary, 'wx', 0o600);
  try {
    const out = new BaseWriter(handle);
    await out.add({ kind: 'header', revision: source.revision, compacted: source.index.compactedRevision });
    for (const [lease, ttlMs] of source.leases) await out.add({ kind: 'grant', lease, ttlMs });
    for (const versions of source.index.keysAt(source.revision)) {
      for (const part of inParts(versions)) await out.addKey(part, source);
    }
    await out.add({ kind: 'mark' });
    await out.flush();
    await handle.sync();
    await handle.close();
    await renameDurably(temporary, path);
    return { moved: out.moved, bytes: out.at };
  } catch (error) {
    await handle.close().catch(() => undefined); // may be closed already; the first error is the one that counts
    await rm(temporary, { force: true });
    throw error;
  }
}

class BaseWriter {
  readonly moved: Moved = [];
  at = 0;
  readonly #handle: FileHandle;
  #pending: Buffer[] = [];
  #pendingBytes = 0;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async addKey(versions: readonly Version<ValueRef>[], source: BaseSource): Promise<void> {
    const [first] = versions;
    if (!first) return;
    const stored = versions.map((v) => ({
      modRevision: v.modRevision,
      createRevision: v.createRevision,
      version: v.version,
      lease: v.lease,
      value: v.ref && source.read(v.ref),
    }));
    const start = this.at;
    const valueAt = await this.add({ kind: 'key', key: first.key, versions: stored });
    for (const [i, { ref }] of versions.entries()) {
      const offset = valueAt[i];
      if (ref && offset !== undefined) this.moved.push({ ref, offset: start + offset });
    }
  }

  async add(record: LogRecord): Promise<(number | undefined)[]> {
    const { bytes, valueAt } = encodeRecord(record, 0);
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    this.at += bytes.length;
    if (this.#pendingBytes >= WRITE_BYTES) await this.flush();
    return valueAt;
  }

  async flush(): Promise<void> {
    const bytes = Buffer.concat(this.#pending);
    this.#pending = [];
    this.#pendingBytes = 0;
    let done = 0;
    while (done < bytes.length) done += (await this.#handle.write(bytes, done)).bytesWritten;
  }
}

function* inParts(versions: readonly Version<ValueRef>[]): Generator<Version<ValueRef>[]> {
  let part: Version<ValueRef>[] = [];
  let bytes = 0;
  for (const version of versions) {
    part.push(version);
    bytes += version.ref?.length ?? 0;
    if (bytes < KEY_RECORD_BYTES) continue;
    yield part;
    part = [];
    bytes = 0;
  }
  if (part.length > 0) yield part;
}
