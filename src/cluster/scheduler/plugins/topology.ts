import { isTolerated } from '#spec/kubernetes/node-match.ts';
import { matchesRequirements } from '#spec/kubernetes/selector.ts';
import type { TopologySpreadConstraint } from '#spec/kubernetes/types.gen.ts';
import { type CountKey, countKey, type NodeInfo, type PodInfo, type Term } from '../state.ts';
import type { Verdict } from '../verdict.ts';
import { nodeAffinity } from './node.ts';
import type { FilterPlugin, NodeFilter, ScorePlugin, Sight } from './plugin.ts';

const AFFINITY: Verdict = { code: 'POD_AFFINITY', text: "node(s) didn't match pod affinity rules" };
const ANTI: Verdict = { code: 'POD_ANTI_AFFINITY', text: "node(s) didn't match pod anti-affinity rules" };
const EXISTING: Verdict = {
  code: 'EXISTING_ANTI_AFFINITY',
  text: "node(s) didn't satisfy existing pods anti-affinity rules",
};
const SPREAD: Verdict = { code: 'SPREAD', text: "node(s) didn't match pod topology spread constraints" };
const SPREAD_LABEL: Verdict = {
  code: 'SPREAD_LABEL',
  text: "node(s) didn't match pod topology spread constraints (missing required label)",
};

/** Sums counts per node into counts per domain (value of the topology label). */
function byDomain(
  perNode: ReadonlyMap<string, number>,
  topologyKey: string,
  { state }: Sight,
  include: (node: NodeInfo) => boolean = () => true,
): Map<string, number> {
  const out = new Map<string, number>();
  for (const [name, count] of perNode) {
    const node = state.nodes.get(name);
    const domain = node?.labels[topologyKey];
    if (node && domain !== undefined && include(node)) out.set(domain, (out.get(domain) ?? 0) + count);
  }
  return out;
}

export const podAffinity: FilterPlugin = {
  name: 'InterPodAffinity',
  prepare(pod, sight) {
    const checks: NodeFilter[] = [];
    for (const { term, perNode } of sight.state.termsAbout(pod)) {
      if (term.kind !== 'anti-affinity' || !term.required) continue;
      const taken = byDomain(perNode, term.topologyKey, sight);
      checks.push((node) => (inDomain(taken, term, node) ? EXISTING : undefined));
    }
    const required = pod.terms.filter((t) => t.required);
    for (const term of required.filter((t) => t.kind === 'anti-affinity')) {
      const taken = byDomain(sight.state.countsOf(term.count), term.topologyKey, sight);
      checks.push((node) => (inDomain(taken, term, node) ? ANTI : undefined));
    }
    const together = required
      .filter((t) => t.kind === 'affinity')
      .map((term) => ({ term, present: byDomain(sight.state.countsOf(term.count), term.topologyKey, sight) }));
    // The first of a group that wants to be with itself may stand anywhere with the label, or it never could.
    const first =
      together.length > 0 && together.every(({ term, present }) => present.size === 0 && matchesOwn(term, pod));
    for (const { term, present } of together)
      checks.push((node) =>
        node.labels[term.topologyKey] !== undefined && (first || inDomain(present, term, node)) ? undefined : AFFINITY,
      );
    if (checks.length === 0) return undefined;
    return (node) => {
      for (const check of checks) {
        const verdict = check(node);
        if (verdict) return verdict;
      }
      return undefined;
    };
  },
};

function inDomain(domains: ReadonlyMap<string, number>, term: Term, node: NodeInfo): boolean {
  const domain = node.labels[term.topologyKey];
  return domain !== undefined && (domains.get(domain) ?? 0) > 0;
}

function matchesOwn({ count }: Term, { pod }: PodInfo): boolean {
  const { namespace = '', labels } = pod.metadata;
  return (
    count.requirements !== undefined &&
    (!count.namespaces || count.namespaces.has(namespace)) &&
    matchesRequirements(count.requirements, labels)
  );
}

/** Preferred terms of this pod, and of placed pods about this pod: affinity is friendship both ways. */
export const preferPodAffinity: ScorePlugin = {
  name: 'InterPodAffinity',
  weight: 2,
  scale: 'min-max',
  prepare(pod, sight) {
    const parts: { topologyKey: string; weight: number; domains: Map<string, number> }[] = [];
    const add = (term: Term, perNode: ReadonlyMap<string, number>, weight: number): void => {
      parts.push({ topologyKey: term.topologyKey, weight, domains: byDomain(perNode, term.topologyKey, sight) });
    };
    for (const term of pod.terms) if (!term.required) add(term, sight.state.countsOf(term.count), signed(term));
    for (const { term, perNode } of sight.state.termsAbout(pod))
      if (!(term.required && term.kind === 'anti-affinity')) add(term, perNode, signed(term));
    if (parts.length === 0) return undefined;
    return (node) =>
      parts.reduce((sum, { topologyKey, weight, domains }) => {
        const domain = node.labels[topologyKey];
        return domain === undefined ? sum : sum + weight * (domains.get(domain) ?? 0);
      }, 0);
  },
};

