import { Duplex } from 'node:stream';
import type { Clock } from '#base/clock.ts';
import { messageOf } from '#base/errors.ts';
import { WebSocket } from '#base/websocket.ts';
import { SpdySession, type SpdyStream } from './spdy.ts';

/**
 * Ports of a pod at the client's side, in two languages:
 *
 *   SPDY streams, as the connection itself or inside WebSocket messages (`SPDY/3.1+portforward.k8s.io`, kubectl from 1.31 on):
 *     a connection is two streams with one request id; `streamtype: error` says why it failed, `streamtype: data` is its bytes
 *   `v4.channel.k8s.io`: ports are named in the URL; port n has channel 2n for bytes and 2n + 1 for why it failed; the first
 *     message of each is the port's number, little endian
 */
export const TUNNEL_PROTOCOL = 'SPDY/3.1+portforward.k8s.io';
export const CHANNEL_PROTOCOL = 'v4.channel.k8s.io';
export const SPDY_PROTOCOL = 'portforward.k8s.io';

export interface PortForward {
  clock: Clock;
  /** A connection to a port inside the pod's network; `signal` gives up while there is none yet. */
  connect(port: number, signal: AbortSignal): Promise<Duplex>;
  /** For messages: `default/web`. */
  pod: string;
}

/** Streams wait this long for their twin. */
const PAIR_MS = 30_000;

export function forwardOverSpdy(connection: Duplex, head: Buffer, forward: PortForward): void {
  const waiting = new Map<string, { stream: SpdyStream; cancel: () => void }>();
  const session = new SpdySession(connection, head, {
    stream(stream) {
      const [port, type] = [Number(stream.headers.get('port')), stream.headers.get('streamtype')];
      // Old clients name no request: of theirs the data stream comes right after the error stream.
      const request = stream.headers.get('requestid') ?? String(type === 'error' ? stream.id : stream.id - 2);
      if (!(port >= 1 && port <= 65_535) || (type !== 'error' && type !== 'data')) return void stream.destroy();
      const twin = waiting.get(request);
      if (!twin) {
        const cancel = forward.clock.after(PAIR_MS, () => {
          waiting.delete(request);
          stream.destroy();
        });
        waiting.set(request, { stream, cancel });
        return;
      }
      waiting.delete(request);
      twin.cancel();
      const [error, data] = type === 'error' ? [stream, twin.stream] : [twin.stream, stream];
      void carry(forward, port, data, (why) => error.end(why));
    },
    closed() {
      for (const { cancel } of waiting.values()) cancel();
    },
  });
  connection.on('close', () => session.close());
}

export function forwardOverChannels(
  socket: Duplex,
  head: Buffer,
  forward: PortForward,
  ports: readonly number[],
): void {
  const channels: ChannelStream[] = [];
  const ws = new WebSocket(socket, head, {
    message(payload) {
      const channel = payload[0] ?? 0;
      // Nobody has anything to say to us on the odd ones.
      if (channel % 2 === 0) channels[channel / 2]?.push(payload.subarray(1));
    },
    closed() {
      for (const channel of channels) channel.destroy();
    },
  });
  let left = ports.length;
  for (const [n, port] of ports.entries()) {
    const number = Buffer.of(port & 0xff, port >> 8);
    const data = new ChannelStream(ws, 2 * n);
    channels.push(data);
    ws.send(Buffer.concat([Buffer.of(2 * n), number]));
    ws.send(Buffer.concat([Buffer.of(2 * n + 1), number]));
    void carry(forward, port, data, (why) => {
      if (why !== undefined) ws.send(Buffer.concat([Buffer.of(2 * n + 1), Buffer.from(why)]));
      if (--left === 0) ws.close();
    });
  }
}

/** Bytes between the client and the pod until both have ended; `done` is told why, when it went wrong. */
async function carry(forward: PortForward, port: number, data: Duplex, done: (why?: string) => void): Promise<void> {
  const gone = new AbortController();
  const leave = (): void => gone.abort();
  data.once('close', leave);
  let there: Duplex;
  try {
    there = await forward.connect(port, gone.signal);
    if (data.destroyed) {
      there.destroy(); // its `close` is over, and nobody else knows of the connection
      return done();
    }
  } catch (error) {
    done(`error forwarding port ${port} to pod ${forward.pod}: ${messageOf(error)}`);
    data.end();
    data.resume();
    return;
  }
  let over = false;
  const finish = (why?: string): void => {
    if (over) return;
    over = true;
    done(why);
  };
  there.on('error', (error) => {
    finish(`error forwarding port ${port} to pod ${forward.pod}: ${messageOf(error)}`);
    data.destroy();
  });
  data.on('error', () => there.destroy());
  data.on('close', () => there.destroy());
  there.on('close', () => {
    finish();
    if (!data.writableEnded) data.end();
  });
  data.pipe(there);
  there.pipe(data);
}

/** One channel of a WebSocket as a stream. */
class ChannelStream extends Duplex {
  readonly #ws: WebSocket;
  readonly #channel: number;

  constructor(ws: WebSocket, channel: number) {
    super();
    this.#ws = ws;
    this.#channel = channel;
    this.on('error', () => undefined); // the other end's; close follows
  }

  override push(chunk: Buffer | null): boolean {
    const more = super.push(chunk);
    if (!more) this.#ws.pause();
    return more;
  }

  override _read(): void {
    this.#ws.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.#ws.send(Buffer.concat([Buffer.of(this.#channel), chunk]))) done();
    else this.#ws.drained(() => done());
  }
}

/** The bytes of all messages of a WebSocket as one connection: what is tunnelled in it. */
export class MessageStream extends Duplex {
  #ws: WebSocket | undefined;

  constructor(socket: Duplex, head: Buffer) {
    super();
    this.#ws = new WebSocket(socket, head, {
      message: (payload) => {
        if (!this.push(payload)) this.#ws?.pause();
      },
      closed: () => {
        this.push(null);
        this.destroy();
      },
    });
  }

  override _read(): void {
    this.#ws?.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.#ws?.send(chunk) !== false) done();
    else this.#ws.drained(() => done());
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#ws?.close();
    done();
  }
}
