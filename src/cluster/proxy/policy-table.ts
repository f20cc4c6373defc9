import {
  type Direction,
  merged,
  type PolicyPlan,
  type PolicyRule,
  type PortRange,
  type Range,
} from '#cluster/proxy/policy.ts';
import { tableOf } from '#cluster/proxy/table.ts';
import { bitsOf, type Family, ipBytes, parseIp } from '#kernel/netlink/ip.ts';
import type { Message } from '#kernel/netlink/wire.ts';
import { concatKey, type Expression, portBytes, REG_1, reg32 } from '#kernel/nft/expression.ts';
import { FAMILIES, IP_BYTES, IP_TYPE, IP_WORDS, PROTOCOL_NUMBER } from '#kernel/nft/facts.ts';
import { accept, counter, drop, isFamily, loadDaddr, loadDport, loadL4proto, loadSaddr } from '#kernel/nft/match.ts';
import {
  addChain,
  addElements,
  addRule,
  addSet,
  concatType,
  DATATYPE,
  deleteChain,
  deleteRules,
  deleteSet,
  type Element,
  flushSet,
  type SetSpec,
} from '#kernel/nft/message.ts';

/**
 * Policies in the table of Services. `policy-in` and `policy-out` (table.ts) send packets of those who are subject to a policy, by the
 * maps `subject-in` and `subject-out`, to the chain of their list of policies: each rule of these accepts, what is left is dropped.
 * Addresses and ports are sets, so a pod that comes or goes changes elements, and who is subject to nothing meets one look-up.
 *
 *     policy-in ─ ip daddr ─▶ chain of [a, b] ─ saddr @a-0 and port @a-0 ─▶ accept
 *                                             ─ … ─▶ drop
 */
export interface MadePolicies {
  chains: string[];
  sets: string[];
}

/** Set numbers in a batch must not meet those of the table's own sets. */
const FIRST_SET_ID = 10_000;
/** Elements in one message: an attribute ends at 64 KiB. */
const MESSAGE_ELEMENTS = 256;
const SIDES = { ingress: 'in', egress: 'out' } as const;

/** All of a plan, as new chains and sets; names carry `generation`, so that old and new stand beside each other in one transaction. */
export function createPolicies(
  daemon: string,
  plan: PolicyPlan,
  generation: number,
): { messages: Message[]; made: MadePolicies } {
  const t = tableOf(daemon);
  const messages: Message[] = [];
  const made: MadePolicies = { chains: [], sets: [] };
  let id = FIRST_SET_ID;
  const makeSet = (spec: Omit<SetSpec, 'id'>, elements: readonly Element[]): string => {
    messages.push(addSet(t, { ...spec, id: id++ }));
    for (let at = 0; at < elements.length; at += MESSAGE_ELEMENTS)
      messages.push(addElements(t, spec.name, elements.slice(at, at + MESSAGE_ELEMENTS)));
    made.sets.push(spec.name);
    return spec.name;
  };
  const matches = new Map(
    plan.rules.map((rule, n) => [rule, ruleMatches(rule, `policy-${generation}-${n}`, makeSet)] as const),
  );
  const chainOf = new Map<string, string>();
  const subjects = new Map<string, Element[]>();
  for (const { ip, direction, policies } of plan.subjects) {
    const list = `${direction} ${policies.join(' ')}`;
    let chain = chainOf.get(list);
    if (chain === undefined) {
      chain = `${SIDES[direction]}-${generation}-${chainOf.size}`;
      chainOf.set(list, chain);
      made.chains.push(chain);
      messages.push(addChain(t, chain));
      for (const [rule, parts] of matches)
        if (rule.direction === direction && policies.includes(rule.policy))
          for (const part of parts) messages.push(addRule(t, chain, [...part, accept], rule.name));
      messages.push(addRule(t, chain, [counter, drop], policies.join(' ')));
    }
    const address = parseIp(ip);
    const set = subjectSet(direction, address.family);
    const elements = subjects.get(set) ?? [];
    elements.push({ key: ipBytes(address), verdict: { verdict: 'goto', chain } });
    subjects.set(set, elements);
  }
  for (const [set, elements] of subjects)
    for (let at = 0; at < elements.length; at += MESSAGE_ELEMENTS)
      messages.push(addElements(t, set, elements.slice(at, at + MESSAGE_ELEMENTS)));
  return { messages, made };
}

