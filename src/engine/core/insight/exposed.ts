import { type ContainerRecord, isRunning } from '#engine/core/record.ts';
import type { Listener } from '#kernel/proc/sockets.ts';
import type { FirewallNote } from '#network/firewall.ts';

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
}

const ANY = new Set(['0.0.0.0', '::', '']);

/** Pure. */
export function exposed({ records, listeners, hostAddresses, firewallNotes }: ExposedInputs): Exposed {
  const running = records.filter((record) => isRunning(record.state));
  return {
    ports: running.flatMap((record) => portsOf(record, listeners.get(record.id) ?? [], hostAddresses)),
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
): ExposedPort[] {
  return ports.flatMap((port): ExposedPort[] => {
    const { containerPort, protocol, hostIp = '', hostPort } = port;
    if (hostPort === undefined) return [];
    const any = ANY.has(hostIp);
    const v6 = hostIp.includes(':');
    const loopback = hostIp === '::1' || hostIp.startsWith('127.');
    const addresses = any ? hostAddresses.filter((a) => a.includes(':') === v6) : [hostIp];
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
        answersAt: addresses.map((a) => (a.includes(':') ? `[${a}]:${hostPort}` : `${a}:${hostPort}`)),
        listening: protocol === 'sctp' || listeners.some((l) => l.protocol === protocol && l.port === containerPort),
        because: wished ? '--publish, with that port' : spec.network.publishAll ? '--publish-all' : '--publish',
      },
    ];
  });
}
