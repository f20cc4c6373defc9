import { type Cidr, type Family, ipBytes, lastOf, networkOf, parseIp } from '#kernel/netlink/ip.ts';
import type { Message } from '#kernel/netlink/wire.ts';
import {
  CMP,
  CT_STATE,
  concatKey,
  type Expression,
  ifname,
  PAYLOAD_TRANSPORT,
  portBytes,
  REG_1,
  reg32,
} from '#kernel/nft/expression.ts';
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
  daddrStarts,
  drop,
  iifIn,
  isFamily,
  linksIn,
  loadDaddr,
  loadDport,
  loadL4proto,
  oifIn,
  oifNotIn,
  saddrAndOifIn,
  saddrIn,
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
  deleteElements,
  deleteTable,
  type Element,
  NFPROTO,
  type SetSpec,
  type TableRef,
} from '#kernel/nft/message.ts';
import type { Network, Protocol, PublishedPort } from '#network/model.ts';

/**
 * The daemon's one table. The rules never change; networks and ports are elements of its sets and maps, so publishing a port
 * is one small message whatever else there is.
 *
 *   prerouting  -300  spoofed  nobody on a bridge speaks to 127.0.0.0/8 of the host, whatever route_localnet allows us
 *               -110  gate     new connections to published ports pass the host's own input rules (firewall.ts)
 *               -100  dnat     published port → container, by map
 *   output      -110  gate-local   the same for the host's own connections, as coming from `lo`
 *               -100  dnat-local
 *                  0  redirects  routed networks are not told of a shorter way, which is closed
 *   forward        0  forward  between networks, in and out
 *   postrouting  100  snat     masquerade on the way out; loopback and hairpin clients become the gateway
 */
export const CHAIN = { host: 'host-input', hostLocal: 'host-input-local' } as const;

const LOOPBACK = Uint8Array.of(127);
const LOOPBACK6 = parseIp('::1');
/** ICMP and ICMPv6, and the type that is a redirect. */
const REDIRECTS = [
  { protocol: 1, type: 5 },
  { protocol: 58, type: 137 },
];

export function tableOf(daemon: string): TableRef {
  return { family: NFPROTO.INET, table: daemon };
}

const SETS: Omit<SetSpec, 'id'>[] = [
  { name: 'bridges', keyType: DATATYPE.ifname, keyBytes: 16 },
  { name: 'internal', keyType: DATATYPE.ifname, keyBytes: 16 },
  { name: 'routed', keyType: DATATYPE.ifname, keyBytes: 16 },
  // Pairs of links that may talk: a bridge and itself, where containers of one network reach each other.
  { name: 'open', keyType: concatType(DATATYPE.ifname, DATATYPE.ifname), keyBytes: 32, fields: [16, 16] },
  { name: 'masquerade4', keyType: DATATYPE.ipv4, keyBytes: 4, interval: true },
  { name: 'masquerade6', keyType: DATATYPE.ipv6, keyBytes: 16, interval: true },
  { name: 'home4', keyType: concatType(DATATYPE.ipv4, DATATYPE.ifname), keyBytes: 20, fields: [4, 16], interval: true },
  {
    name: 'home6',
    keyType: concatType(DATATYPE.ipv6, DATATYPE.ifname),
    keyBytes: 32,
    fields: [16, 16],
    interval: true,
  },
  { name: 'published', keyType: concatType(DATATYPE.inetProto, DATATYPE.inetService), keyBytes: 8, fields: [1, 2] },
  ...FAMILIES.flatMap((family): Omit<SetSpec, 'id'>[] => {
    const [ip, bytes] = [IP_TYPE[family], IP_BYTES[family]];
    const data = { type: concatType(ip, DATATYPE.inetService), bytes: bytes + 4 };
    return [
      {
        name: `publish${family}`,
        keyType: concatType(DATATYPE.inetProto, DATATYPE.inetService),
        keyBytes: 8,
        fields: [1, 2],
        data,
      },
      {
        name: `publish${family}-at`,
        keyType: concatType(DATATYPE.inetProto, ip, DATATYPE.inetService),
        keyBytes: bytes + 8,
        fields: [1, bytes, 2],
        data,
      },
    ];
  }),
];

