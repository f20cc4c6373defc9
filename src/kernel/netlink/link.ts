import { AF_INET6, type Ip, ipBytes } from '#kernel/netlink/ip.ts';
import {
  asU32,
  attr,
  attributes,
  bytes,
  concat,
  type Message,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  nested,
  type Received,
  str,
  text,
  u8,
  u16be,
  u32,
  viewOf,
} from '#kernel/netlink/wire.ts';

/** Links: rtnetlink(7) and linux/if_link.h. */
const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
const IFINFOMSG_BYTES = 16;

export const IFF_UP = 0x1;
const IFF_PROMISC = 0x100;

const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  LINK: 5,
  MASTER: 10,
  TXQLEN: 13,
  LINKINFO: 18,
  NET_NS_PID: 19,
  IFALIAS: 20,
  STATS64: 23,
  AF_SPEC: 26,
  NET_NS_FD: 28,
  NEW_IFINDEX: 49,
} as const;
const INFO = { KIND: 1, DATA: 2, SLAVE_KIND: 4, SLAVE_DATA: 5 } as const;
const BRIDGE = { FORWARD_DELAY: 1, AGEING_TIME: 4, STP_STATE: 5, VLAN_FILTERING: 7, MCAST_SNOOPING: 23 } as const;
const BRIDGE_PORT = { HAIRPIN: 4, ISOLATED: 33 } as const;
const VXLAN = { ID: 1, GROUP: 2, LINK: 3, LOCAL: 4, LEARNING: 7, PORT: 15, GROUP6: 16, LOCAL6: 17 } as const;
const MACVLAN_MODE = 1;
const VETH_INFO_PEER = 1;
const INET6_ADDR_GEN_MODE = 8;
const IN6_ADDR_GEN_MODE_NONE = 1;

/** The namespace a link is born in or moved to: that of a process, or of an open descriptor of whoever sends. */
export type Netns = { pid: number } | { fd: number };

interface NewLink {
  name: string;
  /** Interface number; the kernel picks one when absent. In a namespace of our own making we choose, and save a look-up. */
  index?: number;
  mac?: Uint8Array;
  mtuBytes?: number;
  up?: boolean;
  netns?: Netns;
}

/**
 * A pair of links; `peer` may be born in another namespace. One message makes both. The kernel heeds `peer.index` only when
 * `index` is given as well, so a link whose number we want to choose is the first of the pair, made from its own namespace.
 */
export function addVeth(link: NewLink & { master?: number; peer: Omit<NewLink, 'up'> }): Message {
  // IFF_UP on the peer is refused (ENOTCONN): it is configured before the pair is joined.
  const peer = attr(VETH_INFO_PEER, concat([ifinfo({ index: link.peer.index ?? 0 }), ...common(link.peer)]));
  return create(link, 'veth', [peer], link.master);
}

export interface BridgeOptions {
  /** Spanning tree; off, so that a new port forwards at once. */
  stp?: boolean;
  multicastSnooping?: boolean;
  vlanFiltering?: boolean;
  forwardDelayMs?: number;
}

export function addBridge(link: NewLink & { options?: BridgeOptions }): Message {
  const o = link.options ?? {};
  return create(link, 'bridge', [
    ...(o.forwardDelayMs === undefined ? [] : [u32(BRIDGE.FORWARD_DELAY, Math.round(o.forwardDelayMs / 10))]), // in 1/100 s
    ...(o.stp === undefined ? [] : [u32(BRIDGE.STP_STATE, Number(o.stp))]),
    ...(o.vlanFiltering === undefined ? [] : [u8(BRIDGE.VLAN_FILTERING, Number(o.vlanFiltering))]),
    ...(o.multicastSnooping === undefined ? [] : [u8(BRIDGE.MCAST_SNOOPING, Number(o.multicastSnooping))]),
  ]);
}

