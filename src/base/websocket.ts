import { createHash } from 'node:crypto';
import type { Duplex } from 'node:stream';

/**
 * The server's half of RFC 6455, as much as Kubernetes' streams and the dashboard take: messages, pings, closing. Frames of clients are
 * masked; a message may come in several frames.
 */
export interface WebSocketHandlers {
  message(payload: Buffer): void;
  /** Once: the client closed, or the connection broke. */
  closed(): void;
}

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
/** No client of ours sends more in one message; kubectl cp sends 32 KiB. */
const MESSAGE_MAX_BYTES = 4 * 1024 * 1024;
const OP = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

export class WebSocket {
  readonly #socket: Duplex;
  readonly #handlers: WebSocketHandlers;
  #buffer: Buffer = Buffer.alloc(0);
  #parts: Buffer[] = [];
  #partsBytes = 0;
  #ended = false;
  readonly #behind = new Set<() => void>();

  constructor(socket: Duplex, head: Buffer, handlers: WebSocketHandlers) {
    this.#socket = socket;
    this.#handlers = handlers;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('error', () => this.#end());
    socket.on('close', () => this.#end());
    // A server's socket stays half open when a client leaves without a word, and would for as long as nobody ends it.
    socket.on('end', () => {
      socket.end();
      this.#end();
    });
    socket.on('drain', () => this.#caughtUp());
    if (head.length > 0) this.#take(head);
  }

  /** Text, or bytes. False: the client is behind; `drained` tells when it has caught up. */
  send(payload: Buffer | string): boolean {
    if (this.#ended) return true;
    const [opcode, bytes] = typeof payload === 'string' ? [OP.text, Buffer.from(payload)] : [OP.binary, payload];
    return this.#socket.write(frame(opcode, bytes));
  }

  /** Calls once: when the client has caught up, or is gone and nothing is left to wait for. */
  drained(then: () => void): void {
    if (this.#ended) queueMicrotask(then);
    else this.#behind.add(then);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  close(code = 1000): void {
    if (this.#ended) return;
    const payload = Buffer.alloc(2);
    payload.writeUInt16BE(code);
    this.#socket.end(frame(OP.close, payload));
    this.#end();
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#handlers.closed();
    this.#caughtUp();
  }

  #caughtUp(): void {
    const waiting = [...this.#behind];
    this.#behind.clear();
    for (const then of waiting) then();
  }

  #take(chunk: Buffer): void {
    if (this.#ended) return; // RFC 6455, 5.5.1: what comes after a close is not processed
    this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
    for (let next = readFrame(this.#buffer); next && !this.#ended; next = readFrame(this.#buffer)) {
      if (next === 'bad') {
        this.close(1002);
        return;
      }
      this.#buffer = this.#buffer.subarray(next.size);
      this.#frame(next);
    }
  }

  #frame({ opcode, final, payload }: Frame): void {
    if (opcode === OP.close) this.close();
    else if (opcode === OP.ping) this.#socket.write(frame(OP.pong, payload));
    else if (opcode === OP.binary || opcode === OP.text || opcode === OP.continuation) {
      this.#parts.push(payload);
      this.#partsBytes += payload.length;
      if (this.#partsBytes > MESSAGE_MAX_BYTES) this.close(1009);
      else if (final) {
        const message = Buffer.concat(this.#parts);
        this.#parts = [];
        this.#partsBytes = 0;
        this.#handlers.message(message);
      }
    }
  }
}

interface Frame {
  opcode: number;
  final: boolean;
  payload: Buffer;
  /** Bytes of the whole frame. */
  size: number;
}

/** Undefined: more bytes are needed. */
function readFrame(bytes: Buffer): Frame | 'bad' | undefined {
  if (bytes.length < 2) return undefined;
  const first = bytes.readUInt8(0);
  const second = bytes.readUInt8(1);
  // RFC 6455, 5.1 and 5.2: clients mask, and no extension has been agreed on.
  if ((second & 0x80) === 0 || (first & 0x70) !== 0) return 'bad';
  let length = second & 0x7f;
  let at = 2;
  if (length === 126) {
    if (bytes.length < 4) return undefined;
    length = bytes.readUInt16BE(2);
    at = 4;
  } else if (length === 127) {
    if (bytes.length < 10) return undefined;
    const long = bytes.readBigUInt64BE(2);
    if (long > BigInt(MESSAGE_MAX_BYTES)) return 'bad';
    length = Number(long);
    at = 10;
  }
  if (bytes.length < at + 4 + length) return undefined;
  const mask = bytes.subarray(at, at + 4);
  const payload = Buffer.from(bytes.subarray(at + 4, at + 4 + length));
  for (let i = 0; i < payload.length; i++) payload[i] = (payload[i] ?? 0) ^ (mask[i & 3] ?? 0);
  return { opcode: first & 0x0f, final: (first & 0x80) !== 0, payload, size: at + 4 + length };
}

function frame(opcode: number, payload: Buffer): Buffer {
  const long = payload.length > 0xffff;
  const head = Buffer.alloc(payload.length < 126 ? 2 : long ? 10 : 4);
  head[0] = 0x80 | opcode;
  head[1] = payload.length < 126 ? payload.length : long ? 127 : 126;
  if (long) head.writeBigUInt64BE(BigInt(payload.length), 2);
  else if (payload.length >= 126) head.writeUInt16BE(payload.length, 2);
  return Buffer.concat([head, payload]);
}

/** The first of `ours` that the client offers too. */
export function chooseProtocol(offered: string | undefined, ours: readonly string[]): string | undefined {
  const names = (offered ?? '').split(',').map((p) => p.trim());
  return ours.find((p) => names.includes(p));
}

/** The head that accepts; without a protocol where none is agreed on (RFC 6455, 4.2.2). */
export function acceptHead(key: string, protocol?: string): string {
  const accept = createHash('sha1')
    .update(key + GUID)
    .digest('base64');
  return `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n${protocol === undefined ? '' : `Sec-WebSocket-Protocol: ${protocol}\r\n`}\r\n`;
}
