import { isIP } from 'node:net';
import { keyOf, type Live, type ObjectKey } from '#cluster/client/resources.ts';
import type { Family } from '#kernel/netlink/ip.ts';
import { endpointsBehind, serving } from '#spec/kubernetes/endpoints.ts';
import type { EndpointSlice, Service, ServicePort } from '#spec/kubernetes/types.gen.ts';

/** A Service as the node's kernel should serve it. Pure: objects in, plain values out. */
export interface ServicePlan {
  key: ObjectKey;
  pools: readonly Pool[];
  frontends: readonly Frontend[];
}

export type Protocol = 'tcp' | 'udp' | 'sctp';

/** Where connections go: one of these targets, by chance or as the client was sent before. */
export interface Pool {
  /** Unique in its Service: `IPv4 http/tcp all`. */
  name: string;
  family: Family;
  targets: readonly Target[];
  /** Session affinity: the client's address decides. */
  sticky: boolean;
  /** Without targets: tell the client at once, or (a Local policy on a node without endpoints) say nothing, as upstream does. */
  whenEmpty: 'reject' | 'drop';
  /** The targets are on their way out and serve only because nobody else does. */
  leaving: boolean;
}

export interface Target {
  ip: string;
  port: number;
  /** On another node: what comes from outside must be answered through this one. */
  remote: boolean;
}

export interface Frontend {
  /** Absent: a node port, at every address of the host. */
  address: string | undefined;
  family: Family;
  protocol: Protocol;
  port: number;
  pool: string;
  /** Clients that may come, as CIDRs; absent: all (`loadBalancerSourceRanges`). */
  sources?: readonly string[];
}

/** Left to another proxy by its label, or nothing to do for a proxy at all. */
export function isProxied(service: Service): boolean {
  const { type, clusterIP } = service.spec ?? {};
  if (service.metadata.labels?.['service.kubernetes.io/service-proxy-name'] !== undefined) return false;
  return type !== 'ExternalName' && clusterIP !== undefined && clusterIP !== '' && clusterIP !== 'None';
}

/** What a plan depends on beside the objects. */
export interface PlanFor {
  nodeName: string;
  /** Services of type LoadBalancer are served at their own ports of every address of the host: there is no pool of addresses. */
  hostPublishes: boolean;
}

export function planService(service: Live<Service>, slices: readonly EndpointSlice[], here: PlanFor): ServicePlan {
  const key = keyOf(service);
  if (!isProxied(service)) return { key, pools: [], frontends: [] };
  const pools = new Map<string, Pool>();
  const frontends: Frontend[] = [];
  for (const family of familiesOf(service)) {
    for (const port of service.spec?.ports ?? []) {
      const protocol = (port.protocol ?? 'TCP').toLowerCase() as Protocol;
      const poolFor = (local: boolean): string => {
        const name = `IPv${family} ${port.name ?? ''}/${protocol} ${local ? 'local' : 'all'}`;
        if (!pools.has(name))
          pools.set(name, poolOf(service, port, slices, { name, family, local, nodeName: here.nodeName }));
        return name;
      };
      frontends.push(...frontendsOf(service, port, { protocol, family, hostPublishes: here.hostPublishes }, poolFor));
    }
  }
  return { key, pools: [...pools.values()], frontends };
}

function familiesOf(service: Service): Family[] {
  const named = service.spec?.ipFamilies ?? ['IPv4'];
  return named.map((name) => (name === 'IPv6' ? 6 : 4));
}

function frontendsOf(
  service: Service,
  port: ServicePort,
  { protocol, family, hostPublishes }: { protocol: Protocol; family: Family; hostPublishes: boolean },
  poolFor: (local: boolean) => string,
): Frontend[] {
  const spec = service.spec ?? {};
  const ofFamily = (address: string): boolean => isIP(address) === family;
  const clusterIps = (spec.clusterIPs ?? [spec.clusterIP ?? '']).filter(ofFamily);
  const fromOutside = spec.externalTrafficPolicy === 'Local';
  // A load balancer that is a proxy of its own (ipMode Proxy) wants to see its clients again, not be passed by.
  const balanced = (service.status?.loadBalancer?.ingress ?? [])
    .filter((i) => i.ipMode !== 'Proxy')
    .map((i) => i.ip ?? '')
    .filter(ofFamily);
  const external = (spec.externalIPs ?? []).filter(ofFamily);
  const base = { family, protocol, port: port.port };
  // The balancer has granted the ports when it wrote an address: one Service a port, and none that a program listens on.
  const published = hostPublishes && spec.type === 'LoadBalancer' && !spec.loadBalancerClass && balanced.length > 0;
  const sources = spec.loadBalancerSourceRanges?.filter((cidr) => cidr.includes(':') === (family === 6));
  return [
    ...clusterIps.map((address) => ({ ...base, address, pool: poolFor(spec.internalTrafficPolicy === 'Local') })),
    ...external.map((address) => ({ ...base, address, pool: poolFor(fromOutside) })),
    ...(published ? [undefined] : balanced).map((address) => ({
      ...base,
      address,
      pool: poolFor(fromOutside),
      ...(spec.loadBalancerSourceRanges?.length ? { sources: sources ?? [] } : {}),
    })),
    ...(port.nodePort ? [{ ...base, address: undefined, port: port.nodePort, pool: poolFor(fromOutside) }] : []),
  ];
}

function poolOf(
  service: Service,
  port: ServicePort,
  slices: readonly EndpointSlice[],
  at: { name: string; family: Family; local: boolean; nodeName: string },
): Pool {
  const all = endpointsBehind(slices, port, at.family);
  const { chosen, leaving } = serving(all.filter(({ endpoint }) => !at.local || endpoint.nodeName === at.nodeName));
  const targets = new Map(
    chosen.map(({ endpoint, number }): [string, Target] => {
      const ip = endpoint.addresses[0] ?? '';
      const remote = endpoint.nodeName !== undefined && endpoint.nodeName !== at.nodeName;
      return [`${ip} ${number}`, { ip, port: number, remote }];
    }),
  );
  return {
    name: at.name,
    family: at.family,
    targets: [...targets.values()],
    sticky: service.spec?.sessionAffinity === 'ClientIP',
    whenEmpty: at.local && all.length > 0 ? 'drop' : 'reject',
    leaving,
  };
}

/**
 * Targets in their slots, changing as few slots as can be: one that stays keeps its slot, the last ones move into the holes.
 * So a change costs as many messages as endpoints changed, whatever the size of the Service.
 */
export function arrange(before: readonly string[], wanted: ReadonlySet<string>): string[] {
  const slots: (string | undefined)[] = before.map((id) => (wanted.has(id) ? id : undefined));
  const kept = new Set(slots);
  const fresh = [...wanted].filter((id) => !kept.has(id));
  for (let at = 0; at < slots.length; at++) if (slots[at] === undefined) slots[at] = fresh.shift();
  slots.push(...fresh);
  while (slots.length > 0 && slots.at(-1) === undefined) slots.pop();
  for (let at = 0; at < slots.length; at++) {
    if (slots[at] !== undefined) continue;
    slots[at] = slots.pop();
    while (slots.length > 0 && slots.at(-1) === undefined) slots.pop();
  }
  return slots.filter((id) => id !== undefined);
}
