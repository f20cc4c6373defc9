import type { NetKernel } from '#kernel/netlink/hand.ts';
import type { Cidr } from '#kernel/netlink/ip.ts';
import { dumpLinks, type Link, parseLinks } from '#kernel/netlink/link.ts';
import { dumpAddresses, dumpRoutes, parseAddresses, parseRoutes } from '#kernel/netlink/route.ts';
import { type Message, NETLINK_ROUTE, type Received } from '#kernel/netlink/wire.ts';
import type { Taken } from '#network/ipam.ts';

// What the host's own network says: its links, and the ranges that no network of ours may have.

/** `netns`: a path; the host's own when absent. */
export function askRoute(kernel: NetKernel, what: string, messages: Message[], netns = ''): Promise<Received[]> {
  return kernel.netlink({ what, protocol: NETLINK_ROUTE, messages, netns });
}

export async function hostLinks(kernel: NetKernel): Promise<Link[]> {
  return parseLinks(await askRoute(kernel, 'read links', [dumpLinks()]));
}

/** Subnets of host routes and addresses, but for those of our own bridges. */
export async function takenOnHost(kernel: NetKernel, bridges: ReadonlySet<string>): Promise<Taken[]> {
  const links = await hostLinks(kernel);
  const own = new Set(links.filter((l) => bridges.has(l.name)).map((l) => l.index));
  const nameOf = (index: number | undefined): string => links.find((l) => l.index === index)?.name ?? 'a tunnel';
  const routes = parseRoutes(await askRoute(kernel, 'read routes', [dumpRoutes()]));
  const addresses = parseAddresses(await askRoute(kernel, 'read addresses', [dumpAddresses()]));
  const from = (kind: string, index: number | undefined, cidr: Cidr): Taken[] =>
    index !== undefined && own.has(index) ? [] : [{ cidr, holder: `${kind} of ${nameOf(index)}` }];
  return [
    ...routes.flatMap((r) => (r.destination ? from('route', r.index, r.destination) : [])),
    ...addresses.flatMap((a) => from('address', a.index, a.cidr)),
  ];
}
