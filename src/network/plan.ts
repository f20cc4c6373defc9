import type { Random } from '#base/random.ts';
import { OTHER_NETNS } from '#kernel/netlink/hand.ts';
import { bitsOf, type Cidr, type Family, type Ip, parseIp } from '#kernel/netlink/ip.ts';
import { addBridge, addVeth, deleteLink, setBridgePort, setLink } from '#kernel/netlink/link.ts';
import { addAddress, addRoute, replaceRoute } from '#kernel/netlink/route.ts';
import type { Message } from '#kernel/netlink/wire.ts';
import { redirectDns } from '#network/dns/redirect.ts';
import { DNS_ADDRESS } from '#network/edge.ts';
import { gatewayEndpoint, publishTarget } from '#network/gateways.ts';
import { macBytes, macFor } from '#network/ipam.ts';
import { type Endpoint, LINK_INDEX_BASE, type Network, type PublishedPort, type Sandbox } from '#network/model.ts';
import { addAll, gateElement, networkElements, portElements, removeAll } from '#network/ruleset.ts';
import type { NamespaceOwner, NetStep } from '#network/steps.ts';

/** The host's own namespace, as the helper sees it before it enters another. */
const HOME = '/proc/self/ns/net';
const LOOPBACK_INDEX = 1;

/** Names on the host are at most 15 bytes (IFNAMSIZ): the daemon's name may have eight. */
export function bridgeName(daemon: string, networkId: string, isDefault: boolean): string {
  return isDefault ? `${daemon}0` : `${daemon.slice(0, 8)}-${networkId.slice(0, 6)}`;
}

/** New for each plug: a pair that dies with its namespace keeps its name for some milliseconds more. */
export function hostLinkName(daemon: string, random: Random): string {
  return `${daemon.slice(0, 6)}-${Buffer.from(random.bytes(4)).toString('hex')}`;
}

/** A bridge network comes up: link, addresses, settings, and its place in the firewall's sets. */
export function planNetworkUp(daemon: string, network: Network): NetStep[] {
  if (network.driver !== 'bridge') return [];
  const because = `network ${network.name}`;
  const link = { name: network.bridge };
  return [
    {
      do: 'route',
      what: `make bridge ${network.bridge}`,
      because,
      messages: [
        // A MAC of its own: a bridge without one takes its lowest port's and changes it as ports come and go.
        addBridge({
          ...link,
          mac: bridgeMac(network),
          mtuBytes: network.mtuBytes,
          options: { stp: false, forwardDelayMs: 0 },
        }),
        setLink(link, { up: true, ...(network.ipv6 ? {} : { noLinkLocal: true }) }),
      ],
      undo: [{ do: 'route', what: `remove bridge ${network.bridge}`, because, messages: [deleteLink(link)] }],
    },
    {
      do: 'sysctl',
      what: `let 127.0.0.1 of the host be published on ${network.bridge}`,
      because,
      netns: '',
      name: `ipv4/conf/${network.bridge}/route_localnet`,
      value: '1',
    },
    {
      do: 'firewall',
      what: `admit ${network.bridge} to the firewall's sets`,
      because,
      messages: addAll(daemon, networkElements(network)),
      undo: [
        {
          do: 'firewall',
          what: `take ${network.bridge} out of the firewall's sets`,
          because,
          messages: removeAll(daemon, networkElements(network)),
        },
      ],
    },
  ];
}

/** The bridge's addresses need its number, which only the kernel knows. */
export function planBridgeAddresses(network: Network, index: number): NetStep {
  return {
    do: 'route',
    what: `give ${network.bridge} its gateway addresses`,
    because: `network ${network.name}`,
    messages: network.subnets.map(({ gateway, subnet }) =>
      addAddress({ index, cidr: { ip: gateway, prefix: subnet.prefix } }),
    ),
  };
}

export function planNetworkDown(daemon: string, network: Network): NetStep[] {
  if (network.driver !== 'bridge') return [];
  const because = `network ${network.name} goes`;
  return [
    {
      do: 'firewall',
      what: `take ${network.bridge} out of the firewall's sets`,
      because,
      messages: removeAll(daemon, networkElements(network)),
    },
    { do: 'route', what: `remove bridge ${network.bridge}`, because, messages: [deleteLink({ name: network.bridge })] },
  ];
}

/**
 * An empty namespace with its loopback up and the way to the embedded DNS laid: what a pool holds ready. `redirect` is the same for
 * all: who makes many encodes it once.
 */
