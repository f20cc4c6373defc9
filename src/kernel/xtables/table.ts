import { assert } from '#base/errors.ts';
import type { Family } from '#kernel/netlink/ip.ts';
import { text } from '#kernel/netlink/wire.ts';
import type { Expression } from '#kernel/nft/expression.ts';
import { IP_PROTO, PRIORITY } from '#kernel/nft/facts.ts';
import type { Hook } from '#kernel/nft/message.ts';
import type { ChainInfo, RuleInfo, Ruleset, SetInfo } from '#kernel/nft/ruleset.ts';
import { type Extension, fieldOf, headerMatches, readMatch } from '#kernel/xtables/match.ts';

/**
 * A filter table of iptables-legacy (x_tables), as nftables would say it: whoever reads the host's firewall has one language.
 * nftables shows nothing of it, nor tells when it changes.
 *
 *     struct ipt_getinfo │ entry │ entry │ …        hooks' first entries and policies by their offset
 *     entry:  conditions of the IP header · offsets of target and next entry · counters │ match … │ target
 *
 * A chain is a run of entries: that of a hook ends in its policy, one of the user's begins behind an ERROR target with its name and
 * ends in a RETURN. A jump's target is an offset (linux/netfilter/x_tables.h, linux/netfilter_ipv4/ip_tables.h, …ipv6/ip6_tables.h).
 */
export const LEGACY_TABLE = 'filter of iptables-legacy';
/** The one table of x_tables that is asked at input and forward to let in or keep out. */
export const XT_FILTER = 'filter';

const INFO = { hooksAt: 32, entryAt: 36, underflowAt: 56, bytes: 84 } as const;
/** Where ipt_entry and ip6t_entry hold the same, and what a goto is in their flags. */
const ENTRY = {
  4: { flags: 82, targetOffset: 88, nextOffset: 90, counters: 96, bytes: 112, goto: 2 },
  6: { flags: 131, targetOffset: 140, nextOffset: 142, counters: 152, bytes: 168, goto: 4 },
} as const;
const COUNTERS_BYTES = 16;
/** Head of struct xt_entry_match and xt_entry_target: size, name, revision. */
const EXTENSION = { nameAt: 2, nameBytes: 29, revisionAt: 31, bytes: 32 } as const;
const NF_INET: readonly [number: number, chain: string, hook: Hook][] = [
  [1, 'INPUT', 'input'],
  [2, 'FORWARD', 'forward'],
  [3, 'OUTPUT', 'output'],
];
/** Of a standard target: -1 - NF_DROP, …; from 0 up, the offset to go on at. */
const STANDARD: ReadonlyMap<number, 'accept' | 'drop' | 'return'> = new Map([
  [-1, 'drop'],
  [-2, 'accept'],
  [-5, 'return'],
]);
/** Targets behind which the next rule is asked: they log, mark or count, and so neither let in nor keep out. */
const GOES_ON: ReadonlySet<string> = new Set([
  'AUDIT',
  'CLASSIFY',
  'CONNMARK',
  'LOG',
  'MARK',
  'NFLOG',
  'SET',
  'TCPMSS',
  'TRACE',
]);

interface Entry {
  at: number;
  end: number;
  bytes: Uint8Array;
  matches: Extension[];
  target: Extension;
}

/** Pure. Of what `NetKernel.xtables` answers; nothing is no rules. Handles are the numbers of rules, as `iptables -D` takes them. */
export function parseXtables(family: Family, answer: Uint8Array): Ruleset {
  if (answer.length === 0) return { tables: [], chains: [], rules: [], sets: [] };
  const place = { family: IP_PROTO[family], table: LEGACY_TABLE };
  const entries = entriesOf(family, answer);
  const hooks = hooksOf(answer);
  const starts = startsOf(entries, hooks);
  const chains: ChainInfo[] = [...starts.values()].map((name) => ({ ...place, name, base: undefined }));
  const rules: RuleInfo[] = [];
  const sets: SetInfo[] = [];
  const newSet = (set: Omit<SetInfo, 'family' | 'table' | 'name'>): string => {
    const name = `ports ${sets.length}`;
    sets.push({ ...place, name, ...set });
    return name;
  };
  let chain: string | undefined;
  let number = 0n;
  for (const entry of entries) {
    const begun = starts.get(entry.at);
    if (begun !== undefined) [chain, number] = [begun, 0n];
    if (chain === undefined || isHead(entry)) continue;
    number++;
    const base = hooks.find(({ name, underflow }) => name === chain && underflow === entry.at);
    if (base) {
      const policy = STANDARD.get(verdictOf(entry)) === 'accept' ? 'accept' : 'drop';
      const info = chains.find(({ name }) => name === chain);
      if (info) info.base = { type: 'filter', hook: base.hook, priority: PRIORITY.filter, policy };
      chain = undefined;
      continue;
    }
    const end = endOf(family, entry, starts);
    if (!end) continue;
    const said = [
      ...headerMatches(family, entry.bytes),
      ...entry.matches.flatMap((match) => readMatch(family, match, newSet)),
    ];
    // Conditions hold in any order; what is not understood stands last, so that all the rest counts.
    const expressions = [
      ...said.filter(({ expr }) => expr !== 'unknown'),
      ...said.filter(({ expr }) => expr === 'unknown'),
      end,
    ];
    rules.push({ ...place, chain, handle: number, expressions, comment: undefined });
  }
  return { tables: [{ family: place.family, name: LEGACY_TABLE }], chains, rules, sets };
}

