import { closeSync, constants, openSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { basename, dirname } from 'node:path';
import { ConnectionLost } from '#shim/errors.ts';

// Frames on a unix socket, as native/frame.c has them:
//
//   payload bytes u32 · kind u8 · 0 u8 u16 · id u32 · payload          little endian; an answer has its request's id

export const ASK = {
  run: 1,
  shim: 2,
  quit: 3,
  who: 4,
  start: 10,
  signal: 11,
  resize: 12,
  exec: 13,
  attach: 14,
  stdin: 15,
  stdinEnd: 16,
  watch: 17,
  reopen: 18,
  end: 19,
  packed: 20,
} as const;
export const TELL = { result: 64, stdout: 65, stderr: 66, exit: 67, oom: 68, listens: 69 } as const;
export const STREAMS = { stdin: 1, stdout: 2, stderr: 4 } as const;

const HEAD_BYTES = 12;
const EMPTY: Buffer = Buffer.alloc(0);
/** Longer than any answer: what exceeds it is not our protocol. */
const MAX_ANSWER_BYTES = 1 << 20;
/** Bytes of stdin in one frame. */
export const STDIN_FRAME_BYTES = 16 << 10;

export interface Frame {
  kind: number;
  id: number;
  payload: Buffer;
}

interface Waiting {
  resolve: (payload: Buffer) => void;
  reject: (error: unknown) => void;
  news: (kind: number) => void;
}

/**
 * What one read brings lies here until it is taken, which is before the next read of any socket: libuv calls back at once. Without it
 * Node takes 64 KiB anew for each read, and much of a container's share of the garbage collection is for those.
 */
const READ_BUFFER = Buffer.allocUnsafeSlow(64 << 10);

/** One connection: requests by id, and a handler for what comes unasked. */
export class FrameSocket {
  readonly path: string;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #rest = EMPTY;
  #closed = false;
  #background = false;
  /** Frames that answer no request. */
  onFrame: (frame: Frame) => void = () => undefined;
  onClose: () => void = () => undefined;

  private constructor(path: string, short: string) {
    this.path = path;
    const take = (bytes: number): boolean => {
      this.#take(READ_BUFFER.subarray(0, bytes));
      return true;
    };
    // Half open: at its end nothing is left to be said, so it is closed without a shutdown(2) first.
    this.#socket = createConnection({
      path: short,
      allowHalfOpen: true,
      onread: { buffer: READ_BUFFER, callback: take },
    });
    this.#socket.on('end', () => this.#socket.destroy());
    this.#socket.on('close', () => this.#lost('the connection is closed'));
  }

  static async connect(path: string): Promise<FrameSocket> {
    const { short, release } = shortPath(path);
    try {
      return await new Promise<FrameSocket>((resolve, reject) => {
        const connection = new FrameSocket(path, short);
        connection.#socket.once('connect', () => resolve(connection));
        connection.#socket.on('error', reject); // later ones: 'close' follows and tells it
      });
    } catch (cause) {
      throw new ConnectionLost({ path, what: 'nobody listens there' }, { cause });
    } finally {
      release();
    }
  }

  /** Sends a request and waits for its answer's payload. */
  request(kind: number, ...payload: readonly Uint8Array[]): Promise<Buffer> {
    return this.requestWithNews(() => undefined, kind, ...payload);
  }

  /** As `request`; `news` is called for frames with the request's id that come before its answer. */
  requestWithNews(news: (kind: number) => void, kind: number, ...payload: readonly Uint8Array[]): Promise<Buffer> {
    if (this.#closed) return Promise.reject(new ConnectionLost({ path: this.path, what: 'the connection is closed' }));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, news });
      if (this.#background) this.#socket.ref();
      this.#write(kind, id, payload);
    });
  }

  /** Sends what has no answer; false: the socket is full, wait for `drained`. */
  send(kind: number, ...payload: readonly Uint8Array[]): boolean {
    return this.#closed || this.#write(kind, 0, payload);
  }

  drained(): Promise<void> {
    if (!this.#socket.writableNeedDrain || this.#closed) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        this.#socket.off('drain', done);
        this.#socket.off('close', done);
        resolve();
      };
      this.#socket.on('drain', done);
      this.#socket.on('close', done);
    });
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** The other side is gone, maybe before anybody set `onClose`. */
  get isClosed(): boolean {
    return this.#closed;
  }

  /** A request has no answer yet, or not all that was said is out. */
  get isWaiting(): boolean {
    return this.#waiting.size > 0 || this.#socket.writableLength > 0;
  }

  /** The process may end although this connection is open, unless a request waits for its answer. */
  unref(): void {
    this.#background = true;
    if (this.#waiting.size === 0) this.#socket.unref();
  }

  /** The opposite: this connection's end is waited for. */
  ref(): void {
    this.#background = false;
    this.#socket.ref();
  }

  close(): void {
    this.#socket.destroy();
  }

  #write(kind: number, id: number, payload: readonly Uint8Array[]): boolean {
    const size = payload.reduce((n, p) => n + p.length, 0);
    // One write, so one system call: a request is mostly small.
    const bytes = Buffer.allocUnsafe(HEAD_BYTES + size);
    bytes.writeUInt32LE(size, 0);
    bytes.writeUInt32LE(kind, 4);
    let at = bytes.writeUInt32LE(id, 8);
    for (const part of payload) {
      bytes.set(part, at);
      at += part.length;
    }
    return this.#socket.write(bytes);
  }

  #take(chunk: Buffer): void {
    // Copied, since frames are kept longer than the read buffer holds them.
    let bytes = this.#rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#rest, chunk]);
    while (bytes.length >= HEAD_BYTES) {
      const size = bytes.readUInt32LE(0);
      if (size > MAX_ANSWER_BYTES) {
        this.#lost('an answer is longer than any we know');
        this.#socket.destroy();
        return;
      }
      if (bytes.length < HEAD_BYTES + size) break;
      const frame = {
        kind: bytes[4] ?? 0,
        id: bytes.readUInt32LE(8),
        payload: bytes.subarray(HEAD_BYTES, HEAD_BYTES + size),
      };
      bytes = bytes.subarray(HEAD_BYTES + size);
      this.#deliver(frame);
    }
    this.#rest = bytes.length === 0 ? EMPTY : bytes; // a view of no bytes would hold what was read
  }

  #deliver(frame: Frame): void {
    const waiting = this.#waiting.get(frame.id);
    if (waiting && frame.kind !== TELL.result) {
      waiting.news(frame.kind);
    } else if (waiting) {
      this.#waiting.delete(frame.id);
      if (this.#background && this.#waiting.size === 0) this.#socket.unref();
      waiting.resolve(frame.payload);
    } else {
      this.onFrame(frame);
    }
  }

  #lost(what: string): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { reject } of this.#waiting.values()) reject(new ConnectionLost({ path: this.path, what }));
    this.#waiting.clear();
    this.onClose();
  }
}

