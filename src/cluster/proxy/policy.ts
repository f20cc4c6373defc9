import { isIP } from 'node:net';
import { keyOf } from '#cluster/client/resources.ts';
import { type Cidr, type Family, lastOf, networkOf, parseCidr } from '#kernel/netlink/ip.ts';
import { matchesSelector } from '#spec/kubernetes/selector.ts';
import type {
  Namespace,
  NetworkPolicy,
  NetworkPolicyPeer,
  NetworkPolicyPort,
  Pod,
} from '#spec/kubernetes/types.gen.ts';

/** NetworkPolicies as the kernel should enforce them. Pure: objects in, plain values out. */
export interface PolicyPlan {
  /** Each rule of a policy that some pod of this cluster is subject to, by a name that says where it stands. */
  rules: readonly PolicyRule[];
  /** Who is subject to which policies: everything that none of their rules allows is dropped. */
  subjects: readonly Subject[];
}

export type Direction = 'ingress' | 'egress';

export interface PolicyRule {
  /** `default/web ingress 0` */
  name: string;
  policy: string;
  direction: Direction;
  /** Addresses at the other end, merged and in order; undefined: everybody. */
  peers: Readonly<Record<Family, readonly Range[]>> | undefined;
  /** Undefined: every port. */
  ports: readonly PortRange[] | undefined;
}

export interface Range {
  first: bigint;
  last: bigint;
}

export interface PortRange {
  protocol: 'tcp' | 'udp' | 'sctp';
  first: number;
  last: number;
  /** A port by name stands for another number in each pod: only this pod's. */
  pod?: string;
}

export interface Subject {
  ip: string;
  direction: Direction;
  /** Keys of policies, in order: pods with the same list share a chain. */
  policies: readonly string[];
}

export interface PolicyWorld {
  policies: readonly NetworkPolicy[];
  pods: readonly Pod[];
  namespaces: readonly Namespace[];
}

export function planPolicies(world: PolicyWorld): PolicyPlan {
  const live = world.pods.filter(hasNetwork);
  const rules: PolicyRule[] = [];
  const subjectOf = new Map<string, { ip: string; direction: Direction; policies: string[] }>();
  for (const policy of [...world.policies].sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))) {
    const { namespace } = policy.metadata;
    const targets = live.filter(
      (pod) =>
        pod.metadata.namespace === namespace && matchesSelector(policy.spec.podSelector ?? {}, pod.metadata.labels),
    );
    if (targets.length === 0) continue;
    for (const direction of directionsOf(policy)) {
      for (const ip of targets.flatMap(addressesOf)) {
        const subject = subjectOf.get(`${direction} ${ip}`) ?? { ip, direction, policies: [] };
        subject.policies.push(keyOf(policy));
        subjectOf.set(`${direction} ${ip}`, subject);
      }
      rules.push(...rulesOf(policy, direction, targets, { ...world, pods: live }));
    }
  }
  return { rules, subjects: [...subjectOf.values()] };
}

function directionsOf({ spec }: NetworkPolicy): Direction[] {
  const types = spec.policyTypes ?? ['Ingress', ...(spec.egress ? ['Egress'] : [])];
  return (['ingress', 'egress'] as const).filter((d) => types.includes(d === 'ingress' ? 'Ingress' : 'Egress'));
}

function rulesOf(
  policy: NetworkPolicy,
  direction: Direction,
  targets: readonly Pod[],
  world: PolicyWorld,
): PolicyRule[] {
  const namespace = policy.metadata.namespace ?? '';
  const parts =
    direction === 'ingress'
      ? (policy.spec.ingress ?? []).map(({ from, ports }) => ({ peers: from, ports }))
      : (policy.spec.egress ?? []).map(({ to, ports }) => ({ peers: to, ports }));
  return parts.map(({ peers, ports }, n): PolicyRule => {
    const others = peers?.length ? peers.flatMap((peer) => podsOf(peer, namespace, world)) : world.pods;
    const named = direction === 'ingress' ? targets : others;
    return {
      name: `${keyOf(policy)} ${direction} ${n}`,
      policy: keyOf(policy),
      direction,
      peers: peers?.length ? addressRanges(peers, namespace, world) : undefined,
      ports: ports?.length ? ports.flatMap((port) => portRanges(port, named)) : undefined,
    };
  });
}