export function addVxlan(
  link: NewLink & { vni: number; port: number; local?: Ip; group?: Ip; device?: number; learning: boolean },
): Message {
  return create(link, 'vxlan', [
    u32(VXLAN.ID, link.vni),
    ...(link.local ? [attr(link.local.family === 4 ? VXLAN.LOCAL : VXLAN.LOCAL6, ipBytes(link.local))] : []),
    ...(link.group ? [attr(link.group.family === 4 ? VXLAN.GROUP : VXLAN.GROUP6, ipBytes(link.group))] : []),
    ...(link.device === undefined ? [] : [u32(VXLAN.LINK, link.device)]),
    u8(VXLAN.LEARNING, Number(link.learning)),
    u16be(VXLAN.PORT, link.port),
  ]);
}

export const MACVLAN_MODES = { private: 1, vepa: 2, bridge: 4, passthru: 8 } as const;

export function addMacvlan(link: NewLink & { parent: number; mode: keyof typeof MACVLAN_MODES }): Message {
  const message = create(link, 'macvlan', [u32(MACVLAN_MODE, MACVLAN_MODES[link.mode])]);
  return { ...message, body: [...message.body, u32(IFLA.LINK, link.parent)] };
}

/** Which link a change is about. By name costs the kernel a hash look-up and us no round trip. */
export type LinkRef = { index: number } | { name: string };

export interface LinkChange {
  up?: boolean;
  promiscuous?: boolean;
  /** Interface number of the bridge; 0 takes the link out. */
  master?: number;
  mtuBytes?: number;
  mac?: Uint8Array;
  netns?: Netns;
  /** With `netns`, Linux 5.13: the number it shall have there; without, the kernel may choose another. */
  newIndex?: number;
  /** Only together with an index: the name in a request is what the kernel looks the link up by. */
  newName?: string;
  /** What the link is for, in words; shown by `ip link`. */
  alias?: string;
  /** No link-local address of the kernel's making (RFC 4862): with accept_dad the port would wait for it. */
  noLinkLocal?: boolean;
}

export function setLink(link: LinkRef, change: LinkChange): Message {
  const flags = (change.up ? IFF_UP : 0) | (change.promiscuous ? IFF_PROMISC : 0);
  const changed = (change.up === undefined ? 0 : IFF_UP) | (change.promiscuous === undefined ? 0 : IFF_PROMISC);
  const name = 'name' in link ? link.name : change.newName;
  return {
    type: RTM_NEWLINK,
    flags: NLM_F_ACK,
    body: [
      ifinfo({ index: 'index' in link ? link.index : 0, flags, changed }),
      ...(name === undefined ? [] : [str(IFLA.IFNAME, name)]),
      ...(change.master === undefined ? [] : [u32(IFLA.MASTER, change.master)]),
      ...(change.alias === undefined ? [] : [str(IFLA.IFALIAS, change.alias)]),
      ...(change.newIndex === undefined ? [] : [u32(IFLA.NEW_IFINDEX, change.newIndex)]),
      ...(change.noLinkLocal
        ? [nested(IFLA.AF_SPEC, [nested(AF_INET6, [u8(INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE)])])]
        : []),
      ...common(change),
    ],
  };
}

/** A bridge port's own settings. Isolated ports of one bridge cannot reach each other, only the bridge and the others. */
export function setBridgePort(link: LinkRef, port: { isolated?: boolean; hairpin?: boolean }): Message {
  return {
    type: RTM_NEWLINK,
    flags: NLM_F_ACK,
    body: [
      ifinfo({ index: 'index' in link ? link.index : 0 }),
      ...('name' in link ? [str(IFLA.IFNAME, link.name)] : []),
      nested(IFLA.LINKINFO, [
        str(INFO.SLAVE_KIND, 'bridge'),
        nested(INFO.SLAVE_DATA, [
          ...(port.hairpin === undefined ? [] : [u8(BRIDGE_PORT.HAIRPIN, Number(port.hairpin))]),
          ...(port.isolated === undefined ? [] : [u8(BRIDGE_PORT.ISOLATED, Number(port.isolated))]),
        ]),
      ]),
    ],
  };
}

export function deleteLink(link: LinkRef): Message {
  return {
    type: RTM_DELLINK,
    flags: NLM_F_ACK,
    body: [
      ifinfo({ index: 'index' in link ? link.index : 0 }),
      ...('name' in link ? [str(IFLA.IFNAME, link.name)] : []),
    ],
  };
}

