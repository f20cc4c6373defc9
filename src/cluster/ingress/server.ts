import { createServer, type Server as HttpServer } from 'node:http';
import { createSecureServer, type Http2SecureServer } from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '#base/clock.ts';
import { describeChain, errnoOf } from '#base/errors.ts';
import type { FeedChange } from '#base/feed.ts';
import type { Logger } from '#base/log.ts';
import type { Random } from '#base/random.ts';
import { Backend, Connections } from '#cluster/ingress/backends.ts';
import { Certificates } from '#cluster/ingress/certificates.ts';
import { IngressNotListening } from '#cluster/ingress/errors.ts';
import type { InRequest, OutResponse } from '#cluster/ingress/exchange.ts';
import { forward } from '#cluster/ingress/forward.ts';
import { type Client, hostOf } from '#cluster/ingress/headers.ts';
import { Routes } from '#cluster/ingress/match.ts';
import {
  backendShape,
  certificateShape,
  type IngressEntry,
  ingressShape,
  KEY,
  type SettingsEntry,
  settingsShape,
} from '#cluster/ingress/model.ts';
import { type Page, renderPage } from '#cluster/ingress/pages.ts';
import { upgrade } from '#cluster/ingress/upgrade.ts';

export interface IngressServerOptions {
  clock: Clock;
  random: Random;
  log: Logger;
}

/** Above what load balancers in front of us keep theirs (60 s): the one who opened a connection should close it. */
const CLIENT_IDLE_MS = 75_000;
const CLIENT_HEAD_MS = 30_000;
const LISTEN_AGAIN_MS = 1_000;
const STREAMS_A_CONNECTION = 128;

type Listener = { server: HttpServer | Http2SecureServer; port: number };

/**
 * The proxy in front of the cluster's web applications. What it knows comes from a feed; it serves on with the last of it.
 *
 *   connection ─▶ (TLS by name) ─▶ request ─▶ route by host and path ─▶ backend ─▶ target ─▶ answer, or a page that says why not
 */
export class IngressServer {
  readonly #o: IngressServerOptions;
  readonly #ingresses = new Map<string, IngressEntry>();
  readonly #backends = new Map<string, Backend>();
  readonly #certificates: Certificates;
  readonly #connections = new Connections();
  readonly #listeners = new Map<string, Listener>();
  readonly #retries = new Map<string, () => void>();
  readonly #sockets = new Set<Duplex>();
  #routes = new Routes([]);
  #settings: SettingsEntry = { http: [], https: [] };

  constructor(options: IngressServerOptions) {
    this.#o = options;
    this.#certificates = new Certificates(options.log);
  }

