import { type KubeObject, type Live, ownerReference, type Resource } from '#cluster/client/resources.ts';
import type { ObjectMeta, Pod, PodTemplateSpec } from '#spec/kubernetes/types.gen.ts';
import { conditionOf, millis } from './loop.ts';

export function isActive(pod: Live<Pod>): boolean {
  return !isOver(pod) && pod.metadata.deletionTimestamp === undefined;
}

/** Succeeded or failed: it will not run again. */
export function isOver(pod: Pod): boolean {
  return pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';
}

export function isReady(pod: Pod): boolean {
  return conditionOf(pod.status?.conditions, 'Ready')?.status === 'True';
}

/** Ready for at least `minReadySeconds`; `inMs` says when it will be, if it stays ready. */
export function availability(pod: Pod, minReadySeconds: number, nowMs: number): { available: boolean; inMs?: number } {
  const ready = conditionOf(pod.status?.conditions, 'Ready');
  if (ready?.status !== 'True') return { available: false };
  if (minReadySeconds === 0) return { available: true };
  const leftMs = millis(ready.lastTransitionTime) + minReadySeconds * 1000 - nowMs;
  return leftMs > 0 ? { available: false, inMs: leftMs } : { available: true };
}

/** A pod from a template, named and owned. */
export function podFrom(
  template: PodTemplateSpec,
  resource: Resource<KubeObject>,
  owner: Live<KubeObject>,
  name: string,
  labels: Record<string, string> = {},
): Pod {
  const { annotations, finalizers } = template.metadata ?? {};
  const metadata: ObjectMeta = {
    name,
    ...(owner.metadata.namespace === undefined ? {} : { namespace: owner.metadata.namespace }),
    labels: { ...template.metadata?.labels, ...labels },
    ...(annotations ? { annotations } : {}),
    ...(finalizers ? { finalizers } : {}),
    ownerReferences: [ownerReference(resource, owner)],
  };
  return { apiVersion: 'v1', kind: 'Pod', metadata, spec: template.spec ?? { containers: [] } };
}

const PHASE_RANK: Record<string, number> = { Pending: 0, Unknown: 1, Running: 2 };
const DELETION_COST = 'controller.kubernetes.io/pod-deletion-cost';

/**
 * The order in which surplus pods go: not placed, not running, not ready, cheap by annotation, crowded on one node, ready for
 * the shorter time, restarted oftener, younger. `crowd` is how many related pods stand on the pod's node.
 */
export function compareForDeletion(crowd: ReadonlyMap<string, number>): (a: Live<Pod>, b: Live<Pod>) => number {
  const rank = (pod: Live<Pod>): number[] => [
    pod.spec.nodeName ? 1 : 0,
    PHASE_RANK[pod.status?.phase ?? 'Pending'] ?? 0,
    isReady(pod) ? 1 : 0,
    Number(pod.metadata.annotations?.[DELETION_COST] ?? 0),
    -(crowd.get(pod.spec.nodeName ?? '') ?? 0),
    -(millis(conditionOf(pod.status?.conditions, 'Ready')?.lastTransitionTime) || 0),
    -Math.max(0, ...(pod.status?.containerStatuses ?? []).map((c) => c.restartCount)),
    -millis(pod.metadata.creationTimestamp),
  ];
  const ranks = new Map<string, number[]>();
  const rankOf = (pod: Live<Pod>): number[] => {
    const known = ranks.get(pod.metadata.uid) ?? rank(pod);
    ranks.set(pod.metadata.uid, known);
    return known;
  };
  return (a, b) => {
    const [left, right] = [rankOf(a), rankOf(b)];
    for (let i = 0; i < left.length; i++) {
      const difference = (left[i] ?? 0) - (right[i] ?? 0);
      if (difference !== 0) return difference;
    }
    return a.metadata.name < b.metadata.name ? -1 : 1;
  };
}

/** How many of these pods stand on each node. */
export function crowdOf(pods: readonly Pod[]): Map<string, number> {
  const crowd = new Map<string, number>();
  for (const { spec } of pods) if (spec.nodeName) crowd.set(spec.nodeName, (crowd.get(spec.nodeName) ?? 0) + 1);
  return crowd;
}