export function dumpLinks(): Message {
  return { type: RTM_GETLINK, flags: NLM_F_DUMP, body: [ifinfo({})] };
}

export function getLink(link: LinkRef): Message {
  return { ...deleteLink(link), type: RTM_GETLINK };
}

export interface LinkStats {
  rxPackets: bigint;
  txPackets: bigint;
  rxBytes: bigint;
  txBytes: bigint;
  rxErrors: bigint;
  txErrors: bigint;
  rxDropped: bigint;
  txDropped: bigint;
}

export interface Link {
  index: number;
  name: string;
  /** `veth`, `bridge`, …; undefined for real devices and the loopback. */
  kind: string | undefined;
  flags: number;
  master: number | undefined;
  /** Interface number of the other end (veth), in its own namespace, or of the parent. */
  peer: number | undefined;
  mtuBytes: number;
  mac: Uint8Array | undefined;
  alias: string | undefined;
  stats: LinkStats | undefined;
}

export function parseLinks(messages: readonly Received[]): Link[] {
  return messages.filter((message) => message.type === RTM_NEWLINK).map(parseLink);
}

function parseLink(message: Received): Link {
  const view = viewOf(message.body);
  const found = attributes(message.body.subarray(IFINFOMSG_BYTES));
  const info = found.get(IFLA.LINKINFO);
  const kind = info && attributes(info).get(INFO.KIND);
  const optional = (type: number): number | undefined => {
    const value = found.get(type);
    return value && asU32(value);
  };
  const alias = found.get(IFLA.IFALIAS);
  const stats = found.get(IFLA.STATS64);
  return {
    index: view.getInt32(4, true),
    name: text(found.get(IFLA.IFNAME) ?? new Uint8Array()),
    kind: kind && text(kind),
    flags: view.getUint32(8, true),
    master: optional(IFLA.MASTER),
    peer: optional(IFLA.LINK),
    mtuBytes: optional(IFLA.MTU) ?? 0,
    mac: found.get(IFLA.ADDRESS),
    alias: alias && text(alias),
    stats: stats && parseStats(stats),
  };
}

/** struct rtnl_link_stats64, its first eight fields. */
function parseStats(value: Uint8Array): LinkStats {
  const view = viewOf(value);
  const at = (index: number): bigint => view.getBigUint64(index * 8, true);
  return {
    rxPackets: at(0),
    txPackets: at(1),
    rxBytes: at(2),
    txBytes: at(3),
    rxErrors: at(4),
    txErrors: at(5),
    rxDropped: at(6),
    txDropped: at(7),
  };
}

function create(link: NewLink, kind: string, data: readonly Uint8Array[], master?: number): Message {
  return {
    type: RTM_NEWLINK,
    flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
    body: [
      ifinfo({ index: link.index ?? 0, flags: link.up ? IFF_UP : 0, changed: link.up ? IFF_UP : 0 }),
      ...common(link),
      ...(master === undefined ? [] : [u32(IFLA.MASTER, master)]),
      nested(IFLA.LINKINFO, [str(INFO.KIND, kind), ...(data.length === 0 ? [] : [nested(INFO.DATA, data)])]),
    ],
  };
}

function common(link: { name?: string; mac?: Uint8Array; mtuBytes?: number; netns?: Netns }): Uint8Array[] {
  return [
    ...(link.name === undefined ? [] : [str(IFLA.IFNAME, link.name)]),
    ...(link.mac === undefined ? [] : [attr(IFLA.ADDRESS, link.mac)]),
    ...(link.mtuBytes === undefined ? [] : [u32(IFLA.MTU, link.mtuBytes)]),
    ...(link.netns === undefined
      ? []
      : ['pid' in link.netns ? u32(IFLA.NET_NS_PID, link.netns.pid) : u32(IFLA.NET_NS_FD, link.netns.fd)]),
  ];
}

function ifinfo(of: { index?: number; flags?: number; changed?: number }): Uint8Array {
  return bytes(IFINFOMSG_BYTES, (v) => {
    v.setInt32(4, of.index ?? 0, true);
    v.setUint32(8, of.flags ?? 0, true);
    v.setUint32(12, of.changed ?? 0, true);
  });
}
