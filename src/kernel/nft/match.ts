import {
  ADDRTYPE_LOCAL,
  CMP,
  CT,
  CT_STATUS_DNAT,
  type Expression,
  FIB,
  META,
  PAYLOAD_NETWORK,
  PAYLOAD_TRANSPORT,
  REG_1,
  reg32,
  type Verdict,
} from '#kernel/nft/expression.ts';
import { NFPROTO } from '#kernel/nft/message.ts';

/** Pieces of rules by what they say. Each is complete in itself: it loads what it compares. */
const u32le = (value: number): Uint8Array =>
  Uint8Array.of(value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, value >>> 24);

export const iifIn = (set: string): Expression[] => [
  { expr: 'meta', key: META.IIFNAME, dreg: REG_1 },
  { expr: 'lookup', sreg: REG_1, set },
];

export const oifIn = (set: string): Expression[] => [
  { expr: 'meta', key: META.OIFNAME, dreg: REG_1 },
  { expr: 'lookup', sreg: REG_1, set },
];

export const oifNotIn = (set: string): Expression[] => [
  { expr: 'meta', key: META.OIFNAME, dreg: REG_1 },
  { expr: 'lookup', sreg: REG_1, set, invert: true },
];

/** `iifname . oifname @set`: two 16-byte fields in registers 1 and 2. */
export const linksIn = (set: string): Expression[] => [
  { expr: 'meta', key: META.IIFNAME, dreg: REG_1 },
  { expr: 'meta', key: META.OIFNAME, dreg: 2 },
  { expr: 'lookup', sreg: REG_1, set },
];

export const isFamily = (family: 4 | 6): Expression[] => [
  { expr: 'meta', key: META.NFPROTO, dreg: REG_1 },
  { expr: 'cmp', sreg: REG_1, op: CMP.EQ, data: Uint8Array.of(family === 4 ? NFPROTO.IPV4 : NFPROTO.IPV6) },
];

const SADDR = { 4: { offset: 12, length: 4 }, 6: { offset: 8, length: 16 } } as const;
const DADDR = { 4: { offset: 16, length: 4 }, 6: { offset: 24, length: 16 } } as const;

export const loadSaddr = (family: 4 | 6, dreg: number): Expression => ({
  expr: 'payload',
  dreg,
  base: PAYLOAD_NETWORK,
  ...SADDR[family],
});

export const loadDaddr = (family: 4 | 6, dreg: number): Expression => ({
  expr: 'payload',
  dreg,
  base: PAYLOAD_NETWORK,
  ...DADDR[family],
});

export const loadDport = (dreg: number): Expression => ({
  expr: 'payload',
  dreg,
  base: PAYLOAD_TRANSPORT,
  offset: 2,
  length: 2,
});

export const loadL4proto = (dreg: number): Expression => ({ expr: 'meta', key: META.L4PROTO, dreg });

/** Source in a prefix of full bytes (127.0.0.0/8: one byte). */
export const saddrStarts = (prefix: Uint8Array): Expression[] => [
  { expr: 'payload', dreg: REG_1, base: PAYLOAD_NETWORK, offset: SADDR[4].offset, length: prefix.length },
  { expr: 'cmp', sreg: REG_1, op: CMP.EQ, data: prefix },
];

export const daddrStarts = (prefix: Uint8Array): Expression[] => [
  { expr: 'payload', dreg: REG_1, base: PAYLOAD_NETWORK, offset: DADDR[4].offset, length: prefix.length },
  { expr: 'cmp', sreg: REG_1, op: CMP.EQ, data: prefix },
];

export const saddrIn = (family: 4 | 6, set: string): Expression[] => [
  loadSaddr(family, REG_1),
  { expr: 'lookup', sreg: REG_1, set },
];

/** `ip saddr . oifname @set`; the name starts where the address, padded to four bytes, ends. */
export const saddrAndOifIn = (family: 4 | 6, set: string): Expression[] => [
  loadSaddr(family, REG_1),
  { expr: 'meta', key: META.OIFNAME, dreg: family === 4 ? reg32(1) : 2 },
  { expr: 'lookup', sreg: REG_1, set },
];

export const ctStateIs = (bits: number): Expression[] => ctBits(CT.STATE, bits);
export const wasDnated: Expression[] = ctBits(CT.STATUS, CT_STATUS_DNAT);

function ctBits(key: number, bits: number): Expression[] {
  return [
    { expr: 'ct', key, dreg: REG_1 },
    { expr: 'bitwise', sreg: REG_1, dreg: REG_1, mask: u32le(bits), xor: new Uint8Array(4) },
    { expr: 'cmp', sreg: REG_1, op: CMP.NEQ, data: new Uint8Array(4) },
  ];
}

/** The packet is for this host. */
export const daddrIsLocal: Expression[] = [
  { expr: 'fib', dreg: REG_1, result: FIB.RESULT_ADDRTYPE, flags: FIB.DADDR },
  { expr: 'cmp', sreg: REG_1, op: CMP.EQ, data: u32le(ADDRTYPE_LOCAL) },
];

export const counter: Expression = { expr: 'counter', bytes: 0n, packets: 0n };
export const say = (verdict: Verdict): Expression => ({ expr: 'verdict', ...verdict });
export const accept = say({ verdict: 'accept' });
export const drop = say({ verdict: 'drop' });
