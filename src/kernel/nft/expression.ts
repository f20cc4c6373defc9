import {
  asI32be,
  asU32be,
  asU64be,
  attr,
  attributes,
  concat,
  nested,
  padded,
  str,
  text,
  u32be,
  u64be,
} from '#kernel/netlink/wire.ts';

/**
 * A rule is a list of expressions that the kernel runs in order over registers (linux/netfilter/nf_tables.h). Ours use the
 * 16-byte registers 1–4, and 4-byte ones (8–23) where a key is made of several fields.
 *
 * One table below says how each expression is written and read; what is not in it is read as `unknown`, by name, so that a
 * foreign rule is never taken for a simpler one than it is.
 */
export const REG_VERDICT = 0;
export const REG_1 = 1;
/** The n-th 4-byte register: `reg32(0)` lies over the start of register 1. */
export const reg32 = (n: number): number => 8 + n;

export const PAYLOAD_NETWORK = 1;
export const PAYLOAD_TRANSPORT = 2;

export const META = {
  PROTOCOL: 1,
  MARK: 3,
  IIF: 4,
  OIF: 5,
  IIFNAME: 6,
  OIFNAME: 7,
  NFPROTO: 15,
  L4PROTO: 16,
  PKTTYPE: 19,
} as const;

export const CT = {
  STATE: 0,
  DIRECTION: 1,
  STATUS: 2,
  MARK: 3,
  L3PROTOCOL: 7,
  PROTOCOL: 10,
  PROTO_SRC: 11,
  PROTO_DST: 12,
  SRC_IP: 19,
  DST_IP: 20,
  SRC_IP6: 21,
  DST_IP6: 22,
} as const;

export const CT_STATE = { INVALID: 1, ESTABLISHED: 2, RELATED: 4, NEW: 8, UNTRACKED: 64 } as const;
export const CT_STATUS_DNAT = 0x20;

export const CMP = { EQ: 0, NEQ: 1, LT: 2, LTE: 3, GT: 4, GTE: 5 } as const;

export type Verdict =
  | { verdict: 'accept' | 'drop' | 'return' | 'continue' }
  | { verdict: 'jump' | 'goto'; chain: string };

export type Expression =
  | { expr: 'payload'; dreg: number; base: number; offset: number; length: number }
  /** Writes into the packet; `checksumAt` is the place of the transport header's Internet checksum. */
  | { expr: 'payloadSet'; sreg: number; base: number; offset: number; length: number; checksumAt: number }
  | { expr: 'meta'; key: number; dreg: number }
  | { expr: 'metaSet'; key: number; sreg: number }
  | { expr: 'ct'; key: number; dreg: number; direction?: number }
  | { expr: 'cmp'; sreg: number; op: number; data: Uint8Array }
  | { expr: 'range'; sreg: number; op: number; from: Uint8Array; to: Uint8Array }
  | { expr: 'bitwise'; sreg: number; dreg: number; mask: Uint8Array; xor: Uint8Array }
  | { expr: 'lookup'; sreg: number; set: string; setId?: number; dreg?: number; invert?: boolean }
  | { expr: 'immediate'; dreg: number; data: Uint8Array }
  | ({ expr: 'verdict' } & Verdict)
  | { expr: 'counter'; bytes: bigint; packets: bigint }
  | { expr: 'limit'; rate: bigint; perSeconds: bigint; burst: number; over: boolean }
  | { expr: 'log'; prefix?: string; group?: number }
  | { expr: 'nat'; type: 'snat' | 'dnat'; family: number; addr?: number; port?: number }
  | { expr: 'masq' }
  | { expr: 'redir'; port?: number }
  | { expr: 'reject'; type: number; code: number }
  | { expr: 'fib'; dreg: number; result: number; flags: number }
  /** A random number below `modulus`, in the host's byte order. */
  | { expr: 'random'; dreg: number; modulus: number }
  /** A hash of `length` bytes, below `modulus`, in the host's byte order. */
  | { expr: 'hash'; sreg: number; length: number; dreg: number; modulus: number; seed: number }
  | { expr: 'unknown'; name: string; data: Uint8Array };

export const FIB = { SADDR: 1, DADDR: 2, IIF: 8, OIF: 16, RESULT_OIF: 1, RESULT_ADDRTYPE: 3 } as const;
export const ADDRTYPE_LOCAL = 2;

const NF_NAT_RANGE_PROTO_SPECIFIED = 2;
const NFT_PAYLOAD_CSUM_INET = 1;
const NFT_NG_RANDOM = 1;
const NFT_HASH_JENKINS = 0;
const VERDICTS = { continue: -1, jump: -3, goto: -4, return: -5, drop: 0, accept: 1 } as const;

/** NFTA_DATA_VALUE in its container attribute. */
export function dataValue(type: number, value: Uint8Array): Uint8Array {
  return nested(type, [attr(1, value)]);
}

export function dataVerdict(type: number, verdict: Verdict): Uint8Array {
  return nested(type, [
    nested(2, [u32be(1, VERDICTS[verdict.verdict]), ...('chain' in verdict ? [str(2, verdict.chain)] : [])]),
  ]);
}

