import { parseIp } from '#kernel/netlink/ip.ts';
import type { Hold } from '#network/edge.ts';
import { BadNetworkOption, PortTaken } from '#network/errors.ts';
import type { Protocol, PublishedPort } from '#network/model.ts';

/** A wish to publish, as front ends have it: host address and port may be left open, the port may be a range. */
export interface PortWish {
  protocol: Protocol;
  containerPort: number;
  /** `''`: every address of the host, of both families. */
  hostIp: string;
  /** `''` or `'0'`: any free one; `'8080'`; `'8000-8010'`: the first free one of these. */
  hostPort: string;
}

/** Linux' own default of ip_local_port_range: what "any" is taken from, as Docker does. */
export const ANY_PORT = { first: 32768, last: 60999 } as const;

export interface PortHolder {
  port: PublishedPort;
  holder: string;
}

/**
 * Turns wishes into ports, against what our other containers publish. What other programs of the host hold is found when
 * the edge binds the port.
 */
export function resolvePorts(
  wishes: readonly PortWish[],
  held: readonly PortHolder[],
  defaults: { hostBinding: string; ipv6: boolean; anyAfter: number },
): PublishedPort[] {
  const out: PublishedPort[] = [];
  let any = defaults.anyAfter;
  for (const wish of wishes) {
    const addresses = hostAddresses(wish.hostIp, defaults);
    const candidates = candidatesFor(wish, any);
    let clash: PortHolder | undefined;
    const hostPort = candidates.find((port) => {
      clash = undefined;
      for (const ip of addresses) clash ??= findClash({ ...wish, hostIp: ip, hostPort: port }, held, out);
      return clash === undefined;
    });
    if (hostPort === undefined) {
      const port = candidates[0] ?? 0;
      throw new PortTaken({ ip: addresses[0] ?? '', port, protocol: wish.protocol, holder: clash?.holder });
    }
    if (candidates.length > 1000) any = hostPort;
    for (const hostIp of addresses)
      out.push({ protocol: wish.protocol, containerPort: wish.containerPort, hostIp, hostPort });
  }
  return out;
}

/** What is bound on the host to keep the ports from others. SCTP has no sockets on many kernels: our own table guards it alone. */
export function holdsFor(
  ports: readonly PublishedPort[],
  target: { ipv4: string | undefined; ipv6: string | undefined },
): Hold[] {
  return ports
    .filter((port) => port.protocol !== 'sctp')
    .map((port) => {
      const to = port.hostIp.includes(':') ? (target.ipv6 ?? target.ipv4) : undefined;
      return {
        protocol: port.protocol,
        ip: port.hostIp,
        port: port.hostPort,
        ...(to === undefined ? {} : { relayTo: { ip: to, port: port.containerPort } }),
      };
    });
}

function hostAddresses(hostIp: string, defaults: { hostBinding: string; ipv6: boolean }): string[] {
  if (hostIp !== '') {
    parseIp(hostIp);
    return [hostIp];
  }
  if (defaults.hostBinding !== '0.0.0.0') return [defaults.hostBinding];
  return defaults.ipv6 ? ['0.0.0.0', '::'] : ['0.0.0.0'];
}

function candidatesFor(wish: PortWish, anyAfter: number): number[] {
  const match = wish.hostPort.match(/^(\d{1,5})(?:-(\d{1,5}))?$/);
  const first = Number(match?.[1] ?? 0);
  const last = Number(match?.[2] ?? first);
  if ((wish.hostPort !== '' && !match) || first > last || last > 65535)
    throw new BadNetworkOption({
      option: 'host port',
      value: wish.hostPort,
      rule: 'is neither a port nor a range of ports',
    });
  if (first > 0) return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  const size = ANY_PORT.last - ANY_PORT.first + 1;
  const start = Math.max(0, anyAfter + 1 - ANY_PORT.first);
  return Array.from({ length: size }, (_, i) => ANY_PORT.first + ((start + i) % size));
}

function findClash(
  port: PublishedPort,
  held: readonly PortHolder[],
  own: readonly PublishedPort[],
): PortHolder | undefined {
  const inOwn = own.find((other) => clashes(port, other));
  return inOwn ? { port: inOwn, holder: 'this container itself' } : held.find((other) => clashes(port, other.port));
}

function clashes(a: PublishedPort, b: PublishedPort): boolean {
  if (a.protocol !== b.protocol || a.hostPort !== b.hostPort) return false;
  if (a.hostIp.includes(':') !== b.hostIp.includes(':')) return false;
  const wild = (ip: string): boolean => parseIp(ip).value === 0n;
  return a.hostIp === b.hostIp || wild(a.hostIp) || wild(b.hostIp);
}
