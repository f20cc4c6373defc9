import { DONE, type Requeue } from '#cluster/client/queue.ts';
import {
  controllerOf,
  DEPLOYMENTS,
  keyIn,
  keyOf,
  type Live,
  POD_DISRUPTION_BUDGETS,
  PODS,
  REPLICA_SETS,
  REPLICATION_CONTROLLERS,
  STATEFUL_SETS,
  timestamp,
} from '#cluster/client/resources.ts';
import { matchesSelector } from '#spec/kubernetes/selector.ts';
import type { Pod, PodDisruptionBudget, PodDisruptionBudgetStatus } from '#spec/kubernetes/types.gen.ts';
import {
  again,
  type ControllerDeps,
  millis,
  onSelf,
  type Reconciler,
  reconciler,
  scaledValue,
  sooner,
  withCondition,
  writeStatus,
} from './loop.ts';
import { isActive, isReady } from './pods.ts';

// An eviction that was allowed and has not shown as a deletion after this time did not happen.
const DISRUPTION_COUNTS_MS = 120_000;

/** `expected`: how many pods the workloads wish for; a percentage is of that, not of what is there. */
export function disruptionStatus(
  budget: Live<PodDisruptionBudget>,
  pods: readonly Live<Pod>[],
  expected: number,
  nowMs: number,
): { status: PodDisruptionBudgetStatus; checkAgainMs: number | undefined } {
  const { minAvailable, maxUnavailable } = budget.spec;
  const desired =
    maxUnavailable !== undefined
      ? Math.max(0, expected - scaledValue(maxUnavailable, expected, 'up'))
      : scaledValue(minAvailable ?? 1, expected, 'up');
  const disruptedPods: Record<string, string> = {};
  let checkAgainMs: number | undefined;
  for (const [name, since] of Object.entries(budget.status?.disruptedPods ?? {})) {
    const pod = pods.find((p) => p.metadata.name === name);
    const leftMs = millis(since) + DISRUPTION_COUNTS_MS - nowMs;
    if (!pod || pod.metadata.deletionTimestamp || leftMs <= 0) continue;
    disruptedPods[name] = since;
    checkAgainMs = sooner(checkAgainMs, leftMs);
  }
  const healthy = pods.filter((p) => isActive(p) && isReady(p) && !(p.metadata.name in disruptedPods)).length;
  const allowed = pods.length === 0 ? 0 : Math.max(0, healthy - desired);
  const wanted = {
    type: 'DisruptionAllowed',
    status: allowed > 0 ? ('True' as const) : ('False' as const),
    reason: allowed > 0 ? 'SufficientPods' : 'InsufficientPods',
    message: '',
    observedGeneration: budget.metadata.generation ?? 0,
    lastTransitionTime: timestamp(nowMs),
  };
  return {
    checkAgainMs,
    status: {
      observedGeneration: budget.metadata.generation ?? 0,
      disruptionsAllowed: allowed,
      currentHealthy: healthy,
      desiredHealthy: desired,
      expectedPods: expected,
      ...(Object.keys(disruptedPods).length > 0 ? { disruptedPods } : {}),
      conditions: withCondition(budget.status?.conditions, wanted, timestamp(nowMs)).map((c) => ({
        ...c,
        lastTransitionTime: c.lastTransitionTime ?? timestamp(nowMs),
      })),
    },
  };
}

/** Counts what may be taken down; the API server takes from the count with each eviction. */
export function disruptionController(deps: ControllerDeps): Reconciler {
  const { view, clock } = deps;
  const budgets = view.of(POD_DISRUPTION_BUDGETS);
  const pods = view.of(PODS);
  const workloads = {
    ReplicaSet: view.of(REPLICA_SETS),
    ReplicationController: view.of(REPLICATION_CONTROLLERS),
    StatefulSet: view.of(STATEFUL_SETS),
  };
  const deployments = view.of(DEPLOYMENTS);
  const loop = reconciler(deps, 'disruption', reconcile);
  onSelf(budgets, loop);
  pods.informer.onChange((now, before) => {
    for (const budget of budgets.inNamespace((now ?? before)?.metadata.namespace ?? ''))
      if ([now, before].some((p) => p && matchesSelector(budget.spec.selector, p.metadata.labels)))
        loop.queue.add(keyOf(budget));
  });
  const inNamespace = (namespace: string | undefined): void => {
    for (const budget of budgets.inNamespace(namespace ?? '')) loop.queue.add(keyOf(budget));
  };
  deployments.informer.onChange((now, before) => {
    if (now?.spec.replicas !== before?.spec.replicas) inNamespace((now ?? before)?.metadata.namespace);
  });
  workloads.StatefulSet.informer.onChange((now, before) => {
    if (now?.spec.replicas !== before?.spec.replicas) inNamespace((now ?? before)?.metadata.namespace);
  });
  return loop;

  async function reconcile(key: string): Promise<Requeue> {
    const budget = budgets.get(key);
    if (!budget) return DONE;
    const selected = pods
      .inNamespace(budget.metadata.namespace ?? '')
      .filter((p) => matchesSelector(budget.spec.selector, p.metadata.labels));
    const { status, checkAgainMs } = disruptionStatus(budget, selected, expectedOf(selected), clock.now());
    await writeStatus(budgets, budget, status);
    return again(checkAgainMs);
  }

  /** What the workloads above these pods wish for; a pod without one stands for itself. */
  function expectedOf(selected: readonly Live<Pod>[]): number {
    const wishes = new Map<string, number>();
    for (const pod of selected) {
      const owner = controllerOf(pod);
      const set = owner && ownerOf(owner.kind)?.get(keyIn(pod.metadata.namespace, owner.name));
      const above = set && controllerOf(set);
      const deployment =
        above?.kind === 'Deployment' ? deployments.get(keyIn(pod.metadata.namespace, above.name)) : undefined;
      if (deployment) wishes.set(deployment.metadata.uid, deployment.spec.replicas ?? 1);
      else if (set) wishes.set(set.metadata.uid, set.spec.replicas ?? 1);
      else wishes.set(pod.metadata.uid, 1);
    }
    return [...wishes.values()].reduce((sum, n) => sum + n, 0);
  }

  function ownerOf(kind: string): { get(key: string): Live<OwnerSet> | undefined } | undefined {
    return Object.hasOwn(workloads, kind) ? workloads[kind as keyof typeof workloads] : undefined;
  }
}

type OwnerSet = { metadata: Pod['metadata']; spec: { replicas?: number } };
