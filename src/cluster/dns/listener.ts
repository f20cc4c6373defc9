import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { createServer, type Server, type Socket } from 'node:net';
import type { Clock } from '#base/clock.ts';
import { describeChain, errnoOf } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { DnsNotListening } from '#cluster/dns/errors.ts';

/** Queries on their way at once: more are dropped, as a network may, and clients ask again. */
const OPEN_MAX = 4_096;
const STREAMS_MAX = 256;
const STREAM_IDLE_MS = 20_000;

/** One address on which queries come, by UDP and by TCP (RFC 1035 4.2, RFC 7766: several queries a connection). */
export class DnsListener {
  readonly #at: { ip: string; port: number };
  readonly #answer: (message: Uint8Array, stream: boolean) => Promise<Uint8Array>;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #udp: UdpSocket;
  readonly #tcp: Server;
  readonly #streams = new Set<Socket>();
  #open = 0;

  constructor(
    at: { ip: string; port: number },
    answer: (message: Uint8Array, stream: boolean) => Promise<Uint8Array>,
    clock: Clock,
    log: Logger,
  ) {
    this.#at = at;
    this.#answer = answer;
    this.#clock = clock;
    this.#log = log;
    this.#udp = createSocket({ type: at.ip.includes(':') ? 'udp6' : 'udp4' });
    this.#tcp = createServer((socket) => this.#onStream(socket));
  }

  async open(): Promise<void> {
    const { ip, port } = this.#at;
    const failed = (error: unknown): Error =>
      new DnsNotListening({ ip, port, errno: errnoOf(error) ?? 'unknown' }, { cause: error });
    await new Promise<void>((resolve, reject) => {
      this.#udp.once('error', (error) => reject(failed(error)));
      this.#udp.bind({ address: ip, port }, resolve);
    });
    await new Promise<void>((resolve, reject) => {
      this.#tcp.once('error', (error) => reject(failed(error)));
      this.#tcp.listen({ host: ip, port }, resolve);
    });
    this.#udp.on('error', (error) => this.#log.warn('datagram not sent', { error: describeChain(error) }));
    this.#udp.on('message', (message, from) => {
      this.#serve(message, false, (reply) => this.#udp.send(reply, from.port, from.address));
    });
  }

  async close(): Promise<void> {
    for (const socket of this.#streams) socket.destroy();
    await new Promise<void>((done) => {
      try {
        this.#udp.close(done);
      } catch {
        done(); // it was never opened
      }
    });
    await new Promise<void>((done) => this.#tcp.close(() => done()));
  }

  #serve(message: Uint8Array, stream: boolean, send: (reply: Uint8Array) => void): void {
    if (this.#open >= OPEN_MAX) return;
    this.#open++;
    this.#answer(message, stream)
      .then(send)
      .catch((error: unknown) => this.#log.warn('query not answered', { error: describeChain(error) }))
      .finally(() => this.#open--);
  }

  #onStream(socket: Socket): void {
    if (this.#streams.size >= STREAMS_MAX) {
      socket.destroy();
      return;
    }
    this.#streams.add(socket);
    let received: Buffer = Buffer.alloc(0);
    let cancel = this.#clock.after(STREAM_IDLE_MS, () => socket.destroy());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      cancel();
      this.#streams.delete(socket);
    });
    socket.on('data', (chunk: Buffer) => {
      cancel();
      cancel = this.#clock.after(STREAM_IDLE_MS, () => socket.destroy());
      received = Buffer.concat([received, chunk]);
      while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
        const end = 2 + received.readUInt16BE(0);
        const message = received.subarray(2, end);
        received = received.subarray(end);
        this.#serve(message, true, (reply) => {
          socket.write(Buffer.concat([Buffer.of(reply.length >> 8, reply.length & 0xff), reply]));
        });
      }
    });
  }
}
