import { expect, it } from 'vitest';
import { attr, concat, str, u32be } from '#kernel/netlink/wire.ts';
import type { Expression } from '#kernel/nft/expression.ts';
import { withoutCompat } from '#kernel/xtables/compat.ts';

/** As the kernel dumps one: NFTA_MATCH_NAME, _REV, _INFO, of a target likewise. */
const hung = (kind: 'match' | 'target', name: string, revision: number, info: Uint8Array): Expression => ({
  expr: 'unknown',
  name: kind,
  data: concat([str(1, name), u32be(2, revision), attr(3, info)]),
});
const rulesOf = (...lists: Expression[][]) =>
  withoutCompat({
    tables: [],
    chains: [],
    rules: lists.map((expressions, n) => {
      return { family: 2, table: 'filter', chain: 'INPUT', handle: BigInt(n), expressions, comment: undefined };
    }),
    sets: [],
  });
const counter: Expression = { expr: 'counter', bytes: 0n, packets: 0n };
const accept: Expression = { expr: 'verdict', verdict: 'accept' };
const limit = hung('match', 'limit', 0, new Uint8Array(40));

it('what iptables hangs into a rule of nftables is said in its words, and what is not understood stands last', () => {
  const ports = Uint8Array.from({ length: 48 }, (_, at) => ({ 0: 1, 1: 1, 2: 80 })[at] ?? 0);
  const { rules, sets } = rulesOf([
    limit,
    hung('match', 'comment', 0, new Uint8Array(256)),
    hung('match', 'multiport', 1, ports),
    hung('match', 'state', 0, Uint8Array.of(8, 0, 0, 0)),
    counter,
    accept,
  ]);
  expect(rules[0]?.expressions).toMatchObject([
    { expr: 'payload', offset: 2 },
    { expr: 'lookup', set: sets[0]?.name },
    { expr: 'ct' },
    { expr: 'bitwise' },
    { expr: 'cmp' },
    counter,
    { expr: 'unknown', name: 'match limit' },
    accept,
  ]);
  expect(sets).toMatchObject([{ family: 2, table: 'filter', keyBytes: 2 }]);
});

it('a target that only logs makes a rule that says nothing; REJECT is one, and any other may do anything', () => {
  const { rules } = rulesOf(
    [limit, hung('target', 'LOG', 0, new Uint8Array(40))],
    [hung('target', 'REJECT', 0, new Uint8Array(8))],
    [hung('target', 'NFQUEUE', 3, new Uint8Array(8))],
  );
  expect(rules.map(({ handle, expressions: [end] }) => [handle, end])).toMatchObject([
    [1n, { expr: 'reject' }],
    [2n, { expr: 'unknown', name: 'target NFQUEUE' }],
  ]);
});

it('rules of nftables alone stay as they are', () => {
  const plain: Expression[] = [{ expr: 'unknown', name: 'quota', data: new Uint8Array() }, counter, accept];
  expect(rulesOf(plain).rules[0]?.expressions).toBe(plain);
});
