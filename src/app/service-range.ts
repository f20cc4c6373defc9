import { type Cidr, formatCidr, overlaps } from '#kernel/netlink/ip.ts';
import type { Link } from '#kernel/netlink/link.ts';
import type { Route } from '#kernel/netlink/route.ts';

/**
 * Who else on this host has addresses of the Service range: mostly another daemon with the same range, since each routes its own to
 * its pods' link. A wider route (a VPN's 10.0.0.0/8) is nobody's in particular: ours is the narrower one, and holds.
 */
export function rangeHolders(
  range: Cidr,
  own: { index: number },
  routes: readonly Route[],
  links: readonly Pick<Link, 'index' | 'name'>[],
): string[] {
  return routes.flatMap(({ destination, index }) => {
    if (!destination || index === own.index || destination.prefix < range.prefix) return [];
    if (!overlaps(destination, range)) return [];
    const name = links.find((link) => link.index === index)?.name ?? 'a link that is gone';
    return [`${formatCidr(destination)} by ${name}`];
  });
}
