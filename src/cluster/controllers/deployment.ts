import { isCode } from '#base/errors.ts';
import { DONE, type Requeue } from '#cluster/client/queue.ts';
import {
  controllerOf,
  DEPLOYMENTS,
  keyIn,
  type Live,
  ownerReference,
  PODS,
  REPLICA_SETS,
  timestamp,
} from '#cluster/client/resources.ts';
import { equalJson } from '#spec/kubernetes/json.ts';
import type { Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet } from '#spec/kubernetes/types.gen.ts';
import { claim } from './claim.ts';
import {
  again,
  type ControllerDeps,
  conditionOf,
  millis,
  onOwned,
  onSelf,
  type Reconciler,
  reconciler,
  withCondition,
  withoutCondition,
  writeStatus,
} from './loop.ts';
import {
  bounds,
  DESIRED,
  HASH_LABEL,
  MAX,
  planRollout,
  REVISION,
  type RolloutPlan,
  type RolloutStep,
  replicasOf,
  setAnnotations,
} from './rollout.ts';

export interface StatusSight {
  deployment: Live<Deployment>;
  current: Live<ReplicaSet> | undefined;
  old: readonly Live<ReplicaSet>[];
  /** Made in this run. */
  created: boolean;
  nowMs: number;
}

/** Status and conditions as `kubectl rollout status` reads them, and when the progress deadline has to be looked at. */
export function deploymentStatus(sight: StatusSight): { status: DeploymentStatus; checkAgainMs: number | undefined } {
  const { deployment, current, old, nowMs } = sight;
  const { desired, unavailable } = bounds(deployment);
  const all = [...old, ...(current ? [current] : [])];
  const total = (of: (s: NonNullable<ReplicaSet['status']>) => number | undefined): number =>
    all.reduce((sum, s) => sum + ((s.status && of(s.status)) ?? 0), 0);
  const available = total((s) => s.availableReplicas);
  const counts = {
    replicas: total((s) => s.replicas),
    updatedReplicas: current?.status?.replicas ?? 0,
    readyReplicas: total((s) => s.readyReplicas),
    availableReplicas: available,
    unavailableReplicas: Math.max(0, all.reduce((sum, s) => sum + replicasOf(s), 0) - available),
    terminatingReplicas: total((s) => s.terminatingReplicas),
  };
  const enough = available >= desired - unavailable;
  const now = timestamp(nowMs);
  let conditions = setCondition(deployment.status?.conditions, now, {
    type: 'Available',
    status: enough ? 'True' : 'False',
    reason: enough ? 'MinimumReplicasAvailable' : 'MinimumReplicasUnavailable',
    message: enough ? 'Deployment has minimum availability.' : 'Deployment does not have minimum availability.',
  });
  const progress = progressCondition(sight, counts, conditions);
  if (progress) conditions = setCondition(conditions, now, progress);
  const failure = [current, ...old].map((s) => conditionOf(s?.status?.conditions, 'ReplicaFailure')).find((c) => c);
  conditions = failure
    ? setCondition(conditions, now, {
        type: 'ReplicaFailure',
        status: 'True',
        reason: failure.reason ?? '',
        message: failure.message ?? '',
      })
    : withoutCondition(conditions, 'ReplicaFailure');
  const { collisionCount } = deployment.status ?? {};
  return {
    checkAgainMs: untilDeadline(deployment, conditions, nowMs),
    status: {
      observedGeneration: deployment.metadata.generation ?? 0,
      ...nonZero(counts),
      ...(collisionCount ? { collisionCount } : {}),
      conditions,
    },
  };
}

type Counts = Pick<
  DeploymentStatus,
  'replicas' | 'updatedReplicas' | 'readyReplicas' | 'availableReplicas' | 'unavailableReplicas'
>;
type Wanted = Pick<DeploymentCondition, 'type' | 'status'> & { reason: string; message: string; touch?: boolean };

