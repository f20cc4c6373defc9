import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type Duplex, Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { TlsOptions } from 'node:tls';
import { describeChain, errnoOf } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { acceptHead, WebSocket } from '#base/websocket.ts';
import { BadBody, errorBody, MethodNotAllowed, NoSuchRoute, NotAWebSocket, statusOf } from '#engine/api/errors.ts';
import type { Hijacked, Out, Reply } from '#engine/api/reply.ts';
import { type RouteRow, Router } from '#engine/api/router.ts';
import { hijackedInput, readUpgradeBody } from '#engine/api/upgrade.ts';
import { MAX_API_VERSION, splitVersion } from '#engine/api/version.ts';

/** One request as a handler sees it. */
export interface ApiRequest {
  id: string;
  params: Record<string, string>;
  query: URLSearchParams;
  /** `1.41`. */
  version: string;
  headers: IncomingMessage['headers'];
  /** The body as JSON; an empty body is `undefined`. */
  json(): Promise<unknown>;
  /** The body as it comes: archives, a client's standard input. */
  body: Readable;
  /** Aborted when the client is gone. */
  signal: AbortSignal;
}

export type Handler = (request: ApiRequest) => Promise<Reply> | Reply;
export type Handlers = Readonly<Record<string, Handler>>;

export interface ApiServerOptions {
  handlers: Handlers;
  extraRoutes?: readonly RouteRow[];
  /** Codes of layers that this folder does not know. */
  statuses?: Readonly<Record<string, number>>;
  headers: Readonly<Record<string, string>>;
  /** HTTPS with these; plain HTTP when absent. */
  tls?: TlsOptions;
  log: Logger;
}

const MAX_JSON_BYTES = 8 * 1024 * 1024;
/** Whoever was answered is gone by then, or has asked for the next thing. */
const LATER_MS = 10;
const DEPARTED = new Set(['EPIPE', 'ECONNRESET', 'ERR_STREAM_PREMATURE_CLOSE', 'ERR_STREAM_DESTROYED', 'ABORT_ERR']);

/** Routes, versions, bodies, errors and streams of the Docker API; what the operations do is in the handlers. */
export function createApiServer(options: ApiServerOptions): Server {
  const router = new Router(options.extraRoutes);
  const http = { keepAliveTimeout: 60_000, requestTimeout: 0 };
  const server = options.tls ? createTlsServer({ ...http, ...options.tls }) : createServer(http);
  const serve = async (exchange: Exchange): Promise<void> => {
    try {
      const request = await readRequest(router, exchange);
      const handler = options.handlers[request.id];
      if (!handler) throw new NoSuchRoute({ method: exchange.request.method ?? '', path: exchange.request.url ?? '' });
      await exchange.send(await handler(request));
    } catch (error) {
      await exchange.fail(error, statusOf(error, options.statuses));
    }
  };
  server.on('request', (request, response) => void serve(new PlainExchange(request, response, options)));
  server.on('upgrade', (request, socket, head) => void serve(new UpgradedExchange(request, socket, head, options)));
  return server;
}

async function readRequest(router: Router, exchange: Exchange): Promise<ApiRequest> {
  const { request } = exchange;
  const url = new URL(request.url ?? '/', 'http://estiba');
  const { version, path } = splitVersion(url.pathname);
  const method = request.method ?? 'GET';
  const match = router.match(method, path);
  if (!match) throw new NoSuchRoute({ method, path: url.pathname });
  if ('methods' in match) throw new MethodNotAllowed({ method, path: url.pathname, methods: match.methods });
  const body = await exchange.body();
  return {
    ...match,
    query: url.searchParams,
    version,
    headers: request.headers,
    json: async () => parseJson(await readBytes(body)),
    body,
    get signal() {
      return exchange.signal;
    },
  };
}

/** By its events: an iterator over a body of one chunk costs several times the chunk. */
function readBytes(body: Readable): Promise<Buffer> {
  if (body.readableEnded) return Promise.resolve(Buffer.alloc(0));
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    body.on('data', (chunk: Buffer) => {
      size += chunk.length;
      // What is too long is read on and dropped: a client reads no answer before it has said all.
      if (size <= MAX_JSON_BYTES) chunks.push(chunk);
      else reject(new BadBody({ problem: `longer than ${MAX_JSON_BYTES} bytes` }));
    });
    body.once('end', () => resolve(Buffer.concat(chunks)));
    body.once('error', reject);
    body.once('close', () => body.readableEnded || reject(new BadBody({ problem: 'cut off' })));
  });
}