/** Takes back what an earlier plan made; to be sent before the next one's, in the same transaction. */
export function removePolicies(daemon: string, made: MadePolicies): Message[] {
  const t = tableOf(daemon);
  return [
    ...FAMILIES.flatMap((family) => [
      flushSet(t, subjectSet('ingress', family)),
      flushSet(t, subjectSet('egress', family)),
    ]),
    ...made.chains.flatMap((chain) => [deleteRules(t, chain), deleteChain(t, chain)]),
    ...made.sets.map((set) => deleteSet(t, set)),
  ];
}

export function subjectSet(direction: Direction, family: Family): string {
  return `subject-${SIDES[direction]}${family}`;
}

/** What a packet must be, once for each family, and once more where ports are known by name. */
function ruleMatches(
  rule: PolicyRule,
  name: string,
  makeSet: (spec: Omit<SetSpec, 'id'>, elements: readonly Element[]) => string,
): Expression[][] {
  return FAMILIES.flatMap((family): Expression[][] => {
    const start = isFamily(family);
    if (rule.peers) {
      const ranges = rule.peers[family];
      if (ranges.length === 0) return [];
      const spec = {
        name: `${name}-from${family}`,
        keyType: IP_TYPE[family],
        keyBytes: IP_BYTES[family],
        interval: true,
      };
      const set = makeSet(
        spec,
        ranges.flatMap((range) => intervalOf(range, family)),
      );
      const load = rule.direction === 'ingress' ? loadSaddr : loadDaddr;
      start.push(load(family, REG_1), { expr: 'lookup', sreg: REG_1, set });
    }
    if (!rule.ports) return [start];
    return [...byNumber(rule.ports, family), ...byName(rule.ports, family)].map((port) => [...start, ...port]);
  });

  function byNumber(ports: readonly PortRange[], family: Family): Expression[][] {
    const ranges = mergedPorts(ports.filter((port) => port.pod === undefined));
    if (ranges.length === 0) return [];
    const set = makeSet(
      {
        name: `${name}-ports${family}`,
        keyType: concatType(DATATYPE.inetProto, DATATYPE.inetService),
        keyBytes: 8,
        fields: [1, 2],
        interval: true,
      },
      ranges.map(({ protocol, first, last }) => ({
        key: concatKey(Uint8Array.of(PROTOCOL_NUMBER[protocol]), portBytes(first)),
        keyEnd: concatKey(Uint8Array.of(PROTOCOL_NUMBER[protocol]), portBytes(last)),
      })),
    );
    return [[loadL4proto(REG_1), loadDport(reg32(1)), { expr: 'lookup', sreg: REG_1, set }]];
  }

  function byName(ports: readonly PortRange[], family: Family): Expression[][] {
    const elements = new Map<string, Element>();
    for (const { pod, protocol, first } of ports) {
      const ip = pod === undefined ? undefined : parseIp(pod);
      if (ip?.family !== family) continue;
      const key = concatKey(Uint8Array.of(PROTOCOL_NUMBER[protocol]), ipBytes(ip), portBytes(first));
      elements.set(Buffer.from(key).toString('hex'), { key });
    }
    if (elements.size === 0) return [];
    const set = makeSet(
      {
        name: `${name}-named${family}`,
        keyType: concatType(DATATYPE.inetProto, IP_TYPE[family], DATATYPE.inetService),
        keyBytes: IP_BYTES[family] + 8,
        fields: [1, IP_BYTES[family], 2],
      },
      [...elements.values()],
    );
    const port = reg32(1 + IP_WORDS[family]);
    return [[loadL4proto(REG_1), loadDaddr(family, reg32(1)), loadDport(port), { expr: 'lookup', sreg: REG_1, set }]];
  }
}

function mergedPorts(ports: readonly PortRange[]): PortRange[] {
  return (['tcp', 'udp', 'sctp'] as const).flatMap((protocol) =>
    merged(
      ports
        .filter((port) => port.protocol === protocol)
        .map(({ first, last }) => ({ first: BigInt(first), last: BigInt(last) })),
    ).map(({ first, last }) => ({ protocol, first: Number(first), last: Number(last) })),
  );
}

/** The two elements of a range in an interval set; one that ends with the last address of all has no end. */
function intervalOf({ first, last }: Range, family: Family): Element[] {
  const start = { key: ipBytes({ family, value: first }) };
  const behind = last + 1n;
  if (behind >> BigInt(bitsOf(family)) !== 0n) return [start];
  return [start, { key: ipBytes({ family, value: behind }), intervalEnd: true }];
}
