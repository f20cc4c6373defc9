import type { Message } from '#kernel/netlink/wire.ts';
import {
  type Expression,
  FIB,
  ifname,
  META,
  PAYLOAD_NETWORK,
  PAYLOAD_TRANSPORT,
  type Verdict,
} from '#kernel/nft/expression.ts';
import {
  addChain,
  addElements,
  addRule,
  addSet,
  deleteChain,
  deleteRules,
  deleteSet,
  NFPROTO,
  SET_FLAG,
} from '#kernel/nft/message.ts';
import type { ChainInfo, RuleInfo, Ruleset, SetInfo } from '#kernel/nft/ruleset.ts';
import { LEGACY_TABLE } from '#kernel/xtables/table.ts';
import { CHAIN, tableOf } from '#network/ruleset.ts';

/**
 * The host's firewall, of nftables and of iptables-legacy (legacy.ts), holds for published ports: a new connection to host port P passes only if a listener of the host on P
 * would be reachable from there. DNAT would carry it past the host's input rules, so our table asks a copy of them first, at
 * prerouting before DNAT, where link, addresses and ports are still what the client sent.
 *
 * Understood: links (iif, iifname), addresses and their types, protocol, ports, TCP's flags, conntrack state and status, anonymous and
 * named sets of those;
 * accept, drop, reject, jump, goto, return; policy; any number of base chains. A rule outside that is treated as closed: if it
 * could accept, it is left out; if it could drop, it drops all that its understood part matches. Each is reported.
 *
 * An accept in one base chain of a hook only ends that chain; the next still has its say. So the copies stand in a row, and
 * accept goes to the next one:   host-input ─▶ h0 ─ accept ─▶ h1 ─ accept ─▶ accept
 */
export interface HostGate {
  /** Empties and fills the gate in one transaction. */
  messages: Message[];
  notes: FirewallNote[];
  /** Chains and sets made, to be taken away by the next one. */
  made: { chains: string[]; sets: string[] };
}

export interface FirewallNote {
  /** `closed`: a rule we do not understand. `forward-drop`: one that stops our containers' traffic whatever we allow (transit.ts). */
  kind: 'closed' | 'forward-drop';
  where: string;
  says: string;
  fix: string;
  /** Whose containers a `forward-drop` concerns. */
  bridges?: readonly string[];
}

/** In TCP's header. */
export const TCP_FLAGS_AT = 13;

export function compileHostGate(daemon: string, ruleset: Ruleset, before: HostGate['made']): HostGate {
  const foreign: Ruleset = {
    tables: ruleset.tables,
    chains: ruleset.chains.filter((chain) => !isOwn(daemon, chain.family, chain.table)),
    rules: ruleset.rules,
    sets: ruleset.sets,
  };
  const copies = (['any', 'lo'] as const).map((from) => new GateCopy(daemon, foreign, from).compile());
  const t = tableOf(daemon);
  return {
    messages: [
      ...[CHAIN.host, CHAIN.hostLocal].map((chain) => deleteRules(t, chain)),
      // Rules first, then chains, then sets: nothing that is still referred to can be deleted.
      ...before.chains.map((chain) => deleteRules(t, chain)),
      ...before.chains.map((chain) => deleteChain(t, chain)),
      ...before.sets.map((set) => deleteSet(t, set)),
      ...copies.flatMap((copy) => [...copy.sets, ...copy.chains, ...copy.rules]),
    ],
    notes: copies[0]?.notes ?? [],
    made: {
      chains: copies.flatMap((copy) => copy.chainNames),
      sets: copies.flatMap((copy) => copy.setNames),
    },
  };
}

/** Base chains of others at a hook, in the order in which they are asked. */
export function baseChains(
  daemon: string,
  { chains }: Pick<Ruleset, 'chains'>,
  hook: 'input' | 'forward',
): ChainInfo[] {
  return chains
    .filter(
      ({ base, family, table }) =>
        base?.hook === hook && base.type === 'filter' && isInternet(family) && !isOwn(daemon, family, table),
    )
    .sort((a, b) => (a.base?.priority ?? 0) - (b.base?.priority ?? 0));
}

class GateCopy {
  readonly sets: Message[] = [];
  readonly chains: Message[] = [];
  readonly rules: Message[] = [];
  readonly notes: FirewallNote[] = [];
  readonly chainNames: string[] = [];
  readonly setNames: string[] = [];
  readonly #daemon: string;
  readonly #ruleset: Ruleset;
  readonly #from: 'any' | 'lo';
  readonly #copied = new Map<string, string>();
  readonly #copiedSets = new Map<string, string>();

  constructor(daemon: string, ruleset: Ruleset, from: 'any' | 'lo') {
    this.#daemon = daemon;
    this.#ruleset = ruleset;
    this.#from = from;
  }