function progressCondition(
  { deployment, current, created, nowMs }: StatusSight,
  counts: Counts,
  conditions: readonly DeploymentCondition[],
): Wanted | undefined {
  const known = conditionOf(conditions, 'Progressing');
  const progressing = (status: string, reason: string, message: string, touch = false): Wanted => ({
    type: 'Progressing',
    status,
    reason,
    message,
    touch,
  });
  if (deployment.spec.paused) return progressing('Unknown', 'DeploymentPaused', 'Deployment is paused');
  if (!hasDeadline(deployment)) return undefined;
  if (known?.reason === 'DeploymentPaused')
    return progressing('Unknown', 'DeploymentResumed', 'Deployment is resumed', true);
  if (!current) return undefined;
  const { name } = current.metadata;
  if (created) return progressing('True', 'NewReplicaSetCreated', `Created new replica set "${name}"`, true);
  const { desired } = bounds(deployment);
  const done =
    counts.updatedReplicas === desired && counts.replicas === desired && counts.availableReplicas === desired;
  const wasDone = known?.reason === 'NewReplicaSetAvailable';
  // A finished rollout that loses a pod later is no rollout: it neither progresses nor times out.
  if (wasDone && counts.replicas === counts.updatedReplicas && known?.message?.includes(`"${name}"`)) return undefined;
  if (done) return progressing('True', 'NewReplicaSetAvailable', `ReplicaSet "${name}" has successfully progressed.`);
  const before = deployment.status ?? {};
  const oldPods = (s: Counts): number => (s.replicas ?? 0) - (s.updatedReplicas ?? 0);
  const moved =
    (counts.updatedReplicas ?? 0) > (before.updatedReplicas ?? 0) ||
    oldPods(counts) < oldPods(before) ||
    (counts.readyReplicas ?? 0) > (before.readyReplicas ?? 0) ||
    (counts.availableReplicas ?? 0) > (before.availableReplicas ?? 0);
  const is = `ReplicaSet "${name}" is progressing.`;
  if (moved || wasDone) return progressing('True', 'ReplicaSetUpdated', is, true);
  if (!known) return progressing('True', 'FoundNewReplicaSet', `Found new replica set "${name}"`, true);
  if (known.status === 'True' && nowMs >= deadlineAt(deployment, known))
    return progressing('False', 'ProgressDeadlineExceeded', `ReplicaSet "${name}" has timed out progressing.`, true);
  return undefined;
}

function setCondition(
  conditions: readonly DeploymentCondition[] | undefined,
  now: string,
  { touch = false, ...wanted }: Wanted,
): DeploymentCondition[] {
  const known = conditionOf(conditions, wanted.type);
  const unchanged =
    known?.status === wanted.status && known.reason === wanted.reason && known.message === wanted.message;
  const lastUpdateTime = unchanged && !touch ? (known.lastUpdateTime ?? now) : now;
  return withCondition(conditions, { ...wanted, lastUpdateTime }, now);
}

// Upstream's mark for "no deadline".
const NO_DEADLINE_SECONDS = 2 ** 31 - 1;

function hasDeadline(deployment: Live<Deployment>): boolean {
  return (deployment.spec.progressDeadlineSeconds ?? 600) !== NO_DEADLINE_SECONDS;
}

function deadlineAt(deployment: Live<Deployment>, progress: DeploymentCondition): number {
  const since = millis(progress.lastUpdateTime ?? progress.lastTransitionTime);
  return since + (deployment.spec.progressDeadlineSeconds ?? 600) * 1000;
}

function untilDeadline(
  deployment: Live<Deployment>,
  conditions: readonly DeploymentCondition[],
  nowMs: number,
): number | undefined {
  const progress = conditionOf(conditions, 'Progressing');
  const waits = progress?.status === 'True' && progress.reason !== 'NewReplicaSetAvailable';
  if (!waits || deployment.spec.paused || !hasDeadline(deployment)) return undefined;
  // Times are kept in whole seconds: a little late finds the deadline passed for certain.
  return Math.max(0, deadlineAt(deployment, progress) - nowMs) + 1000;
}

function nonZero<T extends Record<string, number | undefined>>(counts: T): T {
  return Object.fromEntries(Object.entries(counts).filter(([, n]) => n)) as T;
}

