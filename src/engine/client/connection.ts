import { existsSync } from 'node:fs';
import { type ClientRequest, type IncomingMessage, type OutgoingHttpHeaders, request } from 'node:http';
import { request as secureRequest } from 'node:https';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { defineError, errnoOf, messageOf } from '#base/errors.ts';

/** Where a daemon's Docker API is. Over TCP with client certificates, as the docker CLI does. */
export type Address = { socketPath: string } | { host: string; port: number; tls?: ClientTls };

/** Client certificate and the authority that signed the daemon's, PEM. */
export interface ClientTls {
  ca: string;
  cert: string;
  key: string;
}

export const DaemonUnreachable = defineError('DAEMON_UNREACHABLE', (d: { where: string; why: string }) => ({
  message: `no daemon answers at ${d.where}: ${d.why}`,
  hint: 'start one with `estiba daemon`, or say where it is: --run-root, -H, ESTIBA_RUN_ROOT or DOCKER_HOST',
}));

export const RequestRefused = defineError('REQUEST_REFUSED', (d: { status: number; message: string }) => ({
  message: d.message,
}));

export const BadHost = defineError('BAD_HOST', (d: { host: string }) => ({
  message: `${d.host} is no address of a daemon`,
  hint: 'unix:///PATH or tcp://HOST:PORT',
}));

export interface AddressWish {
  host?: string | undefined;
  runRoot?: string | undefined;
  tls?: ClientTls | undefined;
  env: Readonly<Record<string, string | undefined>>;
}

const DEFAULT_RUN_ROOT = '/run/estiba';
const DEFAULT_PORT = 2375;

/** `-H`, then `--run-root`, then their variables, then the default: what is said nearest wins. */
export function addressOf({ host, runRoot, tls, env }: AddressWish): Address {
  if (host) return withTls(parseHost(host), tls);
  const root = runRoot ?? env['ESTIBA_RUN_ROOT'];
  if (root) return { socketPath: join(root, 'docker.sock') };
  const dockerHost = env['DOCKER_HOST'];
  return dockerHost ? withTls(parseHost(dockerHost), tls) : { socketPath: join(DEFAULT_RUN_ROOT, 'docker.sock') };
}

function withTls(address: Address, tls: ClientTls | undefined): Address {
  return tls && 'host' in address ? { ...address, tls } : address;
}

function parseHost(text: string): Address {
  const unix = /^unix:\/\/(\/.+)$/.exec(text)?.[1];
  if (unix) return { socketPath: unix };
  const [, host, port] = /^(?:tcp|https?):\/\/\[?([^\]/]+?)\]?(?::(\d{1,5}))?\/?$/.exec(text) ?? [];
  if (!host) throw new BadHost({ host: text });
  return { host, port: Number(port ?? DEFAULT_PORT) };
}

export interface CallOptions {
  method?: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE';
  headers?: OutgoingHttpHeaders;
  /** JSON, or bytes as they come. */
  json?: unknown;
  body?: AsyncIterable<Uint8Array>;
  signal?: AbortSignal;
}

/** A connection that both sides write to as they like: attach, exec, an agent's tunnel. */
export interface Upgraded {
  socket: Socket;
  /** Bytes of the stream that came with the answer's head. */
  head: Buffer;
  contentType: string;
}

/** One daemon, by its HTTP API. */
export class DaemonConnection {
  readonly address: Address;

  constructor(address: Address) {
    this.address = address;
  }

