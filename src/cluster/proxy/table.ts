import { type Cidr, type Family, ipBytes, lastOf, networkOf, parseCidr } from '#kernel/netlink/ip.ts';
import type { Message } from '#kernel/netlink/wire.ts';
import { CMP, CT_STATE, type Expression, ifname, META, REG_1, REG_VERDICT, reg32 } from '#kernel/nft/expression.ts';
import {
  FAMILIES,
  filterAt,
  IP_BYTES,
  IP_PROTO,
  IP_TYPE,
  IP_WORDS,
  natAt,
  PRIORITY,
  PROTOCOL_NUMBER,
} from '#kernel/nft/facts.ts';
import {
  accept,
  counter,
  ctStateIs,
  daddrIsLocal,
  drop,
  isFamily,
  loadDaddr,
  loadDport,
  loadL4proto,
  loadSaddr,
  saddrStarts,
  say,
  wasDnated,
} from '#kernel/nft/match.ts';
import {
  addChain,
  addElements,
  addRule,
  addSet,
  addTable,
  concatType,
  DATATYPE,
  deleteTable,
  type Element,
  NFPROTO,
  type SetSpec,
  type TableRef,
} from '#kernel/nft/message.ts';

/**
 * The cluster's one table. Its rules know no Service: Services and endpoints are elements of maps, so that a change is a small
 * message whatever else there is, and a packet's way is as long with one Service as with ten thousand.
 *
 *   prerouting  -110  sources     clients that a load balancer's source ranges leave out
 *               -100  nat-in     ─┐  front4 (address.port) or port4 (port of the node) ─▶ pick chain ─▶ DNAT
 *   output      -100  nat-local  ─┘
 *   prerouting, output  -90  refuse  what met no endpoint: refused (or dropped), and so is the rest of the service range
 *   forward       -9, -8          policy-egress, policy-ingress (policy-table.ts)
 *   postrouting   99  nat-out     a pod that reached itself; 127.0.0.1; clients from outside on their way to another node
 *
 * The address and port of a frontend lead to the chain that picks; the same key with the number of a slot gives the target. How many
 * slots there are is in the name of the chain: `pick4-front-3` chooses one of three. Such chains are made when first needed.
 *
 * No look-up takes its key from another one: the kernel could, but nft (1.0.6) ends with an assertion when it has to list such a
 * rule, and then it lists nobody's rules any more.
 */
/**
 * Slots of Services with session affinity: the client's address, hashed, chooses one. Nothing is remembered, so a client stays
 * with its endpoint through restarts too; when endpoints come or go, only their share of the clients moves.
 */
export const STICKY_SLOTS = 512;
const STICKY_SEED = 0x65737469;

/** Docker-side table is named after the daemon; this one beside it. */
export function tableOf(daemon: string): TableRef {
  return { family: NFPROTO.INET, table: `${daemon}-services` };
}

export interface TableSettings {
  daemon: string;
  /** Addresses in it that no Service has are refused. */
  serviceCidrs: readonly string[];
  /** All pods of the cluster: their address stays when they reach other nodes. */
  podCidrs: readonly string[];
}

function setsOf(family: Family): Omit<SetSpec, 'id'>[] {
  const ip = IP_TYPE[family];
  const n = IP_BYTES[family];
  const address = { type: concatType(DATATYPE.inetProto, ip, DATATYPE.inetService), bytes: n + 8, fields: [1, n, 2] };
  const port = { type: concatType(DATATYPE.inetProto, DATATYPE.inetService), bytes: 8, fields: [1, 2] };
  const target = { type: concatType(ip, DATATYPE.inetService), bytes: n + 4 };
  const map = (name: string, key: typeof address, data: SetSpec['data']): Omit<SetSpec, 'id'> => ({
    name: `${name}${family}`,
    keyType: key.type,
    keyBytes: key.bytes,
    fields: key.fields,
    ...(data ? { data } : {}),
  });
  const withSlot = (key: typeof address): typeof address => ({
    type: concatType(key.type, DATATYPE.mark),
    bytes: key.bytes + 4,
    fields: [...key.fields, 4],
  });
  const pair = { type: concatType(ip, ip), bytes: 2 * n, fields: [n, n] };
  const guarded = {
    type: concatType(DATATYPE.inetProto, ip, DATATYPE.inetService, ip),
    bytes: 2 * n + 8,
    fields: [1, n, 2, n],
  };
  return [
    map('front', address, 'verdict'),
    map('front-slots', withSlot(address), target),
    map('front-empty', address, 'verdict'),
    map('port', port, 'verdict'),
    map('port-slots', withSlot(port), target),
    map('port-empty', port, 'verdict'),
    map('self', pair, undefined),
    { name: `remote${family}`, keyType: ip, keyBytes: n },
    { name: `services${family}`, keyType: ip, keyBytes: n, interval: true },
    { name: `pods${family}`, keyType: ip, keyBytes: n, interval: true },
    map('guarded', address, undefined),
    { name: `subject-in${family}`, keyType: ip, keyBytes: n, data: 'verdict' },
    { name: `subject-out${family}`, keyType: ip, keyBytes: n, data: 'verdict' },
    { ...map('allowed', guarded, undefined), interval: true },
  ];
}