export function deploymentController(deps: ControllerDeps): Reconciler {
  const { view, clock } = deps;
  const deployments = view.of(DEPLOYMENTS);
  const sets = view.of(REPLICA_SETS);
  const pods = view.of(PODS);
  const events = deps.events('deployment-controller');
  const loop = reconciler(deps, 'deployment', reconcile);
  onSelf(deployments, loop);
  onOwned(sets, 'Deployment', loop);
  // Recreate waits for the last old pod.
  pods.informer.onChange((now, before) => {
    const owner = now ? undefined : before && controllerOf(before);
    const set = owner?.kind === 'ReplicaSet' ? sets.get(keyIn(before?.metadata.namespace, owner.name)) : undefined;
    const deployment = set && controllerOf(set);
    if (deployment) loop.queue.add(keyIn(set.metadata.namespace, deployment.name));
  });
  return loop;

  async function reconcile(key: string): Promise<Requeue> {
    const deployment = deployments.get(key);
    if (!deployment) return DONE;
    const mine = await claim(deployments, deployment, sets, deployment.spec.selector);
    const plan = planRollout({ deployment, sets: mine, pods: mine.flatMap((s) => pods.ownedBy(s.metadata.uid)) });
    let created = false;
    for (const step of plan.steps) created = (await apply(deployment, step)) || created;
    await markRevision(deployment, plan);
    const latest = deployments.get(key);
    if (!latest) return DONE;
    const now = sets.ownedBy(deployment.metadata.uid);
    const settled = planRollout({ deployment, sets: now, pods: [] });
    const { status, checkAgainMs } = deploymentStatus({
      deployment: latest,
      current: settled.current,
      old: settled.old,
      created,
      nowMs: clock.now(),
    });
    await writeStatus(deployments, latest, status);
    return again(checkAgainMs);
  }

  /** True when a set was made. */
  async function apply(deployment: Live<Deployment>, step: RolloutStep): Promise<boolean> {
    switch (step.do) {
      case 'createSet':
        return createSet(deployment, step);
      case 'scale':
        await scale(deployment, step.set, step.to);
        return false;
      case 'annotate':
        await sets.patch(keyIn(step.set.metadata.namespace, step.set.metadata.name), {
          metadata: { annotations: step.annotations },
        });
        return false;
      case 'deleteSet':
        await sets.remove(step.set);
        return false;
    }
  }

  async function createSet(
    deployment: Live<Deployment>,
    step: Extract<RolloutStep, { do: 'createSet' }>,
  ): Promise<boolean> {
    const { template, selector, minReadySeconds } = deployment.spec;
    const hash = { [HASH_LABEL]: step.hash };
    const namespace = deployment.metadata.namespace ?? '';
    const set: ReplicaSet = {
      metadata: {
        name: step.name,
        namespace,
        labels: { ...template.metadata?.labels, ...hash },
        annotations: setAnnotations(deployment, step.revision),
        ownerReferences: [ownerReference(DEPLOYMENTS, deployment)],
      },
      spec: {
        replicas: step.replicas,
        ...(minReadySeconds === undefined ? {} : { minReadySeconds }),
        selector: { ...selector, matchLabels: { ...selector.matchLabels, ...hash } },
        template: {
          ...template,
          metadata: { ...template.metadata, labels: { ...template.metadata?.labels, ...hash } },
        },
      },
    };
    try {
      await sets.create(set);
    } catch (error) {
      if (!isCode(error, 'KUBE_ALREADY_EXISTS')) throw error;
      await settleCollision(deployment, keyIn(namespace, step.name));
      throw error;
    }
    tellScaled(deployment, step.name, 0, step.replicas);
    return true;
  }

  /** The name is taken: by our own set that the cache has not shown yet, or by another template with the same hash. */
  async function settleCollision(deployment: Live<Deployment>, key: string): Promise<void> {
    const holder = await sets.fresh(key);
    const ours = holder && controllerOf(holder)?.uid === deployment.metadata.uid;
    if (ours && equalJson(holder.spec.template?.spec, deployment.spec.template.spec)) return;
    const collisionCount = (deployment.status?.collisionCount ?? 0) + 1;
    await deployments.updateStatus({ ...deployment, status: { ...deployment.status, collisionCount } });
  }

  async function scale(deployment: Live<Deployment>, set: Live<ReplicaSet>, to: number): Promise<void> {
    const { desired, surge } = bounds(deployment);
    const marks = { [DESIRED]: String(desired), [MAX]: String(desired + surge) };
    const present = sets.get(keyIn(set.metadata.namespace, set.metadata.name)) ?? set;
    const annotations = { ...present.metadata.annotations, ...marks };
    const from = replicasOf(set);
    await sets.update({
      ...present,
      metadata: { ...present.metadata, annotations },
      spec: { ...present.spec, replicas: to },
    });
    if (from !== to) tellScaled(deployment, set.metadata.name, from, to);
  }

  function tellScaled(deployment: Live<Deployment>, set: string, from: number, to: number): void {
    const message = `Scaled ${to > from ? 'up' : 'down'} replica set ${set} from ${from} to ${to}`;
    events.record(DEPLOYMENTS, deployment, { type: 'Normal', reason: 'ScalingReplicaSet', message });
  }

  async function markRevision(deployment: Live<Deployment>, { revision }: RolloutPlan): Promise<void> {
    if (revision === undefined || deployment.metadata.annotations?.[REVISION] === String(revision)) return;
    await deployments.patch(keyIn(deployment.metadata.namespace, deployment.metadata.name), {
      metadata: { annotations: { [REVISION]: String(revision) } },
    });
  }
}
