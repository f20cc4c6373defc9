import { messageOf } from '#base/errors.ts';
import { DONE, type Requeue } from '#cluster/client/queue.ts';
import {
  CONTROLLER_REVISIONS,
  keyIn,
  type Live,
  ownerReference,
  PERSISTENT_VOLUME_CLAIMS,
  PODS,
  STATEFUL_SETS,
} from '#cluster/client/resources.ts';
import type {
  ControllerRevision,
  PersistentVolumeClaim,
  Pod,
  StatefulSet,
  StatefulSetStatus,
} from '#spec/kubernetes/types.gen.ts';
import { claim } from './claim.ts';
import {
  again,
  type ControllerDeps,
  onOwned,
  onSelf,
  type Reconciler,
  reconciler,
  scaledValue,
  sooner,
  writeStatus,
} from './loop.ts';
import { availability, isActive, isOver, isReady, podFrom } from './pods.ts';
import { REVISION_HASH, syncRevisions, templateOf } from './revisions.ts';

export type StatefulStep =
  | { do: 'create'; ordinal: number; revision: string; why: string }
  | { do: 'remove'; pod: Live<Pod>; why: string };

export interface StatefulSight {
  set: Live<StatefulSet>;
  pods: readonly Live<Pod>[];
  /** Hash of the revision that pods below the partition keep; equal to `update` when no rollout is on. */
  currentRevision: string;
  updateRevision: string;
  nowMs: number;
}

/** Ordinal of `web-3`, or undefined when the name is not of this set. */
export function ordinalOf(set: Live<StatefulSet>, pod: Pod): number | undefined {
  const digits = pod.metadata.name?.startsWith(`${set.metadata.name}-`)
    ? pod.metadata.name.slice(set.metadata.name.length + 1)
    : '';
  return /^(0|[1-9]\d*)$/.test(digits) ? Number(digits) : undefined;
}

/**
 * Ordered: 0, 1, 2, … are made one after the other, each when those before it are available, and go the other way round. Parallel:
 * all at once. Updates go from the highest ordinal down to the partition. A failed pod is replaced in its place.
 */
export function planStatefulSet(sight: StatefulSight): StatefulStep[] {
  const { set, pods, nowMs } = sight;
  if (set.metadata.deletionTimestamp) return [];
  const first = set.spec.ordinals?.start ?? 0;
  const end = first + (set.spec.replicas ?? 1);
  const ordered = set.spec.podManagementPolicy !== 'Parallel';
  const byOrdinal = new Map(pods.map((p) => [ordinalOf(set, p), p]));
  const healthy = (p: Live<Pod>): boolean =>
    isActive(p) && isReady(p) && availability(p, set.spec.minReadySeconds ?? 0, nowMs).available;

  const steps: StatefulStep[] = [];
  for (let ordinal = first; ordinal < end; ordinal++) {
    const pod = byOrdinal.get(ordinal);
    if (!pod) steps.push({ do: 'create', ordinal, revision: revisionFor(sight, ordinal), why: 'missing' });
    else if (isOver(pod) && !pod.metadata.deletionTimestamp)
      steps.push({ do: 'remove', pod, why: `${pod.status?.phase}: replaced in its place` });
    if (ordered && (!pod || !healthy(pod))) return steps;
  }

  const surplus = pods
    .filter((p) => !inRange(ordinalOf(set, p), first, end))
    .sort((a, b) => (ordinalOf(set, b) ?? 0) - (ordinalOf(set, a) ?? 0));
  if (surplus.length > 0 && ordered) {
    const last = surplus[0];
    // The one above must be gone, and all below it well, before the next goes.
    return !last || last.metadata.deletionTimestamp
      ? steps
      : [...steps, { do: 'remove', pod: last, why: 'scaled down' }];
  }
  for (const pod of surplus) if (!pod.metadata.deletionTimestamp) steps.push({ do: 'remove', pod, why: 'scaled down' });
  if (steps.length > 0 || set.spec.updateStrategy?.type === 'OnDelete') return steps;
  return update(sight, byOrdinal, first, end, healthy);
}

function inRange(ordinal: number | undefined, first: number, end: number): boolean {
  return ordinal !== undefined && ordinal >= first && ordinal < end;
}

function partitionOf(set: Live<StatefulSet>): number {
  return set.spec.updateStrategy?.rollingUpdate?.partition ?? 0;
}

function revisionFor({ set, currentRevision, updateRevision }: StatefulSight, ordinal: number): string {
  if (set.spec.updateStrategy?.type === 'OnDelete') return updateRevision;
  return ordinal >= partitionOf(set) ? updateRevision : currentRevision;
}

