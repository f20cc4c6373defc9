import type { Live } from '#cluster/client/resources.ts';
import { equalJson } from '#spec/kubernetes/json.ts';
import type { Deployment, Pod, ReplicaSet } from '#spec/kubernetes/types.gen.ts';
import { millis, scaledValue, templateHash } from './loop.ts';
import { isOver } from './pods.ts';

export const REVISION = 'deployment.kubernetes.io/revision';
export const REVISION_HISTORY = 'deployment.kubernetes.io/revision-history';
export const DESIRED = 'deployment.kubernetes.io/desired-replicas';
export const MAX = 'deployment.kubernetes.io/max-replicas';
export const HASH_LABEL = 'pod-template-hash';
const LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration';

export type RolloutStep =
  | { do: 'createSet'; name: string; hash: string; replicas: number; revision: number; why: string }
  | { do: 'scale'; set: Live<ReplicaSet>; to: number; why: string }
  | { do: 'annotate'; set: Live<ReplicaSet>; annotations: Record<string, string>; why: string }
  | { do: 'deleteSet'; set: Live<ReplicaSet>; why: string };

export interface RolloutSight {
  deployment: Live<Deployment>;
  /** All that we own. */
  sets: readonly Live<ReplicaSet>[];
  /** Their pods. */
  pods: readonly Live<Pod>[];
}

export interface RolloutPlan {
  steps: RolloutStep[];
  /** The set of the present template, once it exists. */
  current: Live<ReplicaSet> | undefined;
  old: Live<ReplicaSet>[];
  /** Goes into the Deployment's revision annotation. */
  revision: number | undefined;
}

export function replicasOf(set: Live<ReplicaSet>): number {
  return set.spec.replicas ?? 1;
}

/** A status may be older than the last scaling: no more pods can be available than are wished for. */
function availableOf(set: Live<ReplicaSet>): number {
  return Math.min(replicasOf(set), set.status?.availableReplicas ?? 0);
}

export function bounds(deployment: Live<Deployment>): { desired: number; surge: number; unavailable: number } {
  const desired = deployment.spec.replicas ?? 1;
  if (deployment.spec.strategy?.type === 'Recreate') return { desired, surge: 0, unavailable: desired };
  const { maxSurge = '25%', maxUnavailable = '25%' } = deployment.spec.strategy?.rollingUpdate ?? {};
  const surge = scaledValue(maxSurge, desired, 'up');
  const unavailable = scaledValue(maxUnavailable, desired, 'down');
  // Both zero (by rounding) would never move.
  return { desired, surge, unavailable: surge === 0 && unavailable === 0 ? 1 : Math.min(unavailable, desired) };
}

export function splitSets(
  deployment: Live<Deployment>,
  sets: readonly Live<ReplicaSet>[],
): { current: Live<ReplicaSet> | undefined; old: Live<ReplicaSet>[] } {
  const byAge = [...sets].sort(olderFirst);
  const current = byAge.find((s) => sameTemplate(s, deployment));
  return { current, old: byAge.filter((s) => s !== current) };
}

function olderFirst(a: Live<ReplicaSet>, b: Live<ReplicaSet>): number {
  const difference = millis(a.metadata.creationTimestamp) - millis(b.metadata.creationTimestamp);
  return difference !== 0 ? difference : a.metadata.name < b.metadata.name ? -1 : 1;
}

function sameTemplate(set: Live<ReplicaSet>, deployment: Live<Deployment>): boolean {
  const { [HASH_LABEL]: _hash, ...labels } = set.spec.template?.metadata?.labels ?? {};
  const stripped = { ...set.spec.template, metadata: { ...set.spec.template?.metadata, labels } };
  const wanted = deployment.spec.template;
  return equalJson(stripped, { ...wanted, metadata: { ...wanted.metadata, labels: wanted.metadata?.labels ?? {} } });
}

/**
 * One step of a rollout, decided from what is there: sets to create, scale, annotate or clean away. Scaling up the new set and
 * down the old ones both keep `desired - maxUnavailable ≤ available` and `pods ≤ desired + maxSurge`, counted by wishes, so that
 * late statuses cannot break them.
 */