export function words(...values: readonly number[]): Buffer {
  const out = Buffer.alloc(values.length * 4);
  values.forEach((value, i) => {
    out.writeUInt32LE(value, i * 4);
  });
  return out;
}

/** Options as a plan has its `strs`: count, then length, bytes, NUL each. Absent values are left out. */
export function encodeOptions(options: Readonly<Record<string, string | number | boolean | undefined>>): Buffer {
  const items: string[] = [];
  for (const [key, value] of Object.entries(options))
    if (value !== undefined && value !== false) items.push(`${key}=${value === true ? '1' : value}`);
  const out = Buffer.allocUnsafe(items.reduce((bytes, item) => bytes + 4 + Buffer.byteLength(item) + 1, 4));
  let at = out.writeUInt32LE(items.length);
  for (const item of items) {
    const size = out.write(item, at + 4);
    out.writeUInt32LE(size, at);
    at = out.writeUInt8(0, at + 4 + size);
  }
  return out;
}

/** sun_path holds 107 bytes; Node would cut a longer path without a word. A directory's fd makes any path short. */
const MAX_SOCKET_PATH = 107;

function shortPath(path: string): { short: string; release: () => void } {
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH) return { short: path, release: () => undefined };
  const fd = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  return { short: `/proc/self/fd/${fd}/${basename(path)}`, release: () => closeSync(fd) };
}