/** The table with its rules and no Service in it; an older one of that name goes in the same transaction. */
export function createTable(settings: TableSettings): Message[] {
  const t = tableOf(settings.daemon);
  const sets = FAMILIES.flatMap(setsOf);
  const rule = (chain: string, expressions: Expression[], comment?: string): Message =>
    addRule(t, chain, expressions, comment);
  return [
    addTable(t), // so that the delete finds one
    deleteTable(t),
    addTable(t),
    ...sets.map((set, index) => addSet(t, { ...set, id: index + 1 })),
    ...FAMILIES.flatMap((family) => [
      ...ranges(t, `services${family}`, settings.serviceCidrs, family),
      ...ranges(t, `pods${family}`, settings.podCidrs, family),
    ]),
    addChain(t, 'find'),
    addChain(t, 'refuse'),
    addChain(t, 'reject'),
    addChain(t, 'drop'),
    addChain(t, 'sources', filterAt('prerouting', PRIORITY.dstnat - 10)),
    addChain(t, 'nat-in', natAt('prerouting', PRIORITY.dstnat)),
    addChain(t, 'nat-local', natAt('output', PRIORITY.dstnat)),
    addChain(t, 'refuse-in', filterAt('prerouting', PRIORITY.dstnat + 10)),
    addChain(t, 'refuse-local', filterAt('output', PRIORITY.dstnat + 10)),
    addChain(t, 'policy-out', filterAt('forward', PRIORITY.filter - 9)),
    addChain(t, 'policy-in', filterAt('forward', PRIORITY.filter - 8)),
    addChain(t, 'nat-out', natAt('postrouting', PRIORITY.srcnat - 1)),

    ...FAMILIES.flatMap((family) => [
      rule('sources', [
        ...isFamily(family),
        ...frontKey(family),
        { expr: 'lookup', sreg: REG_1, set: `guarded${family}` },
        ...frontKey(family),
        loadSaddr(family, reg32(2 + IP_WORDS[family])),
        { expr: 'lookup', sreg: REG_1, set: `allowed${family}`, invert: true },
        counter,
        drop,
      ]),
      rule('find', [...isFamily(family), ...frontKey(family), verdictFrom(`front${family}`)]),
    ]),
    ...FAMILIES.map((family) =>
      rule('find', [...isFamily(family), ...daddrIsLocal, ...portKey(), verdictFrom(`port${family}`)]),
    ),
    rule('nat-in', [say({ verdict: 'jump', chain: 'find' })]),
    rule('nat-local', [say({ verdict: 'jump', chain: 'find' })]),

    ...(['refuse-in', 'refuse-local'] as const).map((chain) =>
      rule(chain, [say({ verdict: 'jump', chain: 'refuse' })]),
    ),
    ...FAMILIES.flatMap((family) => [
      rule('refuse', [...isFamily(family), ...frontKey(family), verdictFrom(`front-empty${family}`)]),
      rule('refuse', [...isFamily(family), ...daddrIsLocal, ...portKey(), verdictFrom(`port-empty${family}`)]),
      rule('refuse', [
        ...isFamily(family),
        loadDaddr(family, REG_1),
        { expr: 'lookup', sreg: REG_1, set: `services${family}` },
        say({ verdict: 'goto', chain: 'reject' }),
      ]),
    ]),
    // What a policy let begin goes on, and so do its answers.
    ...(['policy-out', 'policy-in'] as const).flatMap((chain) => [
      rule(chain, [...ctStateIs(CT_STATE.ESTABLISHED | CT_STATE.RELATED), accept]),
      ...FAMILIES.map((family) => {
        const load = chain === 'policy-in' ? loadDaddr : loadSaddr;
        const set = `${chain === 'policy-in' ? 'subject-in' : 'subject-out'}${family}`;
        return rule(chain, [...isFamily(family), load(family, REG_1), verdictFrom(set)]);
      }),
    ]),
    rule('reject', [
      loadL4proto(REG_1),
      { expr: 'cmp', sreg: REG_1, op: CMP.EQ, data: Uint8Array.of(PROTOCOL_NUMBER.tcp) },
      counter,
      { expr: 'reject', type: REJECT_TCP_RESET, code: 0 },
    ]),
    rule('reject', [counter, { expr: 'reject', type: REJECT_ICMPX, code: ICMPX_PORT_UNREACHABLE }]),
    rule('drop', [counter, drop]),

    ...FAMILIES.flatMap((family) => [
      rule(
        'nat-out',
        [
          ...isFamily(family),
          ...wasDnated,
          loadSaddr(family, REG_1),
          loadDaddr(family, reg32(IP_WORDS[family])),
          { expr: 'lookup', sreg: REG_1, set: `self${family}` },
          { expr: 'masq' },
        ],
        'a pod that reached itself by a Service',
      ),
      rule(
        'nat-out',
        [
          ...isFamily(family),
          ...wasDnated,
          loadDaddr(family, REG_1),
          { expr: 'lookup', sreg: REG_1, set: `remote${family}` },
          loadSaddr(family, REG_1),
          { expr: 'lookup', sreg: REG_1, set: `pods${family}`, invert: true },
          { expr: 'masq' },
        ],
        'answers from another node come back here',
      ),
    ]),
    rule(
      'nat-out',
      [
        ...isFamily(4),
        ...saddrStarts(Uint8Array.of(127)),
        ...wasDnated,
        { expr: 'meta', key: META.OIFNAME, dreg: REG_1 },
        { expr: 'cmp', sreg: REG_1, op: CMP.NEQ, data: ifname('lo') },
        { expr: 'masq' },
      ],
      'node ports on 127.0.0.1',
    ),
  ];
}

