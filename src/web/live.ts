import type { Duplex } from 'node:stream';
import type { Clock } from '#base/clock.ts';
import { describeChain, EstibaError, errnoOf, messageOf } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { fail, integer, object, oneOf, optional, string } from '#base/shape.ts';
import { WebSocket } from '#base/websocket.ts';
import type { EngineClient } from '#engine/client/client.ts';
import { TooMuchOpen } from '#web/errors.ts';
import type { Hub } from '#web/hub.ts';
import { openTerminal, readLog } from '#web/streams.ts';
import type { Ticker } from '#web/ticker.ts';
import type { Ask, Figures, Tell, Topic } from '#web/wire.ts';

export interface LiveDeps {
  hub: Hub;
  figures: Ticker<Figures>;
  engine: EngineClient;
  /** Ends the shell of a terminal whose page is gone. */
  hangUp: (exec: string) => Promise<void>;
  clock: Clock;
  log: Logger;
}

const CHANNELS_MAX = 32;
const SIZE_MAX = 1_000;

const TopicShape = object({
  kind: oneOf('world', 'figures', 'logs', 'terminal'),
  container: optional(string({ nonEmpty: true, maxLength: 128 })),
  rows: optional(integer({ min: 1, max: SIZE_MAX })),
  columns: optional(integer({ min: 1, max: SIZE_MAX })),
});
const AskShape = object({
  open: optional(integer({ min: 0 })),
  input: optional(integer({ min: 0 })),
  resize: optional(integer({ min: 0 })),
  close: optional(integer({ min: 0 })),
  topic: optional(TopicShape),
  text: optional(string()),
  rows: optional(integer({ min: 1, max: SIZE_MAX })),
  columns: optional(integer({ min: 1, max: SIZE_MAX })),
});

/** One open stream of a page. */
interface Channel {
  input?(text: string): void;
  resize?(rows: number, columns: number): void;
  close(): void;
}

/** One page's connection: what it has open ends with it. */
export class Live {
  readonly #deps: LiveDeps;
  readonly #socket: WebSocket;
  readonly #channels = new Map<number, Channel>();
  readonly #onClosed: () => void;

  constructor(deps: LiveDeps, socket: Duplex, onClosed: () => void) {
    this.#deps = deps;
    this.#onClosed = onClosed;
    this.#socket = new WebSocket(socket, Buffer.alloc(0), {
      message: (bytes) => this.#take(bytes),
      closed: () => this.#ended(),
    });
  }

  close(code: number): void {
    this.#socket.close(code);
  }

  #take(bytes: Buffer): void {
    try {
      this.#do(parseAsk(bytes.toString('utf8')));
    } catch (error) {
      this.#deps.log.warn('a page said what no page of ours says', { error: messageOf(error) });
      this.#socket.close(1008); // RFC 6455, 7.4.1: policy violation
    }
  }

  #do(ask: Ask): void {
    if ('open' in ask) void this.#open(ask.open, ask.topic);
    else if ('input' in ask) this.#channels.get(ask.input)?.input?.(ask.text);
    else if ('resize' in ask) this.#channels.get(ask.resize)?.resize?.(ask.rows, ask.columns);
    else this.#end(ask.close);
  }

  async #open(channel: number, topic: Topic): Promise<void> {
    const gone = new AbortController();
    // Held from here: a page that closes it meanwhile aborts what is being opened.
    if (this.#channels.has(channel) || this.#channels.size >= CHANNELS_MAX) {
      this.#fail(channel, new TooMuchOpen({ most: CHANNELS_MAX }));
      return;
    }
    this.#channels.set(channel, { close: () => gone.abort() });
    try {
      const end = await this.#serve(channel, topic, gone);
      if (end !== undefined && !gone.signal.aborted) this.#say({ channel, end });
      if (end !== undefined) this.#channels.delete(channel);
    } catch (error) {
      this.#channels.delete(channel);
      if (!gone.signal.aborted) this.#fail(channel, error);
    }
  }

  /** Resolves with the words of the end; with nothing for what lasts as long as the page. */
  async #serve(channel: number, topic: Topic, gone: AbortController): Promise<string | undefined> {
    const { hub, figures, engine, hangUp, log } = this.#deps;
    const { signal } = gone;
    const sink = {
      put: async (put: unknown): Promise<void> => {
        if (!signal.aborted && !this.#say({ channel, put })) await this.#caughtUp(signal);
      },
    };
    switch (topic.kind) {
      case 'world':
        this.#channels.set(channel, { close: hub.subscribe((put) => this.#say({ channel, put })) });
        return undefined;
      case 'figures':
        this.#channels.set(channel, { close: figures.subscribe((put) => this.#say({ channel, put })) });
        return undefined;
      case 'logs':
        return readLog(engine, topic.container, sink, signal);
      case 'terminal': {
        const terminal = await openTerminal(engine, hangUp, topic, signal);
        const close = (): void => {
          gone.abort();
          terminal.close().catch((error) => log.warn('a terminal did not close', { error: describeChain(error) }));
        };
        if (signal.aborted) {
          close();
          return undefined;
        }
        this.#channels.set(channel, {
          input: terminal.input,
          resize: (rows, columns) => {
            // It may have ended meanwhile, and then has no size.
            terminal.resize(rows, columns).catch((error) => log.debug('resize', () => ({ error: messageOf(error) })));
          },
          close,
        });
        return terminal.run(sink);
      }
    }
  }

  #say(tell: Tell): boolean {
    return this.#socket.send(JSON.stringify(tell));
  }

  #caughtUp(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const settle = (): void => {
        signal.removeEventListener('abort', settle);
        resolve();
      };
      signal.addEventListener('abort', settle);
      this.#socket.drained(settle);
    });
  }

  #fail(channel: number, error: unknown): void {
    const known = error instanceof EstibaError;
    if (!known && errnoOf(error) === undefined)
      this.#deps.log.error('a stream of the dashboard failed', { error: describeChain(error) });
    const hint = known ? error.hint : undefined;
    this.#say({ channel, error: messageOf(error), ...(hint === undefined ? {} : { hint }) });
  }

  #end(channel: number): void {
    const found = this.#channels.get(channel);
    this.#channels.delete(channel);
    found?.close();
  }

  #ended(): void {
    for (const channel of [...this.#channels.keys()]) this.#end(channel);
    this.#onClosed();
  }
}

/** Pure. Throws for what is no message of the page. */
export function parseAsk(text: string): Ask {
  const ask = AskShape(JSON.parse(text), '$');
  if (ask.open !== undefined) return { open: ask.open, topic: topicOf(ask.topic) };
  if (ask.input !== undefined) return { input: ask.input, text: ask.text ?? '' };
  if (ask.resize !== undefined) return { resize: ask.resize, rows: ask.rows ?? 1, columns: ask.columns ?? 1 };
  if (ask.close !== undefined) return { close: ask.close };
  return fail('$', ask, 'asks for nothing');
}

function topicOf(topic: ReturnType<typeof TopicShape> | undefined): Topic {
  if (!topic) return fail('$.topic', topic, 'names nothing to open');
  const { kind, container, rows = 24, columns = 80 } = topic;
  if (kind === 'world' || kind === 'figures') return { kind };
  if (container === undefined) return fail('$.topic.container', container, 'names no container');
  return kind === 'logs' ? { kind, container } : { kind, container, rows, columns };
}
