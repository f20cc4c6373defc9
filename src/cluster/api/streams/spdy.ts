import { Duplex } from 'node:stream';
import { createInflate, type Inflate } from 'node:zlib';
import { spdyDictionary } from './spdy-dictionary.ts';

/**
 * The server's half of SPDY/3.1 (draft-mbelshe-httpbis-spdy-00), as much as Kubernetes' streams take: the client opens streams
 * and says in their headers what they are for. Windows are not kept: Kubernetes' clients neither send nor heed them.
 *
 *     control   │ 1 version(15) │ type(16) │ flags(8) length(24) │ …       SYN_STREAM 1 · SYN_REPLY 2 · RST_STREAM 3 · PING 6 · GOAWAY 7
 *     data      │ 0 stream(31)             │ flags(8) length(24) │ bytes   flag 1: the last of this side
 *
 * Header blocks are one zlib stream a direction, begun with a dictionary both sides know.
 */
const TYPE = {
  synStream: 1,
  synReply: 2,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  headers: 8,
  window: 9,
} as const;
const CONTROL = 0x8000;
const VERSION = 3;
const FIN = 1;
const HEAD_BYTES = 8;
/** A frame of Kubernetes' clients has at most 32 KiB of data; the format allows 16 MiB. */
const FRAME_MAX_BYTES = 1 << 20;
const HEADERS_MAX_BYTES = 64 << 10;
const STREAMS_MAX = 1_024;
const RST_PROTOCOL_ERROR = 1;
const RST_REFUSED = 3;
const RST_CANCEL = 5;

export interface SpdyHandlers {
  /** The client opened a stream; its header names are in lower case. */
  stream(stream: SpdyStream): void;
  /** Once: the connection ended, by whoever. */
  closed(): void;
}

export class SpdySession {
  readonly #connection: Duplex;
  readonly #handlers: SpdyHandlers;
  readonly #streams = new Map<number, SpdyStream>();
  readonly #inflate: Inflate = createInflate({ dictionary: spdyDictionary() });
  #buffer: Buffer = Buffer.alloc(0);
  #work: Promise<void> = Promise.resolve();
  #lastStream = 0;
  #replied = false;
  #behind = 0;
  #ended = false;

