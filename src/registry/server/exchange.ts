import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Ingest } from '#image/content.ts';
import { BodyBroken, refuse } from '#registry/server/errors.ts';

/** One request and its answer, with what handlers need of HTTP and nothing else. */
export class Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly path: string;
  readonly query: URLSearchParams;
  /** Largest body a client may take its time with between two pieces. */
  readonly #idleMs: number;

  constructor(request: IncomingMessage, response: ServerResponse, limits: { idleMs: number }) {
    this.request = request;
    this.response = response;
    this.#idleMs = limits.idleMs;
    // Only path and query count. A base is needed by the parser alone: the target may also be absolute or carry `//`.
    const target = request.url ?? '/';
    const cut = target.indexOf('?');
    this.path = cut < 0 ? target : target.slice(0, cut);
    this.query = new URLSearchParams(cut < 0 ? '' : target.slice(cut + 1));
  }

  get method(): string {
    return this.request.method ?? 'GET';
  }

  header(name: string): string | undefined {
    const value = this.request.headers[name];
    return Array.isArray(value) ? value.join(', ') : value;
  }

  /** Declared length of the request's body, or undefined when it is sent in chunks. */
  get contentLength(): number | undefined {
    const text = this.header('content-length');
    return text === undefined ? undefined : Number(text);
  }

  answer(status: number, headers: Record<string, string> = {}, body: string | Buffer = ''): void {
    const bytes = typeof body === 'string' ? Buffer.from(body) : body;
    const length = status === 204 || status === 304 ? {} : { 'content-length': String(bytes.byteLength) };
    this.response.writeHead(status, { ...length, ...headers });
    this.response.end(this.method === 'HEAD' ? undefined : bytes);
  }

  json(value: unknown, headers: Record<string, string> = {}): void {
    this.answer(200, { 'content-type': 'application/json', ...headers }, JSON.stringify(value));
  }

  /** Headers of a body that a HEAD request does not get. */
  head(status: number, headers: Record<string, string>): void {
    this.response.writeHead(status, headers);
    this.response.end();
  }

  async stream(status: number, headers: Record<string, string>, body: Readable): Promise<void> {
    this.response.writeHead(status, headers);
    try {
      await pipeline(body, this.response);
    } catch (error) {
      // The client went away: nothing is lost and there is nobody to tell.
      if (!this.response.destroyed && !this.request.destroyed) throw error;
    }
  }

  /** A small body as a whole; more than `maxBytes` is 413. */
  async readAll(maxBytes: number): Promise<Buffer> {
    const tooLarge = (): never =>
      refuse('SIZE_INVALID', `the body is larger than ${maxBytes} bytes`, {
        status: 413,
      });
    if ((this.contentLength ?? 0) > maxBytes) tooLarge();
    const parts: Buffer[] = [];
    let bytes = 0;
    await this.#read(undefined, (part) => {
      bytes += part.byteLength;
      if (bytes > maxBytes) tooLarge();
      parts.push(part);
    });
    return Buffer.concat(parts, bytes);
  }

  /** Appends the body to a transfer. What arrived before a break stays there: that is what a client resumes from. */
  async readInto(ingest: Ingest, limit: { maxBytes: number }, signal: AbortSignal): Promise<void> {
    const tooLarge = (): never =>
      refuse('SIZE_INVALID', `blobs are limited to ${limit.maxBytes} bytes here`, {
        status: 413,
      });
    if (ingest.offset + (this.contentLength ?? 0) > limit.maxBytes) tooLarge();
    await this.#read(signal, (part) => {
      if (ingest.offset + part.byteLength > limit.maxBytes) tooLarge();
      return ingest.append(part);
    });
  }

  async #read(signal: AbortSignal | undefined, take: (part: Buffer) => unknown): Promise<void> {
    const cut = (why: string): void => {
      this.request.destroy(new BodyBroken({ why }));
    };
    const onAbort = (): void => cut('a newer request took this upload over');
    if (signal?.aborted) throw new BodyBroken({ why: 'a newer request took this upload over' });
    signal?.addEventListener('abort', onAbort, { once: true });
    let timer = setTimeout(cut, this.#idleMs, `no data for ${this.#idleMs} ms`);
    try {
      // The stream must outlive an early end of this loop: its socket carries the refusal back.
      for await (const part of this.request.iterator({ destroyOnReturn: false })) {
        timer.refresh();
        const wait = take(part as Buffer);
        if (wait instanceof Promise) {
          // The disk may be slow; the client is not idle meanwhile.
          clearTimeout(timer);
          await wait;
          timer = setTimeout(cut, this.#idleMs, `no data for ${this.#idleMs} ms`);
        }
      }
      if (!this.request.complete) throw new BodyBroken({ why: 'the connection was closed before its end' });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    }
  }
}