function update(
  { set, updateRevision }: StatefulSight,
  byOrdinal: ReadonlyMap<number | undefined, Live<Pod>>,
  first: number,
  end: number,
  healthy: (pod: Live<Pod>) => boolean,
): StatefulStep[] {
  const replicas = end - first;
  const wished = set.spec.updateStrategy?.rollingUpdate?.maxUnavailable;
  const mayBeDown = wished === undefined ? 1 : Math.max(1, scaledValue(wished, replicas, 'down'));
  let down = 0;
  for (let ordinal = first; ordinal < end; ordinal++) {
    const pod = byOrdinal.get(ordinal);
    if (!pod || !healthy(pod)) down++;
  }
  const steps: StatefulStep[] = [];
  for (let ordinal = end - 1; ordinal >= Math.max(first, partitionOf(set)); ordinal--) {
    const pod = byOrdinal.get(ordinal);
    if (!pod) continue;
    const outdated = pod.metadata.labels?.[REVISION_HASH] !== updateRevision;
    if (outdated && !pod.metadata.deletionTimestamp) {
      // A pod that is down already may be replaced without taking another one down.
      if (healthy(pod) && down >= mayBeDown) return steps;
      if (healthy(pod)) down++;
      steps.push({ do: 'remove', pod, why: `update to ${updateRevision}` });
      if (steps.length >= mayBeDown) return steps;
    } else if (!healthy(pod) && mayBeDown === 1) {
      // The one just updated must be well before the next one goes.
      return steps;
    }
  }
  return steps;
}

export function statefulSetStatus(
  { set, pods, currentRevision, updateRevision, nowMs }: StatefulSight,
  names: { current: string; update: string },
): { status: StatefulSetStatus; checkAgainMs: number | undefined } {
  const active = pods.filter((p) => isActive(p));
  let available = 0;
  let checkAgainMs: number | undefined;
  for (const pod of active) {
    const seen = availability(pod, set.spec.minReadySeconds ?? 0, nowMs);
    if (seen.available) available++;
    checkAgainMs = sooner(checkAgainMs, seen.inMs);
  }
  const at = (hash: string): number => active.filter((p) => p.metadata.labels?.[REVISION_HASH] === hash).length;
  const ready = active.filter(isReady).length;
  const updated = at(updateRevision);
  const wish = set.spec.replicas ?? 1;
  // The rollout is through when every pod is of the new revision and ready: it is the current one from now on.
  const complete = updated === wish && ready === wish && pods.length === wish && partitionOf(set) === 0;
  return {
    checkAgainMs,
    status: {
      observedGeneration: set.metadata.generation ?? 0,
      replicas: pods.length,
      readyReplicas: ready,
      availableReplicas: available,
      currentReplicas: complete ? updated : at(currentRevision),
      updatedReplicas: updated,
      currentRevision: complete ? names.update : names.current,
      updateRevision: names.update,
      collisionCount: set.status?.collisionCount ?? 0,
    },
  };
}

export function claimName(template: PersistentVolumeClaim, set: Live<StatefulSet>, ordinal: number): string {
  return `${template.metadata.name}-${set.metadata.name}-${ordinal}`;
}

export function statefulPod(
  set: Live<StatefulSet>,
  ordinal: number,
  template: StatefulSet['spec']['template'],
  hash: string,
): Pod {
  const name = `${set.metadata.name}-${ordinal}`;
  const labels = {
    [REVISION_HASH]: hash,
    'statefulset.kubernetes.io/pod-name': name,
    'apps.kubernetes.io/pod-index': String(ordinal),
  };
  const pod = podFrom(template, STATEFUL_SETS, set, name, labels);
  const claims = set.spec.volumeClaimTemplates ?? [];
  const names = new Set(claims.map((c) => c.metadata.name));
  const volumes = [
    ...(pod.spec.volumes ?? []).filter((v) => !names.has(v.name)),
    ...claims.map((c) => ({
      name: c.metadata.name ?? '',
      persistentVolumeClaim: { claimName: claimName(c, set, ordinal) },
    })),
  ];
  const subdomain = set.spec.serviceName ? { subdomain: set.spec.serviceName } : {};
  return { ...pod, spec: { ...pod.spec, hostname: name, ...subdomain, ...(volumes.length > 0 ? { volumes } : {}) } };
}

