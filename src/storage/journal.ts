import { messageOf } from '#base/errors.ts';
import { StoreBroken, StoreFull, ValueTooLarge } from '#storage/errors.ts';
import type { Journal, JournalRecord } from '#storage/local.ts';
import type { LogFile } from '#storage/logfile.ts';
import type { Version } from '#storage/mvcc.ts';
import { encodeRecord, RECORD_MAX_BYTES } from '#storage/record.ts';

/** Where a value lies. `rewrite` moves it: whoever holds the reference then reads from the new place. */
export interface ValueRef {
  file: LogFile;
  offset: number;
  readonly length: number;
  /** Kept for a while after it was written, since watches read it next. */
  bytes: Uint8Array | undefined;
}

interface Queued {
  file: LogFile;
  at: number;
  bytes: Buffer;
  /** The kernel has it; it is not synced yet. */
  written: boolean;
}

/** Writes up to this go to the page cache from this thread; larger ones might wait for the disk. */
const SMALL_BYTES = 64 * 1024;
/** Values of the last writes held in memory, for watches, when the owner does not say how many. */
const RECENT_BYTES = 8 * 1024 * 1024;
/** What a key with one version takes beside its value: its text, its record and its index entry, rounded. */
export const ENTRY_BYTES = 128;

/**
 * Group commit: records are queued in order; one write and one sync take everything that queued up meanwhile. A lazy record is
 * written at once and synced with the next. After a
 * failed write or sync nobody knows what the disk holds (the kernel may have dropped the pages and forgotten the error),
 * so the journal stays broken until it is opened again.
 */
export class LogJournal implements Journal<ValueRef> {
  #current: LogFile;
  #queue: Queued[] = [];
  /** Records queued and records synced since the start. */
  #queued = 0;
  #syncedCount = 0;
  #flushing: Promise<void> | undefined;
  #broken: Error | undefined;
  #liveBytes: number;
  readonly #limitBytes: number;
  readonly #keepRecentBytes: number;
  readonly #recent: ValueRef[] = [];
  #recentBytes = 0;
  #holds = 0;
  #retired: LogFile[] = [];
  /** Bytes appended since the last base; the owner looks at it to start a rewrite. */
  appendedBytes = 0;
  onFlushed: () => void = () => undefined;

  constructor(current: LogFile, liveBytes: number, limits: { limitBytes: number; keepRecentBytes?: number }) {
    this.#current = current;
    this.#liveBytes = liveBytes;
    this.#limitBytes = limits.limitBytes;
    this.#keepRecentBytes = limits.keepRecentBytes ?? RECENT_BYTES;
    this.appendedBytes = current.end;
  }

