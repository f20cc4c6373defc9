import {
  bitsOf,
  type Cidr,
  contains,
  formatCidr,
  formatIp,
  type Ip,
  lastOf,
  networkOf,
  overlaps,
  parseCidr,
  plus,
  sameIp,
  sizeOf,
} from '#kernel/netlink/ip.ts';
import { BadNetworkOption, NoFreeAddress, NoFreeSubnet, SubnetOverlaps } from '#network/errors.ts';
import type { Subnet } from '#network/model.ts';

/** Address management; all of it pure. */

/** A space that subnets of one size are cut from. */
export interface Pool {
  base: Cidr;
  prefix: number;
}

/** What Docker's users expect to see, in its order. */
export const DEFAULT_POOLS: readonly Pool[] = [
  ...Array.from({ length: 15 }, (_, i) => ({ base: parseCidr(`172.${17 + i}.0.0/16`), prefix: 16 })),
  { base: parseCidr('192.168.0.0/16'), prefix: 20 },
  { base: parseCidr('10.128.0.0/9'), prefix: 20 },
];

/** A range somebody uses, and who: `network web`, `route of eth0`. */
export interface Taken {
  cidr: Cidr;
  holder: string;
}

/** The first subnet of the pools that overlaps nothing taken. */
export function chooseSubnet(pools: readonly Pool[], taken: readonly Taken[]): Cidr {
  for (const pool of pools) {
    const last = lastOf(pool.base).value;
    const step = 1n << BigInt(bitsOf(pool.base.ip.family) - pool.prefix);
    for (let value = networkOf(pool.base).ip.value; value <= last; ) {
      const candidate: Cidr = { ip: { family: pool.base.ip.family, value }, prefix: pool.prefix };
      const inTheWay = taken.find((other) => overlaps(candidate, other.cidr));
      if (!inTheWay) return candidate;
      // Past what is in the way, on the pool's own grid: a pool of a million subnets is not walked one by one.
      const after = lastOf(inTheWay.cidr).value + 1n;
      const next = ((after + step - 1n) / step) * step;
      value = next > value ? next : value + step;
    }
  }
  throw new NoFreeSubnet({ pools: pools.map((pool) => formatCidr(pool.base)) });
}

/** A unique local /64 for a network (RFC 4193), drawn from its id, so that two daemons hardly ever draw the same. */
export function uniqueLocalSubnet(id: string): Cidr {
  const bits = BigInt(`0x${id.slice(0, 14).padEnd(14, '0')}`); // 40 bits global id, 16 bits subnet
  return { ip: { family: 6, value: (0xfdn << 120n) | (bits << 64n) }, prefix: 64 };
}

export interface SubnetRequest {
  subnet: Cidr;
  range?: Cidr;
  gateway?: Ip;
  auxiliary?: Readonly<Record<string, Ip>>;
}

/** Checks a wish and fills what it leaves open. */
export function resolveSubnet(wish: SubnetRequest, taken: readonly Taken[]): Subnet {
  const subnet = networkOf(wish.subnet);
  const inTheWay = taken.find((other) => overlaps(subnet, other.cidr));
  if (inTheWay)
    throw new SubnetOverlaps({ subnet: formatCidr(subnet), other: formatCidr(inTheWay.cidr), holder: inTheWay.holder });
  const range = wish.range && networkOf(wish.range);
  const inside = (option: string, ip: Ip): void => {
    if (!contains(subnet, ip))
      throw new BadNetworkOption({ option, value: formatIp(ip), rule: `is not in subnet ${formatCidr(subnet)}` });
  };
  if (range) {
    inside('ip-range', range.ip);
    if (range.prefix < subnet.prefix)
      throw new BadNetworkOption({
        option: 'ip-range',
        value: formatCidr(range),
        rule: `is larger than ${formatCidr(subnet)}`,
      });
  }
  if (sizeOf(subnet) < 4n)
    throw new BadNetworkOption({
      option: 'subnet',
      value: formatCidr(subnet),
      rule: 'has no room for a gateway and a container',
    });
  const gateway = wish.gateway ?? firstHost(range ?? subnet, subnet);
  inside('gateway', gateway);
  for (const [name, ip] of Object.entries(wish.auxiliary ?? {})) inside(`aux-address ${name}`, ip);
  return { subnet, range, gateway, auxiliary: wish.auxiliary ?? {} };
}

/**
 * The next free address behind `after`, wrapping round once. Next-fit, not first-fit: an address that was just given back
 * rests for a while, so that neighbours' ARP caches and clients' connections do not meet its next holder.
 */
export function chooseAddress(
  where: Subnet,
  used: { has(value: bigint): boolean },
  after: Ip | undefined,
  network: string,
): Ip {
  const range = where.range ?? where.subnet;
  const first = networkOf(range).ip.value;
  const size = sizeOf(range);
  const reserved = [where.gateway, ...Object.values(where.auxiliary)];
  const start = after && contains(range, after) ? after.value - first + 1n : 0n;
  for (let i = 0n; i < size; i++) {
    const ip: Ip = { family: range.ip.family, value: first + ((start + i) % size) };
    if (used.has(ip.value) || !isHost(where.subnet, ip) || reserved.some((other) => sameIp(other, ip))) continue;
    return ip;
  }
  throw new NoFreeAddress({ network, range: formatCidr(range) });
}

/** Not the network's own address, and not IPv4's broadcast. */
export function isHost(subnet: Cidr, ip: Ip): boolean {
  if (!contains(subnet, ip) || sameIp(ip, networkOf(subnet).ip)) return false;
  return ip.family === 6 || !sameIp(ip, lastOf(subnet));
}

function firstHost(range: Cidr, subnet: Cidr): Ip {
  const first = networkOf(range).ip;
  return isHost(subnet, first) ? first : plus(first, 1n);
}

/** Docker's way: 02:42 and the IPv4 address, so that an address and its MAC move together and no ARP cache is wrong. */
export function macFor(ip: Ip): string {
  const low = ip.value & 0xffff_ffffn;
  const hex = low.toString(16).padStart(8, '0');
  return `02:42:${hex.slice(0, 2)}:${hex.slice(2, 4)}:${hex.slice(4, 6)}:${hex.slice(6, 8)}`;
}

export function macBytes(mac: string): Uint8Array {
  return Uint8Array.from(mac.split(':'), (part) => Number.parseInt(part, 16));
}
