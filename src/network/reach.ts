import { bitsOf, type Family, formatIp, type Ip, ipBytes, parseIp } from '#kernel/netlink/ip.ts';
import {
  CT_STATE,
  type Expression,
  FIB,
  META,
  PAYLOAD_NETWORK,
  PAYLOAD_TRANSPORT,
  type Verdict,
} from '#kernel/nft/expression.ts';
import { IP_PROTO, PROTOCOL_NUMBER } from '#kernel/nft/facts.ts';
import { NFPROTO } from '#kernel/nft/message.ts';
import type { ChainInfo, RuleInfo, Ruleset, SetInfo } from '#kernel/nft/ruleset.ts';
import {
  baseChains,
  isTarget,
  isUnderstoodMeta,
  isUnderstoodPayload,
  isUnderstoodSet,
  TCP_FLAGS_AT,
} from '#network/firewall.ts';
import type { Protocol } from '#network/model.ts';
import { ADDRTYPE, compare, inSet, Registers } from '#network/registers.ts';

/**
 * Who reaches a host port, as the host's input rules read, and others' forward rules behind DNAT: the kernel's own answer (firewall.ts
 * makes it ask the input rules), worked out here for every link and every source. Sources are cut where some rule cuts them, and one of
 * each piece is sent through the rules.
 *
 * What firewall.ts does not understand counts as closed here, too. What a packet carries beside link, addresses, protocol, ports and
 * state (its TTL, say) is not known: where it decides, the answer is `depends`.
 */
export interface ReachTarget {
  protocol: Protocol;
  port: number;
  /** Of the host. */
  address: string;
  /** Where DNAT sends it on to; absent when a process of the host takes it. */
  behind?: { bridge: string; address: string; port: number };
}

export interface ReachLink {
  name: string;
  index: number;
}

export type Answer = 'open' | 'closed' | 'depends';

export interface Reach {
  /** Links of one answer; `*` is any link that is not named elsewhere. */
  links: string[];
  /** `anywhere`, or ranges: `10.9.0.0/16`, `192.0.2.1-192.0.2.9`. */
  open: string[];
  depends: string[];
}

export const ANY_LINK = '*';
const LOOPBACK = 'lo';
const OTHER_INDEX = 0x7fff_ffff;
/** A link that no rule names. */
export const anyLink: ReachLink = { name: ANY_LINK, index: OTHER_INDEX };
/** A firewall that knows more pieces of the Internet than this (by country, say) is not taken apart. */
const PIECES_MAX = 4_096;
const JUMPS_MAX = 16; // as the kernel's own (NFT_JUMP_STACK_SIZE)
/** One of those that programs get when they ask for none. */
const SOURCE_PORT = 50_000;
/** What a connection begins with. */
const TCP_SYN = 0x02;
const ETHERTYPE = { 4: Uint8Array.of(8, 0), 6: Uint8Array.of(0x86, 0xdd) } as const;
const SOURCE_AT = { 4: 12, 6: 8 } as const;

/** Pure. `links` are those that packets come in by. Undefined: the rules cut the sources into too many pieces. */
export function reachOf(
  daemon: string,
  ruleset: Ruleset,
  target: ReachTarget,
  links: readonly ReachLink[],
): Reach[] | undefined {
  const daddr = parseIp(target.address);
  const { family } = daddr;
  const bits = bitsOf(family);
  const bases = baseChains(daemon, ruleset, 'input');
  const onward = target.behind ? baseChains(daemon, ruleset, 'forward') : [];
  const rules = rulesFrom([...bases, ...onward], ruleset);
  const starts = sourcePieces([...rules.values()].flat(), ruleset, family);
  if (starts.length > PIECES_MAX) return undefined;
  const packet = (link: ReachLink, source: bigint): Packet => {
    const { protocol, port } = target;
    return { protocol, port, link, family, source, daddr: daddr.value, dnated: false };
  };
  const judge = (of: Packet): Answer => {
    const next = behindDnat(of, target, links);
    const passes = (one: Packet, hook: ChainInfo[], fits: boolean): boolean =>
      new Walk(ruleset, rules, one, fits).refusal(hook) === undefined;
    const [one, other] = [true, false].map((fits) => passes(of, bases, fits) && (!next || passes(next, onward, fits)));
    return one !== other ? 'depends' : one ? 'open' : 'closed';
  };
  // To a loopback address nothing comes from outside: the kernel calls it martian.
  const ways = isLoopback(daddr) ? links.filter(({ name }) => name === LOOPBACK) : [...links, anyLink];
  const answers = ways.map((link) => {
    // What comes by the loopback comes from the host itself.
    const isHost = link.name === LOOPBACK;
    const sources = isHost ? [daddr.value] : starts;
    const said = sources.map((source) => judge(packet(link, source)));
    const of = (answer: Answer): string[] => {
      if (isHost) return said[0] === answer ? ['this host'] : [];
      return rangesOf(
        starts.map((start, i) => ({ start, end: (starts[i + 1] ?? 1n << BigInt(bits)) - 1n, is: said[i] === answer })),
        family,
      );
    };
    return { name: link.name, open: of('open'), depends: of('depends') };
  });
  const groups = new Map<string, Reach>();
  for (const { name, open, depends } of answers) {
    const key = JSON.stringify([open, depends]);
    const group = groups.get(key);
    if (group) group.links.push(name);
    else groups.set(key, { links: [name], open, depends });
  }
  return [...groups.values()];
}