export function encodeExpression(e: Expression): Uint8Array {
  const [name, attrs] = parts(e);
  return nested(1, [str(1, name), nested(2, attrs)]);
}

function parts(e: Expression): [name: string, attrs: Uint8Array[]] {
  switch (e.expr) {
    case 'payload':
      return ['payload', [u32be(1, e.dreg), u32be(2, e.base), u32be(3, e.offset), u32be(4, e.length)]];
    case 'payloadSet':
      return [
        'payload',
        [
          u32be(5, e.sreg),
          u32be(2, e.base),
          u32be(3, e.offset),
          u32be(4, e.length),
          u32be(6, NFT_PAYLOAD_CSUM_INET),
          u32be(7, e.checksumAt),
        ],
      ];
    case 'meta':
      return ['meta', [u32be(2, e.key), u32be(1, e.dreg)]];
    case 'metaSet':
      return ['meta', [u32be(2, e.key), u32be(3, e.sreg)]];
    case 'ct':
      return [
        'ct',
        [
          u32be(2, e.key),
          u32be(1, e.dreg),
          ...(e.direction === undefined ? [] : [attr(3, Uint8Array.of(e.direction))]),
        ],
      ];
    case 'cmp':
      return ['cmp', [u32be(1, e.sreg), u32be(2, e.op), dataValue(3, e.data)]];
    case 'range':
      return ['range', [u32be(1, e.sreg), u32be(2, e.op), dataValue(3, e.from), dataValue(4, e.to)]];
    case 'bitwise':
      return [
        'bitwise',
        [u32be(1, e.sreg), u32be(2, e.dreg), u32be(3, e.mask.length), dataValue(4, e.mask), dataValue(5, e.xor)],
      ];
    case 'lookup':
      return [
        'lookup',
        [
          str(1, e.set),
          u32be(2, e.sreg),
          ...(e.dreg === undefined ? [] : [u32be(3, e.dreg)]),
          ...(e.setId === undefined ? [] : [u32be(4, e.setId)]),
          ...(e.invert ? [u32be(5, 1)] : []),
        ],
      ];
    case 'immediate':
      return ['immediate', [u32be(1, e.dreg), dataValue(2, e.data)]];
    case 'verdict':
      return ['immediate', [u32be(1, REG_VERDICT), dataVerdict(2, e)]];
    case 'counter':
      return ['counter', [u64be(1, e.bytes), u64be(2, e.packets)]];
    case 'limit':
      return [
        'limit',
        [u64be(1, e.rate), u64be(2, e.perSeconds), u32be(3, e.burst), u32be(4, 0), u32be(5, Number(e.over))],
      ];
    case 'log':
      return [
        'log',
        [
          ...(e.group === undefined ? [] : [attr(1, Uint8Array.of(e.group >> 8, e.group & 0xff))]),
          ...(e.prefix === undefined ? [] : [str(2, e.prefix)]),
        ],
      ];
    case 'nat':
      return [
        'nat',
        [
          u32be(1, e.type === 'dnat' ? 1 : 0),
          u32be(2, e.family),
          ...(e.addr === undefined ? [] : [u32be(3, e.addr), u32be(4, e.addr)]),
          ...(e.port === undefined ? [] : [u32be(5, e.port), u32be(6, e.port), u32be(7, NF_NAT_RANGE_PROTO_SPECIFIED)]),
        ],
      ];
    case 'masq':
      return ['masq', []];
    case 'redir':
      return ['redir', e.port === undefined ? [] : [u32be(1, e.port), u32be(3, NF_NAT_RANGE_PROTO_SPECIFIED)]];
    case 'reject':
      return ['reject', [u32be(1, e.type), attr(2, Uint8Array.of(e.code))]];
    case 'fib':
      return ['fib', [u32be(1, e.dreg), u32be(2, e.result), u32be(3, e.flags)]];
    case 'random':
      return ['numgen', [u32be(1, e.dreg), u32be(2, e.modulus), u32be(3, NFT_NG_RANDOM)]];
    case 'hash':
      return [
        'hash',
        [
          u32be(1, e.sreg),
          u32be(2, e.dreg),
          u32be(3, e.length),
          u32be(4, e.modulus),
          u32be(5, e.seed),
          u32be(7, NFT_HASH_JENKINS),
        ],
      ];
    case 'unknown':
      return [e.name, [e.data]];
  }
}

