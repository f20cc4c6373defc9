import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ipBytes, parseIp } from '#kernel/netlink/ip.ts';
import { type Message, NETLINK_NETFILTER } from '#kernel/netlink/wire.ts';
import { ADDRTYPE_LOCAL, CMP, concatKey, FIB, ifname, META, portBytes, REG_1, reg32 } from '#kernel/nft/expression.ts';
import {
  addChain,
  addElements,
  addRule,
  addSet,
  addTable,
  batch,
  concatType,
  DATATYPE,
  deleteElements,
  deleteTable,
  dumpChains,
  dumpElements,
  dumpRules,
  dumpSets,
  getGeneration,
  NFPROTO,
} from '#kernel/nft/message.ts';
import { parseChains, parseElements, parseGeneration, parseRules, parseSets } from '#kernel/nft/ruleset.ts';
import { NetWorld } from '../../../test/net/world.ts';

const T = { family: NFPROTO.INET, table: 'estiba-test' };

describe('nftables against this kernel and nft', () => {
  let world: NetWorld;
  let ns: string;
  const send = (messages: readonly Message[], what = 'test') =>
    world.hand.netlink({ what, protocol: NETLINK_NETFILTER, netns: ns, messages });

  beforeAll(async () => {
    world = new NetWorld('network-nft');
    ns = await world.netns('a');
  });
  afterAll(() => world.close());

  it('a table with maps, verdict maps and rules reads in nft as it was meant', async () => {
    await send(
      batch([
        addTable(T),
        addChain(T, 'tcp-in'),
        addChain(T, 'pre', { type: 'nat', hook: 'prerouting', priority: -100, policy: 'accept' }),
        addChain(T, 'fwd', { type: 'filter', hook: 'forward', priority: 0, policy: 'drop' }),
        addSet(T, {
          name: 'publish',
          keyType: concatType(DATATYPE.inetProto, DATATYPE.inetService),
          keyBytes: 8,
          fields: [1, 2],
          data: { type: concatType(DATATYPE.ipv4, DATATYPE.inetService), bytes: 8 },
          id: 1,
        }),
        addSet(T, { name: 'by-link', keyType: DATATYPE.ifname, keyBytes: 16, data: 'verdict', id: 2 }),
        addSet(T, { name: 'nets', keyType: DATATYPE.ipv4, keyBytes: 4, interval: true, id: 3 }),
        addElements(T, 'publish', [
          {
            key: concatKey(Uint8Array.of(6), portBytes(8080)),
            data: concatKey(ipBytes(parseIp('10.0.0.2')), portBytes(80)),
          },
        ]),
        addElements(T, 'by-link', [{ key: ifname('eth0'), verdict: { verdict: 'jump', chain: 'tcp-in' } }]),
        addElements(T, 'nets', [
          { key: ipBytes(parseIp('10.0.0.0')) },
          { key: ipBytes(parseIp('10.1.0.0')), intervalEnd: true },
        ]),
        addRule(
          T,
          'pre',
          [
            { expr: 'meta', key: META.NFPROTO, dreg: REG_1 },
            { expr: 'cmp', sreg: REG_1, op: CMP.EQ, data: Uint8Array.of(NFPROTO.IPV4) },
            { expr: 'fib', dreg: REG_1, result: FIB.RESULT_ADDRTYPE, flags: FIB.DADDR },
            { expr: 'cmp', sreg: REG_1, op: CMP.EQ, data: Uint8Array.of(ADDRTYPE_LOCAL, 0, 0, 0) },
            { expr: 'meta', key: META.L4PROTO, dreg: REG_1 },
            { expr: 'payload', dreg: reg32(1), base: 2, offset: 2, length: 2 },
            { expr: 'lookup', sreg: REG_1, set: 'publish', dreg: REG_1 },
            { expr: 'nat', type: 'dnat', family: NFPROTO.IPV4, addr: REG_1, port: reg32(1) },
          ],
          'published',
        ),
        addRule(T, 'fwd', [
          { expr: 'meta', key: META.IIFNAME, dreg: REG_1 },
          { expr: 'lookup', sreg: REG_1, set: 'by-link', dreg: 0 },
        ]),
        addRule(T, 'fwd', [
          { expr: 'limit', rate: 5n, perSeconds: 1n, burst: 5, over: false },
          { expr: 'log', prefix: 'dropped: ' },
          { expr: 'counter', bytes: 0n, packets: 0n },
          { expr: 'reject', type: 2, code: 3 },
        ]),
      ]),
    );
    expect(world.run(ns, 'nft', '-s', 'list', 'ruleset')).toMatchSnapshot();
  });

  it('what was sent is what is dumped', async () => {
    const chains = parseChains(await send([dumpChains()]));
    expect(chains.map((c) => [c.name, c.base?.hook, c.base?.policy])).toEqual([
      ['tcp-in', undefined, undefined],
      ['pre', 'prerouting', 'accept'],
      ['fwd', 'forward', 'drop'],
    ]);
    const rules = parseRules(await send([dumpRules()]));
    expect(rules.map((r) => r.expressions.map((e) => e.expr).join(' '))).toEqual([
      'meta cmp fib cmp meta payload lookup nat',
      'meta lookup',
      'limit log counter reject',
    ]);
    expect(rules[0]?.comment).toBe('published');
    const sets = parseSets(await send([dumpSets()]));
    expect(sets.map((s) => s.name)).toEqual(['publish', 'by-link', 'nets']);
    const verdicts = parseElements(await send([dumpElements(T, 'by-link')]));
    expect(verdicts.map((e) => e.verdict)).toEqual([{ verdict: 'jump', chain: 'tcp-in' }]);
  });

  it('reads rules that nft wrote', async () => {
    world.run(ns, 'nft', 'add table ip filter');
    world.run(ns, 'nft', 'add chain ip filter input { type filter hook input priority 0; policy drop; }');
    world.run(ns, 'nft', 'add rule ip filter input iifname "lo" accept');
    world.run(ns, 'nft', 'add rule ip filter input ct state established,related accept');
    world.run(ns, 'nft', 'add rule ip filter input tcp dport { 22, 80-90 } ip saddr 10.0.0.0/8 accept');
    const rules = parseRules(await send([dumpRules()])).filter((r) => r.table === 'filter');
    expect(rules.map((r) => r.expressions)).toMatchObject([
      [{ expr: 'meta', key: META.IIFNAME }, { expr: 'cmp' }, { expr: 'verdict', verdict: 'accept' }],
      [{ expr: 'ct', key: 0 }, { expr: 'bitwise' }, { expr: 'cmp', op: CMP.NEQ }, { verdict: 'accept' }],
      [{ expr: 'meta', key: META.L4PROTO }, { expr: 'cmp' }, { expr: 'payload' }, { expr: 'lookup' }, {}, {}, {}],
    ]);
  });

  it('a transaction that fails anywhere changes nothing and names the message', async () => {
    const before = parseGeneration(await send([getGeneration()]));
    const bad = batch([addTable({ ...T, table: 'half' }), deleteElements(T, 'by-link', [{ key: ifname('nosuch') }])]);
    await expect(send(bad, 'half a change')).rejects.toThrow(/half a change: ENOENT.*message 3/);
    expect(world.run(ns, 'nft', 'list', 'tables')).not.toContain('half');
    expect(parseGeneration(await send([getGeneration()]))).toBe(before);
    await send(batch([deleteTable(T)]));
    expect(world.run(ns, 'nft', 'list', 'tables')).not.toContain('estiba-test');
  });
});
