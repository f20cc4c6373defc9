import { type ClientRequest, Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex, Readable } from 'node:stream';
import { type ConnectionOptions, type SecureContext, connect as tlsConnect } from 'node:tls';
import { urlToHttpOptions } from 'node:url';
import { messageOf } from '#base/errors.ts';
import { RegistryMisbehaved, RegistryUnreachable } from '#registry/client/errors.ts';
import { type ProxySettings, proxyFor } from '#registry/client/proxy.ts';

/** How a host is spoken to: what a file in certs.d or the resolution table says of it. */
export interface HostTls {
  /** False: any certificate will do (an insecure registry). */
  verify: boolean;
  /** What is trusted, and the client's own certificate. Absent: Node's roots. */
  secureContext?: SecureContext;
}

export interface TransportOptions {
  proxy: ProxySettings;
  tlsFor(host: string): Promise<HostTls>;
  userAgent: string;
  /** Until the first byte of an answer, and between two pieces of a body. */
  idleMs?: number;
}

export interface Outgoing {
  method: string;
  url: URL;
  headers?: Record<string, string>;
  /** A body that can be sent once. `bytes` is its length. */
  body?: { bytes: number; stream: Readable | Buffer };
  signal?: AbortSignal | undefined;
}

export interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  /** Where redirects led. */
  url: URL;
  body: IncomingMessage;
}

const IDLE_MS = 30_000;
const REDIRECTS_MAX = 5;
/** Connections to one host: layers in parallel, and one for small talk beside them. */
const SOCKETS_PER_HOST = 8;

/**
 * HTTP to registries: kept connections, proxies, a host's own certificates, redirects that leak nothing, time limits. One
 * for a daemon; `close` ends its idle connections.
 */
export class Transport {
  readonly #options: TransportOptions;
  readonly #agents = new Map<string, Promise<HttpAgent | HttpsAgent>>();

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  /** Follows redirects for requests without a body. Throws REGISTRY_UNREACHABLE when there is no answer. */
  async send(out: Outgoing): Promise<Answer> {
    let current = out;
    for (let hops = 0; ; hops++) {
      const answer = await this.#once(current);
      const location = answer.headers.location;
      if (![301, 302, 303, 307, 308].includes(answer.status) || location === undefined || out.body) return answer;
      answer.body.resume();
      current = this.#redirected(current, location, hops);
    }
  }

  async close(): Promise<void> {
    for (const agent of this.#agents.values()) (await agent).destroy();
    this.#agents.clear();
  }

  /** Blobs are often kept elsewhere: the registry's credentials are none of that place's business. */
  #redirected(from: Outgoing, location: string, hops: number): Outgoing {
    const request = `${from.method} ${from.url.pathname}`;
    const misbehaved = (why: string): never => {
      throw new RegistryMisbehaved({ host: from.url.host, request, why });
    };
    if (hops >= REDIRECTS_MAX) misbehaved(`more than ${REDIRECTS_MAX} redirects`);
    if (!URL.canParse(location, from.url.href)) misbehaved(`redirects to ${location.slice(0, 200)}`);
    const url = new URL(location, from.url);
    if (url.protocol !== 'https:' && (url.protocol !== 'http:' || from.url.protocol === 'https:')) {
      misbehaved(`redirects from ${from.url.protocol} to ${url.protocol}`);
    }
    const { authorization, ...rest } = from.headers ?? {};
    return { ...from, url, headers: url.host === from.url.host && authorization ? { ...rest, authorization } : rest };
  }

