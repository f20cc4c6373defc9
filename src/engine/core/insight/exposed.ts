import { type ContainerRecord, isRunning } from '#engine/core/record.ts';
import type { Family } from '#kernel/netlink/ip.ts';
import type { Listener } from '#kernel/proc/sockets.ts';
import type { FirewallNote } from '#network/firewall.ts';
import type { Reach, ReachTarget } from '#network/reach.ts';

/** What of this node can be reached from where, through containers. */
export interface Exposed {
  ports: ExposedPort[];
  /** Containers without a network namespace of their own: every port they open is the host's. */
  onHost: { container: string; because: string }[];
  /** What of the host's firewall keeps published ports closed, or stops containers' traffic. */
  firewall: { where: string; says: string; fix: string }[];
}

export interface ExposedPort {
  container: string;
  containerPort: number;
  protocol: string;
  hostIp: string;
  hostPort: number;
  reach: 'this host' | 'whoever reaches that address' | 'whoever reaches this host';
  /** Where it answers, `ADDRESS:PORT`. */
  answersAt: string[];
  /** By which links and from which sources the host's input rules let a new connection in; equal answers together. */
  from: { at: string[]; ways: Reach[] }[];
  /** Addresses of which that is not known: the rules cut the sources into too many pieces. */
  unjudged: string[];
  /** False: published, and no program takes what comes. */
  listening: boolean;
  because: string;
}

export interface ExposedInputs {
  records: readonly ContainerRecord[];
  /** By container id; absent when it does not run. */
  listeners: ReadonlyMap<string, readonly Listener[]>;
  hostAddresses: readonly string[];
  firewallNotes: readonly FirewallNote[];
  /** By `reachKey`; absent where the rules cut the sources into too many pieces. */
  reach: ReadonlyMap<string, Reach[]>;
}

export function reachKey({ protocol, port, address }: ReachTarget): string {
  return `${protocol} ${port} ${address}`;
}

/** Where a container's published ports of a family lead to. */
export type PublishedTo = { bridge: string; address: string | undefined } | undefined;

/** What is to be asked of the host's firewall for these containers. */
export function reachTargets(
  records: readonly ContainerRecord[],
  hostAddresses: readonly string[],
  publishedTo: (container: string, family: Family) => PublishedTo,
): ReachTarget[] {
  return records
    .filter((record) => isRunning(record.state))
    .flatMap(({ id, ports }) =>
      ports.flatMap(({ protocol, hostIp = '', hostPort, containerPort }) =>
        hostPort === undefined
          ? []
          : answering(hostIp, hostAddresses).map((address) => {
              const behind = behindOf(publishedTo(id, address.includes(':') ? 6 : 4), containerPort);
              return { protocol, port: hostPort, address, ...(behind ? { behind } : {}) };
            }),
      ),
    );
}

/** Undefined where the relay takes what comes: an IPv6 address of the host, and a container without one. */
function behindOf(to: PublishedTo, port: number): ReachTarget['behind'] {
  return to?.address === undefined ? undefined : { bridge: to.bridge, address: to.address, port };
}

function answering(hostIp: string, hostAddresses: readonly string[]): string[] {
  return ANY.has(hostIp) ? hostAddresses.filter((a) => a.includes(':') === hostIp.includes(':')) : [hostIp];
}

const ANY = new Set(['0.0.0.0', '::', '']);

/** Pure. */
export function exposed({ records, listeners, hostAddresses, firewallNotes, reach }: ExposedInputs): Exposed {
  const running = records.filter((record) => isRunning(record.state));
  return {
    ports: running.flatMap((record) => portsOf(record, listeners.get(record.id) ?? [], hostAddresses, reach)),
    onHost: running
      .filter(({ spec }) => spec.namespaces.network.kind === 'host')
      .map(({ name }) => ({ container: name, because: '--network host' })),
    firewall: firewallNotes.map(({ where, says, fix }) => ({ where, says, fix })),
  };
}

function portsOf(
  { name, ports, spec }: ContainerRecord,
  listeners: readonly Listener[],
  hostAddresses: readonly string[],
  reach: ExposedInputs['reach'],
): ExposedPort[] {
  return ports.flatMap((port): ExposedPort[] => {
    const { containerPort, protocol, hostIp = '', hostPort } = port;
    if (hostPort === undefined) return [];
    const any = ANY.has(hostIp);
    const loopback = hostIp === '::1' || hostIp.startsWith('127.');
    const addresses = answering(hostIp, hostAddresses);
    const known = addresses.map((address) => ({
      at: atPort(address, hostPort),
      ways: reach.get(reachKey({ protocol, port: hostPort, address })),
    }));
    const wished = Object.values(spec.network.ports).some((bindings) =>
      bindings.some((b) => b.hostPort !== '' && Number(b.hostPort) === hostPort),
    );
    return [
      {
        container: name,
        containerPort,
        protocol,
        hostIp,
        hostPort,
        reach: loopback ? 'this host' : any ? 'whoever reaches this host' : 'whoever reaches that address',
        answersAt: known.map(({ at }) => at),
        from: together(known),
        unjudged: known.flatMap(({ at, ways }) => (ways ? [] : [at])),
        listening: protocol === 'sctp' || listeners.some((l) => l.protocol === protocol && l.port === containerPort),
        because: wished ? '--publish, with that port' : spec.network.publishAll ? '--publish-all' : '--publish',
      },
    ];
  });
}

function atPort(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Addresses with one answer stand together. */
function together(known: readonly { at: string; ways: Reach[] | undefined }[]): ExposedPort['from'] {
  const groups = new Map<string, ExposedPort['from'][number]>();
  for (const { at, ways } of known) {
    if (!ways) continue;
    const key = JSON.stringify(ways);
    const group = groups.get(key);
    if (group) group.at.push(at);
    else groups.set(key, { at: [at], ways });
  }
  return [...groups.values()];
}