  async apply({ whole, set, drop }: FeedChange): Promise<void> {
    if (whole) {
      for (const key of this.#backends.keys()) if (!set.has(`${KEY.backend}${key}`)) this.#backends.delete(key);
      this.#ingresses.clear();
      this.#certificates.clear();
    }
    for (const key of drop) this.#put(key, undefined);
    for (const [key, value] of set) this.#put(key, value);
    const entries = [...this.#ingresses.values()];
    this.#routes = new Routes(entries);
    this.#certificates.setIngresses(entries);
    await this.#listen();
    this.#refreshFallback();
  }

  /** Where it listens now: port 0 has become a real one. */
  ports(kind: 'http' | 'https'): number[] {
    return [...this.#listeners].flatMap(([name, { port }]) => (name.startsWith(`${kind} `) ? [port] : []));
  }

  async close(): Promise<void> {
    for (const cancel of this.#retries.values()) cancel();
    const closed = [...this.#listeners.values()].map(({ server }) => new Promise((done) => server.close(done)));
    for (const socket of this.#sockets) socket.destroy();
    this.#connections.close();
    await Promise.all(closed);
    this.#listeners.clear();
  }

  #put(key: string, value: unknown): void {
    if (key === KEY.settings)
      this.#settings = value === undefined ? { http: [], https: [] } : settingsShape(value, '$');
    else if (key.startsWith(KEY.ingress)) {
      if (value === undefined) this.#ingresses.delete(key);
      else this.#ingresses.set(key, ingressShape(value, '$'));
    } else if (key.startsWith(KEY.backend)) this.#putBackend(key.slice(KEY.backend.length), value);
    else {
      const entry = value === undefined ? undefined : certificateShape(value, '$');
      if (key.startsWith(KEY.secret)) this.#certificates.setSecret(key.slice(KEY.secret.length), entry);
      if (key.startsWith(KEY.own)) this.#certificates.setOwn(key.slice(KEY.own.length), entry);
    }
  }

  #putBackend(key: string, value: unknown): void {
    const known = this.#backends.get(key);
    if (value === undefined) {
      this.#backends.delete(key);
      return;
    }
    const entry = backendShape(value, '$');
    if (!known) {
      this.#backends.set(key, new Backend(entry, this.#o.clock, this.#o.random));
      return;
    }
    const stays = new Set(entry.targets.map((t) => `${t.ip} ${t.port}`));
    for (const target of known.entry.targets)
      if (!stays.has(`${target.ip} ${target.port}`)) this.#connections.forget(target);
    known.update(entry);
  }

  // -- requests -----------------------------------------------------------------------------------------------------------

  async #onRequest(request: InRequest, response: OutResponse): Promise<void> {
    const client = clientOf(request);
    const found = this.#backendFor(client.host, request.url ?? '/');
    const page =
      'page' in found
        ? found.page
        : await forward({ request, response, client, ...found, connections: this.#connections, clock: this.#o.clock });
    if (page) showPage(request, response, page);
  }

  async #onUpgrade(request: InRequest, socket: Duplex, head: Buffer): Promise<void> {
    const client = clientOf(request);
    const found = this.#backendFor(client.host, request.url ?? '/');
    const page =
      'page' in found ? found.page : await upgrade({ request, socket, head, client, ...found, clock: this.#o.clock });
    if (!page) return;
    const { headers, body } = renderPage(page, undefined);
    const lines = Object.entries({ ...headers, connection: 'close' }).map(([name, value]) => `${name}: ${value}\r\n`);
    socket.end(`HTTP/1.1 ${page.status} ${page.code}\r\n${lines.join('')}\r\n${body}`);
  }

  #backendFor(authority: string, url: string): { backend: Backend; name: string } | { page: Page } {
    const path = pathOf(url);
    if (authority === '') return { page: { status: 400, code: 'NO_HOST', says: 'the request names no host' } };
    const match = this.#routes.find(hostOf(authority), path);
    if (!match)
      return { page: { status: 404, code: 'NO_ROUTE', says: `no Ingress has a rule for ${hostOf(authority)}${path}` } };
    const backend = this.#backends.get(match.backend);
    const name = `Service ${match.backend} (Ingress ${match.ingress})`;
    if (!backend) return { page: { status: 503, code: 'NO_ENDPOINTS', says: `${name} is not known` } };
    return { backend, name };
  }

  // -- listening ----------------------------------------------------------------------------------------------------------

  async #listen(): Promise<void> {
    const wanted = new Map<string, { kind: 'http' | 'https'; ip: string; port: number }>();
    for (const kind of ['http', 'https'] as const)
      for (const at of this.#settings[kind]) wanted.set(`${kind} ${at.ip} ${at.port}`, { kind, ...at });
    for (const [name, { server }] of this.#listeners) {
      if (wanted.has(name)) continue;
      this.#listeners.delete(name);
      server.close();
    }
    for (const [name, cancel] of this.#retries) {
      if (wanted.has(name)) continue;
      cancel();
      this.#retries.delete(name);
    }
    for (const [name, at] of wanted)
      if (!this.#listeners.has(name) && !this.#retries.has(name)) await this.#open(name, at);
  }

  async #open(name: string, at: { kind: 'http' | 'https'; ip: string; port: number }): Promise<void> {
    const { log, clock } = this.#o;
    const server = at.kind === 'http' ? this.#newPlain() : this.#newSecure();
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen({ host: at.ip, port: at.port }, resolve);
      });
    } catch (error) {
      const { ip, port } = at;
      const why = new IngressNotListening({ ip, port, errno: errnoOf(error) ?? 'unknown' }, { cause: error });
      log.warn('not listening', { error: describeChain(why), hint: why.hint });
      const again = clock.after(LISTEN_AGAIN_MS, () => {
        this.#retries.delete(name);
        void this.#open(name, at);
      });
      this.#retries.set(name, again);
      return;
    }
    server.on('error', (error) => log.warn('listener', { error: describeChain(error) }));
    this.#listeners.set(name, { server, port: (server.address() as AddressInfo).port });
  }

  #newPlain(): HttpServer {
    const server = createServer({
      keepAliveTimeout: CLIENT_IDLE_MS,
      headersTimeout: CLIENT_HEAD_MS,
      requestTimeout: 0,
    });
    this.#wire(server);
    return server;
  }

  #newSecure(): Http2SecureServer {
    const server = createSecureServer({
      allowHTTP1: true,
      settings: { maxConcurrentStreams: STREAMS_A_CONNECTION },
      SNICallback: (name, done) => {
        const context = this.#certificates.contextFor(name);
        if (context) done(null, context);
        else done(new Error(`no certificate for ${name}`));
      },
    });
    server.on('session', (session) => session.on('error', () => session.destroy()));
    server.on('tlsClientError', (error) => this.#o.log.debug('handshake', () => ({ error: describeChain(error) })));
    this.#wire(server);
    return server;
  }

  /** A client that names no host (an address in its URL) comes by no callback: the server's own context is for it. */
  #refreshFallback(): void {
    const fallback = this.#certificates.fallback();
    if (!fallback) return;
    for (const { server } of this.#listeners.values())
      if ('setSecureContext' in server) server.setSecureContext({ cert: fallback.certificate, key: fallback.key });
  }

  #wire(server: HttpServer | Http2SecureServer): void {
    const failed = (error: unknown): void => this.#o.log.error('request', { error: describeChain(error) });
    server.on('request', (request: InRequest, response: OutResponse) => {
      request.on('error', () => undefined); // the client's; its close is what counts
      this.#onRequest(request, response).catch(failed);
    });
    server.on('upgrade', (request: InRequest, socket: Duplex, head: Buffer) => {
      this.#onUpgrade(request, socket, head).catch(failed);
    });
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
  }
}

function showPage(request: InRequest, response: OutResponse, page: Page): void {
  if (response.headersSent || response.destroyed) return;
  const { headers, body } = renderPage(page, request.headers.accept);
  request.resume(); // what the client still sends
  response.writeHead(page.status, headers);
  response.end(request.method === 'HEAD' ? '' : body);
}

function clientOf(request: InRequest): Client {
  const socket = request.socket as Socket & Partial<TLSSocket>;
  const authority = request.headers[':authority'];
  return {
    address: (socket.remoteAddress ?? '').replace(/^::ffff:/, ''),
    host: typeof authority === 'string' ? authority : (request.headers.host ?? ''),
    secure: socket.encrypted === true,
    port: socket.localPort ?? 0,
  };
}

/** The path without its query; proxies may be asked with a whole URL (RFC 9112 3.2.2). */
function pathOf(url: string): string {
  const path = url.startsWith('/') ? url : url.replace(/^[a-z]+:\/\/[^/?]*/i, '');
  const end = path.search(/[?#]/);
  return (end < 0 ? path : path.slice(0, end)) || '/';
}
