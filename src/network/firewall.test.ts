import { expect, it } from 'vitest';
import type { Expression } from '#kernel/nft/expression.ts';
import type { Ruleset } from '#kernel/nft/ruleset.ts';
import { compileHostGate } from '#network/firewall.ts';
import { anyLink, reachOf } from '#network/reach.ts';

const input = { family: 1, table: 'fw', name: 'input' };
const rulesetOf = (expressions: Expression[]): Ruleset => ({
  tables: [{ family: 1, name: 'fw' }],
  chains: [{ ...input, base: { type: 'filter', hook: 'input', priority: 0, policy: 'accept' } }],
  rules: [{ family: 1, table: 'fw', chain: 'input', handle: 7n, expressions, comment: undefined }],
  sets: [],
});
const ends = (name: string): Expression => ({ expr: 'unknown', name, data: new Uint8Array() });

// This machine's kernel may know none of them: so no host test.
it.each(['queue', 'target', 'target NFQUEUE'])('a rule that ends in %s keeps closed what it fits', (name) => {
  const ruleset = rulesetOf([ends(name)]);
  const target = { protocol: 'tcp', port: 8080, address: '192.0.2.2' } as const;
  expect(reachOf('estiba', ruleset, target, [anyLink])).toMatchObject([{ open: [], depends: [] }]);
  const { notes } = compileHostGate('estiba', ruleset, { chains: [], sets: [] });
  expect(notes).toMatchObject([{ kind: 'closed', where: 'inet fw input handle 7' }]);
});
