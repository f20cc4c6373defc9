import { existsSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DEFAULT_SERVICE_CIDR } from '#app/kube-api.ts';
import { defineError, EstibaError, errnoOf, isCode } from '#base/errors.ts';
import { logger } from '#base/log.ts';
import { findNetHand, type NetKernel, spawnNetHand } from '#kernel/netlink/hand.ts';
import { type Cidr, formatCidr, formatIp, overlaps, parseCidr, parseIp } from '#kernel/netlink/ip.ts';
import { dumpLinks, type Link, parseLinks } from '#kernel/netlink/link.ts';
import {
  addRoute,
  deleteRoute,
  dumpAddresses,
  dumpRoutes,
  parseAddresses,
  parseRoutes,
  type Route,
  replaceRoute,
} from '#kernel/netlink/route.ts';
import { type Message, NETLINK_ROUTE, type Received } from '#kernel/netlink/wire.ts';
import { writeFileAtomic } from '#storage/files.ts';

/**
 * The addresses of Services. Two daemons with one range would answer each other's names, and the second would take over the first
 * one's route: a range that was asked for, or that a cluster's Services have addresses of, is refused when somebody else on the host
 * holds it; a new cluster with no wish takes the next free one and keeps it.
 *
 *     D/kube/service-range.json   {"cidr": "10.97.0.0/16"}: the range of this cluster
 */
export const ServiceRangeTaken = defineError(
  'SERVICE_RANGE_TAKEN',
  (d: { cidr: string; holders: readonly string[] }) => ({
    message: `the Service range ${d.cidr} is in use on this host already: ${d.holders.join(', ')}`,
    hint: 'mostly that is another daemon: give this one a range of its own with --service-cidr, or end the other with --remove',
  }),
);

const EEXIST = 17; // asm-generic/errno-base.h
/** 10.96.0.0/16 to 10.111.0.0/16: what Kubernetes' usual 10.96.0.0/12 has. */
const CANDIDATES = Array.from({ length: 16 }, (_, i) => `10.${96 + i}.0.0/16`);

/** Pure. `kept` is the range of a cluster that is there. */
export function decideServiceRange(
  wish: { wished: string | undefined; kept: string | undefined },
  holdersOf: (range: Cidr) => readonly string[],
): string {
  const fixed = wish.wished ?? wish.kept;
  if (fixed === undefined) {
    const free = CANDIDATES.find((cidr) => holdersOf(parseCidr(cidr)).length === 0);
    if (free !== undefined) return free;
  }
  const cidr = fixed ?? DEFAULT_SERVICE_CIDR;
  const holders = holdersOf(parseCidr(cidr));
  if (holders.length > 0) throw new ServiceRangeTaken({ cidr, holders });
  return cidr;
}

type Netlink = Pick<NetKernel, 'netlink'>;

/** A look at the host: the link that has the pods' gateway, and all that might be in the way. */
export interface Seen {
  own: { index: number };
  routes: readonly Route[];
  links: readonly Pick<Link, 'index' | 'name'>[];
}

/**
 * Who else on this host has addresses of the Service range: mostly another daemon with the same range, since each routes its own to
 * its pods' link. A wider route (a VPN's 10.0.0.0/8) is nobody's in particular: ours is the narrower one, and holds.
 */
export function rangeHolders(range: Cidr, { own, routes, links }: Seen): string[] {
  return routes.flatMap(({ destination, index }) => {
    if (!destination || index === own.index || destination.prefix < range.prefix) return [];
    if (!overlaps(destination, range)) return [];
    const name = links.find((link) => link.index === index)?.name ?? 'a link that is gone';
    return [`${formatCidr(destination)} by ${name}`];
  });
}

function ask(kernel: Netlink, what: string, messages: Message[]): Promise<Received[]> {
  return kernel.netlink({ what, protocol: NETLINK_ROUTE, messages });
}

async function look(kernel: Netlink, gateway: string): Promise<Seen> {
  const addresses = parseAddresses(await ask(kernel, 'read addresses', [dumpAddresses()]));
  const own = addresses.find(({ cidr }) => formatIp(cidr.ip) === gateway);
  if (!own) throw new EstibaError('NO_GATEWAY', `no link of this host has the pods' gateway ${gateway}`);
  const routes = parseRoutes(await ask(kernel, 'read routes', [dumpRoutes()]));
  return { own, routes, links: parseLinks(await ask(kernel, 'read links', [dumpLinks()])) };
}

/** The range of this daemon's cluster, claimed on the host before anything has an address of it. */
export async function claimServiceRange(o: {
  dataRoot: string;
  gateway: string;
  wished: string | undefined;
}): Promise<string> {
  const directory = join(o.dataRoot, 'kube');
  const path = join(directory, 'service-range.json');
  const kernel = spawnNetHand(findNetHand());
  try {
    const seen = await look(kernel, o.gateway);
    const kept = await keptRange(directory, path);
    const cidr = decideServiceRange({ wished: o.wished, kept }, (range) => rangeHolders(range, seen));
    if (o.wished === undefined && kept === undefined && cidr !== DEFAULT_SERVICE_CIDR)
      logger('app').info(`${DEFAULT_SERVICE_CIDR} is in use on this host: Services get ${cidr}`);
    await routeServices(kernel, { serviceCidr: cidr, gateway: o.gateway });
    await mkdir(directory, { recursive: true, mode: 0o700 });
    if (cidr !== kept) await writeFileAtomic(path, JSON.stringify({ cidr }), { mode: 0o600 });
    return cidr;
  } finally {
    kernel.close();
  }
}

async function keptRange(directory: string, path: string): Promise<string | undefined> {
  try {
    return (JSON.parse(await readFile(path, 'utf8')) as { cidr: string }).cidr;
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    // A cluster from before the range was kept had the default one, unless it was told.
    return existsSync(join(directory, 'ca.json')) ? DEFAULT_SERVICE_CIDR : undefined;
  }
}

/**
 * A host without a default route has no way to a Service's address at all, and gives up before any rule is asked. With the pods'
 * link as the way, programs on the host reach Services, with the gateway's address as theirs. Returns what takes it back.
 */
export async function routeServices(
  kernel: Netlink,
  { serviceCidr, gateway }: { serviceCidr: string; gateway: string },
): Promise<() => Promise<void>> {
  const seen = await look(kernel, gateway);
  const { own, routes } = seen;
  const route = { destination: parseCidr(serviceCidr), index: own.index, source: parseIp(gateway) };
  const holders = rangeHolders(route.destination, seen);
  if (holders.length > 0) throw new ServiceRangeTaken({ cidr: serviceCidr, holders });
  const isOurs = routes.some(
    ({ destination, index }) => index === own.index && destination && same(destination, route),
  );
  try {
    // Of two that come at once the kernel takes one: only what is ours already is replaced.
    await ask(kernel, `route ${serviceCidr} to the pods' link`, [isOurs ? replaceRoute(route) : addRoute(route)]);
  } catch (cause) {
    if (!isCode(cause, 'NETLINK_REFUSED') || cause.data['errno'] !== EEXIST) throw cause;
    const quicker = rangeHolders(route.destination, await look(kernel, gateway));
    if (quicker.length === 0) throw cause; // and is gone again
    throw new ServiceRangeTaken({ cidr: serviceCidr, holders: quicker }, { cause });
  }
  return async () => void (await ask(kernel, `take back the route of ${serviceCidr}`, [deleteRoute(route)]));
}

function same(a: Cidr, { destination: b }: { destination: Cidr }): boolean {
  return formatCidr(a) === formatCidr(b);
}