function isLoopback({ family, value }: Ip): boolean {
  return family === 4 ? value >> 24n === 127n : value === 1n;
}

/** The packet as it is forwarded. What comes from the host itself is not. */
function behindDnat(packet: Packet, { behind }: ReachTarget, links: readonly ReachLink[]): Packet | undefined {
  if (!behind || packet.link.name === LOOPBACK) return undefined;
  const out = { name: behind.bridge, index: links.find(({ name }) => name === behind.bridge)?.index ?? 0 };
  return { ...packet, out, daddr: parseIp(behind.address).value, port: behind.port, dnated: true };
}

/** The first of a connection. What is undefined nobody knows. */
export interface Packet {
  protocol: Protocol;
  link: ReachLink;
  /** At the forward hook. */
  out?: ReachLink;
  family: Family;
  source: bigint | undefined;
  daddr: bigint | undefined;
  port: number | undefined;
  /** Published: its destination was rewritten. */
  dnated: boolean;
}

/** By chain: those that a packet can meet at the input hook. */
type Rules = ReadonlyMap<string, readonly RuleInfo[]>;

function keyOf({ family, table, name }: Pick<ChainInfo, 'family' | 'table' | 'name'>): string {
  return `${family} ${table} ${name}`;
}

export function rulesFrom(bases: readonly ChainInfo[], ruleset: Ruleset): Rules {
  const all = new Map<string, RuleInfo[]>();
  for (const rule of ruleset.rules) {
    const key = keyOf({ ...rule, name: rule.chain });
    const list = all.get(key);
    if (list) list.push(rule);
    else all.set(key, [rule]);
  }
  const met = new Map<string, RuleInfo[]>();
  const visit = (key: string): void => {
    const rules = all.get(key);
    if (!rules || met.has(key)) return;
    met.set(key, rules);
    for (const rule of rules)
      for (const e of rule.expressions)
        if (e.expr === 'verdict' && 'chain' in e) visit(keyOf({ ...rule, name: e.chain }));
  };
  for (const base of bases) visit(keyOf(base));
  return met;
}

type End = 'accept' | 'drop' | 'end';

/** One packet's way through a hook. `unknownMatches`: what is not known of it is taken to fit, or not to. */
export class Walk {
  readonly #ruleset: Ruleset;
  readonly #rules: Rules;
  readonly #packet: Packet;
  readonly #unknownMatches: boolean;
  #dropping: RuleInfo | undefined;

  constructor(ruleset: Ruleset, rules: Rules, packet: Packet, unknownMatches: boolean) {
    this.#ruleset = ruleset;
    this.#rules = rules;
    this.#packet = packet;
    this.#unknownMatches = unknownMatches;
  }

