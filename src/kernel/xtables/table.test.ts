import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Family } from '#kernel/netlink/ip.ts';
import { CMP, type Expression, META } from '#kernel/nft/expression.ts';
import { LEGACY_TABLE, parseXtables, withoutCounters } from '#kernel/xtables/table.ts';

const HEAD = { 4: { bytes: 112, target: 88, next: 90 }, 6: { bytes: 168, target: 140, next: 142 } } as const;
const [DROP, ACCEPT, RETURN] = [-1, -2, -5];

interface Made {
  /** Bytes of ipt_ip or ip6t_ip6 by offset. */
  ip?: Record<number, number[]>;
  matches?: Buffer[];
  /** A standard target's number, or another target. */
  target: number | Buffer;
}

function extension(name: string, revision: number, data: Uint8Array): Buffer {
  const size = Math.ceil((32 + data.length) / 8) * 8;
  const out = Buffer.alloc(size);
  out.writeUInt16LE(size, 0);
  out.write(name, 2);
  out.writeUInt8(revision, 31);
  out.set(data, 32);
  return out;
}

function bytes(length: number, fields: Record<number, number[]>): Buffer {
  const out = Buffer.alloc(length);
  for (const [at, values] of Object.entries(fields)) out.set(values, Number(at));
  return out;
}

const standard = (verdict: number): Buffer => {
  const data = Buffer.alloc(8);
  data.writeInt32LE(verdict, 0);
  return extension('', 0, data);
};
const head = (chain: string): Made => ({ target: extension('ERROR', 0, bytes(32, { 0: [...Buffer.from(chain)] })) });

function entry(family: Family, { ip = {}, matches = [], target }: Made): Buffer {
  const { bytes: size, target: targetAt, next } = HEAD[family];
  const first = bytes(size, ip);
  const body = Buffer.concat(matches);
  const end = typeof target === 'number' ? standard(target) : target;
  first.writeUInt16LE(size + body.length, targetAt);
  first.writeUInt16LE(size + body.length + end.length, next);
  return Buffer.concat([first, body, end]);
}

/** As the kernel answers: INPUT, FORWARD, then chains of the user. A target above nought is the number of the entry to go on at. */
function answer(family: Family, input: Made[], more: Made[] = [], policy = DROP): Buffer {
  const list = [...input, { target: policy }, { target: ACCEPT }, ...more, head('ERROR')];
  const sizes = list.map((made) => entry(family, made).length);
  const offset = (n: number): number => sizes.slice(0, n).reduce((sum, size) => sum + size, 0);
  const table = list.map((made) =>
    entry(family, typeof made.target === 'number' && made.target > 0 ? { ...made, target: offset(made.target) } : made),
  );
  const info = Buffer.alloc(84);
  info.write('filter', 0);
  info.writeUInt32LE((1 << 1) | (1 << 2), 32);
  for (const [hook, first, last] of [
    [1, 0, input.length],
    [2, input.length + 1, input.length + 1],
  ] as const) {
    info.writeUInt32LE(offset(first), 36 + 4 * hook);
    info.writeUInt32LE(offset(last), 56 + 4 * hook);
  }
  return Buffer.concat([info, ...table]);
}

const rulesOf = (family: Family, input: Made[], more: Made[] = []) =>
  parseXtables(family, answer(family, input, more)).rules;
/** What one rule with this match asks, its verdict left out. */
const read = (name: string, revision: number, data: Buffer, family: Family = 4): Expression[] =>
  rulesOf(family, [{ matches: [extension(name, revision, data)], target: ACCEPT }])[0]?.expressions.slice(0, -1) ?? [];
const transport = (offset: number, length: number): object => ({ expr: 'payload', base: 2, offset, length });
const le16 = (value: number): number[] => [value & 0xff, value >> 8];

