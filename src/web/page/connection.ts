import type { Ask, Tell, Topic } from '#web/wire.ts';

export type LinkState = 'connecting' | 'open' | 'lost' | 'out';

export interface Listener {
  put(item: unknown): void;
  /** It is over: by itself with `words`, or by a failure. */
  ended?(how: { words: string; failed: boolean; hint?: string }): void;
}

export interface Stream {
  input(text: string): void;
  resize(rows: number, columns: number): void;
  close(): void;
}

interface Open {
  topic: Topic;
  listener: Listener;
  /** Lists are asked for again after a break; a shell or a log is another one then. */
  lasting: boolean;
}

const RETRY_MS = { first: 500, most: 10_000 };

/** The page's one WebSocket: streams share it, and it comes back by itself. */
export class Connection {
  readonly #key: string;
  readonly #streams = new Map<number, Open>();
  readonly #watchers = new Set<(state: LinkState) => void>();
  #socket: WebSocket | undefined;
  #next = 1;
  #failures = 0;
  state: LinkState = 'connecting';

  constructor(key: string) {
    this.#key = key;
    this.#connect();
  }

  onState(watcher: (state: LinkState) => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  open(topic: Topic, listener: Listener): Stream {
    const channel = this.#next++;
    this.#streams.set(channel, { topic, listener, lasting: topic.kind === 'world' || topic.kind === 'figures' });
    this.#say({ open: channel, topic });
    return {
      input: (text) => this.#say({ input: channel, text }),
      resize: (rows, columns) => this.#say({ resize: channel, rows, columns }),
      close: () => {
        if (this.#streams.delete(channel)) this.#say({ close: channel });
      },
    };
  }

  /** A call beside the streams. Throws the daemon's own words. */
  async call<T>(method: 'GET' | 'POST', path: string): Promise<T> {
    const answer = await fetch(path, { method, headers: { 'X-Estiba-Key': this.#key } });
    const body: unknown = await answer.json().catch(() => ({})); // no JSON: its status has to do
    if (answer.ok) return body as T;
    if (answer.status === 401) this.#set('out');
    const said = body as { message?: string; hint?: string };
    throw new Error([said.message ?? `the daemon answered ${answer.status}`, said.hint].filter((t) => t).join('. '));
  }

  #connect(): void {
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const socket = new WebSocket(`${scheme}://${location.host}/api/live`, ['estiba.live', `estiba.key.${this.#key}`]);
    this.#socket = socket;
    socket.onopen = () => {
      this.#failures = 0;
      this.#set('open');
      for (const [channel, { topic }] of this.#streams) this.#say({ open: channel, topic });
    };
    socket.onmessage = ({ data }) => this.#hear(JSON.parse(String(data)) as Tell);
    socket.onclose = () => void this.#lost();
  }

  async #lost(): Promise<void> {
    this.#socket = undefined;
    for (const [channel, { lasting, listener }] of [...this.#streams]) {
      if (lasting) continue;
      this.#streams.delete(channel);
      listener.ended?.({ words: 'the connection was lost', failed: true });
    }
    if (this.state !== 'out') this.#set('lost');
    // A browser does not say why a WebSocket was refused; a plain request does.
    const status = await fetch('/api/live').then(
      (answer) => answer.status,
      () => 0,
    );
    if (status === 401 && !(await this.#isAdmitted())) return this.#set('out');
    const waitMs = Math.min(RETRY_MS.most, RETRY_MS.first * 2 ** this.#failures++);
    setTimeout(() => this.#connect(), waitMs);
  }

  /** Where nobody answers, nobody has refused us. */
  async #isAdmitted(): Promise<boolean> {
    const answer = await fetch('/api/nothing', { headers: { 'X-Estiba-Key': this.#key } }).catch(() => undefined);
    return answer?.status !== 401;
  }

  #hear(tell: Tell): void {
    const stream = this.#streams.get(tell.channel);
    if (!stream) return; // it was closed meanwhile
    if ('put' in tell) {
      stream.listener.put(tell.put);
      return;
    }
    this.#streams.delete(tell.channel);
    if ('end' in tell) stream.listener.ended?.({ words: tell.end, failed: false });
    else stream.listener.ended?.({ words: tell.error, failed: true, ...(tell.hint ? { hint: tell.hint } : {}) });
  }

  #say(ask: Ask): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(ask));
  }

  #set(state: LinkState): void {
    this.state = state;
    for (const watcher of this.#watchers) watcher(state);
  }
}