/** Makes the table anew, empty: in the same transaction an older one of that name goes. */
export function createTable(daemon: string): Message[] {
  const t = tableOf(daemon);
  const rule = (chain: string, expressions: Expression[], comment?: string): Message =>
    addRule(t, chain, expressions, comment);
  return [
    addTable(t), // so that the delete finds one
    deleteTable(t),
    addTable(t),
    ...SETS.map((set, index) => addSet(t, { ...set, id: index + 1 })),
    addChain(t, CHAIN.host),
    addChain(t, CHAIN.hostLocal),
    addChain(t, 'spoofed', filterAt('prerouting', PRIORITY.raw)),
    addChain(t, 'gate', filterAt('prerouting', PRIORITY.dstnat - 10)),
    addChain(t, 'gate-local', filterAt('output', PRIORITY.dstnat - 10)),
    addChain(t, 'publish'),
    addChain(t, 'dnat', natAt('prerouting', PRIORITY.dstnat)),
    addChain(t, 'dnat-local', natAt('output', PRIORITY.dstnat)),
    addChain(t, 'redirects', filterAt('output', PRIORITY.filter)),
    addChain(t, 'forward', filterAt('forward', PRIORITY.filter)),
    addChain(t, 'snat', natAt('postrouting', PRIORITY.srcnat)),

    // route_localnet on our bridges would otherwise let containers reach what listens on 127.0.0.1 (CVE-2020-8558).
    rule('spoofed', [...isFamily(4), ...iifIn('bridges'), ...daddrStarts(LOOPBACK), drop]),

    ...(['gate', 'gate-local'] as const).map((chain) =>
      rule(chain, [
        ...ctStateIs(CT_STATE.NEW),
        loadL4proto(REG_1),
        loadDport(reg32(1)),
        { expr: 'lookup', sreg: REG_1, set: 'published' },
        ...daddrIsLocal,
        say({ verdict: 'jump', chain: chain === 'gate' ? CHAIN.host : CHAIN.hostLocal }),
      ]),
    ),

    rule('dnat', [...daddrIsLocal, say({ verdict: 'jump', chain: 'publish' })]),
    rule('dnat-local', [...daddrIsLocal, say({ verdict: 'jump', chain: 'publish' })]),
    ...FAMILIES.flatMap((family) => [
      rule('publish', [...isFamily(family), ...byAddressAndPort(family), ...toContainer(family)]),
      rule('publish', [
        ...isFamily(family),
        // [::1] cannot be rewritten: no IPv6 route_localnet. The relay that holds the port serves it.
        ...(family === 6 ? notIp6Loopback() : []),
        loadL4proto(REG_1),
        loadDport(reg32(1)),
        { expr: 'lookup', sreg: REG_1, set: `publish${family}`, dreg: REG_1 },
        ...toContainer(family),
      ]),
    ]),

    // A packet that leaves by the link it came in by makes the kernel advise the sender to go there directly (RFC 1812 5.2.7.2).
    ...REDIRECTS.map(({ protocol, type }) =>
      rule('redirects', [
        ...oifIn('routed'),
        loadL4proto(REG_1),
        { expr: 'cmp', sreg: REG_1, op: CMP.EQ, data: Uint8Array.of(protocol) },
        { expr: 'payload', dreg: REG_1, base: PAYLOAD_TRANSPORT, offset: 0, length: 1 },
        { expr: 'cmp', sreg: REG_1, op: CMP.EQ, data: Uint8Array.of(type) },
        drop,
      ]),
    ),
    rule('forward', [...ctStateIs(CT_STATE.ESTABLISHED | CT_STATE.RELATED), accept]),
    rule('forward', [...oifIn('bridges'), ...wasDnated, accept], 'published ports'),
    rule('forward', [...linksIn('open'), accept], 'within a network'),
    rule('forward', [...oifIn('bridges'), counter, drop], 'between networks, and in from outside'),
    rule('forward', [...iifIn('internal'), counter, drop], 'out of internal networks'),

    rule('snat', [...isFamily(4), ...oifIn('bridges'), ...saddrStarts(LOOPBACK), { expr: 'masq' }], 'loopback clients'),
    ...FAMILIES.flatMap((family) => [
      rule(
        'snat',
        [...isFamily(family), ...wasDnated, ...saddrAndOifIn(family, `home${family}`), { expr: 'masq' }],
        'hairpin',
      ),
      rule('snat', [
        ...isFamily(family),
        ...saddrIn(family, `masquerade${family}`),
        ...oifNotIn('bridges'),
        { expr: 'masq' },
      ]),
    ]),
  ];
}

