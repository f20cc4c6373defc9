import type { Family } from '#kernel/netlink/ip.ts';
import { text, viewOf } from '#kernel/netlink/wire.ts';
import {
  CMP,
  CT,
  CT_STATE,
  CT_STATUS_DNAT,
  type Expression,
  FIB,
  ifname,
  META,
  PAYLOAD_TRANSPORT,
  portBytes,
  REG_1,
} from '#kernel/nft/expression.ts';
import { IP_BYTES } from '#kernel/nft/facts.ts';
import { loadDaddr, loadL4proto, loadSaddr } from '#kernel/nft/match.ts';
import { DATATYPE, SET_FLAG } from '#kernel/nft/message.ts';
import type { ElementInfo, SetInfo } from '#kernel/nft/ruleset.ts';

/** A match or target of x_tables: name and revision say what `data` holds. */
export interface Extension {
  name: string;
  revision: number;
  data: Uint8Array;
}

/** Makes a set of the table and gives its name. */
export type NewSet = (set: Omit<SetInfo, 'family' | 'table' | 'name'>) => string;

/** Undefined: these settings of the match are not understood. */
type Reader = (data: Uint8Array, family: Family, newSet: NewSet) => Expression[] | undefined;

const NAME_BYTES = 16;
const PORT_MAX = 0xffff;

/** The conditions that each rule has without an extension: struct ipt_ip, ip6t_ip6. */
const HEADER = {
  4: { names: 16, protocol: 80, flags: 82, inverted: 83 },
  6: { names: 64, protocol: 128, flags: 131, inverted: 132 },
} as const;
/** Beside goto: second and later fragments, the type of service. */
const OTHER_FLAGS = { 4: 1, 6: 2 } as const;
/** IP6T_F_PROTO: 0 is a protocol of IPv6 (hop-by-hop options), so a flag says whether one is meant. */
const IP6T_F_PROTO = 1;
const INVERTED = { iif: 0x01, oif: 0x02, source: 0x08, destination: 0x10, protocol: 0x40 } as const;

export function headerMatches(family: Family, entry: Uint8Array): Expression[] {
  const { names, protocol, flags, inverted } = HEADER[family];
  const size = IP_BYTES[family];
  const inversions = fieldOf(entry, inverted, 1);
  const isNot = (what: keyof typeof INVERTED): boolean => (inversions & INVERTED[what]) !== 0;
  const address = (n: number): Uint8Array => entry.subarray(n * size, (n + 1) * size);
  const name = (n: number): Uint8Array => entry.subarray(names + n * NAME_BYTES, names + (n + 1) * NAME_BYTES);
  const number = fieldOf(entry, protocol, 2);
  const hasProtocol = family === 4 ? number !== 0 : (fieldOf(entry, flags, 1) & IP6T_F_PROTO) !== 0;
  return [
    ...(hasProtocol ? [loadL4proto(REG_1), cmp(Uint8Array.of(number), isNot('protocol'))] : []),
    ...link(META.IIFNAME, name(0), name(2), isNot('iif')),
    ...link(META.OIFNAME, name(1), name(3), isNot('oif')),
    ...masked(loadSaddr(family, REG_1), address(0), address(2), isNot('source')),
    ...masked(loadDaddr(family, REG_1), address(1), address(3), isNot('destination')),
    ...((fieldOf(entry, flags, 1) & OTHER_FLAGS[family]) !== 0
      ? [{ expr: 'unknown', name: family === 4 ? 'match fragment' : 'match tos', data: entry } as const]
      : []),
  ];
}

export function readMatch(family: Family, { name, revision, data }: Extension, newSet: NewSet): Expression[] {
  return READERS[`${name} ${revision}`]?.(data, family, newSet) ?? [{ expr: 'unknown', name: `match ${name}`, data }];
}