export function planRollout(sight: RolloutSight): RolloutPlan {
  const { deployment, sets } = sight;
  const { current, old } = splitSets(deployment, sets);
  const revision = revisionFor(current, old);
  const plan: RolloutPlan = {
    steps: [],
    current,
    old,
    revision: current || !deployment.spec.paused ? revision : undefined,
  };
  if (deployment.metadata.deletionTimestamp) return { ...plan, revision: undefined };

  if (current) plan.steps.push(...annotateCurrent(deployment, current, revision));
  if (deployment.spec.paused) plan.steps.push(...proportional(deployment, current, old));
  else if (isScalingEvent(deployment, [...old, ...(current ? [current] : [])]))
    plan.steps.push(...proportional(deployment, current, old));
  else if (deployment.spec.strategy?.type === 'Recreate') plan.steps.push(...recreate(sight, current, old, revision));
  else plan.steps.push(...rolling(deployment, current, old, revision));

  if (!deployment.spec.paused && current && old.every((s) => replicasOf(s) === 0))
    plan.steps.push(...cleanUp(deployment, old));
  return plan;
}

export function revisionOfSet(set: Live<ReplicaSet>): number {
  return Number(set.metadata.annotations?.[REVISION] ?? 0) || 0;
}

/** One more than the highest old one; a set that comes back after an undo moves to the top. */
function revisionFor(current: Live<ReplicaSet> | undefined, old: readonly Live<ReplicaSet>[]): number {
  const highestOld = Math.max(0, ...old.map(revisionOfSet));
  return Math.max(highestOld + 1, current ? revisionOfSet(current) : 0);
}

/** The Deployment's own annotations (change-cause among them) go onto the set; those that mark a rollout do not. */
export function setAnnotations(deployment: Live<Deployment>, revision: number): Record<string, string> {
  const { desired, surge } = bounds(deployment);
  const { [LAST_APPLIED]: _applied, [REVISION]: _revision, ...own } = deployment.metadata.annotations ?? {};
  return { ...own, [REVISION]: String(revision), [DESIRED]: String(desired), [MAX]: String(desired + surge) };
}

function annotateCurrent(deployment: Live<Deployment>, set: Live<ReplicaSet>, revision: number): RolloutStep[] {
  // The desired-replicas mark tells a scaling from a rollout: only the scaling itself may move it.
  const { [DESIRED]: _d, [MAX]: _m, ...wanted } = setAnnotations(deployment, revision);
  const had = set.metadata.annotations ?? {};
  const before = revisionOfSet(set);
  if (before > 0 && before < revision) {
    const history = had[REVISION_HISTORY];
    wanted[REVISION_HISTORY] = history ? `${history},${before}` : String(before);
  }
  const missing = Object.entries(wanted).filter(([key, value]) => had[key] !== value);
  if (missing.length === 0) return [];
  return [{ do: 'annotate', set, annotations: Object.fromEntries(missing), why: `revision ${revision}` }];
}

function isScalingEvent(deployment: Live<Deployment>, sets: readonly Live<ReplicaSet>[]): boolean {
  return sets.some((set) => {
    const mark = set.metadata.annotations?.[DESIRED];
    return replicasOf(set) > 0 && mark !== undefined && Number(mark) !== (deployment.spec.replicas ?? 1);
  });
}

function newSet(deployment: Live<Deployment>, replicas: number, revision: number): RolloutStep {
  const hash = templateHash(deployment.spec.template, deployment.status?.collisionCount ?? 0);
  const name = `${deployment.metadata.name}-${hash}`;
  return { do: 'createSet', name, hash, replicas, revision, why: 'no set has the present template' };
}

function recreate(
  { deployment, pods }: RolloutSight,
  current: Live<ReplicaSet> | undefined,
  old: readonly Live<ReplicaSet>[],
  revision: number,
): RolloutStep[] {
  const { desired } = bounds(deployment);
  const down = old.filter((s) => replicasOf(s) > 0).map(scaleTo(0, 'Recreate: the old version goes first'));
  if (down.length > 0) return down;
  const oldUids = new Set(old.map((s) => s.metadata.uid));
  const lingering = pods.some(
    (p) => !isOver(p) && p.metadata.ownerReferences?.some((o) => o.controller && oldUids.has(o.uid)),
  );
  if (lingering) return [];
  if (!current) return [newSet(deployment, desired, revision)];
  return replicasOf(current) === desired ? [] : [scaleTo(desired, 'the wish')(current)];
}

function rolling(
  deployment: Live<Deployment>,
  current: Live<ReplicaSet> | undefined,
  old: readonly Live<ReplicaSet>[],
  revision: number,
): RolloutStep[] {
  const { desired, surge } = bounds(deployment);
  const total = sum(old, replicasOf) + (current ? replicasOf(current) : 0);
  if (!current) return [newSet(deployment, Math.min(desired, Math.max(0, desired + surge - total)), revision)];
  if (replicasOf(current) > desired) return [scaleTo(desired, 'more than wished for')(current)];
  const room = Math.min(desired + surge - total, desired - replicasOf(current));
  // One kind of move a run: what the second would be decided on is stale once the first is made.
  if (room > 0) return [scaleTo(replicasOf(current) + room, `room for ${room} within maxSurge`)(current)];
  return shrinkOld(deployment, current, old);
}

