import { BadAddress } from '#kernel/netlink/errors.ts';

/** Internet addresses as numbers and bytes. An `Ip` knows its family; a `Cidr` is an address with a prefix length. */
export type Family = 4 | 6;

export interface Ip {
  readonly family: Family;
  readonly value: bigint;
}

export interface Cidr {
  readonly ip: Ip;
  readonly prefix: number;
}

export const AF_INET = 2;
export const AF_INET6 = 10;

export function bitsOf(family: Family): number {
  return family === 4 ? 32 : 128;
}

export function afOf(family: Family): number {
  return family === 4 ? AF_INET : AF_INET6;
}

export function parseIp(text: string): Ip {
  const value = text.includes(':') ? parse6(text) : parse4(text);
  if (value === undefined) throw new BadAddress({ text, wanted: 'an IPv4 or IPv6 address' });
  return { family: text.includes(':') ? 6 : 4, value };
}

export function tryParseIp(text: string): Ip | undefined {
  const value = text.includes(':') ? parse6(text) : parse4(text);
  return value === undefined ? undefined : { family: text.includes(':') ? 6 : 4, value };
}

/** `10.1.2.3/16`; host bits are kept (see `networkOf`). */
export function parseCidr(text: string): Cidr {
  const slash = text.indexOf('/');
  const ip = slash > 0 ? tryParseIp(text.slice(0, slash)) : undefined;
  const digits = text.slice(slash + 1);
  const prefix = /^\d{1,3}$/.test(digits) ? Number(digits) : Number.NaN;
  if (!ip || !(prefix <= bitsOf(ip.family)))
    throw new BadAddress({ text, wanted: 'an address with a prefix length, like 10.1.0.0/16' });
  return { ip, prefix };
}

export function formatIp(ip: Ip): string {
  return ip.family === 4 ? format4(ip.value) : format6(ip.value);
}

export function formatCidr(cidr: Cidr): string {
  return `${formatIp(cidr.ip)}/${cidr.prefix}`;
}

export function ipBytes(ip: Ip): Uint8Array {
  const out = new Uint8Array(bitsOf(ip.family) / 8);
  let rest = ip.value;
  for (let i = out.length - 1; i >= 0; i--) {
    out[i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return out;
}

export function ipFromBytes(bytes: Uint8Array): Ip {
  if (bytes.length !== 4 && bytes.length !== 16)
    throw new BadAddress({ text: Buffer.from(bytes).toString('hex'), wanted: 'an address of 4 or 16 bytes' });
  return { family: bytes.length === 4 ? 4 : 6, value: bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n) };
}

export function plus(ip: Ip, offset: bigint): Ip {
  return { family: ip.family, value: ip.value + offset };
}

export function sameIp(a: Ip, b: Ip): boolean {
  return a.family === b.family && a.value === b.value;
}

/** The network's first address: host bits off. */
export function networkOf(cidr: Cidr): Cidr {
  const host = BigInt(bitsOf(cidr.ip.family) - cidr.prefix);
  return { ip: { family: cidr.ip.family, value: (cidr.ip.value >> host) << host }, prefix: cidr.prefix };
}

/** How many addresses it has, network and broadcast addresses counted. */
export function sizeOf(cidr: Cidr): bigint {
  return 1n << BigInt(bitsOf(cidr.ip.family) - cidr.prefix);
}

export function lastOf(cidr: Cidr): Ip {
  return plus(networkOf(cidr).ip, sizeOf(cidr) - 1n);
}

export function contains(cidr: Cidr, ip: Ip): boolean {
  if (cidr.ip.family !== ip.family) return false;
  const host = BigInt(bitsOf(ip.family) - cidr.prefix);
  return cidr.ip.value >> host === ip.value >> host;
}

export function overlaps(a: Cidr, b: Cidr): boolean {
  return a.prefix <= b.prefix ? contains(a, b.ip) : contains(b, a.ip);
}

function parse4(text: string): bigint | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let value = 0n;
  for (const part of parts) {
    // A leading zero is refused: some readers take it for octal (CVE-2021-29923).
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    value = (value << 8n) | BigInt(part);
  }
  return value;
}

function parse6(text: string): bigint | undefined {
  const mapped = text.match(/^(.*:)(\d+\.\d+\.\d+\.\d+)$/);
  if (mapped) {
    const tail = parse4(mapped[2] ?? '');
    if (tail === undefined) return undefined;
    return parse6(`${mapped[1]}${(tail >> 16n).toString(16)}:${(tail & 0xffffn).toString(16)}`);
  }
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const head = groups(halves[0] ?? '');
  const tail = groups(halves[1] ?? '');
  if (!head || !tail) return undefined;
  const gap = 8 - head.length - tail.length;
  if (halves.length === 2 ? gap < 1 : gap !== 0) return undefined;
  return [...head, ...new Array<bigint>(gap).fill(0n), ...tail].reduce((sum, group) => (sum << 16n) | group, 0n);
}

function groups(text: string): bigint[] | undefined {
  if (text === '') return [];
  const parts = text.split(':');
  return parts.every((part) => /^[0-9a-fA-F]{1,4}$/.test(part)) ? parts.map((part) => BigInt(`0x${part}`)) : undefined;
}

function format4(value: bigint): string {
  return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join('.');
}

/** RFC 5952: lower case, the longest run of at least two zero groups shortened, the first of equals. */
function format6(value: bigint): string {
  const parts = Array.from({ length: 8 }, (_, i) => (value >> BigInt(112 - 16 * i)) & 0xffffn);
  let best = { at: -1, length: 1 };
  for (let at = 0; at < 8; at++) {
    let length = 0;
    while (at + length < 8 && parts[at + length] === 0n) length++;
    if (length > best.length) best = { at, length };
  }
  const hex = (some: bigint[]): string => some.map((part) => part.toString(16)).join(':');
  return best.at < 0 ? hex(parts) : `${hex(parts.slice(0, best.at))}::${hex(parts.slice(best.at + best.length))}`;
}