describe('a table of x_tables', () => {
  it('that is not there has no rules', () => {
    expect(parseXtables(4, new Uint8Array())).toEqual({ tables: [], chains: [], rules: [], sets: [] });
  });

  it('is chains with their policies, jumps, gotos and returns, its rules numbered as they are deleted', () => {
    // 0 jump mine, 1 logs, 2 without a target, 3 drop, 4 and 5 policies, 6 head of mine, 7 its goto, 8 its end, 9 head of other, 10 its end
    const log = extension('LOG', 0, Buffer.alloc(40));
    const ruleset = parseXtables(
      4,
      answer(
        4,
        [{ target: 7 }, { target: log }, { target: 3 }, { target: DROP }],
        [head('mine'), { ip: { 82: [2] }, target: 10 }, { target: RETURN }, head('other'), { target: RETURN }],
      ),
    );
    expect(ruleset.chains).toMatchObject([
      {
        family: 2,
        table: LEGACY_TABLE,
        name: 'INPUT',
        base: { type: 'filter', hook: 'input', priority: 0, policy: 'drop' },
      },
      { name: 'FORWARD', base: { hook: 'forward', policy: 'accept' } },
      { name: 'mine', base: undefined },
      { name: 'other', base: undefined },
    ]);
    expect(ruleset.rules.map(({ chain, handle, expressions }) => [chain, handle, ...expressions])).toEqual([
      ['INPUT', 1n, { expr: 'verdict', verdict: 'jump', chain: 'mine' }],
      ['INPUT', 4n, { expr: 'verdict', verdict: 'drop' }],
      ['mine', 1n, { expr: 'verdict', verdict: 'goto', chain: 'other' }],
      ['mine', 2n, { expr: 'verdict', verdict: 'return' }],
      ['other', 1n, { expr: 'verdict', verdict: 'return' }],
    ]);
  });

  it('reads links, addresses and protocol of each rule, and what of them is inverted', () => {
    const eth = [...Buffer.from('eth')];
    const [rule, not] = rulesOf(4, [
      {
        ip: { 0: [10, 9, 0, 0], 8: [255, 255, 0, 0], 16: eth, 48: [255, 255, 255], 80: [6] },
        target: ACCEPT,
      },
      {
        ip: {
          4: [192, 0, 2, 1],
          12: [255, 255, 255, 255],
          16: [...eth, 0x30],
          48: [255, 255, 255, 255, 255],
          80: [17],
          83: [0x51],
        },
        target: ACCEPT,
      },
    ]);
    expect(rule?.expressions).toMatchObject([
      { expr: 'meta', key: META.L4PROTO },
      { expr: 'cmp', op: CMP.EQ, data: Uint8Array.of(6) },
      { expr: 'meta', key: META.IIFNAME },
      { expr: 'cmp', op: CMP.EQ, data: Uint8Array.from(eth) },
      { expr: 'payload', base: 1, offset: 12, length: 4 },
      { expr: 'bitwise', mask: Uint8Array.of(255, 255, 0, 0) },
      { expr: 'cmp', op: CMP.EQ, data: Uint8Array.of(10, 9, 0, 0) },
      { expr: 'verdict', verdict: 'accept' },
    ]);
    expect(not?.expressions).toMatchObject([
      { key: META.L4PROTO },
      { op: CMP.NEQ, data: Uint8Array.of(17) },
      { key: META.IIFNAME },
      { op: CMP.NEQ, data: Uint8Array.from([...eth, 0x30, ...Array(12).fill(0)]) },
      { expr: 'payload', base: 1, offset: 16 },
      { op: CMP.NEQ, data: Uint8Array.of(192, 0, 2, 1) },
      { verdict: 'accept' },
    ]);
  });

  it('reads those of IPv6, where a flag says that a protocol is meant', () => {
    const address = [0xfd, ...Array(15).fill(0)];
    const [rule, any] = rulesOf(6, [
      { ip: { 0: address, 32: [0xff], 128: [58], 131: [1] }, target: ACCEPT },
      { ip: { 128: [58] }, target: ACCEPT },
    ]);
    expect(rule?.expressions).toMatchObject([
      { key: META.L4PROTO },
      { data: Uint8Array.of(58) },
      { expr: 'payload', offset: 8, length: 16 },
      { expr: 'bitwise' },
      { data: Uint8Array.from(address) },
      { verdict: 'accept' },
    ]);
    expect(any?.expressions).toEqual([{ expr: 'verdict', verdict: 'accept' }]);
  });

  it('takes what it does not understand as unknown, by name, behind all that it does', () => {
    const [limit, queue, fragment] = rulesOf(4, [
      {
        ip: { 80: [6] },
        matches: [extension('limit', 0, Buffer.alloc(40)), extension('comment', 0, Buffer.alloc(256))],
        target: DROP,
      },
      { target: extension('NFQUEUE', 3, Buffer.alloc(8)) },
      { ip: { 82: [1] }, target: DROP },
    ]);
    expect(limit?.expressions).toMatchObject([
      { expr: 'meta' },
      { expr: 'cmp' },
      { expr: 'unknown', name: 'match limit' },
      { expr: 'verdict', verdict: 'drop' },
    ]);
    expect(queue?.expressions).toMatchObject([{ expr: 'unknown', name: 'target NFQUEUE' }]);
    expect(fragment?.expressions).toMatchObject([{ expr: 'unknown', name: 'match fragment' }, { verdict: 'drop' }]);
  });

  it('that has been counted in is the same without its counters', () => {
    const table = answer(4, [{ target: ACCEPT }, { target: DROP }]);
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.nat(2), (counters, n) => {
        const counted = Buffer.from(table);
        counted.set(counters, 84 + n * 152 + 96);
        expect(withoutCounters(4, counted)).toEqual(withoutCounters(4, table));
        expect(parseXtables(4, counted)).toEqual(parseXtables(4, table));
      }),
    );
    expect(withoutCounters(4, answer(4, [{ target: DROP }]))).not.toEqual(
      withoutCounters(4, answer(4, [{ target: ACCEPT }])),
    );
  });

  it('that is cut short is an error, and never read past its end or for ever', () => {
    const table = answer(6, [{ matches: [extension('udp', 0, Buffer.alloc(10))], target: DROP }]);
    fc.assert(
      fc.property(fc.nat(table.length), fc.nat(table.length - 1), fc.nat(255), (length, at, value) => {
        const broken = Buffer.from(table.subarray(0, length));
        if (at < length) broken[at] = value;
        try {
          parseXtables(6, broken);
        } catch (error) {
          expect(error).toSatisfy((e) => e instanceof RangeError || (e as { code?: string }).code === 'ASSERTION');
        }
      }),
    );
  });
});

