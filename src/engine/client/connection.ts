import { existsSync } from 'node:fs';
import { type ClientRequest, type IncomingMessage, type OutgoingHttpHeaders, request } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { defineError, errnoOf, messageOf } from '#base/errors.ts';

/** Where a daemon's Docker API is. TLS is the docker CLI's way for other machines; ours are unix sockets and plain TCP. */
export type Address = { socketPath: string } | { host: string; port: number };

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
  env: Readonly<Record<string, string | undefined>>;
}

const DEFAULT_RUN_ROOT = '/run/estiba';
const DEFAULT_PORT = 2375;

/** `-H`, then `--run-root`, then their variables, then the default: what is said nearest wins. */
export function addressOf({ host, runRoot, env }: AddressWish): Address {
  if (host) return parseHost(host);
  const root = runRoot ?? env['ESTIBA_RUN_ROOT'];
  if (root) return { socketPath: join(root, 'docker.sock') };
  const dockerHost = env['DOCKER_HOST'];
  return dockerHost ? parseHost(dockerHost) : { socketPath: join(DEFAULT_RUN_ROOT, 'docker.sock') };
}

function parseHost(text: string): Address {
  const unix = /^unix:\/\/(\/.+)$/.exec(text)?.[1];
  if (unix) return { socketPath: unix };
  const [, host, port] = /^(?:tcp|http):\/\/\[?([^\]/]+?)\]?(?::(\d{1,5}))?\/?$/.exec(text) ?? [];
  if (!host) throw new BadHost({ host: text });
  return { host, port: Number(port ?? DEFAULT_PORT) };
}

export interface CallOptions {
  method?: 'GET' | 'POST' | 'PUT' | 'DELETE';
  headers?: OutgoingHttpHeaders;
  /** JSON, or bytes as they come. */
  json?: unknown;
  body?: AsyncIterable<Uint8Array>;
  signal?: AbortSignal;
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
    throw new RequestRefused({ status, message: messageIn(await readAll(response)) });
  }

  async json(path: string, options: CallOptions = {}): Promise<unknown> {
    const text = (await readAll(await this.stream(path, options))).toString();
    return text.trim() === '' ? undefined : JSON.parse(text);
  }

  /** Lines of JSON, each when it is there. */
  async *lines(path: string, options: CallOptions = {}): AsyncGenerator<unknown> {
    let rest = '';
    const decoder = new TextDecoder();
    for await (const chunk of await this.stream(path, options)) {
      rest += decoder.decode(chunk, { stream: true });
      const lines = rest.split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (line.trim() !== '') yield JSON.parse(line);
    }
    if (rest.trim() !== '') yield JSON.parse(rest);
  }

  /** A raw connection both ways, after the daemon has agreed. */
  upgrade(path: string, signal: AbortSignal): Promise<{ socket: import('node:net').Socket; head: Buffer }> {
    return new Promise((resolve, reject) => {
      const call = this.#request(path, {
        method: 'POST',
        headers: { Connection: 'Upgrade', Upgrade: 'tcp', 'Content-Length': 0 },
        signal,
      });
      call.once('upgrade', (_response, socket, head) => resolve({ socket: socket as import('node:net').Socket, head }));
      call.once('response', (response) => {
        response.resume();
        reject(new RequestRefused({ status: response.statusCode ?? 0, message: `${path} is not a connection` }));
      });
      call.once('error', reject);
      call.end();
    });
  }

  #send(path: string, options: CallOptions): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const call = this.#request(path, options);
      call.once('response', resolve);
      call.once('error', (error) => reject(this.#unreachable(error, options.signal)));
      if (options.body) {
        // An answer that comes before all is sent (a refusal) is the answer; what is left need not be sent.
        pipeline(Readable.from(options.body, { objectMode: false }), call).catch(() => undefined);
      } else call.end(options.json === undefined ? undefined : JSON.stringify(options.json));
    });
  }

  #request(path: string, { method = 'GET', headers = {}, json, signal }: CallOptions): ClientRequest {
    const type = json === undefined ? {} : { 'Content-Type': 'application/json' };
    return request({
      ...this.address,
      path,
      method,
      headers: { Host: 'estiba', ...type, ...headers },
      ...(signal ? { signal } : {}),
    });
  }

  #unreachable(error: Error, signal: AbortSignal | undefined): Error {
    if (signal?.aborted) return error;
    const where = 'socketPath' in this.address ? this.address.socketPath : `${this.address.host}:${this.address.port}`;
    const missing = 'socketPath' in this.address && !existsSync(this.address.socketPath);
    const why = missing ? 'there is no such socket' : (errnoOf(error) ?? messageOf(error));
    return new DaemonUnreachable({ where, why }, { cause: error });
  }
}

const MESSAGE_MAX_BYTES = 1024 * 1024;

async function readAll(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk);
  return Buffer.concat(chunks);
}

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