export function planNamespace(
  path: string,
  because: string,
  redirect = redirectDns(),
  owner?: NamespaceOwner,
): NetStep[] {
  return [
    {
      do: 'netns',
      what: `make network namespace ${path}`,
      because,
      path,
      ...(owner ? { owner } : {}),
      undo: planNamespaceGone({ netns: path, userns: owner?.path }, because),
    },
    {
      do: 'route',
      what: 'bring lo up',
      because,
      netns: path,
      messages: [setLink({ index: LOOPBACK_INDEX }, { up: true })],
    },
    { do: 'firewall', what: `lead ${DNS_ADDRESS}:53 to the edge`, because, netns: path, messages: redirect },
  ];
}

/** A namespace that is kept, with the user namespace that it belongs to. */
export function planNamespaceGone(
  { netns, userns }: { netns: string; userns?: string | undefined },
  because: string,
): NetStep[] {
  const drop = (kind: string, path: string): NetStep => ({
    do: 'dropNetns',
    what: `drop ${kind} namespace ${path}`,
    because,
    path,
  });
  return [drop('network', netns), ...(userns === undefined ? [] : [drop('user', userns)])];
}

export interface Plug {
  endpoint: Endpoint;
  network: Network;
  /** Number of the network's bridge. */
  bridgeIndex: number;
}

type Place = Pick<Plug, 'endpoint' | 'network'>;

/** Plugs a container into a network: one request inside its namespace, one on the host. */
export function planPlug(netns: string, { endpoint, network, bridgeIndex }: Plug): NetStep[] {
  const because = `network ${network.name}`;
  const index = linkIndex(endpoint);
  const host = { name: endpoint.hostLink };
  const inside: Message[] = [
    addVeth({
      name: endpoint.link,
      index,
      mac: macBytes(endpoint.mac),
      mtuBytes: network.mtuBytes,
      peer: { name: endpoint.hostLink, mtuBytes: network.mtuBytes, netns: { fd: OTHER_NETNS } },
    }),
    setLink({ index }, { up: true, ...(endpoint.ipv6 ? {} : { noLinkLocal: true }) }),
    ...[...addressesOf(endpoint, network), ...linkLocalOf(endpoint)].map((cidr) => addAddress({ index, cidr })),
    ...endpoint.defaultRoutes.flatMap((family) => defaultRoute({ endpoint, network }, family, addRoute)),
  ];
  return [
    {
      do: 'route',
      what: `make ${endpoint.link} with ${[endpoint.ipv4, endpoint.ipv6].filter(Boolean).join(' and ')}`,
      because,
      netns,
      otherNetns: HOME,
      messages: inside,
      undo: [planUnplug(netns, endpoint, because)],
    },
    {
      do: 'route',
      what: `plug ${endpoint.hostLink} into ${network.bridge}`,
      because,
      messages: [
        setLink(host, { master: bridgeIndex, up: true }),
        // Hairpin: with br_netfilter loaded (dockerd does it) DNAT happens while bridging, and a container that asks for its
        // own published port is answered out of the port it came in by.
        setBridgePort(host, { hairpin: true, ...(network.icc ? {} : { isolated: true }) }),
      ],
    },
  ];
}

/**
 * Only for a container that lives on: deleting a pair costs the caller 17 ms of the kernel's waiting, while with its
 * namespace it dies behind our back.
 */
export function planUnplug(netns: string, endpoint: Endpoint, because: string): NetStep {
  return {
    do: 'route',
    what: `remove ${endpoint.link}`,
    because,
    netns,
    messages: [deleteLink({ index: linkIndex(endpoint) })],
  };
}

/** The default routes of a container that runs move: one message a family, so that no packet finds none. */
export function planReroute(netns: string, from: readonly Place[], to: readonly Place[]): NetStep[] {
  const moved = newWays(from, to);
  if (moved.length === 0) return [];
  const step = (ways: typeof moved): NetStep => ({
    do: 'route',
    what: `lead ${ways.map((way) => `IPv${way.family} out by ${way.place.endpoint.link}`).join(' and ')}`,
    because: 'gateway priorities of its networks',
    netns,
    messages: ways.flatMap(({ place, family }) => defaultRoute(place, family, replaceRoute)),
  });
  const back = newWays(to, from);
  return [{ ...step(moved), ...(back.length > 0 ? { undo: [step(back)] } : {}) }];
}

/** What of `to` has a default route that it has not in `from`. */
function newWays(from: readonly Place[], to: readonly Place[]): { place: Place; family: Family }[] {
  const endpoints = from.map(({ endpoint }) => endpoint);
  return to.flatMap((place) =>
    place.endpoint.defaultRoutes
      .filter((family) => gatewayEndpoint({ endpoints }, family)?.link !== place.endpoint.link)
      .map((family) => ({ place, family })),
  );
}

