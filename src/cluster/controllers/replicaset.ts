import { messageOf } from '#base/errors.ts';
import { DONE, type Requeue } from '#cluster/client/queue.ts';
import {
  controllerOf,
  type KubeObject,
  type Live,
  PODS,
  REPLICA_SETS,
  REPLICATION_CONTROLLERS,
  type Resource,
  timestamp,
} from '#cluster/client/resources.ts';
import { matchesRequirements, matchesSelector, requirementsOf } from '#spec/kubernetes/selector.ts';
import type { LabelSelector, Pod, PodTemplateSpec, ReplicaSetStatus } from '#spec/kubernetes/types.gen.ts';
import { claim } from './claim.ts';
import {
  again,
  type ControllerDeps,
  generatedName,
  onOwned,
  onSelf,
  type Reconciler,
  reconciler,
  slowStart,
  sooner,
  withCondition,
  withoutCondition,
  writeStatus,
} from './loop.ts';
import { availability, compareForDeletion, crowdOf, isActive, isReady, podFrom } from './pods.ts';

// In one run: a wish of a hundred thousand must not starve the other sets.
const BURST = 500;

/** What a ReplicaSet and a ReplicationController have in common: all but their selector. */
export interface Replicated extends KubeObject {
  spec: { replicas?: number; minReadySeconds?: number; template?: PodTemplateSpec };
  status?: ReplicaSetStatus;
}

export interface ReplicaSetPlan {
  create: number;
  remove: Live<Pod>[];
}

export interface ReplicaSetSight {
  set: Live<Replicated>;
  pods: readonly Live<Pod>[];
  /** All pods of the same Deployment, to thin out crowded nodes first; asked for only when pods have to go. */
  related: () => readonly Live<Pod>[];
}

export function planReplicaSet({ set, pods, related }: ReplicaSetSight): ReplicaSetPlan {
  if (set.metadata.deletionTimestamp) return { create: 0, remove: [] };
  const active = pods.filter(isActive);
  const wanted = set.spec.replicas ?? 1;
  if (active.length < wanted) return { create: Math.min(BURST, wanted - active.length), remove: [] };
  const surplus = Math.min(BURST, active.length - wanted);
  if (surplus === 0) return { create: 0, remove: [] };
  const order = [...active].sort(compareForDeletion(crowdOf(related().filter(isActive))));
  return { create: 0, remove: order.slice(0, surplus) };
}

export function replicaSetStatus(
  set: Live<Replicated>,
  pods: readonly Live<Pod>[],
  nowMs: number,
  failure: { reason: 'FailedCreate' | 'FailedDelete'; message: string } | undefined,
): { status: ReplicaSetStatus; checkAgainMs: number | undefined } {
  const active = pods.filter(isActive);
  const labelled = requirementsOf({ matchLabels: set.spec.template?.metadata?.labels ?? {} });
  let available = 0;
  let checkAgainMs: number | undefined;
  for (const pod of active) {
    const seen = availability(pod, set.spec.minReadySeconds ?? 0, nowMs);
    if (seen.available) available++;
    checkAgainMs = sooner(checkAgainMs, seen.inMs);
  }
  const known = set.status?.conditions;
  const conditions = failure
    ? withCondition(known, { type: 'ReplicaFailure', status: 'True', ...failure }, timestamp(nowMs))
    : withoutCondition(known, 'ReplicaFailure');
  const terminating = pods.filter((p) => p.metadata.deletionTimestamp !== undefined).length;
  return {
    checkAgainMs,
    status: {
      replicas: active.length,
      fullyLabeledReplicas: active.filter((p) => matchesRequirements(labelled, p.metadata.labels)).length,
      readyReplicas: active.filter(isReady).length,
      availableReplicas: available,
      terminatingReplicas: terminating,
      observedGeneration: set.metadata.generation ?? 0,
      ...(conditions.length > 0 ? { conditions } : {}),
    },
  };
}

export function replicaSetController(deps: ControllerDeps): Reconciler {
  return replicasController(deps, REPLICA_SETS, ({ spec }) => spec.selector);
}

/** The kind before ReplicaSets, which old manifests still hold; it is kept as they are. */
export function replicationController(deps: ControllerDeps): Reconciler {
  return replicasController(deps, REPLICATION_CONTROLLERS, ({ spec }) => ({ matchLabels: spec.selector ?? {} }));
}

function replicasController<T extends Replicated>(
  deps: ControllerDeps,
  resource: Resource<T>,
  selectorOf: (set: T) => LabelSelector,
): Reconciler {
  const { view, clock, random } = deps;
  const name = resource.kind.toLowerCase();
  const sets = view.of(resource);
  const pods = view.of(PODS);
  const events = deps.events(`${name}-controller`);
  const loop = reconciler(deps, name, reconcile);
  onSelf(sets, loop);
  onOwned(pods, resource.kind, loop);
  adoptOrphans();
  return loop;

  async function reconcile(key: string): Promise<Requeue> {
    const set = sets.get(key);
    if (!set) return DONE;
    const mine = await claim(sets, set, pods, selectorOf(set), isActive);
    const plan = planReplicaSet({ set, pods: mine, related: () => relatedPods(set) });
    const failure = await carryOut(set, plan);
    const after = pods.ownedBy(set.metadata.uid);
    const { status, checkAgainMs } = replicaSetStatus(set, after, clock.now(), failure);
    await writeStatus(sets, sets.get(key) ?? set, status);
    if (failure) throw failure.cause;
    return again(checkAgainMs);
  }

  async function carryOut(
    set: Live<T>,
    plan: ReplicaSetPlan,
  ): Promise<{ reason: 'FailedCreate' | 'FailedDelete'; message: string; cause: unknown } | undefined> {
    const template = set.spec.template;
    const names = template
      ? Array.from({ length: plan.create }, () => generatedName(`${set.metadata.name}-`, random))
      : [];
    const createError = await slowStart(names, async (name) => {
      await pods.create(podFrom(template ?? {}, resource, set, name));
      events.record(resource, set, { type: 'Normal', reason: 'SuccessfulCreate', message: `Created pod: ${name}` });
    });
    if (createError) {
      const message = messageOf(createError);
      events.record(resource, set, {
        type: 'Warning',
        reason: 'FailedCreate',
        message: `Error creating: ${message}`,
      });
      return { reason: 'FailedCreate', message, cause: createError };
    }
    const removals = await Promise.allSettled(
      plan.remove.map(async (pod) => {
        await pods.remove(pod);
        const message = `Deleted pod: ${pod.metadata.name}`;
        events.record(resource, set, { type: 'Normal', reason: 'SuccessfulDelete', message });
      }),
    );
    const failed = removals.find((r) => r.status === 'rejected');
    return failed ? { reason: 'FailedDelete', message: messageOf(failed.reason), cause: failed.reason } : undefined;
  }

  function relatedPods(set: Live<T>): Live<Pod>[] {
    const owner = controllerOf(set);
    if (!owner) return pods.ownedBy(set.metadata.uid);
    return sets.ownedBy(owner.uid).flatMap((s) => pods.ownedBy(s.metadata.uid));
  }

  /** A pod without a controller may be wanted by any set of its namespace that selects it. */
  function adoptOrphans(): void {
    pods.informer.onChange((now) => {
      if (!now || controllerOf(now)) return;
      for (const set of sets.inNamespace(now.metadata.namespace ?? ''))
        if (matchesSelector(selectorOf(set), now.metadata.labels))
          loop.queue.add(`${set.metadata.namespace}/${set.metadata.name}`);
    });
  }
}
