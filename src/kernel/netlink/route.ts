import { afOf, type Cidr, type Ip, ipBytes, ipFromBytes, lastOf } from '#kernel/netlink/ip.ts';
import {
  asU32,
  attr,
  attributes,
  bytes,
  type Message,
  NLM_F_ACK,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  type Received,
  u32,
  viewOf,
} from '#kernel/netlink/wire.ts';

/** Addresses, routes and neighbours: rtnetlink(7), linux/if_addr.h, linux/rtnetlink.h, linux/neighbour.h. */
const RTM = {
  NEWADDR: 20,
  DELADDR: 21,
  GETADDR: 22,
  NEWROUTE: 24,
  DELROUTE: 25,
  GETROUTE: 26,
  NEWNEIGH: 28,
  DELNEIGH: 29,
};
const IFADDRMSG_BYTES = 8;
const RTMSG_BYTES = 12;

const IFA = { ADDRESS: 1, LOCAL: 2, BROADCAST: 4, FLAGS: 8 } as const;
const IFA_F_NODAD = 0x02;
const IFA_F_PERMANENT = 0x80;
const RTA = { DST: 1, OIF: 4, GATEWAY: 5, PRIORITY: 6, PREFSRC: 7, TABLE: 15 } as const;
const NDA = { DST: 1, LLADDR: 2 } as const;

export const RT_TABLE_MAIN = 254;
const RTPROT_BOOT = 3;
export const RT_SCOPE_UNIVERSE = 0;
export const RT_SCOPE_LINK = 253;
export const RTN_UNICAST = 1;
const NUD_PERMANENT = 0x80;
const NTF_SELF = 0x02;
const AF_BRIDGE = 7;

export interface Address {
  index: number;
  cidr: Cidr;
}

/**
 * IPv6 addresses come without duplicate address detection: the address is ours by IPAM, and detection would leave it
 * tentative, that is unusable, for a second after the container has started.
 */
export function addAddress(address: Address): Message {
  return {
    type: RTM.NEWADDR,
    flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
    body: [
      ...addressBody(address),
      ...(address.cidr.ip.family === 4 && address.cidr.prefix < 31
        ? [attr(IFA.BROADCAST, ipBytes(lastOf(address.cidr)))]
        : []),
      ...(address.cidr.ip.family === 6 ? [u32(IFA.FLAGS, IFA_F_NODAD)] : []),
    ],
  };
}

export function deleteAddress(address: Address): Message {
  return { type: RTM.DELADDR, flags: NLM_F_ACK, body: addressBody(address) };
}

/** Of one link alone where the socket checks strictly (NETLINK_GET_STRICT_CHK); else filter what comes. */
export function dumpAddresses(index = 0): Message {
  const head = bytes(IFADDRMSG_BYTES, (v) => v.setUint32(4, index, true));
  return { type: RTM.GETADDR, flags: NLM_F_DUMP, body: [head] };
}

/** Those that somebody gave the link for good, for talking to the world (RFC 3549, 2.3.3.2): no DHCP lease, no link-local one. */
export function parseLastingAddresses(messages: readonly Received[]): Address[] {
  return parseAddresses(
    messages.filter(({ body }) => {
      const flags = attributes(body.subarray(IFADDRMSG_BYTES)).get(IFA.FLAGS);
      return ((flags ? asU32(flags) : (body[2] ?? 0)) & IFA_F_PERMANENT) !== 0 && body[3] === RT_SCOPE_UNIVERSE;
    }),
  );
}

export function parseAddresses(messages: readonly Received[]): Address[] {
  return messages
    .filter((message) => message.type === RTM.NEWADDR)
    .flatMap((message) => {
      const found = attributes(message.body.subarray(IFADDRMSG_BYTES));
      const ip = found.get(IFA.LOCAL) ?? found.get(IFA.ADDRESS); // on a point-to-point link ADDRESS is the peer's
      if (!ip) return [];
      return [
        { index: viewOf(message.body).getUint32(4, true), cidr: { ip: ipFromBytes(ip), prefix: message.body[1] ?? 0 } },
      ];
    });
}

export interface Route {
  /** Absent: the default route of `gateway`'s family. */
  destination?: Cidr;
  gateway?: Ip;
  index?: number;
  source?: Ip;
  metric?: number;
  table?: number;
}

export function addRoute(route: Route): Message {
  return { type: RTM.NEWROUTE, flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body: routeBody(route) };
}

export function replaceRoute(route: Route): Message {
  return { type: RTM.NEWROUTE, flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, body: routeBody(route) };
}

