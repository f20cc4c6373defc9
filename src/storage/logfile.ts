import { closeSync, fdatasync, openSync, readSync, writeSync, writev } from 'node:fs';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import { StoreCorrupt } from '#storage/errors.ts';
import { VALUE_CRC_BYTES } from '#storage/record.ts';

const writevAsync = promisify(writev);
const fdatasyncAsync = promisify(fdatasync);

/** One file of the log, open for reading and, if it is the newest, for appending. */
export class LogFile {
  readonly path: string;
  readonly number: number;
  readonly #fd: number;
  /** Bytes handed out to records, written or about to be. */
  end: number;
  /** Bytes known to be on disk. */
  synced: number;
  #closed = false;

  constructor(path: string, number: number, flags: 'r' | 'r+' | 'wx+', end: number) {
    this.path = path;
    this.number = number;
    this.#fd = openSync(path, flags, 0o600);
    this.end = end;
    this.synced = end;
  }

  /** Writes at `position` and syncs. The caller never has two of these under way. */
  async writeAndSync(buffers: readonly Buffer[], position: number): Promise<void> {
    const total = buffers.reduce((sum, b) => sum + b.length, 0);
    let rest = [...buffers];
    let done = 0;
    while (done < total) {
      // The kernel takes 1 024 buffers at once.
      const { bytesWritten } = await writevAsync(this.#fd, rest.slice(0, 1024), position + done);
      done += bytesWritten;
      rest = dropBytes(rest, bytesWritten);
    }
    await this.sync(position + total);
  }

  /** What is written is the kernel's: a kill of this process loses it no more. */
  write(bytes: Buffer, position: number): void {
    for (let done = 0; done < bytes.length; )
      done += writeSync(this.#fd, bytes, done, bytes.length - done, position + done);
  }

  /** `end`: where what is written by now ends. */
  async sync(end: number): Promise<void> {
    await fdatasyncAsync(this.#fd);
    this.synced = end;
  }

  readValue(offset: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(VALUE_CRC_BYTES + length);
    const got = readSync(this.#fd, bytes, 0, bytes.length, offset - VALUE_CRC_BYTES);
    const value = bytes.subarray(VALUE_CRC_BYTES);
    if (got !== bytes.length || crc32(value) !== bytes.readUInt32LE(0)) {
      throw new StoreCorrupt({ path: this.path, offset, what: `a value of ${length} bytes is not what was written` });
    }
    return value;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }
}

function dropBytes(buffers: Buffer[], bytes: number): Buffer[] {
  let left = bytes;
  let first = 0;
  for (; first < buffers.length; first++) {
    const length = buffers[first]?.length ?? 0;
    if (length > left) break;
    left -= length;
  }
  const rest = buffers.slice(first);
  if (left > 0 && rest[0]) rest[0] = rest[0].subarray(left);
  return rest;
}