/** Reads NFTA_LIST_ELEM's value. */
export function decodeExpression(value: Uint8Array): Expression {
  const outer = attributes(value);
  const name = text(outer.get(1) ?? new Uint8Array());
  const data = outer.get(2) ?? new Uint8Array();
  const unknown: Expression = { expr: 'unknown', name, data };
  const a = attributes(data);
  const n = (type: number): number => asU32be(a.get(type) ?? FOUR_ZEROES);
  const value1 = (type: number): Uint8Array | undefined => dataOf(a.get(type));
  switch (name) {
    case 'payload':
      if (a.has(1)) return { expr: 'payload', dreg: n(1), base: n(2), offset: n(3), length: n(4) };
      return n(6) === NFT_PAYLOAD_CSUM_INET
        ? { expr: 'payloadSet', sreg: n(5), base: n(2), offset: n(3), length: n(4), checksumAt: n(7) }
        : unknown;
    case 'meta':
      return a.has(1) ? { expr: 'meta', key: n(2), dreg: n(1) } : { expr: 'metaSet', key: n(2), sreg: n(3) };
    case 'ct': {
      const direction = a.get(3)?.[0];
      return a.has(1)
        ? { expr: 'ct', key: n(2), dreg: n(1), ...(direction === undefined ? {} : { direction }) }
        : unknown;
    }
    case 'cmp': {
      const data1 = value1(3);
      return data1 ? { expr: 'cmp', sreg: n(1), op: n(2), data: data1 } : unknown;
    }
    case 'range': {
      const [from, to] = [value1(3), value1(4)];
      return from && to ? { expr: 'range', sreg: n(1), op: n(2), from, to } : unknown;
    }
    case 'bitwise': {
      const [mask, xor] = [value1(4), value1(5)];
      return mask && xor && n(6) === 0 ? { expr: 'bitwise', sreg: n(1), dreg: n(2), mask, xor } : unknown;
    }
    case 'lookup':
      return {
        expr: 'lookup',
        sreg: n(2),
        set: text(a.get(1) ?? new Uint8Array()),
        ...(a.has(3) ? { dreg: n(3) } : {}),
        ...(n(5) & 1 ? { invert: true } : {}),
      };
    case 'immediate': {
      const verdict = verdictOf(a.get(2));
      if (verdict) return { expr: 'verdict', ...verdict };
      const data1 = value1(2);
      return data1 ? { expr: 'immediate', dreg: n(1), data: data1 } : unknown;
    }
    case 'counter':
      return { expr: 'counter', bytes: asU64be(a.get(1) ?? EIGHT_ZEROES), packets: asU64be(a.get(2) ?? EIGHT_ZEROES) };
    case 'limit':
      return n(4) !== 0
        ? unknown // counts bytes
        : {
            expr: 'limit',
            rate: asU64be(a.get(1) ?? EIGHT_ZEROES),
            perSeconds: asU64be(a.get(2) ?? EIGHT_ZEROES),
            burst: n(3),
            over: (n(5) & 1) !== 0,
          };
    case 'log': {
      const prefix = a.get(2);
      return { expr: 'log', ...(prefix ? { prefix: text(prefix) } : {}) };
    }
    case 'nat':
      return {
        expr: 'nat',
        type: n(1) === 1 ? 'dnat' : 'snat',
        family: n(2),
        ...(a.has(3) ? { addr: n(3) } : {}),
        ...(a.has(5) ? { port: n(5) } : {}),
      };
    case 'masq':
      return { expr: 'masq' };
    case 'redir':
      return { expr: 'redir', ...(a.has(1) ? { port: n(1) } : {}) };
    case 'reject':
      return { expr: 'reject', type: n(1), code: a.get(2)?.[0] ?? 0 };
    case 'fib':
      return { expr: 'fib', dreg: n(1), result: n(2), flags: n(3) };
    case 'numgen':
      return n(3) === NFT_NG_RANDOM && n(4) === 0 ? { expr: 'random', dreg: n(1), modulus: n(2) } : unknown;
    case 'hash':
      return n(7) === NFT_HASH_JENKINS && n(6) === 0 && a.has(5)
        ? { expr: 'hash', sreg: n(1), length: n(3), dreg: n(2), modulus: n(4), seed: n(5) }
        : unknown;
    default:
      return unknown;
  }
}

export function verdictOf(container: Uint8Array | undefined): Verdict | undefined {
  const inner = container && attributes(container).get(2);
  if (!inner) return undefined;
  const a = attributes(inner);
  const code = asI32be(a.get(1) ?? FOUR_ZEROES);
  const chain = text(a.get(2) ?? new Uint8Array());
  if (code === VERDICTS.jump || code === VERDICTS.goto)
    return { verdict: code === VERDICTS.jump ? 'jump' : 'goto', chain };
  for (const name of ['accept', 'drop', 'return', 'continue'] as const)
    if (VERDICTS[name] === code) return { verdict: name };
  return undefined;
}

export function dataOf(container: Uint8Array | undefined): Uint8Array | undefined {
  return container && attributes(container).get(1);
}

/** Fields of a concatenated key, each padded to the register size of four bytes. */
export function concatKey(...fields: Uint8Array[]): Uint8Array {
  return concat(fields.map(padded));
}

/** An interface name as nftables compares it: 16 bytes, zeroes behind. */
export function ifname(name: string): Uint8Array {
  const out = new Uint8Array(16);
  out.set(new TextEncoder().encode(name).subarray(0, 15));
  return out;
}

export function portBytes(port: number): Uint8Array {
  return Uint8Array.of(port >> 8, port & 0xff);
}

const FOUR_ZEROES = new Uint8Array(4);
const EIGHT_ZEROES = new Uint8Array(8);
