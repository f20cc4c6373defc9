import { Agent, type AgentOptions } from 'node:http';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { Agent as TlsAgent } from 'node:https';
import { connect, type Socket } from 'node:net';
import type { Clock } from '#base/clock.ts';
import type { Random } from '#base/random.ts';
import { below } from '#base/random.ts';
import type { BackendEntry, Target } from '#cluster/ingress/model.ts';

const CONNECT_MS = 3_000;
/** A target that refused a connection is passed over for so long, as long as there is another. */
const AVOID_MS = 1_000;
/** Below the 5 s after which Node's own servers, the shortest of the common ones, close an idle connection. */
const IDLE_MS = 4_000;
const IDLE_SOCKETS = 32;
/** A quiet HTTP/2 connection is kept for calls that wait long for their next message. */
const HTTP2_IDLE_MS = 300_000;

/** The targets of one backend, with how busy each is. */
export class Backend {
  #entry: BackendEntry;
  readonly #active = new Map<string, number>();
  readonly #avoidUntilMs = new Map<string, number>();
  readonly #clock: Clock;
  readonly #random: Random;

  constructor(entry: BackendEntry, clock: Clock, random: Random) {
    this.#entry = entry;
    this.#clock = clock;
    this.#random = random;
  }

  get entry(): BackendEntry {
    return this.#entry;
  }

  /** Requests under way go on wherever they are. */
  update(entry: BackendEntry): void {
    this.#entry = entry;
    const there = new Set(entry.targets.map(nameOf));
    for (const name of this.#avoidUntilMs.keys()) if (!there.has(name)) this.#avoidUntilMs.delete(name);
  }

  /** Of two chosen by chance the one with less to do; not one of those `tried`, and none that has just refused. */
  pick(tried: ReadonlySet<string>): Target | undefined {
    const left = this.#entry.targets.filter((target) => !tried.has(nameOf(target)));
    const nowMs = this.#clock.monotonic();
    const calm = left.filter((target) => (this.#avoidUntilMs.get(nameOf(target)) ?? 0) <= nowMs);
    const from = calm.length > 0 ? calm : left;
    const [a, b] = [from[below(this.#random, from.length)], from[below(this.#random, from.length)]];
    if (!a || !b) return undefined;
    return this.#busy(a) <= this.#busy(b) ? a : b;
  }

  avoid(target: Target): void {
    this.#avoidUntilMs.set(nameOf(target), this.#clock.monotonic() + AVOID_MS);
  }

  /** Counts one more request at the target; returns what ends it. */
  begin(target: Target): () => void {
    const name = nameOf(target);
    this.#active.set(name, this.#busy(target) + 1);
    let over = false;
    return () => {
      if (over) return;
      over = true;
      const left = this.#busy(target) - 1;
      if (left > 0) this.#active.set(name, left);
      else this.#active.delete(name);
    };
  }

  #busy(target: Target): number {
    return this.#active.get(nameOf(target)) ?? 0;
  }
}

export function nameOf(target: Target): string {
  return target.ip.includes(':') ? `[${target.ip}]:${target.port}` : `${target.ip}:${target.port}`;
}

/** Idle connections to targets, kept for requests that may be made again when such a connection turns out to be dead. */
export class Connections {
  readonly #plain: Agent;
  readonly #tls: TlsAgent;
  /** One a target: its streams carry all requests. */
  readonly #http2 = new Map<string, Promise<ClientHttp2Session>>();

  constructor() {
    const options: AgentOptions = {
      keepAlive: true,
      timeout: IDLE_MS,
      maxFreeSockets: IDLE_SOCKETS,
      scheduling: 'lifo',
    };
    this.#plain = new Agent(options);
    // The pod's own certificate says nothing to us; what protects this way is that it does not leave the node.
    this.#tls = new TlsAgent({ ...options, rejectUnauthorized: false });
  }

  /** The HTTP/2 connection to a target, made when there is none. Rejects with the system's error, or ETIMEDOUT. */
  http2(target: Target, clock: Clock): Promise<ClientHttp2Session> {
    const name = nameOf(target);
    const known = this.#http2.get(name);
    if (known) return known;
    const made = connectTo(target, clock).then((socket) => {
      const session = connectHttp2(`http://${name}`, { createConnection: () => socket });
      const forget = (): void => {
        if (this.#http2.get(name) === made) this.#http2.delete(name);
      };
      session.on('error', forget); // its streams tell their requests
      session.on('goaway', forget);
      session.on('close', forget);
      session.setTimeout(HTTP2_IDLE_MS, () => {
        forget();
        session.close(); // streams under way go on
      });
      return session;
    });
    this.#http2.set(name, made);
    made.catch(() => this.#http2.delete(name));
    return made;
  }

  agent(protocol: 'http' | 'https'): Agent {
    return protocol === 'https' ? this.#tls : this.#plain;
  }

  /** Closes what idles at a target that is no more. */
  forget(target: Target): void {
    this.#retire(nameOf(target));
    for (const agent of [this.#plain, this.#tls])
      for (const [name, sockets] of Object.entries(agent.freeSockets))
        if (name.startsWith(`${target.ip}:${target.port}:`)) for (const socket of sockets ?? []) socket.destroy();
  }

  #retire(name: string): void {
    const session = this.#http2.get(name);
    this.#http2.delete(name);
    session?.then(
      (known) => known.close(),
      () => undefined, // it never came about, and who asked for it was told
    );
  }

  close(): void {
    for (const name of this.#http2.keys()) this.#retire(name);
    this.#plain.destroy();
    this.#tls.destroy();
  }
}

/** A connection of its own to a target; rejects with the system's error, or ETIMEDOUT. */
export function connectTo(target: Target, clock: Clock): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: target.ip, port: target.port, noDelay: true });
    const cancel = clock.after(CONNECT_MS, () => {
      socket.destroy(Object.assign(new Error('connect ETIMEDOUT'), { code: 'ETIMEDOUT' }));
    });
    socket.once('connect', () => {
      cancel();
      socket.off('error', failed);
      socket.on('error', () => undefined); // close follows; whoever uses the socket looks at that
      resolve(socket);
    });
    const failed = (error: Error): void => {
      cancel();
      reject(error);
    };
    socket.once('error', failed);
  });
}
