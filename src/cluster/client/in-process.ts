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
  value?: unknown;
}

interface StreamAnswer {
  code: number;
  stream: (sink: {
    write(chunk: Buffer): boolean;
    take(event: { type: string; object: unknown }): void;
    pendingBytes(): number;
    end(): void;
    destroy(): void;
  }) => () => void;
}

export interface InProcessOptions {
  /** What comes out cannot be changed: it is shared with the server, and a test is to show who would. */
  frozen?: boolean;
}

const EMPTY = new Uint8Array(0);
/** A reader that falls so far behind begins its watch anew, as one across a network does. */
const MOST_UNREAD_EVENTS = 50_000;
const MOST_READ_KEPT = 4_096;

/** The same requests as over the network. Bodies go in as bytes, so that both sides keep their own; objects come out shared. */
export class InProcessTransport implements Transport {
  readonly #api: ApiHandler;
  readonly #identity: Identity;
  readonly #given: <T>(value: T) => T;

  constructor(api: ApiHandler, identity: Identity, { frozen = false }: InProcessOptions = {}) {
    this.#api = api;
    this.#identity = identity;
    this.#given = frozen ? deepFreeze : (value) => value;
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
    return { status: answer.code, body: this.#given(valueOf(answer)) };
  }

  async *watch(path: string, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    const headers = { accept: 'application/json' };
    const answer = await this.#api.handle({ method: 'GET', url: path, headers, body: EMPTY, peer: this.#identity });
    if (!('stream' in answer)) throw refusalFrom(answer.code, valueOf(answer));
    const events = new EventQueue();
    const stop = answer.stream({
      write: () => {
        throw new Error('a watch in one process has no bytes');
      },
      take: (event) => events.push(event as WatchEvent),
      pendingBytes: () => 0,
      end: () => events.end(),
      destroy: () => events.end(),
    });
    const onAbort = (): void => events.end();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      for (let event = await events.next(); event; event = await events.next())
        if (!signal.aborted) yield this.#given(event);
    } finally {
      signal.removeEventListener('abort', onAbort);
      stop();
    }
  }
}

class EventQueue {
  #events: WatchEvent[] = [];
  /** Those before it have been read; `shift` of a long array costs its length. */
  #read = 0;
  #ended = false;
  #wake: () => void = () => undefined;

  push(event: WatchEvent): void {
    if (this.#events.length - this.#read >= MOST_UNREAD_EVENTS) this.end();
    if (!this.#ended) this.#events.push(event);
    this.#wake();
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  async next(): Promise<WatchEvent | undefined> {
    for (;;) {
      const event = this.#events[this.#read];
      if (event) {
        if (++this.#read === this.#events.length || this.#read === MOST_READ_KEPT) {
          this.#events = this.#events.slice(this.#read);
          this.#read = 0;
        }
        return event;
      }
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** Health end points answer plain text: it is handed on as it came. */
function valueOf(answer: WholeAnswer): unknown {
  if (answer.value !== undefined) return answer.value;
  const text = String(answer.body);
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  Object.freeze(value);
  for (const member of Object.values(value)) deepFreeze(member);
  return value;
}