/** Published ports of a container that runs lead to where its default routes are now: in one transaction no port is ever closed. */
export function planRepublish(daemon: string, before: Sandbox, after: Sandbox): NetStep[] {
  const [from, to] = [publishTarget(before), publishTarget(after)];
  if (after.ports.length === 0 || (from.ipv4 === to.ipv4 && from.ipv6 === to.ipv6)) return [];
  const step = (old: typeof from, now: typeof from): NetStep => ({
    do: 'firewall',
    what: `lead ${after.ports.map(describePort).join(', ')} to ${[now.ipv4, now.ipv6].filter(Boolean).join(' and ')}`,
    because: 'gateway priorities of its networks',
    messages: [...removeAll(daemon, portElements(after.ports, old)), ...addAll(daemon, portElements(after.ports, now))],
  });
  return [{ ...step(from, to), undo: [step(to, from)] }];
}

/** Published ports of a sandbox: one transaction. `counted` tells how many others publish the same host port. */
export function planPublish(daemon: string, sandbox: Sandbox, counted: (port: PublishedPort) => number): NetStep {
  const because = 'flag --publish';
  const parts = publishedElements(sandbox, counted);
  return {
    do: 'firewall',
    what: `publish ${sandbox.ports.map(describePort).join(', ')}`,
    because,
    messages: addAll(daemon, parts),
    undo: [{ do: 'firewall', what: 'withdraw published ports', because, messages: removeAll(daemon, parts) }],
  };
}

export function planWithdraw(daemon: string, sandbox: Sandbox, counted: (port: PublishedPort) => number): NetStep {
  return {
    do: 'firewall',
    what: `withdraw ${sandbox.ports.map(describePort).join(', ')}`,
    because: `container ${sandbox.name} goes`,
    messages: removeAll(daemon, publishedElements(sandbox, counted)),
  };
}

export function describePort(port: PublishedPort): string {
  return `${port.hostIp.includes(':') ? `[${port.hostIp}]` : port.hostIp}:${port.hostPort}->${port.containerPort}/${port.protocol}`;
}

export function linkIndex(endpoint: Endpoint): number {
  return LINK_INDEX_BASE + Number(endpoint.link.replace(/^\D+/, ''));
}

function publishedElements(
  sandbox: Sandbox,
  counted: (port: PublishedPort) => number,
): ReturnType<typeof portElements> {
  const gates = new Map<string, ReturnType<typeof gateElement>>();
  for (const port of sandbox.ports)
    if (counted(port) === 0) gates.set(`${port.protocol} ${port.hostPort}`, gateElement(port.protocol, port.hostPort));
  return [...portElements(sandbox.ports, publishTarget(sandbox)), ...gates.values()];
}

function addressesOf(endpoint: Endpoint, network: Network): Cidr[] {
  return [endpoint.ipv4, endpoint.ipv6].flatMap((text) => {
    if (text === undefined) return [];
    const ip = parseIp(text);
    const subnet = network.subnets.find((s) => s.subnet.ip.family === ip.family);
    return subnet ? [{ ip, prefix: network.routed ? bitsOf(ip.family) : subnet.subnet.prefix }] : [];
  });
}

/** Each is reached on the link itself: RFC 3927 gives it a prefix of 16, RFC 4291 one of 64. */
function linkLocalOf({ linkLocal = [] }: Endpoint): Cidr[] {
  return linkLocal.map((text) => {
    const ip = parseIp(text);
    return { ip, prefix: ip.family === 4 ? 16 : 64 };
  });
}

function defaultRoute(
  { endpoint, network }: Place,
  family: Family,
  put: (route: { destination?: Cidr; gateway?: Ip; index: number }) => Message,
): Message[] {
  const index = linkIndex(endpoint);
  return network.subnets
    .filter(({ gateway }) => gateway.family === family)
    .flatMap(({ gateway }) => [
      // Alone with its address, a container finds its gateway by a route that says: on this link.
      ...(network.routed ? [put({ destination: { ip: gateway, prefix: bitsOf(family) }, index })] : []),
      put({ gateway, index }),
    ]);
}

function bridgeMac(network: Network): Uint8Array {
  const first = network.subnets[0];
  return first
    ? macBytes(macFor(first.gateway))
    : macBytes(`02:42:${network.id.slice(0, 8).replace(/(..)(?=.)/g, '$1:')}`);
}
