import { asU32be, asU64be, attributeList, attributes, type Received, text } from '#kernel/netlink/wire.ts';
import { dataOf, decodeExpression, type Expression, type Verdict, verdictOf } from '#kernel/nft/expression.ts';
import { ELEMENT_INTERVAL_END, HOOK, type Hook, MSG, messageType } from '#kernel/nft/message.ts';

/** The kernel's whole ruleset as it dumps it, for reading: the host's firewall, the leak audit, the X-ray. */
export interface Ruleset {
  tables: TableInfo[];
  chains: ChainInfo[];
  rules: RuleInfo[];
  sets: SetInfo[];
}

export interface TableInfo {
  family: number;
  name: string;
}

export interface ChainInfo {
  family: number;
  table: string;
  name: string;
  base: { type: string; hook: Hook | number; priority: number; policy: 'accept' | 'drop' } | undefined;
}

export interface RuleInfo {
  family: number;
  table: string;
  chain: string;
  handle: bigint;
  expressions: Expression[];
  comment: string | undefined;
}

export interface SetInfo {
  family: number;
  table: string;
  name: string;
  flags: number;
  keyType: number;
  keyBytes: number;
  elements: ElementInfo[];
}

export interface ElementInfo {
  key: Uint8Array;
  keyEnd: Uint8Array | undefined;
  data: Uint8Array | undefined;
  verdict: Verdict | undefined;
  intervalEnd: boolean;
}

const NFGEN_BYTES = 4;
const NOTHING = new Uint8Array();
const FOUR = new Uint8Array(4);

export function parseTables(messages: readonly Received[]): TableInfo[] {
  return of(messages, MSG.NEWTABLE).map(({ family, a }) => ({ family, name: text(a.get(1) ?? NOTHING) }));
}

export function parseChains(messages: readonly Received[]): ChainInfo[] {
  return of(messages, MSG.NEWCHAIN).map(({ family, a }) => {
    const hook = a.get(4);
    return {
      family,
      table: text(a.get(1) ?? NOTHING),
      name: text(a.get(3) ?? NOTHING),
      base: hook && baseOf(hook, asU32be(a.get(5) ?? FOUR), text(a.get(7) ?? NOTHING)),
    };
  });
}

export function parseRules(messages: readonly Received[]): RuleInfo[] {
  return of(messages, MSG.NEWRULE).map(({ family, a }) => ({
    family,
    table: text(a.get(1) ?? NOTHING),
    chain: text(a.get(2) ?? NOTHING),
    handle: asU64be(a.get(3) ?? new Uint8Array(8)),
    expressions: attributeList(a.get(4) ?? NOTHING).map(([, value]) => decodeExpression(value)),
    comment: commentOf(a.get(7)),
  }));
}

export function parseSets(messages: readonly Received[]): SetInfo[] {
  return of(messages, MSG.NEWSET).map(({ family, a }) => ({
    family,
    table: text(a.get(1) ?? NOTHING),
    name: text(a.get(2) ?? NOTHING),
    flags: asU32be(a.get(3) ?? FOUR),
    keyType: asU32be(a.get(4) ?? FOUR),
    keyBytes: asU32be(a.get(5) ?? FOUR),
    elements: [],
  }));
}

export function parseElements(messages: readonly Received[]): ElementInfo[] {
  return of(messages, MSG.NEWSETELEM).flatMap(({ a }) =>
    attributeList(a.get(3) ?? NOTHING).map(([, value]) => {
      const e = attributes(value);
      return {
        key: dataOf(e.get(1)) ?? NOTHING,
        keyEnd: dataOf(e.get(10)),
        data: dataOf(e.get(2)),
        verdict: verdictOf(e.get(2)),
        intervalEnd: (asU32be(e.get(3) ?? FOUR) & ELEMENT_INTERVAL_END) !== 0,
      };
    }),
  );
}

/** NFTA_GEN_ID of the answer to `getGeneration`. */
export function parseGeneration(messages: readonly Received[]): number {
  return of(messages, MSG.NEWGEN).map(({ a }) => asU32be(a.get(1) ?? FOUR))[0] ?? 0;
}

function of(messages: readonly Received[], type: number): { family: number; a: ReadonlyMap<number, Uint8Array> }[] {
  return messages
    .filter((message) => message.type === messageType(type))
    .map((message) => ({ family: message.body[0] ?? 0, a: attributes(message.body.subarray(NFGEN_BYTES)) }));
}

function baseOf(hook: Uint8Array, policy: number, type: string): ChainInfo['base'] {
  const a = attributes(hook);
  const number = asU32be(a.get(1) ?? FOUR);
  const named = (Object.keys(HOOK) as Hook[]).find((name) => HOOK[name] === number);
  return {
    type,
    hook: named ?? number,
    priority: asU32be(a.get(2) ?? FOUR) | 0,
    policy: policy === 0 ? 'drop' : 'accept',
  };
}

function commentOf(userData: Uint8Array | undefined): string | undefined {
  if (userData?.[0] !== 0) return undefined;
  return text(userData.subarray(2, 2 + (userData[1] ?? 0)));
}
