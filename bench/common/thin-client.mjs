// HTTP/1.1 over a unix socket with as little of its own as can be: a request is one write, an answer is read to its end. node:http takes
// 1.4 ms of the CPU for the two requests of an exec, which would be measured as the engine's, ours or a peer's alike.
import { connect } from 'node:net';

/** As much of an answer is kept; the rest is counted. */
const KEPT_BYTES = 1024 * 1024;
const END_OF_HEAD = Buffer.from('\r\n\r\n');

export class ThinClient {
  #free = [];

  constructor(path) {
    this.path = path;
  }

  /** `{ status, size, text }`: bytes of the body, and the text of its first MiB. Rejects when the connection ends before the answer. */
  ask(method, target, body = Buffer.alloc(0), type = 'application/json') {
    const head = `${method} ${target} HTTP/1.1\r\nHost: bench\r\nContent-Type: ${type}\r\nContent-Length: ${body.length}\r\n\r\n`;
    return new Promise((resolve, reject) => {
      const socket = this.#free.pop() ?? this.#open();
      const answer = new Answer();
      const finish = () => {
        socket.take = socket.gone = undefined;
        if (answer.keepsOpen) this.#free.push(socket);
        else socket.destroy();
        resolve({ status: answer.status, size: answer.size, text: Buffer.concat(answer.kept).toString() });
      };
      socket.take = (chunk) => answer.take(chunk) && finish();
      socket.gone = (error) => {
        if (answer.endsWithConnection && !error) finish();
        else reject(error ?? new Error(`${method} ${target}: the connection ended before the answer`));
      };
      if (body.length === 0) socket.write(head);
      else {
        socket.cork();
        socket.write(head);
        socket.write(body);
        socket.uncork();
      }
    });
  }

  close() {
    for (const socket of this.#free.splice(0)) socket.destroy();
  }

  #open() {
    const socket = connect({ path: this.path });
    socket.on('data', (chunk) => socket.take?.(chunk));
    let failure;
    socket.on('error', (error) => {
      failure = error;
    });
    socket.on('close', () => {
      this.#free = this.#free.filter((free) => free !== socket);
      socket.gone?.(failure);
    });
    return socket;
  }
}

/** What has come of an answer (RFC 9112, 6.3: its end by a length, by chunks, or by the connection's). */
class Answer {
  status = 0;
  size = 0;
  kept = [];
  #head = Buffer.alloc(0);
  #body; // 'length', 'chunks' or 'connection', once the head is there
  #left = 0; // of the body, or of this chunk with its end of line
  #line = ''; // a chunk's size, as far as it has come
  #closes = false;

  get keepsOpen() {
    return this.#body !== 'connection' && !this.#closes;
  }

  get endsWithConnection() {
    return this.#body === 'connection';
  }

  /** True when that was all. */
  take(chunk) {
    if (this.#body === undefined) {
      this.#head = Buffer.concat([this.#head, chunk]);
      const end = this.#head.indexOf(END_OF_HEAD);
      if (end < 0) return false;
      this.#readHead(this.#head.subarray(0, end).toString('latin1'));
      return this.#takeBody(this.#head.subarray(end + END_OF_HEAD.length));
    }
    return this.#takeBody(chunk);
  }

  #readHead(text) {
    const field = (name) => new RegExp(`^${name}: *(.*)$`, 'im').exec(text)?.[1].trim();
    this.status = Number(text.slice(9, 12));
    const length = field('content-length');
    const none = this.status === 204 || this.status === 304;
    this.#closes = field('connection')?.toLowerCase() === 'close';
    this.#left = none ? 0 : Number(length ?? 0);
    if (field('transfer-encoding')?.toLowerCase() === 'chunked' && !none) this.#body = 'chunks';
    else this.#body = none || length !== undefined ? 'length' : 'connection';
  }

  #takeBody(bytes) {
    if (this.#body === 'connection') this.#keep(bytes);
    if (this.#body === 'length') {
      this.#keep(bytes);
      this.#left -= bytes.length;
      return this.#left <= 0;
    }
    return this.#body === 'chunks' && this.#takeChunks(bytes);
  }

  #takeChunks(bytes) {
    for (let at = 0; at < bytes.length; ) {
      if (this.#left > 0) {
        const part = bytes.subarray(at, at + this.#left);
        at += part.length;
        this.#left -= part.length;
        const ofLine = Math.max(0, 2 - this.#left); // the last two are the chunk's end of line
        this.#keep(part.subarray(0, Math.max(0, part.length - ofLine)));
        continue;
      }
      const end = bytes.indexOf(10, at);
      this.#line += bytes.toString('latin1', at, end < 0 ? bytes.length : end + 1);
      if (end < 0) return false;
      at = end + 1;
      const size = Number.parseInt(this.#line, 16);
      if (size === 0)
        this.#left = -1; // what follows are trailers, of which the empty line is the last
      else if (this.#left === 0) this.#left = size + 2;
      if (this.#left < 0 && this.#line === '\r\n') return true;
      this.#line = '';
    }
    return false;
  }

  #keep(bytes) {
    if (this.size < KEPT_BYTES && bytes.length > 0) this.kept.push(bytes);
    this.size += bytes.length;
  }
}