function parseJson(bytes: Buffer): unknown {
  if (bytes.length === 0) return undefined;
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw new BadBody({ problem: 'not JSON' }, { cause: error });
  }
}

/** One request and the way its answer goes. */
interface Exchange {
  readonly request: IncomingMessage;
  readonly signal: AbortSignal;
  body(): Promise<Readable>;
  send(reply: Reply): Promise<void>;
  fail(error: unknown, status: number): Promise<void>;
}

class PlainExchange implements Exchange {
  readonly request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #options: ApiServerOptions;
  #gone: AbortController | undefined;
  #closed = false;
  #streaming = '';

  constructor(request: IncomingMessage, response: ServerResponse, options: ApiServerOptions) {
    this.request = request;
    this.#response = response;
    this.#options = options;
    response.on('close', () => {
      this.#closed = true;
      // Of an answer that is out, whole, nobody waits to hear; one that was cut is given up at once.
      if (response.writableFinished) setTimeout(() => this.#gone?.abort(), LATER_MS).unref();
      else this.#gone?.abort();
    });
  }

  /** Made when it is asked for: most requests are answered at once, and an abort at the end of each costs more than their routing. */
  get signal(): AbortSignal {
    if (!this.#gone) {
      this.#gone = new AbortController();
      if (this.#closed) this.#gone.abort();
    }
    return this.#gone.signal;
  }

  async body(): Promise<Readable> {
    return this.request;
  }

  async send(reply: Reply): Promise<void> {
    const response = this.#response;
    const head = { ...this.#options.headers, ...('headers' in reply ? reply.headers : {}) };
    switch (reply.kind) {
      case 'json':
        this.#answer(reply.status, { ...head, 'Content-Type': 'application/json' }, `${JSON.stringify(reply.body)}\n`);
        return;
      case 'text':
        this.#answer(reply.status, { 'Content-Type': 'text/plain; charset=utf-8', ...head }, reply.body);
        return;
      case 'empty':
        response.writeHead(reply.status, head).end();
        return;
      case 'pipe':
        response.writeHead(reply.status, { ...head, 'Content-Type': reply.type });
        await pipeline(reply.body, response);
        return;
      case 'stream':
        response.writeHead(reply.status, { ...head, 'Content-Type': reply.type });
        response.flushHeaders();
        this.#streaming = reply.type;
        await reply.run(outOf(response, this.signal), this.signal);
        response.end();
        return;
      case 'hijack':
        // A client that did not ask for an upgrade reads an endless answer; its standard input is the request's body.
        response.useChunkedEncodingByDefault = false;
        response.writeHead(200, { ...head, 'Content-Type': reply.type, Connection: 'close' });
        response.flushHeaders();
        await reply.run({ input: this.request, output: response }, this.signal);
        response.end();
        return;
      case 'websocket':
        throw new NotAWebSocket({});
    }
  }

  async fail(error: unknown, status: number): Promise<void> {
    const response = this.#response;
    if (isDeparture(error) || response.destroyed) {
      response.destroy();
      return;
    }
    if (isOurs(status))
      this.#options.log.error('request failed', { url: this.request.url, error: describeChain(error) });
    if (response.headersSent) {
      // The status is out: progress streams carry an error as their last line, others are cut so that nobody takes them for whole.
      if (this.#streaming === 'application/json') {
        const { message } = errorBody(error);
        response.end(`${JSON.stringify({ errorDetail: { message }, error: message })}\r\n`);
      } else response.destroy();
      return;
    }
    const head = { ...this.#options.headers, 'Content-Type': 'application/json' };
    this.#answer(status, head, `${JSON.stringify(errorBody(error))}\n`);
  }

  /** Of a known length: what goes in chunks goes in pieces, each of which somebody has to write and to read. */
  #answer(status: number, head: Record<string, string>, body: string): void {
    this.#response.writeHead(status, { ...head, 'Content-Length': String(Buffer.byteLength(body)) }).end(body);
  }
}

/** `Connection: Upgrade`: the headers are ours to write, and the connection is raw from then on. */
class UpgradedExchange implements Exchange {
  readonly request: IncomingMessage;
  readonly signal: AbortSignal;
  readonly #socket: Duplex;
  readonly #options: ApiServerOptions;
  #head: Buffer;
  #answered = false;

  constructor(request: IncomingMessage, socket: Duplex, head: Buffer, options: ApiServerOptions) {
    this.request = request;
    this.#socket = socket;
    this.#head = head;
    this.#options = options;
    const gone = new AbortController();
    this.signal = gone.signal;
    socket.on('close', () => gone.abort());
    socket.on('error', () => gone.abort());
  }

  async body(): Promise<Readable> {
    const { body, early } = await readUpgradeBody(this.request, this.#socket, this.#head, MAX_JSON_BYTES);
    this.#head = early;
    return Readable.from(body.length > 0 ? [body] : []);
  }

  async send(reply: Reply): Promise<void> {
    if (reply.kind === 'hijack') {
      this.#writeHead(101, 'UPGRADED', {
        'Content-Type': reply.type,
        Connection: 'Upgrade',
        Upgrade: this.request.headers.upgrade ?? 'tcp',
      });
      const connection: Hijacked = { input: hijackedInput(this.#socket, this.#head), output: this.#socket };
      await reply.run(connection, this.signal);
      this.#socket.end();
      return;
    }
    if (reply.kind === 'json' || reply.kind === 'text' || reply.kind === 'empty') {
      const body = reply.kind === 'json' ? `${JSON.stringify(reply.body)}\n` : reply.kind === 'text' ? reply.body : '';
      this.#answer(reply.status, body, reply.kind === 'json' ? 'application/json' : 'text/plain; charset=utf-8');
      return;
    }
    if (reply.kind === 'websocket') {
      const key = this.request.headers['sec-websocket-key'];
      if (key === undefined || this.request.headers.upgrade?.toLowerCase() !== 'websocket') throw new NotAWebSocket({});
      this.#answered = true;
      this.#socket.write(acceptHead(key));
      await reply.run((handlers) => new WebSocket(this.#socket, this.#head, handlers), this.signal);
      return;
    }
    // A client that offers to upgrade where there is nothing to upgrade to reads the answer until the end.
    this.#writeHead(reply.status, 'OK', { 'Content-Type': reply.type, Connection: 'close' });
    if (reply.kind === 'pipe') await pipeline(reply.body, this.#socket);
    else await reply.run(outOf(this.#socket, this.signal), this.signal);
    this.#socket.end();
  }

  async fail(error: unknown, status: number): Promise<void> {
    if (isDeparture(error) || this.#socket.destroyed) {
      this.#socket.destroy();
      return;
    }
    if (isOurs(status))
      this.#options.log.error('request failed', { url: this.request.url, error: describeChain(error) });
    if (this.#answered) this.#socket.destroy();
    else this.#answer(status, `${JSON.stringify(errorBody(error))}\n`, 'application/json');
  }

  #answer(status: number, body: string, type: string): void {
    this.#writeHead(status, 'Answer', {
      'Content-Type': type,
      'Content-Length': String(Buffer.byteLength(body)),
      Connection: 'close',
    });
    this.#socket.end(body);
  }

  #writeHead(status: number, reason: string, headers: Record<string, string>): void {
    this.#answered = true;
    const lines = Object.entries({ ...this.#options.headers, ...headers }).map(
      ([name, value]) => `${name}: ${value}\r\n`,
    );
    this.#socket.write(`HTTP/1.1 ${status} ${reason}\r\n${lines.join('')}\r\n`);
  }
}

/** Waits for a slow reader instead of filling memory for it, and ends when the reader is gone. */
function outOf(stream: Writable, signal: AbortSignal): Out {
  return {
    write: (chunk) =>
      new Promise((resolve, reject) => {
        if (signal.aborted || stream.destroyed) return reject(signal.reason ?? new Error('the client is gone'));
        if (stream.write(chunk)) return resolve();
        const settle = (): void => {
          stream.off('drain', settle);
          signal.removeEventListener('abort', settle);
          if (signal.aborted) reject(signal.reason);
          else resolve();
        };
        stream.once('drain', settle);
        signal.addEventListener('abort', settle, { once: true });
      }),
  };
}

/** 501 and 503 are answers; the rest from 500 on is a failure that somebody has to look into. */
function isOurs(status: number): boolean {
  return status >= 500 && status !== 501 && status !== 503;
}

/** The client left: nothing failed, and there is nobody to tell. */
function isDeparture(error: unknown): boolean {
  const code = errnoOf(error) ?? (error instanceof Error ? error.name : '');
  return DEPARTED.has(code) || code === 'AbortError';
}

/** Headers that every answer carries. */
export function standardHeaders(serverName: string): Record<string, string> {
  return { 'Api-Version': MAX_API_VERSION, 'Docker-Experimental': 'false', Ostype: 'linux', Server: serverName };
}
