import { KubeUnreachable, refusalFrom } from './errors.ts';
import type { ApiAnswer, ApiRequest, Transport, WatchEvent } from './transport.ts';

/** What an API server in this process offers: its whole main path, without sockets. */
export interface ApiHandler {
  handle(request: {
    method: string;
    url: string;
    headers: Readonly<Record<string, string | undefined>>;
    body: Uint8Array;
    peer?: Identity;
  }): Promise<WholeAnswer | StreamAnswer>;
}

export interface Identity {
  username: string;
  groups: readonly string[];
}

interface WholeAnswer {
  code: number;
  body: Buffer | string;
}

interface StreamAnswer {
  code: number;
  stream: (sink: { write(chunk: Buffer): boolean; pendingBytes(): number; end(): void; destroy(): void }) => () => void;
}

const EMPTY = new Uint8Array(0);

/** The same requests as over the network, bytes included, so that what works in one process works between two. */
export class InProcessTransport implements Transport {
  readonly #api: ApiHandler;
  readonly #identity: Identity;

  constructor(api: ApiHandler, identity: Identity) {
    this.#api = api;
    this.#identity = identity;
  }

  async request(request: ApiRequest): Promise<ApiAnswer> {
    const answer = await this.#api.handle({
      method: request.method,
      url: request.path,
      headers: { accept: 'application/json', 'content-type': request.contentType ?? 'application/json' },
      body: request.body === undefined ? EMPTY : Buffer.from(JSON.stringify(request.body)),
      peer: this.#identity,
    });
    if ('stream' in answer) throw new KubeUnreachable({ what: `${request.method} ${request.path} answered a stream` });
    return { status: answer.code, body: parse(String(answer.body)) };
  }

  async *watch(path: string, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    const headers = { accept: 'application/json' };
    const answer = await this.#api.handle({ method: 'GET', url: path, headers, body: EMPTY, peer: this.#identity });
    if (!('stream' in answer)) throw refusalFrom(answer.code, parse(String(answer.body)));
    const lines = new LineQueue();
    const stop = answer.stream({
      write: (chunk) => lines.push(chunk.toString('utf8')),
      pendingBytes: () => lines.bytes,
      end: () => lines.end(),
      destroy: () => lines.end(),
    });
    const onAbort = (): void => lines.end();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      for (let line = await lines.next(); line !== undefined; line = await lines.next())
        if (!signal.aborted && line !== '') yield JSON.parse(line) as WatchEvent;
    } finally {
      signal.removeEventListener('abort', onAbort);
      stop();
    }
  }
}

/** Chunks in, whole lines out. */
class LineQueue {
  #lines: string[] = [];
  #partial = '';
  #ended = false;
  #wake: () => void = () => undefined;
  bytes = 0;

  push(chunk: string): boolean {
    const parts = (this.#partial + chunk).split('\n');
    this.#partial = parts.pop() ?? '';
    for (const line of parts) {
      this.bytes += line.length;
      this.#lines.push(line);
    }
    this.#wake();
    return true;
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  async next(): Promise<string | undefined> {
    for (;;) {
      const line = this.#lines.shift();
      if (line !== undefined) {
        this.bytes -= line.length;
        return line;
      }
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** Health end points answer plain text: it is handed on as it came. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