export function removeTable(daemon: string): Message[] {
  return [addTable(tableOf(daemon)), deleteTable(tableOf(daemon))];
}

/** A chain that chooses one of `slots` targets for frontends of its kind. */
export interface Pick {
  family: Family;
  /** How the frontend is known: by address and port, or by a port of the node. */
  by: 'front' | 'port';
  slots: number;
  /** By the client's address rather than by chance. */
  sticky: boolean;
}

export function pickChain({ family, by, slots, sticky }: Pick): string {
  return `${sticky ? 'stick' : 'pick'}${family}-${by}-${slots}`;
}

export function createPick(daemon: string, pick: Pick): Message[] {
  const t = tableOf(daemon);
  const chain = pickChain(pick);
  const { family, by, slots, sticky } = pick;
  // The slot stands behind the frontend's key.
  const slot = by === 'front' ? reg32(2 + IP_WORDS[family]) : reg32(2);
  const choose: Expression[] = sticky
    ? [
        loadSaddr(family, CLIENT),
        { expr: 'hash', sreg: CLIENT, length: IP_BYTES[family], dreg: slot, modulus: slots, seed: STICKY_SEED },
      ]
    : [{ expr: 'random', dreg: slot, modulus: slots }];
  return [
    addChain(t, chain),
    addRule(t, chain, [
      ...isFamily(family),
      ...(by === 'front' ? frontKey(family) : portKey()),
      ...choose,
      { expr: 'lookup', sreg: REG_1, set: `${by}-slots${family}`, dreg: REG_1 },
      {
        expr: 'nat',
        type: 'dnat',
        family: IP_PROTO[family],
        addr: REG_1,
        port: reg32(IP_WORDS[family]),
      },
    ]),
  ];
}

/** Behind all keys. */
const CLIENT = reg32(10);

// linux/netfilter/nf_tables.h: NFT_REJECT_TCP_RST, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_PORT_UNREACH.
const REJECT_TCP_RESET = 1;
const REJECT_ICMPX = 2;
const ICMPX_PORT_UNREACHABLE = 1;

function verdictFrom(set: string): Expression {
  return { expr: 'lookup', sreg: REG_1, set, dreg: REG_VERDICT };
}

/** `meta l4proto . ip daddr . th dport`, in the first registers. */
function frontKey(family: Family): Expression[] {
  return [loadL4proto(REG_1), loadDaddr(family, reg32(1)), loadDport(reg32(1 + IP_WORDS[family]))];
}

function portKey(): Expression[] {
  return [loadL4proto(REG_1), loadDport(reg32(1))];
}

function ranges(t: TableRef, set: string, cidrs: readonly string[], family: Family): Message[] {
  const elements = cidrs
    .map(parseCidr)
    .filter((cidr) => cidr.ip.family === family)
    .flatMap(interval);
  return elements.length === 0 ? [] : [addElements(t, set, elements)];
}

/** An interval set's two elements for a range; one that ends with the last address of all has no end. */
export function interval(cidr: Cidr): Element[] {
  const { family } = cidr.ip;
  const behind = lastOf(cidr).value + 1n;
  const start = { key: ipBytes(networkOf(cidr).ip) };
  if (behind >> BigInt(family === 4 ? 32 : 128) !== 0n) return [start];
  return [start, { key: ipBytes({ family, value: behind }), intervalEnd: true }];
}