  constructor(connection: Duplex, head: Buffer, handlers: SpdyHandlers) {
    this.#connection = connection;
    this.#handlers = handlers;
    connection.on('data', (chunk: Buffer) => this.#take(chunk));
    for (const event of ['end', 'close', 'error'] as const) connection.on(event, () => this.#end());
    this.#inflate.on('error', () => this.close());
    if (head.length > 0) this.#take(head);
  }

  /** Says goodbye and ends the connection. */
  close(): void {
    if (this.#ended) return;
    const body = Buffer.alloc(8);
    body.writeUInt32BE(this.#lastStream, 0);
    this.#connection.end(controlFrame(TYPE.goAway, 0, body));
    this.#end();
  }

  /** For streams: sends a frame; `then` is called when the connection can take more. */
  send(frame: Buffer, then: () => void): void {
    if (this.#ended || this.#connection.write(frame)) then();
    else this.#connection.once('drain', then);
  }

  forget(id: number): void {
    this.#streams.delete(id);
  }

  /** A stream's reader is behind: the connection waits, since the protocol as Kubernetes speaks it has no windows. */
  hold(): void {
    if (this.#behind++ === 0) this.#connection.pause();
  }

  release(): void {
    if (--this.#behind === 0) this.#connection.resume();
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#inflate.close();
    for (const stream of this.#streams.values()) stream.cut();
    this.#streams.clear();
    this.#handlers.closed();
  }

  #take(chunk: Buffer): void {
    this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
    while (this.#buffer.length >= HEAD_BYTES && !this.#ended) {
      const length = this.#buffer.readUIntBE(5, 3);
      if (length > FRAME_MAX_BYTES) {
        this.close();
        return;
      }
      if (this.#buffer.length < HEAD_BYTES + length) return;
      const frame = this.#buffer.subarray(0, HEAD_BYTES + length);
      this.#buffer = this.#buffer.subarray(HEAD_BYTES + length);
      // Headers are inflated aside; what comes behind them waits for them.
      this.#work = this.#work.then(() => this.#frame(frame)).catch(() => this.close());
    }
  }

  async #frame(frame: Buffer): Promise<void> {
    if (this.#ended) return;
    const flags = frame.readUInt8(4);
    const body = frame.subarray(HEAD_BYTES);
    const first = frame.readUInt16BE(0);
    if ((first & CONTROL) === 0) {
      this.#streams.get(frame.readUInt32BE(0))?.receive(body, (flags & FIN) !== 0);
      return;
    }
    if ((first & ~CONTROL) !== VERSION) return this.close();
    const type = frame.readUInt16BE(2);
    if (type === TYPE.synStream) await this.#open(body, flags);
    else if (type === TYPE.headers) await this.#headers(body.subarray(4));
    else if (type === TYPE.rstStream) this.#streams.get(body.readUInt32BE(0))?.cut();
    else if (type === TYPE.ping && body.readUInt32BE(0) % 2 === 1)
      this.send(controlFrame(TYPE.ping, 0, body), () => undefined);
    else if (type === TYPE.goAway) this.#connection.end();
  }

  async #open(body: Buffer, flags: number): Promise<void> {
    const id = body.readUInt32BE(0) & 0x7fff_ffff;
    const headers = await this.#headers(body.subarray(10));
    if (id <= this.#lastStream || id % 2 === 0) return this.#reset(id, RST_PROTOCOL_ERROR);
    this.#lastStream = id;
    if (this.#streams.size >= STREAMS_MAX) return this.#reset(id, RST_REFUSED);
    const stream = new SpdyStream(this, id, headers);
    this.#streams.set(id, stream);
    this.send(controlFrame(TYPE.synReply, 0, Buffer.concat([u32(id), this.#noHeaders()])), () => undefined);
    if ((flags & FIN) !== 0) stream.receive(Buffer.alloc(0), true);
    this.#handlers.stream(stream);
  }

  #reset(id: number, status: number): void {
    this.send(controlFrame(TYPE.rstStream, 0, Buffer.concat([u32(id), u32(status)])), () => undefined);
  }

  /**
   * An empty block as a stored piece of the one zlib stream (RFC 1950, RFC 1951 3.2.4): nothing to say needs no compressor. The
   * empty piece behind it is what a sync flush writes: Go's reader gives out what it has only there, or looks for more and fails.
   */
  #noHeaders(): Buffer {
    const stored = Buffer.from([0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    const start = this.#replied ? Buffer.alloc(0) : Buffer.from([0x78, 0x01]);
    this.#replied = true;
    return Buffer.concat([start, stored]);
  }

  async #headers(block: Buffer): Promise<Map<string, string>> {
    await new Promise<void>((resolve, reject) => {
      this.#inflate.write(block, (error) => (error ? reject(error) : resolve()));
    });
    const parts: Buffer[] = [];
    let bytes = 0;
    for (let part: Buffer | null = this.#inflate.read(); part !== null; part = this.#inflate.read()) {
      parts.push(part);
      bytes += part.length;
      if (bytes > HEADERS_MAX_BYTES) throw new RangeError('headers are too long');
    }
    return parseHeaders(Buffer.concat(parts));
  }
}

/** One stream, as bytes both ways. */
export class SpdyStream extends Duplex {
  readonly id: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly #session: SpdySession;
  #holding = false;
  #theirEnd = false;
  #ourEnd = false;

  constructor(session: SpdySession, id: number, headers: ReadonlyMap<string, string>) {
    super({ allowHalfOpen: true, emitClose: true });
    this.#session = session;
    this.id = id;
    this.headers = headers;
    this.on('error', () => undefined); // a stream cut by the client is no failure of ours
  }

  receive(data: Buffer, last: boolean): void {
    if (this.#theirEnd || this.destroyed) return;
    if (data.length > 0 && !this.push(data) && !this.#holding) {
      this.#holding = true;
      this.#session.hold();
    }
    if (!last) return;
    this.#theirEnd = true;
    this.push(null);
    this.#maybeForget();
  }

  /** The client or the connection ended it. */
  cut(): void {
    this.#theirEnd = true;
    this.#ourEnd = true;
    this.destroy();
  }

  override _read(): void {
    if (!this.#holding) return;
    this.#holding = false;
    this.#session.release();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#session.send(dataFrame(this.id, 0, chunk), () => done());
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#ourEnd = true;
    this.#session.send(dataFrame(this.id, FIN, Buffer.alloc(0)), () => {
      done();
      this.#maybeForget();
    });
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this._read();
    if (!this.#ourEnd || !this.#theirEnd)
      this.#session.send(
        controlFrame(TYPE.rstStream, 0, Buffer.concat([u32(this.id), u32(RST_CANCEL)])),
        () => undefined,
      );
    this.#session.forget(this.id);
    done(error);
  }

  #maybeForget(): void {
    if (this.#ourEnd && this.#theirEnd) this.#session.forget(this.id);
  }
}

/** Count, then length and bytes of each name and value; a value may hold several, NUL between them. */
function parseHeaders(block: Buffer): Map<string, string> {
  const headers = new Map<string, string>();
  let at = 4;
  const text = (): string => {
    const length = block.readUInt32BE(at);
    const value = block.toString('utf8', at + 4, at + 4 + length);
    at += 4 + length;
    return value;
  };
  for (let left = block.readUInt32BE(0); left > 0; left--) {
    const name = text().toLowerCase();
    headers.set(name, text());
  }
  return headers;
}

function controlFrame(type: number, flags: number, body: Buffer): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt16BE(CONTROL | VERSION, 0);
  head.writeUInt16BE(type, 2);
  head.writeUInt8(flags, 4);
  head.writeUIntBE(body.length, 5, 3);
  return Buffer.concat([head, body]);
}

function dataFrame(id: number, flags: number, data: Buffer): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32BE(id, 0);
  head.writeUInt8(flags, 4);
  head.writeUIntBE(data.length, 5, 3);
  return Buffer.concat([head, data]);
}

function u32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value);
  return out;
}