function podsOf(peer: NetworkPolicyPeer, namespace: string, world: PolicyWorld): Pod[] {
  if (peer.ipBlock) return [];
  const within = (pod: Pod): boolean => {
    if (!peer.namespaceSelector) return pod.metadata.namespace === namespace;
    const its = world.namespaces.find((n) => n.metadata.name === pod.metadata.namespace);
    return its !== undefined && matchesSelector(peer.namespaceSelector, its.metadata.labels);
  };
  return world.pods.filter((pod) => within(pod) && matchesSelector(peer.podSelector ?? {}, pod.metadata.labels));
}

function addressRanges(
  peers: readonly NetworkPolicyPeer[],
  namespace: string,
  world: PolicyWorld,
): Record<Family, Range[]> {
  const found: Record<Family, Range[]> = { 4: [], 6: [] };
  for (const peer of peers) {
    for (const ip of podsOf(peer, namespace, world).flatMap(addressesOf)) {
      const family = isIP(ip) as Family;
      found[family].push(rangeOf(parseCidr(`${ip}/${family === 4 ? 32 : 128}`)));
    }
    if (!peer.ipBlock) continue;
    const block = parseCidr(peer.ipBlock.cidr);
    const except = (peer.ipBlock.except ?? []).map((cidr) => rangeOf(parseCidr(cidr)));
    found[block.ip.family].push(...without(rangeOf(block), except));
  }
  return { 4: merged(found[4]), 6: merged(found[6]) };
}

function portRanges({ port, endPort, protocol }: NetworkPolicyPort, pods: readonly Pod[]): PortRange[] {
  const name = (protocol ?? 'TCP').toLowerCase() as PortRange['protocol'];
  if (port === undefined) return [{ protocol: name, first: 0, last: 65_535 }];
  if (typeof port === 'number') return [{ protocol: name, first: port, last: endPort ?? port }];
  return pods.flatMap((pod) =>
    pod.spec.containers
      .flatMap((container) => container.ports ?? [])
      .filter((p) => p.name === port && (p.protocol ?? 'TCP') === (protocol ?? 'TCP'))
      .flatMap((p) =>
        addressesOf(pod).map((ip) => ({ protocol: name, first: p.containerPort, last: p.containerPort, pod: ip })),
      ),
  );
}

/** Pods on the host's own network are the node, which policies do not touch; those that are over have no address any more. */
function hasNetwork(pod: Pod): boolean {
  const { phase } = pod.status ?? {};
  return pod.spec.hostNetwork !== true && phase !== 'Succeeded' && phase !== 'Failed' && addressesOf(pod).length > 0;
}

function addressesOf(pod: Pod): string[] {
  const all = (pod.status?.podIPs ?? []).map(({ ip }) => ip);
  const [first] = [pod.status?.podIP ?? ''].filter(Boolean);
  return [...new Set(first === undefined ? all : [first, ...all])].filter((ip) => isIP(ip) > 0);
}

function rangeOf(cidr: Cidr): Range {
  return { first: networkOf(cidr).ip.value, last: lastOf(cidr).value };
}

/** What is left of a range when others are cut out of it. */
export function without(range: Range, holes: readonly Range[]): Range[] {
  let left: Range[] = [range];
  for (const hole of holes)
    left = left.flatMap(({ first, last }) => {
      if (hole.last < first || hole.first > last) return [{ first, last }];
      return [
        ...(hole.first > first ? [{ first, last: hole.first - 1n }] : []),
        ...(hole.last < last ? [{ first: hole.last + 1n, last }] : []),
      ];
    });
  return left;
}

/** The same addresses in as few ranges as they take: interval sets refuse those that overlap. */
export function merged(ranges: readonly Range[]): Range[] {
  const out: Range[] = [];
  for (const { first, last } of [...ranges].sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0))) {
    const before = out.at(-1);
    if (before && first <= before.last + 1n) before.last = last > before.last ? last : before.last;
    else out.push({ first, last });
  }
  return out;
}