  /** The answer's body as it comes; REQUEST_REFUSED with Docker's message for a status that is an error. */
  async stream(path: string, options: CallOptions = {}): Promise<IncomingMessage> {
    const response = await this.#send(path, options);
    const status = response.statusCode ?? 0;
    if (status < 400) return response;
    throw new RequestRefused({ status, message: messageIn(await this.#whole(response, options.signal)) });
  }

  async json(path: string, options: CallOptions = {}): Promise<unknown> {
    const text = (await this.#whole(await this.stream(path, options), options.signal)).toString();
    return text.trim() === '' ? undefined : JSON.parse(text);
  }

  /** Lines of JSON, each when it is there. */
  async *lines(path: string, options: CallOptions = {}): AsyncGenerator<unknown> {
    let rest = '';
    const decoder = new TextDecoder();
    for await (const chunk of this.#told(await this.stream(path, options), options.signal)) {
      rest += decoder.decode(chunk, { stream: true });
      const lines = rest.split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (line.trim() !== '') yield JSON.parse(line);
    }
    if (rest.trim() !== '') yield JSON.parse(rest);
  }

  /** A raw connection both ways, after the daemon has agreed. */
  upgrade(path: string, signal: AbortSignal | undefined, json?: unknown): Promise<Upgraded> {
    return new Promise((resolve, reject) => {
      const body = json === undefined ? '' : JSON.stringify(json);
      const headers = { Connection: 'Upgrade', Upgrade: 'tcp', 'Content-Length': Buffer.byteLength(body) };
      const call = this.#request(path, { method: 'POST', headers, json, ...(signal ? { signal } : {}) });
      call.once('upgrade', (response, socket, head) => {
        const contentType = response.headers['content-type'] ?? '';
        resolve({ socket: socket as Socket, head, contentType });
      });
      call.once('response', (response) => {
        const status = response.statusCode ?? 0;
        const refuse = (said: Buffer): void => {
          const message = messageIn(said) || `${path} is not a connection`;
          reject(new RequestRefused({ status, message }));
        };
        this.#whole(response, signal).then(refuse, reject);
      });
      call.once('error', (error) => reject(this.#unreachable(error, signal)));
      call.once('close', () => reject(this.#silent())); // says nothing new after any of the others
      call.end(body);
    });
  }

  #send(path: string, options: CallOptions): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const call = this.#request(path, options);
      call.once('response', resolve);
      call.once('error', (error) => reject(this.#unreachable(error, options.signal)));
      // After the others it says nothing new. Alone it comes for a request that is given up before it has a socket: Node.js has no
      // error for that, and whoever waits would wait for ever, or a program end as if all had gone well.
      call.once('close', () => reject(this.#silent()));
      if (options.body) {
        const body = Readable.from(options.body, { objectMode: false });
        // A body that cannot be read is the reason, whatever comes of the request that it was for.
        body.once('error', reject);
        // An answer that comes before all is sent (a refusal) is the answer; what is left need not be sent. The errors of either end are heard
        // above: the request's when there is no answer, the body's always.
        pipeline(body, call).catch(() => undefined);
      } else call.end(options.json === undefined ? undefined : JSON.stringify(options.json));
    });
  }

  #request(path: string, { method = 'GET', headers = {}, json, signal }: CallOptions): ClientRequest {
    const type = json === undefined ? {} : { 'Content-Type': 'application/json' };
    const { address } = this;
    const tls = 'tls' in address ? address.tls : undefined;
    const send = tls ? secureRequest : request;
    return send({
      ...address,
      ...tls,
      path,
      method,
      headers: { Host: 'estiba', ...type, ...headers },
      ...(signal ? { signal } : {}),
    });
  }

  async #whole(response: IncomingMessage, signal: AbortSignal | undefined): Promise<Buffer> {
    const chunks: Buffer[] = [];
    for await (const chunk of this.#told(response, signal)) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  /** An answer as it comes; DAEMON_UNREACHABLE when it breaks off. */
  async *#told(response: IncomingMessage, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
    try {
      yield* response;
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new DaemonUnreachable({ where: this.#where(), why: 'its answer broke off' }, { cause: error });
    }
  }

  #silent(): Error {
    return new DaemonUnreachable({ where: this.#where(), why: 'the connection ended before its answer' });
  }

  #where(): string {
    return 'socketPath' in this.address ? this.address.socketPath : `${this.address.host}:${this.address.port}`;
  }

  #unreachable(error: Error, signal: AbortSignal | undefined): Error {
    if (signal?.aborted) return error;
    const missing = 'socketPath' in this.address && !existsSync(this.address.socketPath);
    const why = missing ? 'there is no such socket' : (errnoOf(error) ?? messageOf(error));
    return new DaemonUnreachable({ where: this.#where(), why }, { cause: error });
  }
}

const MESSAGE_MAX_BYTES = 1024 * 1024;

function messageIn(body: Buffer): string {
  const text = body.subarray(0, MESSAGE_MAX_BYTES).toString().trim();
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === 'object' && parsed !== null && 'message' in parsed) return String(parsed.message);
  } catch {
    // a proxy's page, or nothing
  }
  return text;
}