  /** Who drops it: a rule, or without one the chain's policy. An accept ends one base chain; the next still has its say. */
  refusal(bases: readonly ChainInfo[]): { chain: ChainInfo; rule: RuleInfo | undefined } | undefined {
    for (const chain of bases) {
      if (chain.family !== NFPROTO.INET && chain.family !== IP_PROTO[this.#packet.family]) continue;
      const end = this.#chain(chain, 0);
      if (end === 'drop') return { chain, rule: this.#dropping };
      if (end === 'end' && chain.base?.policy === 'drop') return { chain, rule: undefined };
    }
    return undefined;
  }

  #chain(chain: ChainInfo, depth: number): End {
    if (depth > JUMPS_MAX) return 'drop';
    const rules = this.#rules.get(keyOf(chain)) ?? [];
    for (const rule of rules) {
      const verdict = this.#rule(rule, chain);
      if (!verdict || verdict.verdict === 'continue') continue;
      if (verdict.verdict === 'drop') this.#dropping = rule;
      if (!('chain' in verdict)) return verdict.verdict === 'return' ? 'end' : verdict.verdict;
      const end = this.#chain({ ...chain, name: verdict.chain, base: undefined }, depth + 1);
      if (end !== 'end' || verdict.verdict === 'goto') return end;
    }
    return 'end';
  }

  /** Undefined: it says nothing of this packet. */
  #rule(rule: RuleInfo, chain: ChainInfo): Verdict | undefined {
    const registers = new Registers();
    let closed = false;
    for (const e of rule.expressions) {
      if (e.expr === 'counter' || e.expr === 'log') continue;
      if (e.expr === 'verdict') {
        if (!closed) return e;
        return e.verdict === 'accept' || e.verdict === 'continue' ? undefined : DROP;
      }
      if (e.expr === 'reject') return DROP;
      if (closed) continue;
      const fits = this.#step(e, registers, chain);
      if (fits === undefined) closed = true;
      else if (!fits) return undefined;
    }
    return closed && isTarget(rule) ? DROP : undefined;
  }

  /** Whether the packet still fits; undefined: the expression is not understood. */
  #step(e: Expression, registers: Registers, chain: ChainInfo): boolean | undefined {
    switch (e.expr) {
      case 'immediate':
        registers.put(e.dreg, e.data);
        return true;
      case 'meta':
        if (!isUnderstoodMeta(e.key) && !(this.#packet.out && isOutMeta(e.key))) return undefined;
        registers.put(e.dreg, this.#meta(e.key));
        return true;
      case 'ct':
        if (e.key > 2 || e.direction !== undefined) return undefined;
        registers.put(
          e.dreg,
          e.key === 0 ? u32(CT_STATE.NEW) : e.key === 1 ? Uint8Array.of(0) : u32(this.#packet.dnated ? IPS_DST_NAT : 0),
        );
        return true;
      case 'fib':
        if (e.result !== FIB.RESULT_ADDRTYPE || (e.flags & (FIB.IIF | FIB.OIF)) !== 0) return undefined;
        registers.put(e.dreg, u32(this.#addressType(e.flags)));
        return true;
      case 'payload':
        if (!isUnderstoodPayload(e)) return undefined;
        registers.put(e.dreg, this.#payload(e), e.length);
        return true;
      case 'bitwise':
        registers.mask(e);
        return true;
      case 'cmp':
        return this.#unless(registers.get(e.sreg, e.data.length), (value) => compare(value, e.op, e.data));
      case 'range': {
        const inverted = e.op === 1;
        return this.#unless(
          registers.get(e.sreg, e.from.length),
          (value) => (compare(value, 5, e.from) && compare(value, 3, e.to)) !== inverted,
        );
      }
      case 'lookup': {
        const set = setOf(this.#ruleset, chain, e.set);
        if (e.dreg !== undefined || !set || !isUnderstoodSet(set)) return undefined;
        return this.#unless(registers.get(e.sreg, set.keyBytes), (value) => inSet(value, set) !== (e.invert ?? false));
      }
      default:
        return undefined;
    }
  }

  #unless(value: Uint8Array | undefined, fits: (value: Uint8Array) => boolean): boolean {
    return value === undefined ? this.#unknownMatches : fits(value);
  }

  #meta(key: number): Uint8Array {
    const { link, out, family, protocol } = this.#packet;
    switch (key) {
      case META.OIF:
        return u32(out?.index ?? 0);
      case META.OIFNAME:
        return name16(out?.name ?? '');
      case META.IIF:
        return u32(link.index);
      case META.IIFNAME:
        return name16(link.name);
      case META.NFPROTO:
        return Uint8Array.of(IP_PROTO[family]);
      case META.L4PROTO:
        return Uint8Array.of(PROTOCOL_NUMBER[protocol]);
      default:
        return ETHERTYPE[family];
    }
  }

  #addressType(flags: number): number {
    if ((flags & FIB.DADDR) !== 0) return this.#packet.out ? ADDRTYPE.unicast : ADDRTYPE.local;
    return this.#packet.link.name === LOOPBACK ? ADDRTYPE.local : ADDRTYPE.unicast;
  }

  /** Undefined where what is asked for is not all known. */
  #payload({ base, offset, length }: Expression & { expr: 'payload' }): Uint8Array | undefined {
    const { family, source, daddr, port, protocol } = this.#packet;
    if (base === PAYLOAD_TRANSPORT) {
      if (offset === TCP_FLAGS_AT) return protocol === 'tcp' ? Uint8Array.of(TCP_SYN) : undefined;
      if (port === undefined && offset + length > 2) return undefined;
      const to = port ?? 0;
      return Uint8Array.of(SOURCE_PORT >> 8, SOURCE_PORT & 0xff, to >> 8, to & 0xff).slice(offset, offset + length);
    }
    const size = bitsOf(family) / 8;
    const protocolAt = family === 4 ? 9 : 6;
    if (base === PAYLOAD_NETWORK && offset === protocolAt && length === 1)
      return Uint8Array.of(PROTOCOL_NUMBER[protocol]);
    const from = offset - SOURCE_AT[family];
    if (base !== PAYLOAD_NETWORK || from < 0 || from + length > 2 * size) return undefined;
    if (source === undefined || daddr === undefined) return undefined;
    return Uint8Array.from([...ipBytes({ family, value: source }), ...ipBytes({ family, value: daddr })]).slice(
      from,
      from + length,
    );
  }
}

const DROP: Verdict = { verdict: 'drop' };
/** Of conntrack's status (linux/netfilter/nf_conntrack_common.h). */
const IPS_DST_NAT = 0x20;

/** Known only where a packet is on its way out. */
function isOutMeta(key: number): boolean {
  return key === META.OIF || key === META.OIFNAME;
}

function setOf(ruleset: Ruleset, { family, table }: ChainInfo, name: string): SetInfo | undefined {
  return ruleset.sets.find((s) => s.family === family && s.table === table && s.name === name);
}

/** Where pieces of equal treatment may begin: each address that some rule compares a source with, and the one behind what it names. */
function sourcePieces(rules: readonly RuleInfo[], ruleset: Ruleset, family: Family): bigint[] {
  const bits = bitsOf(family);
  const found = new Set<bigint>([0n]);
  const number = (bytes: Uint8Array): bigint =>
    BigInt(`0x${Buffer.from(bytes).toString('hex') || '0'}`) << BigInt(bits - 8 * bytes.length);
  const cut = (at: bigint): void => void (at < 1n << BigInt(bits) && found.add(at));
  const around = (bytes: Uint8Array, fixedBits: number): void => {
    if (bytes.length * 8 > bits) return;
    cut(number(bytes));
    cut(number(bytes) + (1n << BigInt(bits - fixedBits)));
  };
  for (const rule of rules) {
    /** Register → how many of a source's leading bits it holds. */
    const sources = new Map<number, number>();
    for (const e of rule.expressions) {
      if ('dreg' in e && e.dreg !== undefined && e.expr !== 'bitwise') sources.delete(e.dreg);
      if (e.expr === 'payload' && e.base === PAYLOAD_NETWORK && e.offset === SOURCE_AT[family])
        sources.set(e.dreg, Math.min(bits, e.length * 8));
      if (e.expr === 'bitwise' && sources.has(e.sreg)) sources.set(e.dreg, leadingOnes(e.mask));
      if (!('sreg' in e)) continue;
      const fixed = sources.get(e.sreg);
      if (fixed === undefined) continue;
      if (e.expr === 'cmp') around(e.data, Math.min(fixed, e.data.length * 8));
      if (e.expr === 'range' && e.to.length * 8 <= bits) {
        cut(number(e.from));
        around(e.to, e.to.length * 8);
      }
      if (e.expr === 'lookup')
        for (const set of ruleset.sets)
          if (set.name === e.set && set.table === rule.table && set.family === rule.family)
            for (const { key } of set.elements) around(key, key.length * 8);
    }
  }
  return [...found].sort((a, b) => (a < b ? -1 : 1));
}

function leadingOnes(mask: Uint8Array): number {
  const text = [...mask].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  return /^1*/.exec(text)?.[0].length ?? 0;
}

interface Piece {
  start: bigint;
  end: bigint;
  is: boolean;
}

function rangesOf(pieces: readonly Piece[], family: Family): string[] {
  const joined: Piece[] = [];
  for (const piece of pieces.filter(({ is }) => is)) {
    const last = joined.at(-1);
    if (last && last.end + 1n === piece.start) last.end = piece.end;
    else joined.push({ ...piece });
  }
  return joined.map(({ start, end }) => rangeText(start, end, family));
}

function rangeText(start: bigint, end: bigint, family: Family): string {
  const bits = bitsOf(family);
  const size = end - start + 1n;
  if (size === 1n << BigInt(bits)) return 'anywhere';
  const first = formatIp({ family, value: start });
  if (size === 1n) return first;
  const hostBits = size.toString(2).length - 1;
  const isCidr = size === 1n << BigInt(hostBits) && start % size === 0n;
  return isCidr ? `${first}/${bits - hostBits}` : `${first}-${formatIp({ family, value: end })}`;
}

/** As the kernel holds numbers of its own: this machine's order, little-endian on all that Estiba runs on. */
function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

function name16(name: string): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes.set(new TextEncoder().encode(name).subarray(0, 15));
  return bytes;
}