export function removeTable(daemon: string): Message[] {
  return [addTable(tableOf(daemon)), deleteTable(tableOf(daemon))];
}

interface SetElements {
  set: string;
  elements: Element[];
}

export function addAll(daemon: string, parts: readonly SetElements[]): Message[] {
  return parts.map(({ set, elements }) => addElements(tableOf(daemon), set, elements));
}

export function removeAll(daemon: string, parts: readonly SetElements[]): Message[] {
  return parts.map(({ set, elements }) => deleteElements(tableOf(daemon), set, elements));
}

/** What a bridge network puts into the sets. */
export function networkElements(network: Network): SetElements[] {
  const link = ifname(network.bridge);
  const parts: SetElements[] = [{ set: 'bridges', elements: [{ key: link }] }];
  if (network.internal) parts.push({ set: 'internal', elements: [{ key: link }] });
  if (network.routed) parts.push({ set: 'routed', elements: [{ key: link }] });
  if (network.icc) parts.push({ set: 'open', elements: [{ key: concatKey(link, link) }] });
  for (const { subnet } of network.subnets) {
    const family = subnet.ip.family;
    // Answers between routed neighbours come back through the host by themselves.
    if (!network.routed)
      parts.push({
        set: `home${family}`,
        elements: [
          {
            key: concatKey(ipBytes(networkOf(subnet).ip), link),
            keyEnd: concatKey(ipBytes(lastOf(subnet)), link),
          },
        ],
      });
    if (network.masquerade && !network.internal) parts.push({ set: `masquerade${family}`, elements: interval(subnet) });
  }
  return parts;
}

/** What published ports put into the maps; `target` is the container's address of each family. */
export function portElements(
  ports: readonly PublishedPort[],
  target: { ipv4: string | undefined; ipv6: string | undefined },
): SetElements[] {
  const parts = new Map<string, Element[]>();
  const put = (set: string, element: Element): void => {
    parts.set(set, [...(parts.get(set) ?? []), element]);
  };
  for (const port of ports) {
    const host = parseIp(port.hostIp);
    const to = host.family === 4 ? target.ipv4 : target.ipv6;
    if (to === undefined) continue; // an IPv6 host port of a container without IPv6: the relay serves it alone
    if (host.family === 6 && host.value === LOOPBACK6.value) continue; // nor can [::1] be rewritten
    const data = concatKey(ipBytes(parseIp(to)), portBytes(port.containerPort));
    const protocol = Uint8Array.of(PROTOCOL_NUMBER[port.protocol]);
    if (host.value === 0n) put(`publish${host.family}`, { key: concatKey(protocol, portBytes(port.hostPort)), data });
    else put(`publish${host.family}-at`, { key: concatKey(protocol, ipBytes(host), portBytes(port.hostPort)), data });
  }
  return [...parts].map(([set, elements]) => ({ set, elements }));
}

/** The gate's key of a port; kept once however many addresses it is published at. */
export function gateElement(protocol: Protocol, hostPort: number): SetElements {
  return {
    set: 'published',
    elements: [{ key: concatKey(Uint8Array.of(PROTOCOL_NUMBER[protocol]), portBytes(hostPort)) }],
  };
}

function interval(subnet: Cidr): Element[] {
  const end = ipBytes({ family: subnet.ip.family, value: lastOf(subnet).value + 1n });
  return [{ key: ipBytes(networkOf(subnet).ip) }, { key: end, intervalEnd: true }];
}

function byAddressAndPort(family: Family): Expression[] {
  return [
    loadL4proto(REG_1),
    loadDaddr(family, reg32(1)),
    loadDport(reg32(1 + IP_WORDS[family])),
    { expr: 'lookup', sreg: REG_1, set: `publish${family}-at`, dreg: REG_1 },
  ];
}

function toContainer(family: Family): Expression[] {
  const addressWords = IP_WORDS[family];
  return [
    {
      expr: 'nat',
      type: 'dnat',
      family: IP_PROTO[family],
      addr: REG_1,
      port: reg32(addressWords),
    },
  ];
}

function notIp6Loopback(): Expression[] {
  return [loadDaddr(6, REG_1), { expr: 'cmp', sreg: REG_1, op: 1, data: ipBytes(LOOPBACK6) }];
}