function signed(term: Term): number {
  return term.kind === 'affinity' ? term.weight : -term.weight;
}

type Prepared = { constraint: TopologySpreadConstraint; domains: Map<string, number>; self: number };

export const spread: FilterPlugin = {
  name: 'PodTopologySpread',
  prepare(pod, sight) {
    const hard = (pod.pod.spec.topologySpreadConstraints ?? []).filter((c) => c.whenUnsatisfiable === 'DoNotSchedule');
    if (hard.length === 0) return undefined;
    const prepared = hard.map((c) => prepareSpread(c, hard, pod, sight));
    const floors = prepared.map(({ constraint, domains }) =>
      domains.size < (constraint.minDomains ?? 1) ? 0 : Math.min(...domains.values()),
    );
    return (node) => {
      for (const [i, { constraint, domains, self }] of prepared.entries()) {
        const domain = node.labels[constraint.topologyKey];
        if (domain === undefined) return SPREAD_LABEL;
        const floor = floors[i] ?? 0;
        if ((domains.get(domain) ?? 0) + self - (Number.isFinite(floor) ? floor : 0) > constraint.maxSkew)
          return SPREAD;
      }
      return undefined;
    };
  },
};

/** Every eligible domain is counted, those without a pod with zero: they are the floor that skew is measured from. */
function prepareSpread(
  constraint: TopologySpreadConstraint,
  all: readonly TopologySpreadConstraint[],
  pod: PodInfo,
  sight: Sight,
): Prepared {
  const fits = eligible(constraint, all, pod, sight);
  const key = spreadKey(constraint, pod);
  const domains = byDomain(sight.state.countsOf(key), constraint.topologyKey, sight, fits);
  for (const node of sight.state.order) {
    const domain = node.labels[constraint.topologyKey];
    if (domain !== undefined && !domains.has(domain) && fits(node)) domains.set(domain, 0);
  }
  const self = key.requirements && matchesRequirements(key.requirements, pod.pod.metadata.labels) ? 1 : 0;
  return { constraint, domains, self };
}

function spreadKey(constraint: TopologySpreadConstraint, { pod }: PodInfo): CountKey {
  const extra: Record<string, string> = {};
  for (const key of constraint.matchLabelKeys ?? []) {
    const value = pod.metadata.labels?.[key];
    if (value !== undefined) extra[key] = value;
  }
  return countKey(new Set([pod.metadata.namespace ?? '']), constraint.labelSelector, { extra, liveOnly: true });
}

/** nodeAffinityPolicy honours the pod's node rules unless told otherwise; nodeTaintsPolicy ignores taints unless told. */
function eligible(
  constraint: TopologySpreadConstraint,
  all: readonly TopologySpreadConstraint[],
  pod: PodInfo,
  sight: Sight,
): (node: NodeInfo) => boolean {
  const affinity = constraint.nodeAffinityPolicy === 'Ignore' ? undefined : nodeAffinity.prepare(pod, sight);
  const taints = constraint.nodeTaintsPolicy === 'Honor';
  return (node) =>
    all.every((c) => node.labels[c.topologyKey] !== undefined) &&
    (typeof affinity !== 'function' || affinity(node) === undefined) &&
    (!taints ||
      (node.node.spec?.taints ?? []).every(
        (t) => t.effect === 'PreferNoSchedule' || isTolerated(t, pod.pod.spec.tolerations),
      ));
}

/** Soft constraints; pods of one owner without any are spread over nodes and zones all the same. */
export const preferSpread: ScorePlugin = {
  name: 'PodTopologySpread',
  weight: 2,
  scale: 'down',
  prepare(pod, sight) {
    const given = pod.pod.spec.topologySpreadConstraints ?? [];
    const soft = given.filter((c) => c.whenUnsatisfiable === 'ScheduleAnyway');
    if (soft.length > 0) {
      const prepared = soft.map((c) => prepareSpread(c, soft, pod, sight));
      return (node) =>
        prepared.reduce((sum, { constraint, domains }) => {
          const domain = node.labels[constraint.topologyKey];
          return sum + (domain === undefined ? Math.max(0, ...domains.values()) + 1 : (domains.get(domain) ?? 0));
        }, 0);
    }
    const { owner } = pod;
    if (given.length > 0 || !owner) return undefined;
    const zones = new Map<string, number>();
    for (const node of sight.state.order) {
      const zone = node.labels[ZONE];
      if (zone !== undefined) zones.set(zone, (zones.get(zone) ?? 0) + (node.owners.get(owner) ?? 0));
    }
    return (node) =>
      (node.owners.get(owner) ?? 0) + (zones.get(node.labels[ZONE] ?? '') ?? 0) / Math.max(1, zones.size);
  },
};

const ZONE = 'topology.kubernetes.io/zone';
