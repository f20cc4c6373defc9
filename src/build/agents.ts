import { chmod, mkdir, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex, Readable, Writable } from 'node:stream';
import type { Clock } from '#base/clock.ts';

//   RUN, in its sandbox          this process                       estiba build
//                                  ◀──── a tunnel, upgraded, waits ────
//     ── connects to the socket ─▶  takes a waiting tunnel
//     ── first bytes ────────────▶  ───────────────────────────────▶   connects to the user's agent,
//     ◀─────────────────────────────────────────────────── answers ──   and opens the next tunnel

/** One connection of the client's, waiting to be used. */
export interface Tunnel {
  input: Readable;
  output: Writable;
}

/** A build starts its commands when the client may still be opening its tunnels. */
const TUNNEL_WAIT_MS = 10_000;
const WAITING_MAX = 16;

/** Sockets of one build that lead to ssh agents at the client's side. */
export class Agents {
  readonly #directory: string;
  readonly #clock: Clock;
  readonly #servers = new Map<string, { server: Server; path: string; tunnels: Waiting }>();

  /** `directory` goes with `close`. */
  constructor(directory: string, clock: Clock) {
    this.#directory = directory;
    this.#clock = clock;
  }

  /** Answers the path of the socket. */
  async listen(name: string): Promise<string> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const path = join(this.#directory, `agent-${this.#servers.size}`);
    const tunnels = new Waiting(this.#clock);
    const server = createServer((socket) => void connect(socket, tunnels));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
    await chmod(path, 0o666); // whoever the command runs as; nobody else comes to the directory
    this.#servers.set(name, { server, path, tunnels });
    return path;
  }

  /** The client's connection; resolves when it has been used or is not needed any more. */
  offer(name: string, tunnel: Tunnel, signal: AbortSignal): Promise<void> {
    const found = this.#servers.get(name);
    return found ? found.tunnels.offer(tunnel, signal) : Promise.resolve();
  }

  async close(): Promise<void> {
    for (const { server, tunnels } of this.#servers.values()) {
      tunnels.close();
      server.close();
    }
    await rm(this.#directory, { recursive: true, force: true });
  }
}

async function connect(socket: Socket, tunnels: Waiting): Promise<void> {
  const tunnel = await tunnels.take();
  if (!tunnel) {
    socket.destroy();
    return;
  }
  const ended = new Promise<void>((resolve) => {
    socket.once('close', () => resolve());
    socket.once('error', () => resolve());
  });
  tunnel.input.pipe(socket);
  (socket as Duplex).pipe(tunnel.output, { end: true });
  await ended;
  tunnel.done();
}

type Offered = Tunnel & { done: () => void };

class Waiting {
  readonly #clock: Clock;
  #offered: Offered[] = [];
  #takers: ((tunnel: Offered | undefined) => void)[] = [];
  #closed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  offer(tunnel: Tunnel, signal: AbortSignal): Promise<void> {
    return new Promise((done) => {
      if (this.#closed || this.#offered.length >= WAITING_MAX) return done();
      const offered = { ...tunnel, done };
      const taker = this.#takers.shift();
      if (taker) taker(offered);
      else this.#offered.push(offered);
      signal.addEventListener('abort', () => {
        this.#offered = this.#offered.filter((other) => other !== offered);
        done();
      });
    });
  }

  take(): Promise<Offered | undefined> {
    const ready = this.#offered.shift();
    if (ready || this.#closed) return Promise.resolve(ready);
    return new Promise((resolve) => {
      const cancel = this.#clock.after(TUNNEL_WAIT_MS, () => {
        this.#takers = this.#takers.filter((other) => other !== taker);
        resolve(undefined);
      });
      const taker = (tunnel: Offered | undefined): void => {
        cancel();
        resolve(tunnel);
      };
      this.#takers.push(taker);
    });
  }

  close(): void {
    this.#closed = true;
    for (const taker of this.#takers.splice(0)) taker(undefined);
    for (const offered of this.#offered.splice(0)) offered.done();
  }
}