/** By name and revision: each has a struct of its own in linux/netfilter/xt_NAME.h. */
const READERS: Readonly<Record<string, Reader>> = {
  'comment 0': () => [],
  // struct xt_tcp: two pairs of ports, option, flag mask, flags, inversions.
  'tcp 0': (data) => {
    const inverted = fieldOf(data, 11, 1);
    const [option, mask, flags] = [fieldOf(data, 8, 1), fieldOf(data, 9, 1), fieldOf(data, 10, 1)];
    if (option !== 0) return undefined;
    return [
      ...ports(data, 0, (inverted & 1) !== 0),
      ...ports(data, 2, (inverted & 2) !== 0),
      ...(mask === 0
        ? []
        : [...bits(transport(13, 1), Uint8Array.of(mask)), cmp(Uint8Array.of(flags), (inverted & 4) !== 0)]),
    ];
  },
  'udp 0': (data) => {
    const inverted = fieldOf(data, 8, 1);
    return [...ports(data, 0, (inverted & 1) !== 0), ...ports(data, 2, (inverted & 2) !== 0)];
  },
  'icmp 0': (data) => icmp(data, data[0] === ICMP_ANY),
  'icmp6 0': (data) => icmp(data, false),
  // struct xt_state_info
  'state 0': (data) => state(fieldOf(data, 0, 4), false),
  'conntrack 2': conntrack,
  'conntrack 3': conntrack,
  // struct xt_multiport_v1: which, count, 15 ports, 15 marks of where a range begins, inversion.
  'multiport 1': (data, _, newSet) => {
    const which = fieldOf(data, 0, 1);
    if (which > 1) return undefined; // either of both: an OR, which no one rule of nftables says
    const set = newSet(portSet(multiports(data)));
    return [
      transport(2 * which, 2),
      { expr: 'lookup', sreg: REG_1, set, ...(fieldOf(data, 47, 1) !== 0 ? { invert: true } : {}) },
    ];
  },
  // struct xt_iprange_mtinfo: four addresses, each in the room of the longest; flags.
  'iprange 1': (data, family) => {
    const flags = fieldOf(data, 64, 1);
    const at = (n: number): Uint8Array => data.subarray(16 * n, 16 * n + IP_BYTES[family]);
    return [
      ...((flags & 1) !== 0 ? [loadSaddr(family, REG_1), range(at(0), at(1), (flags & 0x10) !== 0)] : []),
      ...((flags & 2) !== 0 ? [loadDaddr(family, REG_1), range(at(2), at(3), (flags & 0x20) !== 0)] : []),
    ];
  },
  // struct xt_addrtype_info_v1: a bit for each type, of source and destination; flags.
  'addrtype 1': (data) => {
    const flags = fieldOf(data, 4, 4);
    if (flags > 3) return undefined; // limited to a link
    const [source, destination] = [fieldOf(data, 0, 2), fieldOf(data, 2, 2)];
    if (![source, destination].every((types) => (types & (types - 1)) === 0)) return undefined; // of several types
    const type = (which: number, types: number, not: boolean): Expression[] =>
      types === 0
        ? []
        : [{ expr: 'fib', dreg: REG_1, result: FIB.RESULT_ADDRTYPE, flags: which }, cmp(u32(Math.log2(types)), not)];
    return [...type(FIB.SADDR, source, (flags & 1) !== 0), ...type(FIB.DADDR, destination, (flags & 2) !== 0)];
  },
};

const ICMP_ANY = 0xff;

/** struct ipt_icmp, ip6t_icmp: type, lowest and highest code, inversion. */
function icmp(data: Uint8Array, isAny: boolean): Expression[] | undefined {
  const [type, from, to, inverted] = [0, 1, 2, 3].map((at) => fieldOf(data, at, 1)) as [number, number, number, number];
  const anyCode = isAny || (from === 0 && to === 0xff);
  if (inverted !== 0 && (isAny || !anyCode)) return undefined; // never, or another type or another code
  if (isAny) return [];
  const codes = anyCode ? [] : [transport(1, 1), range(Uint8Array.of(from), Uint8Array.of(to), false)];
  return [transport(0, 1), cmp(Uint8Array.of(type), inverted !== 0), ...codes];
}

const XT_CT = { state: 1 << 0, status: 1 << 6, isState: 1 << 13 } as const;
/** Beside conntrack's own states, and the one that nftables has another bit for. */
const XT_STATE = { snat: 1 << 6, dnat: 1 << 7, untracked: 1 << 8 } as const;
const CT_STATUS_SNAT = 0x10;

/** struct xt_conntrack_mtinfo2 and 3, behind addresses, times and ports: what is asked for, what of it is inverted, states, status. */
function conntrack(data: Uint8Array): Expression[] | undefined {
  const [asked, inverted, states, status] = [146, 148, 150, 152].map((at) => fieldOf(data, at, 2)) as [
    number,
    number,
    number,
    number,
  ];
  if ((asked & ~(XT_CT.state | XT_CT.status | XT_CT.isState)) !== 0) return undefined;
  const ofState = (asked & XT_CT.state) === 0 ? [] : state(states, (inverted & XT_CT.state) !== 0);
  const ofStatus = (asked & XT_CT.status) === 0 ? [] : anyBit(CT.STATUS, status, (inverted & XT_CT.status) !== 0);
  return ofState && [...ofState, ...ofStatus];
}

