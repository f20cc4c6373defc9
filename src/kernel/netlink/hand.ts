import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { getSystemErrorName } from 'node:util';
import { NetHandGone, NetworkStepFailed } from '#kernel/netlink/errors.ts';
import type { Family } from '#kernel/netlink/ip.ts';
import { answers, encode, type Message, type Received } from '#kernel/netlink/wire.ts';

/**
 * What the network layer asks of the kernel. `NetHand` below does it with the resident `estiba-net` (native/net); tests that
 * need no root record the calls instead.
 */
export interface NetKernel {
  /**
   * Sends messages, in the namespace at `netns` (absent: the host's). An nftables batch is one transaction; all else goes
   * one by one and stops at the first refusal, which is thrown as NETLINK_REFUSED. `otherNetns` is what the number
   * `OTHER_NETNS` in a message stands for.
   */
  netlink(request: NetlinkRequest): Promise<Received[]>;
  /** Makes a network namespace and keeps it at `path`, an absent file in an existing directory. */
  makeNetns(path: string): Promise<void>;
  /** The same in a user namespace of its own, kept at `user`; `map` is its map of uids and of gids, as in /proc/PID/uid_map. */
  makeOwnedNetns(path: string, user: string, map: string): Promise<void>;
  /** Absent is fine. Sockets in the namespace keep it alive without its name. */
  dropNetns(path: string): Promise<void>;
  /** `name` below /proc/sys/net, as a path: `ipv4/ip_forward`. */
  sysctl(netns: string, name: string, value: string): Promise<void>;
  /** A table of iptables-legacy, for `parseXtables` (xtables/table.ts); empty where there is none, and none is made by asking. */
  xtables(family: Family, table: string): Promise<Uint8Array>;
}

export interface NetlinkRequest {
  /** For errors: what this is about. */
  what: string;
  protocol: number;
  messages: readonly Message[];
  netns?: string;
  otherNetns?: string;
}

/** Stands for the descriptor of `otherNetns` in `Netns.fd`. */
export const OTHER_NETNS = 0x7e57_0001;
// IFLA_NET_NS_FD (28), eight bytes long, with that number.
const OTHER_NETNS_ATTRIBUTE = Buffer.from([8, 0, 28, 0, 0x01, 0x00, 0x57, 0x7e]);

const OP = {
  netlink: 1,
  netnsMake: 2,
  netnsDrop: 3,
  dnsOpen: 4,
  dnsClose: 5,
  dnsAnswer: 6,
  hold: 7,
  relay: 8,
  release: 9,
  sysctl: 10,
  relayDatagrams: 11,
  netnsMakeOwned: 12,
  xtables: 13,
} as const;
/** AF_INET, AF_INET6 */
const ADDRESS_FAMILY = { 4: 2, 6: 10 } as const;
const EVENT_DNS_QUERY = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;

export interface DnsQuery {
  handle: number;
  /** Which server was asked: the key it was opened with. */
  key: number;
  /** Over TCP answers may be longer than a datagram. */
  stream: boolean;
  message: Uint8Array;
}

export interface SocketAddress {
  ip: string;
  port: number;
}

/** The resident helper, over its two pipes: frames out, frames in, answers matched by id (native/net/README.md). */
export class NetHand implements NetKernel {
  readonly #out: Writable;
  readonly #waiting = new Map<number, (errno: number, body: Buffer) => void>();
  #nextId = 1;
  #buffer: Buffer = Buffer.alloc(0);
  #gone = false;
  #onQuery: ((query: DnsQuery) => void) | undefined;
  readonly #onGone: () => void;

