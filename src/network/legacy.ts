import { createHash } from 'node:crypto';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import type { Family } from '#kernel/netlink/ip.ts';
import { FAMILIES } from '#kernel/nft/facts.ts';
import type { Ruleset } from '#kernel/nft/ruleset.ts';
import { parseXtables, withoutCounters, XT_FILTER } from '#kernel/xtables/table.ts';

/** What iptables-legacy and ip6tables-legacy hold, as it was read. */
export interface LegacyTables {
  answers: readonly { family: Family; answer: Uint8Array }[];
  /** Equal where rules are: the kernel tells nobody that they have changed. */
  mark: string;
}

/** Cheap where nobody uses it: two names of files that are not there, or empty. */
export async function readLegacy(kernel: Pick<NetKernel, 'xtables'>): Promise<LegacyTables> {
  const answers = await Promise.all(
    FAMILIES.map(async (family) => ({ family, answer: await kernel.xtables(family, XT_FILTER) })),
  );
  const used = answers.filter(({ answer }) => answer.length > 0);
  if (used.length === 0) return { answers: used, mark: '' };
  const hash = createHash('sha256');
  for (const { family, answer } of used) hash.update(`${family} `).update(withoutCounters(family, answer));
  return { answers: used, mark: hash.digest('hex') };
}

/** Pure. Beside what nftables holds, in its words. */
export function withLegacy(ruleset: Ruleset, { answers }: LegacyTables): Ruleset {
  const legacy = answers.map(({ family, answer }) => parseXtables(family, answer));
  return {
    tables: [...ruleset.tables, ...legacy.flatMap(({ tables }) => tables)],
    chains: [...ruleset.chains, ...legacy.flatMap(({ chains }) => chains)],
    rules: [...ruleset.rules, ...legacy.flatMap(({ rules }) => rules)],
    sets: [...ruleset.sets, ...legacy.flatMap(({ sets }) => sets)],
  };
}