function state(states: number, inverted: boolean): Expression[] | undefined {
  const natted = states & (XT_STATE.snat | XT_STATE.dnat);
  if (natted !== 0) {
    const status =
      ((natted & XT_STATE.snat) !== 0 ? CT_STATUS_SNAT : 0) | ((natted & XT_STATE.dnat) !== 0 ? CT_STATUS_DNAT : 0);
    return natted === states ? anyBit(CT.STATUS, status, inverted) : undefined; // a state or a status
  }
  const untracked = (states & XT_STATE.untracked) !== 0 ? CT_STATE.UNTRACKED : 0;
  return anyBit(CT.STATE, (states & 0xf) | untracked, inverted);
}

function anyBit(key: number, mask: number, inverted: boolean): Expression[] {
  return [...bits({ expr: 'ct', key, dreg: REG_1 }, u32(mask)), cmp(u32(0), !inverted)];
}

/** The kernel compares as many bytes as the mask has: a name's end is one of them, unless any end will do (`eth+`). */
function link(key: number, name: Uint8Array, mask: Uint8Array, inverted: boolean): Expression[] {
  const length = mask.indexOf(0) < 0 ? NAME_BYTES : mask.indexOf(0);
  if (length === 0) return [];
  const isWhole = name.subarray(0, length).includes(0);
  return [{ expr: 'meta', key, dreg: REG_1 }, cmp(isWhole ? ifname(text(name)) : name.slice(0, length), inverted)];
}

function masked(load: Expression, address: Uint8Array, mask: Uint8Array, inverted: boolean): Expression[] {
  if (mask.every((byte) => byte === 0) && !inverted) return [];
  const loaded = mask.every((byte) => byte === 0xff) ? [load] : bits(load, mask.slice());
  return [...loaded, cmp(address.slice(), inverted)];
}

/** A pair of ports in the host's order at twice `at`, which is also where the packet has its own. */
function ports(data: Uint8Array, at: 0 | 2, inverted: boolean): Expression[] {
  const [from, to] = [fieldOf(data, 2 * at, 2), fieldOf(data, 2 * at + 2, 2)];
  if (from === 0 && to === PORT_MAX && !inverted) return [];
  return [
    transport(at, 2),
    from === to ? cmp(portBytes(from), inverted) : range(portBytes(from), portBytes(to), inverted),
  ];
}

function multiports(data: Uint8Array): [from: number, to: number][] {
  const found: [number, number][] = [];
  for (let i = 0; i < fieldOf(data, 1, 1); i++) {
    const from = fieldOf(data, 2 + 2 * i, 2);
    const isRange = fieldOf(data, 32 + i, 1) !== 0;
    if (isRange) i++;
    found.push([from, isRange ? fieldOf(data, 2 + 2 * i, 2) : from]);
  }
  return found.sort(([a], [b]) => a - b);
}

/** Ranges that touch are joined: nftables takes none that overlap. */
function portSet(sorted: readonly [from: number, to: number][]): Parameters<NewSet>[0] {
  const joined: [number, number][] = [];
  for (const [from, to] of sorted) {
    const last = joined.at(-1);
    if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else joined.push([from, to]);
  }
  const element = (port: number, intervalEnd: boolean): ElementInfo => ({
    key: portBytes(port),
    keyEnd: undefined,
    data: undefined,
    verdict: undefined,
    intervalEnd,
  });
  return {
    flags: SET_FLAG.INTERVAL,
    keyType: DATATYPE.inetService,
    keyBytes: 2,
    elements: joined.flatMap(([from, to]) => [element(from, false), ...(to < PORT_MAX ? [element(to + 1, true)] : [])]),
  };
}

function transport(offset: number, length: number): Expression {
  return { expr: 'payload', dreg: REG_1, base: PAYLOAD_TRANSPORT, offset, length };
}

function bits(load: Expression, mask: Uint8Array): Expression[] {
  return [load, { expr: 'bitwise', sreg: REG_1, dreg: REG_1, mask, xor: new Uint8Array(mask.length) }];
}

function cmp(data: Uint8Array, not: boolean): Expression {
  return { expr: 'cmp', sreg: REG_1, op: not ? CMP.NEQ : CMP.EQ, data };
}

function range(from: Uint8Array, to: Uint8Array, not: boolean): Expression {
  return { expr: 'range', sreg: REG_1, op: not ? 1 : 0, from: from.slice(), to: to.slice() };
}

/** As the kernel holds numbers of its own: this machine's order, little-endian on all that Estiba runs on. */
function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

/** A number of the kernel's own of 1, 2 or 4 bytes. */
export function fieldOf(bytes: Uint8Array, at: number, length: 1 | 2 | 4): number {
  const view = viewOf(bytes);
  return length === 1 ? view.getUint8(at) : length === 2 ? view.getUint16(at, true) : view.getUint32(at, true);
}