export function deleteRoute(route: Route): Message {
  return { type: RTM.DELROUTE, flags: NLM_F_ACK, body: routeBody(route) };
}

export function dumpRoutes(): Message {
  return { type: RTM.GETROUTE, flags: NLM_F_DUMP, body: [new Uint8Array(RTMSG_BYTES)] };
}

/** Unicast routes of all tables, as the kernel lists them. */
export function parseRoutes(messages: readonly Received[]): Route[] {
  return messages
    .filter((message) => message.type === RTM.NEWROUTE && message.body[7] === RTN_UNICAST)
    .map((message) => {
      const found = attributes(message.body.subarray(RTMSG_BYTES));
      const ip = (type: number): Ip | undefined => {
        const value = found.get(type);
        return value && ipFromBytes(value);
      };
      const number = (type: number): number | undefined => {
        const value = found.get(type);
        return value && asU32(value);
      };
      const destination = ip(RTA.DST);
      const gateway = ip(RTA.GATEWAY);
      const source = ip(RTA.PREFSRC);
      const index = number(RTA.OIF);
      const metric = number(RTA.PRIORITY);
      return {
        ...(destination ? { destination: { ip: destination, prefix: message.body[1] ?? 0 } } : {}),
        ...(gateway ? { gateway } : {}),
        ...(index === undefined ? {} : { index }),
        ...(source ? { source } : {}),
        ...(metric === undefined ? {} : { metric }),
        table: number(RTA.TABLE) ?? message.body[4] ?? 0,
      };
    });
}

export interface Neighbour {
  index: number;
  /** Absent for an entry of a bridge's forwarding table. */
  ip?: Ip;
  mac: Uint8Array;
}

/** A permanent entry: IP to MAC. */
export function addNeighbour(neighbour: Neighbour & { ip: Ip }): Message {
  return neighbourMessage(RTM.NEWNEIGH, neighbour, NLM_F_CREATE | NLM_F_REPLACE, 0, afOf(neighbour.ip.family));
}

/** A vxlan's forwarding entry: MAC behind the node `ip`. All zeroes as MAC appends a node that unknown frames go to. */
export function addForwarding(entry: Neighbour & { ip: Ip }): Message {
  const flood = entry.mac.every((byte) => byte === 0);
  const flags = NLM_F_CREATE | (flood ? NLM_F_APPEND : NLM_F_REPLACE);
  return neighbourMessage(RTM.NEWNEIGH, entry, flags, NTF_SELF, AF_BRIDGE);
}

function neighbourMessage(type: number, entry: Neighbour, flags: number, ntf: number, family: number): Message {
  const head = bytes(12, (v) => {
    v.setUint8(0, family);
    v.setInt32(4, entry.index, true);
    v.setUint16(8, NUD_PERMANENT, true);
    v.setUint8(10, ntf);
  });
  return {
    type,
    flags: NLM_F_ACK | flags,
    body: [head, ...(entry.ip ? [attr(NDA.DST, ipBytes(entry.ip))] : []), attr(NDA.LLADDR, entry.mac)],
  };
}

function addressBody(address: Address): Uint8Array[] {
  const { ip, prefix } = address.cidr;
  const head = bytes(IFADDRMSG_BYTES, (v) => {
    v.setUint8(0, afOf(ip.family));
    v.setUint8(1, prefix);
    v.setUint32(4, address.index, true);
  });
  return [head, attr(IFA.LOCAL, ipBytes(ip)), attr(IFA.ADDRESS, ipBytes(ip))];
}

function routeBody(route: Route): Uint8Array[] {
  const family = route.gateway?.family ?? route.destination?.ip.family ?? 4;
  const head = bytes(RTMSG_BYTES, (v) => {
    v.setUint8(0, afOf(family));
    v.setUint8(1, route.destination?.prefix ?? 0);
    v.setUint8(4, RT_TABLE_MAIN);
    v.setUint8(5, RTPROT_BOOT);
    v.setUint8(6, route.gateway || family === 6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK);
    v.setUint8(7, RTN_UNICAST);
  });
  return [
    head,
    ...(route.destination ? [attr(RTA.DST, ipBytes(route.destination.ip))] : []),
    ...(route.gateway ? [attr(RTA.GATEWAY, ipBytes(route.gateway))] : []),
    ...(route.index === undefined ? [] : [u32(RTA.OIF, route.index)]),
    ...(route.source ? [attr(RTA.PREFSRC, ipBytes(route.source))] : []),
    ...(route.metric === undefined ? [] : [u32(RTA.PRIORITY, route.metric)]),
    ...(route.table === undefined ? [] : [u32(RTA.TABLE, route.table)]),
  ];
}
