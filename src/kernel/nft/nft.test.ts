import { describe, expect, it } from 'vitest';
import { decode, encode } from '#kernel/netlink/wire.ts';
import { type Expression, ifname, META, portBytes, REG_1, reg32 } from '#kernel/nft/expression.ts';
import {
  addChain,
  addElements,
  addRule,
  addSet,
  addTable,
  batch,
  concatType,
  DATATYPE,
  NFPROTO,
} from '#kernel/nft/message.ts';
import { parseChains, parseElements, parseRules, parseSets, parseTables } from '#kernel/nft/ruleset.ts';

const T = { family: NFPROTO.INET, table: 't' };

const EVERY_EXPRESSION: Expression[] = [
  { expr: 'payload', dreg: REG_1, base: 2, offset: 2, length: 2 },
  { expr: 'payloadSet', sreg: REG_1, base: 2, offset: 0, length: 2, checksumAt: 6 },
  { expr: 'meta', key: META.IIFNAME, dreg: REG_1 },
  { expr: 'metaSet', key: META.MARK, sreg: reg32(3) },
  { expr: 'ct', key: 19, dreg: REG_1, direction: 1 },
  { expr: 'cmp', sreg: REG_1, op: 1, data: ifname('br0') },
  { expr: 'range', sreg: REG_1, op: 0, from: portBytes(80), to: portBytes(90) },
  { expr: 'bitwise', sreg: REG_1, dreg: REG_1, mask: Uint8Array.of(1, 2, 3, 4), xor: Uint8Array.of(0, 0, 0, 0) },
  { expr: 'lookup', sreg: REG_1, set: 'ports', dreg: 0, invert: true },
  { expr: 'immediate', dreg: REG_1, data: portBytes(53) },
  { expr: 'verdict', verdict: 'jump', chain: 'elsewhere' },
  { expr: 'verdict', verdict: 'drop' },
  { expr: 'counter', bytes: 5n, packets: 1n },
  { expr: 'limit', rate: 10n, perSeconds: 60n, burst: 5, over: true },
  { expr: 'log', prefix: 'dropped ' },
  { expr: 'nat', type: 'dnat', family: 2, addr: 1, port: 9 },
  { expr: 'masq' },
  { expr: 'redir', port: 1 },
  { expr: 'reject', type: 2, code: 3 },
  { expr: 'fib', dreg: 1, result: 3, flags: 2 },
  { expr: 'random', dreg: 9, modulus: 3 },
  { expr: 'hash', sreg: 8, length: 4, dreg: 9, modulus: 512, seed: 7 },
];

describe('nftables messages', () => {
  it('every expression is read back as it was written', () => {
    const received = [...decode(encode([addRule(T, 'c', EVERY_EXPRESSION, 'all of them')]))];
    expect(parseRules(received)).toEqual([
      { family: 1, table: 't', chain: 'c', handle: 0n, comment: 'all of them', expressions: EVERY_EXPRESSION },
    ]);
  });

  it('an expression that is not known is named, not guessed', () => {
    const received = [
      ...decode(encode([addRule(T, 'c', [{ expr: 'unknown', name: 'quota', data: new Uint8Array() }])])),
    ];
    expect(parseRules(received)[0]?.expressions).toEqual([{ expr: 'unknown', name: 'quota', data: new Uint8Array() }]);
  });

  it('tables, chains, sets and elements are read back', () => {
    const received = [
      ...decode(
        encode(
          batch([
            addTable(T),
            addChain(T, 'pre', { type: 'nat', hook: 'prerouting', priority: -100, policy: 'accept' }),
            addSet(T, {
              name: 'm',
              keyType: concatType(DATATYPE.inetProto, DATATYPE.inetService),
              keyBytes: 8,
              data: { type: DATATYPE.ipv4, bytes: 4 },
              id: 1,
            }),
            addElements(T, 'm', [{ key: Uint8Array.of(6, 0, 0, 0, 0, 80, 0, 0), data: Uint8Array.of(10, 0, 0, 2) }]),
          ]),
        ),
      ),
    ];
    expect(parseTables(received)).toEqual([{ family: 1, name: 't' }]);
    expect(parseChains(received)).toEqual([
      {
        family: 1,
        table: 't',
        name: 'pre',
        base: { type: 'nat', hook: 'prerouting', priority: -100, policy: 'accept' },
      },
    ]);
    expect(parseSets(received)).toMatchObject([{ name: 'm', keyBytes: 8, flags: 8 }]);
    expect(parseElements(received)).toMatchObject([{ data: Uint8Array.of(10, 0, 0, 2), intervalEnd: false }]);
  });
});