  async #once(out: Outgoing): Promise<Answer> {
    const { url } = out;
    const agent = await this.#agentFor(url);
    const proxy = url.protocol === 'http:' ? proxyFor(url, this.#options.proxy) : undefined;
    const headers: Record<string, string> = { 'user-agent': this.#options.userAgent, ...out.headers };
    if (out.body) headers['content-length'] = String(out.body.bytes);
    else if (['POST', 'PUT', 'PATCH'].includes(out.method)) headers['content-length'] = '0';
    const proxied = proxy && {
      // To a proxy, plain HTTP is spoken with the whole URL as the target (RFC 9112 §3.2.2).
      hostname: proxy.hostname,
      port: proxy.port || 80,
      path: url.href,
      headers: { ...headers, host: url.host, ...proxyAuthorization(proxy) },
    };
    const make = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const request = make({
      ...urlToHttpOptions(url),
      method: out.method,
      agent,
      headers,
      ...proxied,
      ...(out.signal ? { signal: out.signal } : {}),
    });
    return exchange(request, out, this.#options.idleMs ?? IDLE_MS);
  }

  #agentFor(url: URL): Promise<HttpAgent | HttpsAgent> {
    const known = this.#agents.get(url.origin);
    if (known) return known;
    const made = this.#makeAgent(url);
    this.#agents.set(url.origin, made);
    made.catch(() => this.#agents.delete(url.origin));
    return made;
  }

  async #makeAgent(url: URL): Promise<HttpAgent | HttpsAgent> {
    const common = { keepAlive: true, maxSockets: SOCKETS_PER_HOST, keepAliveMsecs: 30_000 };
    if (url.protocol === 'http:') return new HttpAgent(common);
    const { verify, ...tls } = await this.#options.tlsFor(url.host);
    const options = { ...common, ...tls, rejectUnauthorized: verify };
    const proxy = proxyFor(url, this.#options.proxy);
    return proxy ? new TunnelAgent(proxy, options) : new HttpsAgent(options);
  }
}

function exchange(request: ClientRequest, out: Outgoing, idleMs: number): Promise<Answer> {
  const { host } = out.url;
  let ownFault: Error | undefined;
  return new Promise((resolve, reject) => {
    // Counts silence in both directions; it goes on during the body, where it surfaces as the body's error.
    request.setTimeout(idleMs, () => request.destroy(new Error(`silent for ${idleMs / 1000} s`)));
    request.on('error', (cause) => {
      if (out.signal?.aborted) reject(out.signal.reason);
      else if (ownFault) reject(ownFault);
      else reject(new RegistryUnreachable({ host, why: explain(cause) }, { cause }));
    });
    request.on('response', (body) => {
      resolve({ status: body.statusCode ?? 0, headers: body.headers, url: out.url, body });
    });
    const stream = out.body?.stream;
    if (stream === undefined || Buffer.isBuffer(stream)) {
      request.end(stream);
      return;
    }
    // What we send may fail on our side (a damaged blob): that is not the registry being out of reach.
    stream.on('error', (error) => {
      ownFault = error;
      request.destroy(error);
    });
    request.on('close', () => stream.destroy());
    stream.pipe(request);
  });
}

/** Connections through a proxy's CONNECT: TLS is spoken with the registry, the proxy sees names and sizes only. */
class TunnelAgent extends HttpsAgent {
  readonly #proxy: URL;

  constructor(proxy: URL, options: ConstructorParameters<typeof HttpsAgent>[0]) {
    super(options);
    this.#proxy = proxy;
  }

  override createConnection(
    options: ConnectionOptions & { host?: string; port?: number | string },
    done?: (error: Error | null, stream: Duplex) => void,
  ): Duplex | null | undefined {
    const target = `${options.host ?? ''}:${options.port ?? 443}`;
    const proxy = this.#proxy;
    const make = proxy.protocol === 'https:' ? httpsRequest : httpRequest;
    const fail = (error: Error): void => done?.(error, undefined as unknown as Duplex);
    const ask = make({
      method: 'CONNECT',
      hostname: proxy.hostname,
      port: proxy.port || (proxy.protocol === 'https:' ? 443 : 80),
      path: target,
      headers: { host: target, ...proxyAuthorization(proxy) },
      agent: false,
    });
    ask.on('error', fail);
    ask.setTimeout(IDLE_MS, () => ask.destroy(new Error(`proxy ${proxy.host} is silent`)));
    ask.on('connect', (answer, socket: Socket) => {
      if (answer.statusCode !== 200) {
        socket.destroy();
        return fail(new Error(`proxy ${proxy.host} answers CONNECT ${target} with ${answer.statusCode}`));
      }
      const secure = tlsConnect({ ...options, socket, servername: options.servername ?? options.host ?? '' }, () => {
        secure.off('error', fail);
        done?.(null, secure);
      });
      secure.once('error', fail);
    });
    ask.end();
    return undefined;
  }
}

function proxyAuthorization(proxy: URL): Record<string, string> {
  if (proxy.username === '') return {};
  const credentials = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`;
  return { 'proxy-authorization': `Basic ${Buffer.from(credentials).toString('base64')}` };
}

/** Several addresses tried give an AggregateError without a message of its own. */
function explain(error: Error): string {
  if (error instanceof AggregateError) return error.errors.map(messageOf).join('; ');
  return error.message || (error as NodeJS.ErrnoException).code || 'the connection was closed';
}

/** A small body whole. One that is larger than `maxBytes`, told or not, is a misbehaviour. */
export async function readBody(answer: Answer, maxBytes: number, request: string): Promise<Buffer> {
  const { host } = answer.url;
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const part of answer.body) {
      bytes += (part as Buffer).byteLength;
      if (bytes > maxBytes)
        throw new RegistryMisbehaved({ host, request, why: `the body is larger than ${maxBytes} bytes` });
      parts.push(part as Buffer);
    }
  } catch (cause) {
    if (cause instanceof RegistryMisbehaved) throw cause;
    throw new RegistryUnreachable({ host, why: `the answer broke off: ${messageOf(cause)}` }, { cause });
  }
  return Buffer.concat(parts, bytes);
}