  append(record: JournalRecord): (ValueRef | undefined)[] {
    if (this.#broken) throw this.#broken;
    this.#checkRoom(record);
    const file = this.#current;
    const { bytes, valueAt } = encodeRecord(record, file.synced);
    if (bytes.length > RECORD_MAX_BYTES) throw new ValueTooLarge({ bytes: bytes.length, limitBytes: RECORD_MAX_BYTES });
    const at = file.end;
    file.end += bytes.length;
    this.appendedBytes += bytes.length;
    this.#queue.push({ file, at, bytes, written: false });
    this.#queued++;
    if (record.kind !== 'change') return [];
    return record.entries.map(({ key, value }, i) => {
      this.#liveBytes += ENTRY_BYTES + key.length + (value?.length ?? 0);
      const offset = valueAt[i];
      if (value === undefined || offset === undefined) return undefined;
      return this.#remember({
        file,
        offset: at + offset,
        length: value.length,
        bytes: bytes.subarray(offset, offset + value.length),
      });
    });
  }

  written(): void {
    if (this.#broken) throw this.#broken;
    for (const record of this.#queue) this.#writeSoon(record);
  }

  async synced(): Promise<void> {
    const wanted = this.#queued;
    while (this.#syncedCount < wanted) {
      if (this.#broken) throw this.#broken;
      await (this.#flushing ?? this.#flush());
    }
  }

  read(ref: ValueRef): Uint8Array {
    return ref.bytes ?? ref.file.readValue(ref.offset, ref.length);
  }

  forget(version: Version<ValueRef>): void {
    this.#liveBytes -= ENTRY_BYTES + version.key.length + (version.ref?.length ?? 0);
  }

  hold(): () => void {
    this.#holds++;
    return () => {
      this.#holds--;
      if (this.#holds > 0) return;
      for (const file of this.#retired) file.close();
      this.#retired = [];
    };
  }

  usage(): { usedBytes: number; limitBytes: number } {
    return { usedBytes: this.#liveBytes, limitBytes: this.#limitBytes };
  }

  get current(): LogFile {
    return this.#current;
  }

  /** From now on records go to `next`; those queued still go where they were promised to be. */
  rotate(next: LogFile): void {
    this.#current = next;
    this.appendedBytes = 0;
  }

  /** Closes files that no reference points to any more, as soon as nobody may be reading them. */
  retire(files: readonly LogFile[]): void {
    this.#retired.push(...files);
    this.hold()();
  }

  async close(): Promise<void> {
    try {
      if (this.#broken) return;
      const file = this.#current;
      await this.synced();
      const mark = encodeRecord({ kind: 'mark' }, file.end).bytes;
      await file.writeAndSync([mark], file.end);
    } finally {
      for (const file of [...this.#retired, this.#current]) file.close();
    }
  }

  #checkRoom(record: JournalRecord): void {
    if (record.kind !== 'change' || this.#liveBytes < this.#limitBytes) return;
    // Deleting is how room is made: a change that only deletes is always taken.
    if (record.entries.every((e) => e.value === undefined)) return;
    throw new StoreFull({ usedBytes: this.#liveBytes, limitBytes: this.#limitBytes });
  }

  #flush(): Promise<void> {
    const batch = this.#queue;
    this.#queue = [];
    this.#flushing = this.#write(batch).finally(() => {
      this.#flushing = undefined;
    });
    return this.#flushing;
  }

  /** By this thread: a small write goes to the page cache in microseconds, where a thread of the pool would take a hundred. */
  #writeSoon(record: Queued): void {
    if (record.written) return;
    try {
      record.file.write(record.bytes, record.at);
    } catch (cause) {
      throw this.#break(record.file, cause);
    }
    record.written = true;
  }

  #break(file: LogFile, cause: unknown): Error {
    this.#broken = new StoreBroken({ path: file.path, during: messageOf(cause) }, { cause });
    return this.#broken;
  }

  async #write(batch: Queued[]): Promise<void> {
    if (batch.reduce((sum, { bytes }) => sum + bytes.length, 0) <= SMALL_BYTES)
      for (const record of batch) this.#writeSoon(record);
    let from = 0;
    while (from < batch.length) {
      const first = batch[from];
      if (!first) break;
      let to = from;
      while (to < batch.length && batch[to]?.file === first.file) to++;
      const records = batch.slice(from, to);
      const last = records.at(-1);
      try {
        if (records.every(({ written }) => written) && last) await first.file.sync(last.at + last.bytes.length);
        else
          await first.file.writeAndSync(
            records.map((b) => b.bytes),
            first.at,
          );
      } catch (cause) {
        throw this.#break(first.file, cause);
      }
      from = to;
    }
    this.#syncedCount += batch.length;
    this.#dropOldBytes();
    this.onFlushed();
  }

  #remember(ref: ValueRef): ValueRef {
    this.#recent.push(ref);
    this.#recentBytes += ref.length;
    return ref;
  }

  /** Only what is synced may be dropped: it can be read back. */
  #dropOldBytes(): void {
    let dropped = 0;
    while (this.#recentBytes > this.#keepRecentBytes && dropped < this.#recent.length) {
      const ref = this.#recent[dropped];
      if (!ref || ref.offset + ref.length > ref.file.synced) break;
      ref.bytes = undefined;
      this.#recentBytes -= ref.length;
      dropped++;
    }
    this.#recent.splice(0, dropped);
  }
}