describe('a match of x_tables', () => {
  it.each<[what: string, name: string, revision: number, data: Buffer, expected: object[]]>([
    [
      'one port of TCP, and flags',
      'tcp',
      0,
      bytes(12, { 2: [255, 255], 4: [...le16(8080), ...le16(8080)], 9: [0x17, 0x02] }),
      [
        transport(2, 2),
        { expr: 'cmp', op: CMP.EQ, data: Uint8Array.of(0x1f, 0x90) },
        transport(13, 1),
        { expr: 'bitwise', mask: Uint8Array.of(0x17) },
        { expr: 'cmp', op: CMP.EQ, data: Uint8Array.of(2) },
      ],
    ],
    [
      'no port of a range of UDP',
      'udp',
      0,
      bytes(10, { 0: [...le16(1), ...le16(1023)], 6: [255, 255], 8: [1] }),
      [transport(0, 2), { expr: 'range', op: 1, from: Uint8Array.of(0, 1), to: Uint8Array.of(3, 255) }],
    ],
    ['an ICMP type', 'icmp', 0, bytes(4, { 0: [8, 0, 255] }), [transport(0, 1), { data: Uint8Array.of(8) }]],
    ['any ICMP', 'icmp', 0, bytes(4, { 0: [255, 0, 255] }), []],
    [
      'a state',
      'state',
      0,
      bytes(4, { 0: [6] }),
      [
        { expr: 'ct', key: 0 },
        { expr: 'bitwise', mask: Uint8Array.of(6, 0, 0, 0) },
        { op: CMP.NEQ, data: new Uint8Array(4) },
      ],
    ],
    [
      'no state, untracked among them, by conntrack',
      'conntrack',
      3,
      bytes(164, { 146: le16(0x2001), 148: le16(1), 150: le16(0x108) }),
      [{ expr: 'ct', key: 0 }, { mask: Uint8Array.of(72, 0, 0, 0) }, { op: CMP.EQ, data: new Uint8Array(4) }],
    ],
    [
      'DNAT, which conntrack calls a state and nftables a status',
      'conntrack',
      3,
      bytes(164, { 146: le16(1), 150: le16(0x80) }),
      [{ expr: 'ct', key: 2 }, { mask: Uint8Array.of(0x20, 0, 0, 0) }, { op: CMP.NEQ }],
    ],
    [
      'sources of a range',
      'iprange',
      1,
      bytes(68, { 0: [192, 0, 2, 1], 16: [192, 0, 2, 9], 64: [1] }),
      [
        { expr: 'payload', offset: 12 },
        { expr: 'range', op: 0, from: Uint8Array.of(192, 0, 2, 1), to: Uint8Array.of(192, 0, 2, 9) },
      ],
    ],
    [
      'no destination of a type',
      'addrtype',
      1,
      bytes(8, { 2: [4], 4: [2] }),
      [
        { expr: 'fib', flags: 2, result: 3 },
        { op: CMP.NEQ, data: Uint8Array.of(2, 0, 0, 0) },
      ],
    ],
  ])('says %s', (_, name, revision, data, expected) => {
    const said = read(name, revision, data);
    expect(said).toMatchObject(expected);
    expect(said).toHaveLength(expected.length);
  });

  it.each<[what: string, name: string, revision: number, data: Buffer]>([
    ['an option of TCP', 'tcp', 0, bytes(12, { 2: [255, 255], 6: [255, 255], 8: [2] })],
    ['another type or code', 'icmp', 0, bytes(4, { 0: [3, 1, 1, 1] })],
    ['a state or a status', 'conntrack', 3, bytes(164, { 146: le16(1), 150: le16(0x88) })],
    ['where a connection came from', 'conntrack', 3, bytes(164, { 146: le16(4) })],
    ['either port', 'multiport', 1, bytes(48, { 0: [2, 1, 80] })],
    ['one of several types', 'addrtype', 1, bytes(8, { 2: [6] })],
    ['a type at the link', 'addrtype', 1, bytes(8, { 2: [4], 4: [4] })],
    ['a revision of its own', 'tcp', 9, bytes(12, {})],
  ])('that asks for %s is unknown', (_, name, revision, data) => {
    expect(read(name, revision, data)).toMatchObject([{ expr: 'unknown', name: `match ${name}` }]);
  });

  it('of many ports is a set of ranges, those that touch joined', () => {
    const data = bytes(48, { 0: [1, 7] });
    for (const [i, port] of [8000, 8999, 443, 8500, 9000, 65000, 65535].entries()) data.writeUInt16LE(port, 2 + 2 * i);
    for (const i of [0, 3, 5]) data.writeUInt8(1, 32 + i);
    const { rules, sets } = parseXtables(
      4,
      answer(4, [{ matches: [extension('multiport', 1, data)], target: ACCEPT }]),
    );
    expect(rules[0]?.expressions).toMatchObject([
      transport(2, 2),
      { expr: 'lookup', set: sets[0]?.name },
      { verdict: 'accept' },
    ]);
    expect(sets[0]?.elements.map(({ key, intervalEnd }) => [Buffer.from(key).readUInt16BE(0), intervalEnd])).toEqual([
      [443, false],
      [444, true],
      [8000, false],
      [9001, true],
      [65000, false],
    ]);
  });
});