export function statefulSetController(deps: ControllerDeps): Reconciler {
  const { view, clock } = deps;
  const sets = view.of(STATEFUL_SETS);
  const pods = view.of(PODS);
  const claims = view.of(PERSISTENT_VOLUME_CLAIMS);
  const revisions = view.of(CONTROLLER_REVISIONS);
  const events = deps.events('statefulset-controller');
  const loop = reconciler(deps, 'statefulset', reconcile);
  onSelf(sets, loop);
  onOwned(pods, 'StatefulSet', loop);
  return loop;

  async function reconcile(key: string): Promise<Requeue> {
    const set = sets.get(key);
    if (!set) return DONE;
    const mine = await claim(sets, set, pods, set.spec.selector, (p) => ordinalOf(set, p) !== undefined && isActive(p));
    if (set.metadata.deletionTimestamp) {
      await retain(set, mine);
      return DONE;
    }
    const update = await syncRevisions(view, STATEFUL_SETS, set, inUse(set, mine));
    const current = currentOf(set, update);
    const sight = {
      set,
      pods: mine,
      currentRevision: hashOf(current),
      updateRevision: hashOf(update),
      nowMs: clock.now(),
    };
    const steps = planStatefulSet(sight);
    for (const step of steps) await apply(set, step, current, update);
    await retain(set, mine);
    const after = { ...sight, set: sets.get(key) ?? set, pods: pods.ownedBy(set.metadata.uid) };
    const names = { current: current.metadata.name, update: update.metadata.name };
    const { status, checkAgainMs } = statefulSetStatus(after, names);
    await writeStatus(sets, after.set, status);
    return again(checkAgainMs);
  }

  function inUse(set: Live<StatefulSet>, mine: readonly Live<Pod>[]): Set<string> {
    const names = mine.map((p) => `${set.metadata.name}-${p.metadata.labels?.[REVISION_HASH]}`);
    return new Set([...names, set.status?.currentRevision ?? '', set.status?.updateRevision ?? '']);
  }

  function currentOf(set: Live<StatefulSet>, update: Live<ControllerRevision>): Live<ControllerRevision> {
    const name = set.status?.currentRevision;
    return (name && revisions.get(keyIn(set.metadata.namespace, name))) || update;
  }

  async function apply(
    set: Live<StatefulSet>,
    step: StatefulStep,
    current: Live<ControllerRevision>,
    update: Live<ControllerRevision>,
  ): Promise<void> {
    const name = step.do === 'create' ? `${set.metadata.name}-${step.ordinal}` : step.pod.metadata.name;
    const verb = step.do === 'create' ? 'create' : 'delete';
    const reason = step.do === 'create' ? 'Create' : 'Delete';
    try {
      if (step.do === 'remove') await pods.remove(step.pod);
      else {
        await createClaims(set, step.ordinal);
        const template = step.revision === hashOf(update) ? set.spec.template : templateOf(current);
        await pods.create(statefulPod(set, step.ordinal, template ?? set.spec.template, step.revision));
      }
      const message = `${verb} Pod ${name} in StatefulSet ${set.metadata.name} successful`;
      events.record(STATEFUL_SETS, set, { type: 'Normal', reason: `Successful${reason}`, message });
    } catch (error) {
      const message = `${verb} Pod ${name} in StatefulSet ${set.metadata.name} failed error: ${messageOf(error)}`;
      events.record(STATEFUL_SETS, set, { type: 'Warning', reason: `Failed${reason}`, message });
      throw error;
    }
  }

  async function createClaims(set: Live<StatefulSet>, ordinal: number): Promise<void> {
    for (const template of set.spec.volumeClaimTemplates ?? []) {
      const name = claimName(template, set, ordinal);
      const key = keyIn(set.metadata.namespace, name);
      const known = claims.get(key) ?? (await claims.fresh(key));
      if (known?.metadata.deletionTimestamp) throw new Error(`pvc ${name} is being deleted`);
      if (known) continue;
      const labels = { ...template.metadata.labels, ...set.spec.selector.matchLabels };
      await claims.create({
        metadata: { ...template.metadata, name, namespace: set.metadata.namespace ?? '', labels },
        spec: template.spec,
      });
      const message = `create Claim ${name} Pod ${set.metadata.name}-${ordinal} in StatefulSet ${set.metadata.name} success`;
      events.record(STATEFUL_SETS, set, { type: 'Normal', reason: 'SuccessfulCreate', message });
    }
  }

  /**
   * `persistentVolumeClaimRetentionPolicy`: a claim that shall go with the set is owned by the set, one that shall go with a scaled
   * down pod by that pod; the garbage collector does the rest. Retain, the default, is no owner.
   */
  async function retain(set: Live<StatefulSet>, mine: readonly Live<Pod>[]): Promise<void> {
    const { whenDeleted = 'Retain', whenScaled = 'Retain' } = set.spec.persistentVolumeClaimRetentionPolicy ?? {};
    const end = (set.spec.ordinals?.start ?? 0) + (set.spec.replicas ?? 1);
    for (const pod of mine) {
      const ordinal = ordinalOf(set, pod);
      if (ordinal === undefined) continue;
      const condemned = ordinal >= end;
      for (const template of set.spec.volumeClaimTemplates ?? []) {
        const held = claims.get(keyIn(set.metadata.namespace, claimName(template, set, ordinal)));
        if (!held) continue;
        const wanted = [
          ...(whenDeleted === 'Delete' && !(condemned && whenScaled === 'Delete')
            ? [ownerReference(STATEFUL_SETS, set)]
            : []),
          ...(whenScaled === 'Delete' && condemned
            ? [{ apiVersion: 'v1', kind: 'Pod', name: pod.metadata.name, uid: pod.metadata.uid }]
            : []),
        ];
        const managed = new Set([set.metadata.uid, pod.metadata.uid]);
        const present = held.metadata.ownerReferences ?? [];
        const next = [...present.filter((o) => !managed.has(o.uid)), ...wanted];
        const uids = (list: readonly { uid: string }[]): string => list.map((o) => o.uid).join();
        if (uids(next) !== uids(present))
          await claims.update({ ...held, metadata: { ...held.metadata, ownerReferences: next } });
      }
    }
  }
}

function hashOf(revision: Live<ControllerRevision>): string {
  return revision.metadata.labels?.[REVISION_HASH] ?? revision.metadata.name;
}
