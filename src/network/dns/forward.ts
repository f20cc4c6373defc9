import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { Clock } from '#base/clock.ts';
import { below, type Random } from '#base/random.ts';
import { parseResolv } from '#network/files.ts';

const TRY_MS = 2_500;
/** Questions on their way at once; more are answered SERVFAIL, and clients ask again. */
const OPEN_MAX = 2_048;
const HOST_RESOLV = '/etc/resolv.conf';
const RESOLV_FRESH_MS = 2_000;

/** Asks upstream, from the host's namespace, by the way the client came: a datagram or a stream. */
export class Forwarder {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #resolvFile: string;
  readonly #port: number;
  #hostServers: { servers: readonly string[]; readAtMs: number } | undefined;
  #open = 0;

  constructor(options: { clock: Clock; random: Random; resolvFile?: string; port?: number }) {
    this.#clock = options.clock;
    this.#random = options.random;
    this.#resolvFile = options.resolvFile ?? HOST_RESOLV;
    this.#port = options.port ?? 53;
  }

  /** The upstream's answer under the client's id, or undefined when none came from any of the servers. */
  async ask(message: Uint8Array, upstreams: readonly string[], stream: boolean): Promise<Uint8Array | undefined> {
    if (this.#open >= OPEN_MAX) return undefined;
    this.#open++;
    try {
      for (const server of upstreams.length > 0 ? upstreams : this.#fromHost()) {
        const answer = await (stream ? this.#byStream(message, server) : this.#byDatagram(message, server));
        if (answer) return answer;
      }
      return undefined;
    } finally {
      this.#open--;
    }
  }

  #fromHost(): readonly string[] {
    const now = this.#clock.monotonic();
    if (this.#hostServers && now - this.#hostServers.readAtMs <= RESOLV_FRESH_MS) return this.#hostServers.servers;
    const { servers } = parseResolv(readOrEmpty(this.#resolvFile));
    this.#hostServers = { servers, readAtMs: now };
    return servers;
  }

  /** A socket and a random id for each question: a guessed answer has to hit both (RFC 5452). */
  #byDatagram(message: Uint8Array, server: string): Promise<Uint8Array | undefined> {
    return new Promise((resolve) => {
      const socket: UdpSocket = createSocket(server.includes(':') ? 'udp6' : 'udp4');
      const id = below(this.#random, 0x10000);
      const done = (answer: Uint8Array | undefined): void => {
        cancel();
        socket.removeAllListeners();
        socket.on('error', () => undefined); // one that was on its way; the socket closes
        socket.close();
        resolve(answer);
      };
      const cancel = this.#clock.after(TRY_MS, () => done(undefined));
      socket.on('error', () => done(undefined));
      socket.on('message', (answer) => {
        if (answer.length >= 12 && answer.readUInt16BE(0) === id) done(withId(answer, idOf(message)));
      });
      // Connected: the kernel drops datagrams from other addresses and tells us of a closed port at once.
      socket.connect(this.#port, server, () => socket.send(withId(message, id)));
    });
  }

  #byStream(message: Uint8Array, server: string): Promise<Uint8Array | undefined> {
    return new Promise((resolve) => {
      const socket = connect({ host: server, port: this.#port });
      let received = Buffer.alloc(0);
      const done = (answer: Uint8Array | undefined): void => {
        cancel();
        socket.destroy();
        resolve(answer);
      };
      const cancel = this.#clock.after(TRY_MS, () => done(undefined));
      socket.on('error', () => done(undefined));
      socket.on('close', () => done(undefined));
      socket.on('data', (chunk) => {
        received = Buffer.concat([received, chunk]);
        if (received.length < 2) return;
        const length = received.readUInt16BE(0);
        if (received.length >= 2 + length) done(received.subarray(2, 2 + length));
      });
      socket.write(Buffer.concat([Buffer.from([message.length >> 8, message.length & 0xff]), message]));
    });
  }
}

function idOf(message: Uint8Array): number {
  return ((message[0] ?? 0) << 8) | (message[1] ?? 0);
}

function withId(message: Uint8Array, id: number): Uint8Array {
  const out = Uint8Array.from(message);
  out[0] = id >> 8;
  out[1] = id & 0xff;
  return out;
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // a host without resolv.conf has no upstream: questions end in SERVFAIL
  }
}