  compile(): this {
    const t = tableOf(this.#daemon);
    const entry = this.#from === 'lo' ? CHAIN.hostLocal : CHAIN.host;
    const bases = baseChains(this.#daemon, this.#ruleset, 'input');
    let next: Verdict = { verdict: 'accept' };
    // From the last to the first, so that each knows where its accept leads.
    for (const [index, base] of [...bases.entries()].reverse()) {
      const name = this.#chainName(`b${index}`);
      this.#copyRules(base, name, next);
      // An accept policy is an accept like any other; a family's chain says nothing about the other family.
      const end: Verdict = base.base?.policy === 'drop' ? { verdict: 'drop' } : next;
      this.rules.push(addRule(t, name, [...familyOf(base.family), verdict(end)]));
      if (base.family !== NFPROTO.INET) this.rules.push(addRule(t, name, [verdict(next)]));
      next = { verdict: 'goto', chain: name };
    }
    this.rules.push(addRule(t, entry, [verdict(next)]));
    return this;
  }

  #chainName(suffix: string): string {
    const name = `h-${this.#from}-${suffix}`;
    this.chainNames.push(name);
    this.chains.push(addChain(tableOf(this.#daemon), name));
    return name;
  }

  #copyRules(chain: ChainInfo, name: string, onAccept: Verdict): void {
    const rules = this.#ruleset.rules.filter(
      (rule) => rule.family === chain.family && rule.table === chain.table && rule.chain === chain.name,
    );
    for (const rule of rules) this.#copyRule(rule, chain, name, onAccept);
  }

  #copyRule(rule: RuleInfo, chain: ChainInfo, name: string, onAccept: Verdict): void {
    const out: Expression[] = [...familyOf(chain.family)];
    let closed: string | undefined;
    for (const expression of rule.expressions) {
      if (expression.expr === 'counter' || expression.expr === 'log') continue; // the original counts and logs, if it is asked
      if (expression.expr === 'verdict') {
        const end = closed === undefined ? this.#translate(expression, chain, onAccept) : closedVerdict(expression);
        if (end) out.push(verdict(end));
        else out.length = 0;
        continue;
      }
      if (expression.expr === 'reject') {
        out.push(verdict({ verdict: 'drop' }));
        continue;
      }
      const copy = closed === undefined ? this.#copyExpression(expression, chain) : undefined;
      if (copy) out.push(copy);
      else closed ??= expression.expr === 'unknown' ? expression.name : expression.expr;
    }
    if (closed !== undefined) this.#note(rule, closed);
    // A rule that ends in no verdict only counts, logs or marks. One with an unknown target may do anything: closed.
    const last = out.at(-1);
    if (last?.expr === 'verdict') this.rules.push(addRule(tableOf(this.#daemon), name, out));
    else if (closed !== undefined && out.length > 0 && isTarget(rule))
      this.rules.push(addRule(tableOf(this.#daemon), name, [...out, verdict({ verdict: 'drop' })]));
  }

  /** What the copy does where the original says `to`; undefined: nothing. */
  #translate(to: Verdict, chain: ChainInfo, onAccept: Verdict): Verdict | undefined {
    switch (to.verdict) {
      case 'accept':
        return onAccept;
      case 'drop':
        return to;
      case 'return':
        // In a base chain return means its policy; the copy's last rule says that.
        return chain.base ? (chain.base.policy === 'drop' ? { verdict: 'drop' } : onAccept) : to;
      case 'continue':
        return undefined;
      default:
        return { verdict: to.verdict, chain: this.#copyChain(chain, to.chain, onAccept) };
    }
  }

  #copyChain(from: ChainInfo, chain: string, onAccept: Verdict): string {
    const key = `${from.family} ${from.table} ${chain} ${JSON.stringify(onAccept)}`;
    const known = this.#copied.get(key);
    if (known) return known;
    const name = this.#chainName(`c${this.#copied.size}`);
    this.#copied.set(key, name);
    const info = this.#ruleset.chains.find(
      (c) => c.family === from.family && c.table === from.table && c.name === chain,
    );
    if (info) this.#copyRules(info, name, onAccept);
    return name;
  }

  #copyExpression(e: Expression, chain: ChainInfo): Expression | undefined {
    switch (e.expr) {
      case 'cmp':
      case 'range':
      case 'bitwise':
      case 'immediate':
        return e;
      case 'ct':
        return e.key <= 2 && e.direction === undefined ? e : undefined; // state, direction, status
      case 'meta':
        return this.#copyMeta(e);
      case 'payload':
        return isUnderstoodPayload(e) ? e : undefined;
      case 'lookup': {
        if (e.dreg !== undefined) return undefined;
        const set = this.#copySet(chain, e.set);
        return set === undefined ? undefined : { ...e, set };
      }
      case 'fib':
        return e.result === FIB.RESULT_ADDRTYPE && (e.flags & (FIB.IIF | FIB.OIF)) === 0 ? e : undefined;
      default:
        return undefined;
    }
  }

  #copyMeta(e: Expression & { expr: 'meta' }): Expression | undefined {
    if (!isUnderstoodMeta(e.key)) return undefined;
    if (this.#from === 'any') return e;
    // At the output hook there is no link in yet; the copy for our own connections sees the loopback, as input would.
    if (e.key === META.IIFNAME) return { expr: 'immediate', dreg: e.dreg, data: ifname('lo') };
    if (e.key === META.IIF) return { expr: 'immediate', dreg: e.dreg, data: Uint8Array.of(1, 0, 0, 0) };
    return e;
  }

  #copySet(chain: ChainInfo, name: string): string | undefined {
    const set = this.#ruleset.sets.find((s) => s.family === chain.family && s.table === chain.table && s.name === name);
    if (!set || !isUnderstoodSet(set)) return undefined;
    const key = `${chain.family} ${chain.table} ${name}`;
    const known = this.#copiedSets.get(key);
    if (known) return known;
    const t = tableOf(this.#daemon);
    const copy = `h-${this.#from}-s${this.#copiedSets.size}`;
    this.#copiedSets.set(key, copy);
    this.setNames.push(copy);
    const id = 1000 + this.setNames.length;
    const interval = (set.flags & SET_FLAG.INTERVAL) !== 0;
    this.sets.push(addSet(t, { name: copy, keyType: set.keyType, keyBytes: set.keyBytes, interval, id }));
    if (set.elements.length > 0)
      this.sets.push(
        addElements(
          t,
          copy,
          set.elements.map((e) => ({ key: e.key, ...(e.intervalEnd ? { intervalEnd: true } : {}) })),
        ),
      );
    return copy;
  }

  #note(rule: RuleInfo, what: string): void {
    this.notes.push({
      kind: 'closed',
      where: placeOf(rule, rule.handle),
      says: `uses ${what}, which Estiba does not evaluate: published ports are treated as if it kept them closed`,
      fix: 'add a plain accept rule for the published port before it, or express it by link, address, port and state',
    });
  }
}

/** A rule we do not understand in full: what would let in does nothing, what would keep out keeps out more. */
function closedVerdict(of: Verdict): Verdict | undefined {
  return of.verdict === 'accept' || of.verdict === 'continue' ? undefined : { verdict: 'drop' };
}

/** Ends in something that may do anything with the packet. */
export function isTarget(rule: RuleInfo): boolean {
  const last = rule.expressions.at(-1);
  return last?.expr === 'unknown' && ['target', 'queue'].includes(last.name.split(' ')[0] ?? '');
}

/** For people: a chain, or a rule by its handle, which in iptables-legacy is its number in the chain. */
export function placeOf(
  { family, table, chain }: Pick<RuleInfo, 'family' | 'table' | 'chain'>,
  handle?: bigint,
): string {
  if (table !== LEGACY_TABLE)
    return `${familyName(family)} ${table} ${chain}${handle === undefined ? '' : ` handle ${handle}`}`;
  return `${legacyTool(family)} ${chain}${handle === undefined ? '' : ` rule ${handle}`}`;
}

export function legacyTool(family: number): string {
  return family === NFPROTO.IPV6 ? 'ip6tables-legacy' : 'iptables-legacy';
}

export function isUnderstoodMeta(key: number): boolean {
  const understood: number[] = [META.IIF, META.IIFNAME, META.NFPROTO, META.L4PROTO, META.PROTOCOL];
  return understood.includes(key);
}

export function isUnderstoodPayload(e: Expression & { expr: 'payload' }): boolean {
  if (e.base === PAYLOAD_NETWORK) return true;
  if (e.base !== PAYLOAD_TRANSPORT) return false;
  return e.offset + e.length <= 4 || (e.offset === TCP_FLAGS_AT && e.length === 1); // the two ports, TCP's flags
}

/** Concatenations with intervals and sets with time-outs are outside: their elements would have to be followed closely. */
export function isUnderstoodSet(set: SetInfo): boolean {
  return (set.flags & (SET_FLAG.MAP | SET_FLAG.TIMEOUT | SET_FLAG.CONCAT)) === 0;
}

function familyOf(family: number): Expression[] {
  if (family === NFPROTO.INET) return [];
  return [
    { expr: 'meta', key: META.NFPROTO, dreg: 1 },
    { expr: 'cmp', sreg: 1, op: 0, data: Uint8Array.of(family) },
  ];
}

function isInternet(family: number): boolean {
  return family === NFPROTO.INET || family === NFPROTO.IPV4 || family === NFPROTO.IPV6;
}

function isOwn(daemon: string, family: number, table: string): boolean {
  const own = tableOf(daemon);
  return family === own.family && table === own.table;
}

export function familyName(family: number): string {
  const names: Record<number, string> = { 1: 'inet', 2: 'ip', 3: 'arp', 5: 'netdev', 7: 'bridge', 10: 'ip6' };
  return names[family] ?? `family ${family}`;
}

function verdict(of: Verdict): Expression {
  return { expr: 'verdict', ...of };
}
