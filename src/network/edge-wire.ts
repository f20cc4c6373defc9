import type { Duplex } from 'node:stream';
import { EstibaError, isCode, messageOf } from '#base/errors.ts';
import { readLines } from '#base/feed.ts';
import { anything, array, integer, object, oneOf, optional, record, string } from '#base/shape.ts';
import { type Edge, type EdgeEntry, edgeEntryShape, isIdle } from '#network/edge.ts';
import { EdgeGone, PortTaken } from '#network/errors.ts';

/**
 * Daemon and edge speak JSON, one message a line, over a unix socket (R/edge.sock):
 *
 *   daemon                                     edge
 *     ── {"n":1,"do":"put","entry":{…}} ─────▶
 *     ◀── {"n":1} or {"n":1,"error":{…}} ─────
 */
const LINE_MAX = 1 << 20;

const requestShape = object({
  n: integer(),
  do: oneOf('put', 'drop', 'list', 'stop'),
  id: optional(string()),
  entry: optional(edgeEntryShape),
});

const replyShape = object({
  n: integer(),
  ids: optional(array(string())),
  error: optional(object({ code: string(), message: string(), data: record(anything()) })),
});

/** Serves one connection. `stop` ends the edge, when all of its host goes. */
export function serveEdge(socket: Duplex, edge: Edge, stop: () => void): void {
  const take = (line: string): void => {
    answer(line, edge, stop).then(
      (reply) => socket.write(`${JSON.stringify(reply)}\n`),
      () => socket.destroy(), // not our language
    );
  };
  readLines(socket, take, LINE_MAX);
  socket.on('error', () => socket.destroy());
}

async function answer(line: string, edge: Edge, stop: () => void): Promise<object> {
  const request = requestShape(JSON.parse(line), '$');
  try {
    if (request.do === 'put' && request.entry) await edge.put(request.entry);
    if (request.do === 'drop' && request.id !== undefined) await edge.drop(request.id);
    if (request.do === 'stop') stop();
    return { n: request.n, ...(request.do === 'list' ? { ids: await edge.list() } : {}) };
  } catch (error) {
    const { code, data } = error instanceof EstibaError ? error : { code: 'EDGE_FAILED', data: {} };
    return { n: request.n, error: { code, message: messageOf(error), data } };
  }
}

/**
 * The daemon's side. It connects when there is something to say, and starts an edge if none answers. When the edge dies,
 * what it should know is told to the next one: `entries` is asked for it.
 */
export class EdgeClient implements Edge {
  readonly #connect: (start: boolean) => Promise<Duplex | undefined>;
  readonly #waiting = new Map<number, { resolve: (ids: string[]) => void; reject: (error: unknown) => void }>();
  /** What it should know; undefined for what an earlier daemon told it and this one has not repeated yet. */
  readonly #told = new Map<string, EdgeEntry | undefined>();
  #socket: Promise<Duplex | undefined> | undefined;
  #n = 0;
  #closed = false;
  readonly #onLost: (error: unknown) => void;

  /** `connect(false)` starts no edge: undefined when none runs. */
  constructor(connect: (start: boolean) => Promise<Duplex | undefined>, onLost: (error: unknown) => void) {
    this.#connect = connect;
    this.#onLost = onLost;
  }

  async put(entry: EdgeEntry): Promise<void> {
    // Without names and ports there is nothing to serve, and maybe no edge to run at all.
    if (isIdle(entry)) return this.drop(entry.id);
    await this.#ask({ do: 'put', entry });
    this.#told.set(entry.id, entry);
  }

  async drop(id: string): Promise<void> {
    if (!this.#told.delete(id)) return;
    await this.#ask({ do: 'drop', id });
  }

  /** Of an edge that runs already; starting one to learn that it knows nothing would be work for nothing. */
  async list(): Promise<string[]> {
    const ids = await this.#ask({ do: 'list' }, false);
    for (const id of ids) if (!this.#told.has(id)) this.#told.set(id, undefined);
    return ids;
  }

  /** Ends the edge, with all it serves. */
  async stop(): Promise<void> {
    this.#told.clear();
    await this.#ask({ do: 'stop' }, false);
  }

  /** The edge goes on by itself. */
  async close(): Promise<void> {
    this.#closed = true;
    const socket = await this.#socket?.catch(() => undefined); // never reached: told to those who asked it
    socket?.destroy();
  }

  /** Every request may be made twice with the same result: one that met a dying edge is made again to the next. */
  async #ask(request: object, start = true): Promise<string[]> {
    try {
      return await this.#send(request, start);
    } catch (error) {
      if (!isCode(error, EdgeGone.code) || this.#closed) throw error;
      return this.#send(request, start);
    }
  }

  async #send(request: object, start: boolean): Promise<string[]> {
    const socket = await this.#connected(start);
    if (!socket) return [];
    return new Promise((resolve, reject) => {
      const n = ++this.#n;
      this.#waiting.set(n, { resolve, reject });
      socket.write(`${JSON.stringify({ n, ...request })}\n`);
    });
  }

  #connected(start: boolean): Promise<Duplex | undefined> {
    this.#socket ??= this.#connect(start).then(
      (socket) => {
        if (!socket) {
          this.#socket = undefined;
          return undefined;
        }
        readLines(socket, (line) => this.#receive(line));
        socket.on('error', () => undefined); // close follows
        socket.on('close', () => this.#lost());
        return socket;
      },
      (error) => {
        this.#socket = undefined;
        throw error;
      },
    );
    return this.#socket;
  }

  #receive(line: string): void {
    const reply = replyShape(JSON.parse(line), '$');
    const waiting = this.#waiting.get(reply.n);
    this.#waiting.delete(reply.n);
    if (reply.error) waiting?.reject(errorOf(reply.error));
    else waiting?.resolve(reply.ids ?? []);
  }

  #lost(): void {
    this.#socket = undefined;
    for (const { reject } of this.#waiting.values()) reject(new EdgeGone({}));
    this.#waiting.clear();
    const again = [...this.#told.values()].filter((entry) => entry !== undefined);
    if (this.#closed || again.length === 0) return;
    Promise.all(again.map((entry) => this.#ask({ do: 'put', entry }))).catch((error) => this.#onLost(error));
  }
}

function errorOf(error: { code: string; message: string; data: Record<string, unknown> }): Error {
  const { ip, port, protocol } = error.data;
  if (error.code === PortTaken.code && typeof ip === 'string' && typeof port === 'number')
    return new PortTaken({ ip, port, protocol: String(protocol), holder: undefined });
  return new EstibaError(error.code, error.message, { data: error.data });
}
