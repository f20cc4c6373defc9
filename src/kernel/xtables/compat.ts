import type { Family } from '#kernel/netlink/ip.ts';
import { asU32be, attributes, text } from '#kernel/netlink/wire.ts';
import type { Expression } from '#kernel/nft/expression.ts';
import { FAMILIES, IP_PROTO } from '#kernel/nft/facts.ts';
import type { RuleInfo, Ruleset, SetInfo } from '#kernel/nft/ruleset.ts';
import { type Extension, type NewSet, readMatch } from '#kernel/xtables/match.ts';
import { readTarget } from '#kernel/xtables/table.ts';

/**
 * Rules of iptables on top of nftables, in nftables' own words: for what it has no expression, it hangs matches and targets of x_tables
 * into its rules, as NFTA_MATCH_NAME, _REV and _INFO (NFTA_TARGET_… likewise, linux/netfilter/nf_tables_compat.h). Pure.
 */
export function withoutCompat(ruleset: Ruleset): Ruleset {
  const sets: SetInfo[] = [];
  const rules = ruleset.rules.flatMap((rule) => {
    const family = FAMILIES.find((one) => IP_PROTO[one] === rule.family);
    const newSet: NewSet = (set) => {
      const name = `ports ${sets.length}`;
      sets.push({ family: rule.family, table: rule.table, name, ...set });
      return name;
    };
    return family !== undefined && rule.expressions.some(isCompat) ? said(family, rule, newSet) : [rule];
  });
  return { ...ruleset, rules, sets: [...ruleset.sets, ...sets] };
}

/** None where its target only logs, marks or counts. */
function said(family: Family, rule: RuleInfo, newSet: NewSet): RuleInfo[] {
  const expressions: Expression[] = [];
  const unknown: Expression[] = [];
  for (const expression of rule.expressions) {
    if (!isCompat(expression)) expressions.push(expression);
    else if (expression.name === 'match')
      for (const one of readMatch(family, extensionOf(expression.data), newSet))
        (one.expr === 'unknown' ? unknown : expressions).push(one);
    else {
      const end = readTarget(extensionOf(expression.data));
      if (!end) return [];
      expressions.push(end);
    }
  }
  // As in a table of x_tables: what is not understood stands last before the end, so that all the rest counts.
  return [{ ...rule, expressions: expressions.toSpliced(-1, 0, ...unknown) }];
}

function isCompat(e: Expression): e is Expression & { expr: 'unknown' } {
  return e.expr === 'unknown' && (e.name === 'match' || e.name === 'target');
}

function extensionOf(data: Uint8Array): Extension {
  const a = attributes(data);
  return {
    name: text(a.get(1) ?? NOTHING),
    revision: asU32be(a.get(2) ?? FOUR),
    data: new Uint8Array(a.get(3) ?? NOTHING), // not a Buffer, whose slices share its bytes
  };
}

const NOTHING = new Uint8Array();
const FOUR = new Uint8Array(4);