  constructor(out: Writable, input: Readable, onGone: () => void = () => undefined) {
    this.#out = out;
    this.#onGone = onGone;
    input.on('data', (chunk: Buffer) => this.#receive(chunk));
    input.on('close', () => this.#end());
    out.on('error', () => this.#end());
  }

  async netlink(request: NetlinkRequest): Promise<Received[]> {
    const messages = Buffer.from(encode(request.messages));
    const at: number[] = [];
    if (request.otherNetns !== undefined) {
      for (let i = messages.indexOf(OTHER_NETNS_ATTRIBUTE); i >= 0; i = messages.indexOf(OTHER_NETNS_ATTRIBUTE, i + 8))
        at.push(i + 4);
    }
    const body = await this.#ask(request.what, OP.netlink, [
      str(request.netns ?? ''),
      u32(request.protocol),
      str(request.otherNetns ?? ''),
      data(Buffer.concat(at.map(u32))),
      data(messages),
    ]);
    return answers(body, request.what);
  }

  async makeNetns(path: string): Promise<void> {
    await this.#ask(`make network namespace ${path}`, OP.netnsMake, [str(path)]);
  }

  async makeOwnedNetns(path: string, user: string, map: string): Promise<void> {
    const fields = [str(path), str(user), str(map)];
    await this.#ask(`make network namespace ${path} in a user namespace`, OP.netnsMakeOwned, fields);
  }

  async dropNetns(path: string): Promise<void> {
    await this.#ask(`drop network namespace ${path}`, OP.netnsDrop, [str(path)]);
  }

  async sysctl(netns: string, name: string, value: string): Promise<void> {
    await this.#ask(`set net/${name} to ${value}`, OP.sysctl, [str(netns), str(name), str(value)]);
  }

  xtables(family: Family, table: string): Promise<Uint8Array> {
    return this.#ask(`read table ${table} of iptables-legacy`, OP.xtables, [u32(ADDRESS_FAMILY[family]), str(table)]);
  }

  /** Opens a DNS server's sockets (UDP and TCP) in a namespace; queries come to `onQuery`. */
  async openDns(key: number, netns: string, at: SocketAddress): Promise<void> {
    await this.#ask(`listen for DNS in ${netns}`, OP.dnsOpen, [u32(key), str(netns), str(at.ip), u32(at.port)]);
  }

  async closeDns(key: number): Promise<void> {
    await this.#ask('stop listening for DNS', OP.dnsClose, [u32(key)]);
  }

  answerDns(handle: number, message: Uint8Array): void {
    this.#send(0, OP.dnsAnswer, [u32(handle), data(message)]);
  }

  onQuery(fn: (query: DnsQuery) => void): void {
    this.#onQuery = fn;
  }

  /** Keeps a host port from others; NETWORK_STEP_FAILED with EADDRINUSE when one has it. */
  async hold(key: number, kind: 'stream' | 'datagram', at: SocketAddress): Promise<void> {
    const type = kind === 'stream' ? SOCK_STREAM : SOCK_DGRAM;
    await this.#ask(`reserve ${at.ip} port ${at.port}`, OP.hold, [u32(key), u32(type), str(at.ip), u32(at.port)]);
  }

  /** Holds a host port and passes on the connections that reach it. */
  async relay(key: number, at: SocketAddress, to: SocketAddress): Promise<void> {
    const fields = [u32(key), str(at.ip), u32(at.port), str(to.ip), u32(to.port)];
    await this.#ask(`relay ${at.ip} port ${at.port}`, OP.relay, fields);
  }

  /** The same for datagrams, at an IPv6 address: each sender has a way of its own, forgotten after two idle minutes. */
  async relayDatagrams(key: number, at: SocketAddress, to: SocketAddress): Promise<void> {
    const fields = [u32(key), str(at.ip), u32(at.port), str(to.ip), u32(to.port)];
    await this.#ask(`relay datagrams of ${at.ip} port ${at.port}`, OP.relayDatagrams, fields);
  }

  async release(key: number): Promise<void> {
    await this.#ask('release a port', OP.release, [u32(key)]);
  }

  /** The helper ends when its input does, and every socket of it with it. */
  close(): void {
    this.#out.end();
  }

  #ask(what: string, op: number, fields: Buffer[]): Promise<Buffer> {
    if (this.#gone) return Promise.reject(new NetHandGone({ what }));
    return new Promise((resolve, reject) => {
      const id = this.#nextId;
      this.#nextId = id === 0x7fff_ffff ? 1 : id + 1;
      this.#waiting.set(id, (errno, body) => {
        if (errno === 0) resolve(body);
        else if (errno < 0) reject(new NetHandGone({ what }));
        else reject(new NetworkStepFailed({ what, errno: getSystemErrorName(-errno) }));
      });
      this.#send(id, op, fields);
    });
  }

  #send(id: number, op: number, fields: Buffer[]): void {
    if (this.#gone) return;
    const body = Buffer.concat(fields);
    this.#out.write(Buffer.concat([u32(8 + body.length), u32(id), u32(op), body]));
  }

  #receive(chunk: Buffer): void {
    this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
    let at = 0;
    while (this.#buffer.length - at >= 12) {
      const length = this.#buffer.readUInt32LE(at);
      if (this.#buffer.length - at - 4 < length) break;
      const frame = this.#buffer.subarray(at + 4, at + 4 + length);
      at += 4 + length;
      this.#frame(frame.readUInt32LE(0), frame.readInt32LE(4), frame.subarray(8));
    }
    this.#buffer = this.#buffer.subarray(at);
  }

  #frame(id: number, code: number, body: Buffer): void {
    if (id !== 0) {
      const settle = this.#waiting.get(id);
      this.#waiting.delete(id);
      settle?.(code, body);
    } else if (code === EVENT_DNS_QUERY) {
      this.#onQuery?.({
        handle: body.readUInt32LE(0),
        key: body.readUInt32LE(4),
        stream: body.readUInt32LE(8) !== 0,
        message: body.subarray(12),
      });
    }
  }

  #end(): void {
    if (this.#gone) return;
    this.#gone = true;
    for (const settle of this.#waiting.values()) settle(-1, Buffer.alloc(0));
    this.#waiting.clear();
    this.#onGone();
  }
}

/** `ESTIBA_NET`, else `estiba-net` beside or above this file (sources and bundle). */
export function findNetHand(env: Readonly<Record<string, string | undefined>> = process.env): string {
  const named = env['ESTIBA_NET'];
  if (named !== undefined && named !== '') return named;
  for (let dir = dirname(fileURLToPath(import.meta.url)); ; dir = dirname(dir)) {
    for (const name of ['native/build/estiba-net', 'estiba-net']) {
      const path = join(dir, name);
      if (existsSync(path)) return path;
    }
    if (dir === dirname(dir)) throw new NetHandGone({ what: 'find estiba-net: it is not built (make native)' });
  }
}

/** Starts `estiba-net`; `before` is a command that runs it in another place (`nsenter …`). */
export function spawnNetHand(binary: string, onGone: () => void = () => undefined, before: string[] = []): NetHand {
  const [program = binary, ...args] = [...before, binary];
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const hand = new NetHand(child.stdin, child.stdout, onGone);
  child.on('error', () => child.stdout.destroy()); // absent or not executable: the pipes' end tells it
  return hand;
}

function u32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
}

function data(value: Uint8Array): Buffer {
  return Buffer.concat([u32(value.length), value]);
}

function str(value: string): Buffer {
  return data(Buffer.from(`${value}\0`));
}