function shrinkOld(
  deployment: Live<Deployment>,
  current: Live<ReplicaSet>,
  old: readonly Live<ReplicaSet>[],
): RolloutStep[] {
  const { desired, unavailable } = bounds(deployment);
  const floor = desired - unavailable;
  const total = sum(old, replicasOf) + replicasOf(current);
  let mayGo = total - floor - (replicasOf(current) - availableOf(current));
  if (mayGo <= 0) return [];
  const wish = new Map(old.map((set) => [set, replicasOf(set)]));
  // Pods that do not serve cost nothing to lose.
  for (const set of old) {
    const gone = Math.min(mayGo, replicasOf(set) - availableOf(set));
    wish.set(set, replicasOf(set) - gone);
    mayGo -= gone;
  }
  let spare = sum(old, availableOf) + availableOf(current) - floor;
  for (const set of old) {
    const gone = Math.max(0, Math.min(spare, wish.get(set) ?? 0));
    wish.set(set, (wish.get(set) ?? 0) - gone);
    spare -= gone;
  }
  return [...wish].flatMap(([set, to]) =>
    to === replicasOf(set) ? [] : [scaleTo(to, `${availableOf(current)} new are available`)(set)],
  );
}

/** During a rollout (or a pause) a new wish is shared among the sets in proportion to their sizes. */
function proportional(
  deployment: Live<Deployment>,
  current: Live<ReplicaSet> | undefined,
  old: readonly Live<ReplicaSet>[],
): RolloutStep[] {
  const { desired, surge } = bounds(deployment);
  const all = [...old, ...(current ? [current] : [])];
  const active = all.filter((s) => replicasOf(s) > 0);
  const only = active.length === 0 ? (current ?? old.at(-1)) : active.length === 1 ? active[0] : undefined;
  const why = `scaled to ${desired}`;
  if (only) return replicasOf(only) === desired && marked(only, desired) ? [] : [scaleTo(desired, why)(only)];
  if (current && replicasOf(current) === desired && availableOf(current) === desired)
    return old.filter((s) => replicasOf(s) > 0).map(scaleTo(0, 'the new version is complete'));
  if (deployment.spec.strategy?.type === 'Recreate') return [];

  const allowed = desired > 0 ? desired + surge : 0;
  const total = sum(active, replicasOf);
  let toAdd = allowed - total;
  // Largest first; of equals the newer when growing, the older when shrinking.
  const order = [...active].sort(
    (a, b) => replicasOf(b) - replicasOf(a) || (toAdd > 0 ? olderFirst(b, a) : olderFirst(a, b)),
  );
  const sizes = order.map((set) => {
    const mark = Number(set.metadata.annotations?.[MAX] ?? total) || total;
    const share = Math.round((replicasOf(set) * allowed) / mark) - replicasOf(set);
    const part = toAdd > 0 ? Math.max(0, Math.min(share, toAdd)) : Math.min(0, Math.max(share, toAdd));
    toAdd -= part;
    return replicasOf(set) + part;
  });
  // What rounding left goes to the largest.
  sizes[0] = Math.max(0, (sizes[0] ?? 0) + toAdd);
  return order.flatMap((set, i) => {
    const to = sizes[i] ?? 0;
    return to === replicasOf(set) && marked(set, desired) ? [] : [scaleTo(to, why)(set)];
  });
}

function marked(set: Live<ReplicaSet>, desired: number): boolean {
  return set.metadata.annotations?.[DESIRED] === String(desired);
}

function cleanUp(deployment: Live<Deployment>, old: readonly Live<ReplicaSet>[]): RolloutStep[] {
  const limit = deployment.spec.revisionHistoryLimit ?? 10;
  const idle = old.filter((s) => !s.metadata.deletionTimestamp);
  const surplus = idle.length - limit;
  if (surplus <= 0) return [];
  const byRevision = [...idle].sort((a, b) => revisionOfSet(a) - revisionOfSet(b) || olderFirst(a, b));
  return byRevision
    .slice(0, surplus)
    .filter((s) => replicasOf(s) === 0 && (s.status?.replicas ?? 0) === 0)
    .map((set): RolloutStep => ({ do: 'deleteSet', set, why: `revisionHistoryLimit is ${limit}` }));
}

function scaleTo(to: number, why: string): (set: Live<ReplicaSet>) => RolloutStep {
  return (set) => ({ do: 'scale', set, to, why });
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}
