import type { Duplex } from 'node:stream';
import type { Clock } from '#base/clock.ts';
import { describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { anything, array, boolean, integer, object, optional, record, string } from '#base/shape.ts';

/**
 * Maps of JSON values that one process keeps and another one follows, over a socket, one message a line:
 *
 *   source                                                       follower
 *     ── {"n":1,"topic":"dns","whole":true,"set":{…},"drop":[]} ──▶  replaces the topic
 *     ◀── {"n":1} ────────────────────────────────────────────────  in force
 *     ── {"n":2,"topic":"dns","set":{"svc/a":…},"drop":["svc/b"]} ─▶
 *
 * After a break the source says all of it again. A burst of changes is one message; only the newest value of a key is sent.
 */
const LINE_MAX = 16 << 20;
/** Values in one message; a whole topic may come in several. */
const BATCH_KEYS = 500;
const AGAIN_MS = 250;

const messageShape = object({
  n: integer(),
  topic: string({ maxLength: 64 }),
  whole: optional(boolean()),
  set: record(anything()),
  drop: array(string()),
});
const replyShape = object({ n: integer(), error: optional(string()) });

export interface FeedChange {
  /** What the follower had of this topic before is gone. */
  whole: boolean;
  set: ReadonlyMap<string, unknown>;
  drop: readonly string[];
}

export interface FeedSourceOptions {
  connect: () => Promise<Duplex>;
  clock: Clock;
  log: Logger;
}

/** The keeping side. It connects when there is something to say, and again whenever the connection ends. */
export class FeedSource {
  readonly #o: FeedSourceOptions;
  readonly #topics = new Map<string, FeedTopic>();
  readonly #unanswered = new Map<number, { topic: FeedTopic; upTo: number }>();
  #socket: Duplex | undefined;
  #connecting = false;
  #closed = false;
  #n = 0;
  #cancelRetry: (() => void) | undefined;

  constructor(options: FeedSourceOptions) {
    this.#o = options;
  }

  topic(name: string): FeedTopic {
    const known = this.#topics.get(name) ?? new FeedTopic(name, () => this.#wake());
    this.#topics.set(name, known);
    return known;
  }

  /** The follower goes on with what it has. */
  close(): void {
    this.#closed = true;
    this.#cancelRetry?.();
    this.#socket?.destroy();
    for (const topic of this.#topics.values()) topic.giveUp();
  }

  #wake(): void {
    if (this.#closed) return;
    if (this.#socket) this.#send(this.#socket);
    else if (!this.#connecting && !this.#cancelRetry) void this.#connect();
  }

  async #connect(): Promise<void> {
    this.#connecting = true;
    try {
      const socket = await this.#o.connect();
      if (this.#closed) {
        socket.destroy();
        return;
      }
      socket.on('error', () => undefined); // close follows
      socket.on('close', () => this.#lost());
      readLines(socket, (line) => this.#receive(line));
      this.#socket = socket;
      for (const topic of this.#topics.values()) topic.forgetSent();
      this.#send(socket);
    } catch (error) {
      this.#o.log.warn('the follower does not answer', { error: describeChain(error) });
      this.#retry();
    } finally {
      this.#connecting = false;
    }
  }

  #send(socket: Duplex): void {
    for (const topic of this.#topics.values())
      for (const { whole, set, drop, upTo } of topic.takeUnsent()) {
        const n = ++this.#n;
        this.#unanswered.set(n, { topic, upTo });
        const message = { n, topic: topic.name, ...(whole ? { whole } : {}), set: Object.fromEntries(set), drop };
        socket.write(`${JSON.stringify(message)}\n`);
      }
  }

  #receive(line: string): void {
    const { n, error } = replyShape(JSON.parse(line), '$');
    const answered = this.#unanswered.get(n);
    this.#unanswered.delete(n);
    if (error !== undefined) this.#o.log.error('the follower refused a change', { topic: answered?.topic.name, error });
    answered?.topic.confirm(answered.upTo);
  }

  #lost(): void {
    this.#socket = undefined;
    this.#unanswered.clear();
    this.#retry();
  }

  #retry(): void {
    if (this.#closed) return;
    this.#cancelRetry = this.#o.clock.after(AGAIN_MS, () => {
      this.#cancelRetry = undefined;
      void this.#connect();
    });
  }
}

/** One map of the feed. */
export class FeedTopic {
  readonly name: string;
  readonly #wake: () => void;
  readonly #values = new Map<string, string>();
  readonly #unsent = new Set<string>();
  readonly #waiting: { change: number; done: () => void }[] = [];
  #declared = false;
  #whole = true;
  #scheduled = false;
  #change = 0;
  #confirmed = 0;

  constructor(name: string, wake: () => void) {
    this.name = name;
    this.#wake = wake;
  }

  /** A value equal to the present one is no change. */
  set(key: string, value: unknown): void {
    const text = JSON.stringify(value);
    if (this.#values.get(key) === text) return;
    this.#values.set(key, text);
    this.#note(key);
  }

  drop(key: string): void {
    if (this.#values.delete(key)) this.#note(key);
  }

  /** From here on the topic is told. Before, the source knows only part of it, which must not replace what the follower has. */
  declare(): void {
    this.#declared = true;
    this.#schedule();
  }

  keys(): string[] {
    return [...this.#values.keys()];
  }

  /** Resolves when the follower has in force all that was said until now. */
  confirmed(): Promise<void> {
    if (this.#confirmed >= this.#change) return Promise.resolve();
    return new Promise((done) => this.#waiting.push({ change: this.#change, done }));
  }

  takeUnsent(): { whole: boolean; set: Map<string, unknown>; drop: string[]; upTo: number }[] {
    if (!this.#declared) return [];
    const keys = this.#whole ? [...this.#values.keys()] : [...this.#unsent];
    const whole = this.#whole;
    this.#whole = false;
    this.#unsent.clear();
    const out: { whole: boolean; set: Map<string, unknown>; drop: string[]; upTo: number }[] = [];
    for (let at = 0; at < keys.length || (whole && at === 0); at += BATCH_KEYS) {
      const set = new Map<string, unknown>();
      const drop: string[] = [];
      for (const key of keys.slice(at, at + BATCH_KEYS)) {
        const text = this.#values.get(key);
        if (text === undefined) drop.push(key);
        else set.set(key, JSON.parse(text));
      }
      const last = at + BATCH_KEYS >= keys.length;
      out.push({ whole: whole && at === 0, set, drop, upTo: last ? this.#change : 0 });
    }
    return out;
  }

  forgetSent(): void {
    this.#whole = true;
  }

  confirm(upTo: number): void {
    this.#confirmed = Math.max(this.#confirmed, upTo);
    for (const waiting of this.#waiting.splice(0)) {
      if (waiting.change <= this.#confirmed) waiting.done();
      else this.#waiting.push(waiting);
    }
  }

  giveUp(): void {
    for (const { done } of this.#waiting.splice(0)) done();
  }

  #note(key: string): void {
    this.#change++;
    this.#unsent.add(key);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || !this.#declared) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#wake();
    });
  }
}

/** Serves one connection of a source: `apply` returns when the change is in force. */
export function followFeed(
  socket: Duplex,
  apply: (topic: string, change: FeedChange) => Promise<void>,
  log: Logger,
): void {
  let tail: Promise<void> = Promise.resolve(); // in the order they came
  socket.on('error', () => socket.destroy());
  readLines(socket, (line) => {
    tail = tail.then(async () => {
      const { n, topic, whole = false, set, drop } = messageShape(JSON.parse(line), '$');
      let error: string | undefined;
      try {
        await apply(topic, { whole, set: new Map(Object.entries(set)), drop });
      } catch (cause) {
        error = describeChain(cause);
      }
      socket.write(`${JSON.stringify({ n, ...(error === undefined ? {} : { error }) })}\n`);
    });
    tail = tail.catch((error: unknown) => {
      log.warn('not our language', { error: describeChain(error) });
      socket.destroy();
    });
  });
}

/** Lines of a socket; one that does not end ends the connection. */
export function readLines(socket: Duplex, onLine: (line: string) => void, lineMax = LINE_MAX): void {
  let rest = '';
  socket.setEncoding('utf8');
  socket.on('data', (chunk: string) => {
    rest += chunk;
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      const line = rest.slice(0, end);
      rest = rest.slice(end + 1);
      onLine(line);
    }
    if (rest.length > lineMax) socket.destroy();
  });
}