/** The same table with its counters at nought, to be compared with another look at it. */
export function withoutCounters(family: Family, answer: Uint8Array): Uint8Array {
  const out = new Uint8Array(answer);
  for (const { at } of answer.length === 0 ? [] : entriesOf(family, answer)) {
    const from = INFO.bytes + at + ENTRY[family].counters;
    out.fill(0, from, from + COUNTERS_BYTES);
  }
  return out;
}

function entriesOf(family: Family, answer: Uint8Array): Entry[] {
  const layout = ENTRY[family];
  const table = new Uint8Array(answer.subarray(INFO.bytes)); // not a Buffer, whose slices share its bytes
  const entries: Entry[] = [];
  for (let at = 0; at < table.length; ) {
    const next = fieldOf(table, at + layout.nextOffset, 2);
    const targetAt = fieldOf(table, at + layout.targetOffset, 2);
    assert(
      targetAt >= layout.bytes && next >= targetAt + EXTENSION.bytes && at + next <= table.length,
      'x_tables entries follow each other',
    );
    const bytes = table.subarray(at, at + next);
    entries.push({
      at,
      end: at + next,
      bytes,
      matches: extensionsOf(bytes.subarray(layout.bytes, targetAt)),
      target: extensionOf(bytes.subarray(targetAt)),
    });
    at += next;
  }
  return entries;
}

function extensionsOf(bytes: Uint8Array): Extension[] {
  const found: Extension[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = fieldOf(bytes, at, 2);
    assert(size >= EXTENSION.bytes && at + size <= bytes.length, 'x_tables matches follow each other');
    found.push(extensionOf(bytes.subarray(at, at + size)));
    at += size;
  }
  return found;
}

function extensionOf(bytes: Uint8Array): Extension {
  return {
    name: text(bytes.subarray(EXTENSION.nameAt, EXTENSION.nameAt + EXTENSION.nameBytes)),
    revision: fieldOf(bytes, EXTENSION.revisionAt, 1),
    data: bytes.subarray(EXTENSION.bytes),
  };
}

function hooksOf(answer: Uint8Array): { name: string; hook: Hook; entry: number; underflow: number }[] {
  const valid = fieldOf(answer, INFO.hooksAt, 4);
  return NF_INET.filter(([number]) => (valid & (1 << number)) !== 0).map(([number, name, hook]) => ({
    name,
    hook,
    entry: fieldOf(answer, INFO.entryAt + 4 * number, 4),
    underflow: fieldOf(answer, INFO.underflowAt + 4 * number, 4),
  }));
}

/** Offset of a chain's first rule, or of its end → its name. */
function startsOf(entries: readonly Entry[], hooks: readonly { name: string; entry: number }[]): Map<number, string> {
  const starts = new Map(hooks.map(({ name, entry }) => [entry, name]));
  // The last ERROR ends the table.
  for (const { end, target } of entries.filter(isHead).slice(0, -1)) starts.set(end, text(target.data));
  return starts;
}

function isHead({ target }: Entry): boolean {
  return target.name === 'ERROR';
}

function verdictOf({ target }: Entry): number {
  return fieldOf(target.data, 0, 4) | 0;
}

/** What the rule does with a packet that it fits; undefined: it goes on to the next. */
function endOf(family: Family, entry: Entry, starts: ReadonlyMap<number, string>): Expression | undefined {
  const { name, data } = entry.target;
  if (name !== '') return readTarget(entry.target);
  const number = verdictOf(entry);
  if (number === entry.end) return undefined; // a rule without a target
  const verdict = STANDARD.get(number);
  if (verdict) return { expr: 'verdict', verdict };
  const chain = starts.get(number);
  if (chain === undefined) return { expr: 'unknown', name: 'target QUEUE', data };
  const isGoto = (fieldOf(entry.bytes, ENTRY[family].flags, 1) & ENTRY[family].goto) !== 0;
  return { expr: 'verdict', verdict: isGoto ? 'goto' : 'jump', chain };
}

/** Undefined: the next rule is asked. */
export function readTarget({ name, data }: Extension): Expression | undefined {
  if (GOES_ON.has(name)) return undefined;
  if (name === 'REJECT') return { expr: 'reject', type: 0, code: 0 };
  return { expr: 'unknown', name: `target ${name}`, data };
}
