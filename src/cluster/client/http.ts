import { Agent as HttpAgent, type IncomingMessage, request as requestHttp } from 'node:http';
import { Agent as HttpsAgent, request as requestHttps } from 'node:https';
import { createInterface } from 'node:readline';
import { KubeUnreachable, refusalFrom } from './errors.ts';
import type { ApiAnswer, ApiRequest, Transport, WatchEvent } from './transport.ts';

export interface HttpTransportOptions {
  /** `https://127.0.0.1:6443`, without a path. */
  server: string;
  /** PEM. Without it the system's authorities decide. */
  ca?: string;
  /** Client certificate and key, PEM. */
  cert?: string;
  key?: string;
  /** Asked for at every request, so that a rotated token is picked up. */
  token?: () => string;
  requestTimeoutMs?: number;
}

const REQUEST_TIMEOUT_MS = 30_000;
// A watch is silent when nothing changes, but our server and Kubernetes send bookmarks about once a minute; TCP keep-alive finds
// a peer that vanished.
const KEEP_ALIVE_MS = 15_000;
// A server that streams without end into one answer would fill our memory.
const MAX_ANSWER_BYTES = 256 * 1024 * 1024;

export class HttpTransport implements Transport {
  readonly #options: HttpTransportOptions;
  readonly #url: URL;
  readonly #agent: HttpAgent | HttpsAgent;

  constructor(options: HttpTransportOptions) {
    this.#options = options;
    this.#url = new URL(options.server);
    const { ca, cert, key } = options;
    this.#agent =
      this.#url.protocol === 'https:'
        ? new HttpsAgent({
            keepAlive: true,
            ...(ca === undefined ? {} : { ca }),
            ...(cert === undefined ? {} : { cert }),
            ...(key === undefined ? {} : { key }),
          })
        : new HttpAgent({ keepAlive: true });
  }

  async request(request: ApiRequest): Promise<ApiAnswer> {
    const what = `${request.method} ${request.path}`;
    const body = request.body === undefined ? undefined : JSON.stringify(request.body);
    const timeout = AbortSignal.timeout(this.#options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS);
    const signal = request.signal ? AbortSignal.any([request.signal, timeout]) : timeout;
    try {
      const response = await this.#open(request.method, request.path, signal, body, request.contentType);
      return { status: response.statusCode ?? 0, body: parse(await readAll(response)) };
    } catch (error) {
      if (request.signal?.aborted) throw error;
      throw new KubeUnreachable({ what }, { cause: error });
    }
  }

  async *watch(path: string, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    const response = await this.#open('GET', path, signal).catch((error: unknown) => {
      if (signal.aborted) return undefined;
      throw new KubeUnreachable({ what: `watch ${path}` }, { cause: error });
    });
    if (!response) return;
    if (response.statusCode !== 200) throw refusalFrom(response.statusCode ?? 0, parse(await readAll(response)));
    response.socket.setKeepAlive(true, KEEP_ALIVE_MS);
    const lines = createInterface({ input: response, crlfDelay: Number.POSITIVE_INFINITY });
    try {
      for await (const line of lines) if (line !== '') yield JSON.parse(line) as WatchEvent;
    } catch (error) {
      if (!signal.aborted) throw new KubeUnreachable({ what: `watch ${path}` }, { cause: error });
    } finally {
      response.destroy();
    }
  }

  /** Lines of an answer that is plain text, as they come: logs. */
  async *textLines(path: string, signal = new AbortController().signal): AsyncGenerator<string> {
    const response = await this.#open('GET', path, signal).catch((error: unknown) => {
      throw new KubeUnreachable({ what: `GET ${path}` }, { cause: error });
    });
    if (response.statusCode !== 200) throw refusalFrom(response.statusCode ?? 0, parse(await readAll(response)));
    yield* createInterface({ input: response, crlfDelay: Number.POSITIVE_INFINITY });
  }

  /** Closes idle connections. */
  close(): void {
    this.#agent.destroy();
  }

  #open(
    method: string,
    path: string,
    signal: AbortSignal,
    body?: string,
    contentType = 'application/json',
  ): Promise<IncomingMessage> {
    const token = this.#options.token?.();
    const headers = {
      accept: 'application/json',
      ...(body === undefined ? {} : { 'content-type': contentType, 'content-length': Buffer.byteLength(body) }),
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    };
    const send = this.#url.protocol === 'https:' ? requestHttps : requestHttp;
    return new Promise((resolve, reject) => {
      const { hostname, port } = this.#url;
      const out = send({ host: hostname, port, method, path, headers, agent: this.#agent, signal }, resolve);
      out.on('error', reject);
      out.end(body);
    });
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_ANSWER_BYTES) throw new RangeError(`the answer is longer than ${MAX_ANSWER_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Health end points answer plain text: it is handed on as it came. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
