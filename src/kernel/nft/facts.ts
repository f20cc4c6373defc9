import type { Family } from '#kernel/netlink/ip.ts';
import { type BaseChain, DATATYPE, type Hook, NFPROTO } from '#kernel/nft/message.ts';

// What every table of ours says of addresses, protocols and places in the way of a packet.

export const FAMILIES = [4, 6] as const satisfies readonly Family[];
export const IP_BYTES = { 4: 4, 6: 16 } as const;
/** Registers of 32 bits that an address takes. */
export const IP_WORDS = { 4: 1, 6: 4 } as const;
export const IP_TYPE = { 4: DATATYPE.ipv4, 6: DATATYPE.ipv6 } as const;
export const IP_PROTO = { 4: NFPROTO.IPV4, 6: NFPROTO.IPV6 } as const;
/** /etc/protocols */
export const PROTOCOL_NUMBER = { tcp: 6, udp: 17, sctp: 132 } as const;
/** As nft(8) names them. Chains of one hook run from the lowest up: a table that comes before or after another says by how much. */
export const PRIORITY = { raw: -300, dstnat: -100, filter: 0, srcnat: 100 } as const;

/** A chain that lets pass what none of its rules stops. */
export function filterAt(hook: Hook, priority: number): BaseChain {
  return { type: 'filter', hook, priority, policy: 'accept' };
}

/** The kernel asks it for the first packet of a connection alone. */
export function natAt(hook: Hook, priority: number): BaseChain {
  return { type: 'nat', hook, priority, policy: 'accept' };
}
