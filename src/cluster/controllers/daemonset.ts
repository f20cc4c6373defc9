import { DONE, type Requeue } from '#cluster/client/queue.ts';
import { DAEMON_SETS, keyOf, type Live, NODES, PODS } from '#cluster/client/resources.ts';
import { isTolerated, matchesNodeSelector } from '#spec/kubernetes/node-match.ts';
import type { DaemonSet, DaemonSetStatus, Node, Pod, Toleration } from '#spec/kubernetes/types.gen.ts';
import { claim } from './claim.ts';
import {
  again,
  type ControllerDeps,
  generatedName,
  millis,
  onOwned,
  onSelf,
  type Reconciler,
  reconciler,
  scaledValue,
  slowStart,
  sooner,
  writeStatus,
} from './loop.ts';
import { availability, isActive, isReady, podFrom } from './pods.ts';
import { REVISION_HASH, syncRevisions } from './revisions.ts';

// A daemon belongs on a node whatever state the node is in.
const TOLERATIONS: readonly Toleration[] = [
  { key: 'node.kubernetes.io/not-ready', operator: 'Exists', effect: 'NoExecute' },
  { key: 'node.kubernetes.io/unreachable', operator: 'Exists', effect: 'NoExecute' },
  { key: 'node.kubernetes.io/disk-pressure', operator: 'Exists', effect: 'NoSchedule' },
  { key: 'node.kubernetes.io/memory-pressure', operator: 'Exists', effect: 'NoSchedule' },
  { key: 'node.kubernetes.io/pid-pressure', operator: 'Exists', effect: 'NoSchedule' },
  { key: 'node.kubernetes.io/unschedulable', operator: 'Exists', effect: 'NoSchedule' },
];
const HOST_NETWORK_TOLERATION: Toleration = {
  key: 'node.kubernetes.io/network-unavailable',
  operator: 'Exists',
  effect: 'NoSchedule',
};
// A pod that the node refused would be refused again at once.
const FAILED_STAYS_MS = 10_000;

export type DaemonStep =
  | { do: 'create'; node: string; why: string }
  | { do: 'remove'; pod: Live<Pod>; why: string; failed?: true };

export interface DaemonSight {
  set: Live<DaemonSet>;
  pods: readonly Live<Pod>[];
  nodes: readonly Live<Node>[];
  updateRevision: string;
  nowMs: number;
}

/** The node a daemon pod stands on or is meant for. */
export function nodeOfDaemon(pod: Pod): string {
  if (pod.spec.nodeName) return pod.spec.nodeName;
  const terms =
    pod.spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms ?? [];
  for (const term of terms)
    for (const field of term.matchFields ?? [])
      if (field.key === 'metadata.name' && field.values?.[0] !== undefined) return field.values[0];
  return '';
}

/** Whether a node should have the daemon, and whether one that is there may stay. */
export function belongsOn(set: Live<DaemonSet>, node: Live<Node>): { run: boolean; stay: boolean } {
  const spec = set.spec.template.spec;
  const labels = node.metadata.labels ?? {};
  const selected = Object.entries(spec?.nodeSelector ?? {}).every(([k, v]) => labels[k] === v);
  const required = spec?.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  const fits = selected && (!required || matchesNodeSelector(required, { name: node.metadata.name, labels }));
  const tolerations = tolerationsOf(set);
  const repelled = (node.spec?.taints ?? []).filter(
    (t) => t.effect !== 'PreferNoSchedule' && !isTolerated(t, tolerations),
  );
  return { run: fits && repelled.length === 0, stay: fits && !repelled.some((t) => t.effect === 'NoExecute') };
}

function tolerationsOf(set: Live<DaemonSet>): Toleration[] {
  const spec = set.spec.template.spec;
  return [...(spec?.tolerations ?? []), ...TOLERATIONS, ...(spec?.hostNetwork ? [HOST_NETWORK_TOLERATION] : [])];
}

/** One daemon on each node that should have one; updates by taking old ones down, or by surging a new one beside the old. */
export function planDaemonSet(sight: DaemonSight): { steps: DaemonStep[]; checkAgainMs: number | undefined } {
  const { set, nodes, nowMs } = sight;
  const steps: DaemonStep[] = [];
  let checkAgainMs: number | undefined;
  if (set.metadata.deletionTimestamp) return { steps, checkAgainMs };
  const byNode = groupByNode(sight.pods);
  for (const node of nodes) {
    const { name } = node.metadata;
    const pods = byNode.get(name) ?? [];
    byNode.delete(name);
    const { run, stay } = belongsOn(set, node);
    if (!stay) {
      for (const pod of pods)
        if (!pod.metadata.deletionTimestamp) steps.push({ do: 'remove', pod, why: 'node does not fit' });
      continue;
    }
    for (const pod of pods.filter((p) => p.status?.phase === 'Failed' && !p.metadata.deletionTimestamp)) {
      const leftMs = millis(pod.metadata.creationTimestamp) + FAILED_STAYS_MS - nowMs;
      if (leftMs > 0) checkAgainMs = sooner(checkAgainMs, leftMs);
      else steps.push({ do: 'remove', pod, why: 'failed', failed: true });
    }
    const alive = pods.filter((p) => p.status?.phase !== 'Failed' || p.metadata.deletionTimestamp);
    if (alive.length === 0 && run && !pods.some((p) => p.status?.phase === 'Failed'))
      steps.push({ do: 'create', node: name, why: 'node without its daemon' });
    steps.push(...removeDoubles(sight, alive));
  }
  // Daemons meant for nodes that are gone.
  for (const pods of byNode.values())
    for (const pod of pods) if (!pod.metadata.deletionTimestamp) steps.push({ do: 'remove', pod, why: 'node is gone' });
  if (steps.length === 0 && set.spec.updateStrategy?.type !== 'OnDelete') steps.push(...planUpdate(sight));
  return { steps, checkAgainMs };
}

function groupByNode(pods: readonly Live<Pod>[]): Map<string, Live<Pod>[]> {
  const out = new Map<string, Live<Pod>[]>();
  for (const pod of pods) {
    const node = nodeOfDaemon(pod);
    out.set(node, [...(out.get(node) ?? []), pod]);
  }
  return out;
}

/** More than one on a node: during a surge an old and a new one are meant; of others the eldest stays. */
function removeDoubles({ updateRevision, set }: DaemonSight, pods: readonly Live<Pod>[]): DaemonStep[] {
  const alive = pods
    .filter(isActive)
    .sort((a, b) => millis(a.metadata.creationTimestamp) - millis(b.metadata.creationTimestamp));
  const surge = surgeOf(set, 1) > 0;
  const groups = surge
    ? [alive.filter((p) => isNew(p, updateRevision)), alive.filter((p) => !isNew(p, updateRevision))]
    : [alive];
  return groups.flatMap((g) => g.slice(1).map((pod): DaemonStep => ({ do: 'remove', pod, why: 'one a node' })));
}

function isNew(pod: Live<Pod>, updateRevision: string): boolean {
  return pod.metadata.labels?.[REVISION_HASH] === updateRevision;
}

function surgeOf(set: Live<DaemonSet>, desired: number): number {
  return scaledValue(set.spec.updateStrategy?.rollingUpdate?.maxSurge ?? 0, desired, 'up');
}

function planUpdate({ set, pods, nodes, updateRevision, nowMs }: DaemonSight): DaemonStep[] {
  const wanted = nodes.filter((n) => belongsOn(set, n).run);
  const maxSurge = surgeOf(set, wanted.length);
  const { maxUnavailable = 1 } = set.spec.updateStrategy?.rollingUpdate ?? {};
  const mayBeDown = maxSurge > 0 ? 0 : Math.max(1, scaledValue(maxUnavailable, wanted.length, 'up'));
  const isUp = (p: Live<Pod> | undefined): boolean =>
    p !== undefined && isActive(p) && availability(p, set.spec.minReadySeconds ?? 0, nowMs).available;
  const byNode = groupByNode(pods);
  let down = 0;
  let surging = 0;
  const free: DaemonStep[] = [];
  const costly: DaemonStep[] = [];
  const surges: DaemonStep[] = [];
  for (const node of wanted) {
    const here = byNode.get(node.metadata.name) ?? [];
    const fresh = here.find((p) => isNew(p, updateRevision) && !p.metadata.deletionTimestamp);
    const old = here.find((p) => !isNew(p, updateRevision) && !p.metadata.deletionTimestamp);
    if (!isUp(fresh) && !isUp(old)) down++;
    if (old && fresh) surging++;
    if (!old) continue;
    const why = `update to ${updateRevision}`;
    if (isUp(fresh) || !isUp(old)) free.push({ do: 'remove', pod: old, why });
    else if (maxSurge === 0) costly.push({ do: 'remove', pod: old, why });
    else if (!fresh) surges.push({ do: 'create', node: node.metadata.name, why });
  }
  return [
    ...free,
    ...costly.slice(0, Math.max(0, mayBeDown - down)),
    ...surges.slice(0, Math.max(0, maxSurge - surging)),
  ];
}

export function daemonSetStatus({ set, pods, nodes, updateRevision, nowMs }: DaemonSight): {
  status: DaemonSetStatus;
  checkAgainMs: number | undefined;
} {
  const byNode = groupByNode(pods.filter((p) => !p.metadata.deletionTimestamp));
  let [desired, current, mis, ready, available, updated] = [0, 0, 0, 0, 0, 0];
  let checkAgainMs: number | undefined;
  for (const node of nodes) {
    const here = byNode.get(node.metadata.name) ?? [];
    if (!belongsOn(set, node).run) {
      if (here.length > 0) mis++;
      continue;
    }
    desired++;
    if (here.length > 0) current++;
    if (here.some(isReady)) ready++;
    if (here.some((p) => isNew(p, updateRevision))) updated++;
    const seen = here.map((p) => availability(p, set.spec.minReadySeconds ?? 0, nowMs));
    if (seen.some((s) => s.available)) available++;
    for (const { inMs } of seen) checkAgainMs = sooner(checkAgainMs, inMs);
  }
  return {
    checkAgainMs,
    status: {
      observedGeneration: set.metadata.generation ?? 0,
      desiredNumberScheduled: desired,
      currentNumberScheduled: current,
      numberMisscheduled: mis,
      numberReady: ready,
      updatedNumberScheduled: updated,
      ...(available > 0 ? { numberAvailable: available } : {}),
      ...(desired - available > 0 ? { numberUnavailable: desired - available } : {}),
    },
  };
}

export function daemonPod(set: Live<DaemonSet>, node: string, hash: string, name: string): Pod {
  const generation = set.metadata.annotations?.['deprecated.daemonset.template.generation'];
  const labels = { [REVISION_HASH]: hash, ...(generation ? { 'pod-template-generation': generation } : {}) };
  const pod = podFrom(set.spec.template, DAEMON_SETS, set, name, labels);
  const matchFields = [{ key: 'metadata.name', operator: 'In' as const, values: [node] }];
  const nodeAffinity = {
    ...pod.spec.affinity?.nodeAffinity,
    requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchFields }] },
  };
  return {
    ...pod,
    spec: { ...pod.spec, affinity: { ...pod.spec.affinity, nodeAffinity }, tolerations: tolerationsOf(set) },
  };
}

export function daemonSetController(deps: ControllerDeps): Reconciler {
  const { view, clock, random } = deps;
  const sets = view.of(DAEMON_SETS);
  const pods = view.of(PODS);
  const nodes = view.of(NODES);
  const events = deps.events('daemonset-controller');
  const loop = reconciler(deps, 'daemonset', reconcile);
  onSelf(sets, loop);
  onOwned(pods, 'DaemonSet', loop);
  nodes.informer.onChange((now, before) => {
    if (now && before && nodeFace(now) === nodeFace(before)) return;
    for (const set of sets.list()) loop.queue.add(keyOf(set));
  });
  return loop;

  async function reconcile(key: string): Promise<Requeue> {
    const set = sets.get(key);
    if (!set) return DONE;
    const mine = await claim(sets, set, pods, set.spec.selector, isActive);
    if (set.metadata.deletionTimestamp) return DONE;
    const inUse = new Set(mine.map((p) => `${set.metadata.name}-${p.metadata.labels?.[REVISION_HASH]}`));
    const revision = await syncRevisions(view, DAEMON_SETS, set, inUse);
    const updateRevision = revision.metadata.labels?.[REVISION_HASH] ?? '';
    const sight = { set, pods: mine, nodes: nodes.list(), updateRevision, nowMs: clock.now() };
    const plan = planDaemonSet(sight);
    for (const step of plan.steps) if (step.do === 'remove') await remove(set, step);
    const failed = await slowStart(
      plan.steps.filter((s) => s.do === 'create'),
      async ({ node }) => {
        const name = generatedName(`${set.metadata.name}-`, random);
        await pods.create(daemonPod(set, node, updateRevision, name));
        events.record(DAEMON_SETS, set, {
          type: 'Normal',
          reason: 'SuccessfulCreate',
          message: `Created pod: ${name}`,
        });
      },
    );
    const after = { ...sight, pods: pods.ownedBy(set.metadata.uid) };
    const { status, checkAgainMs } = daemonSetStatus(after);
    await writeStatus(sets, sets.get(key) ?? set, status);
    if (failed) throw failed;
    return again(sooner(plan.checkAgainMs, checkAgainMs));
  }

  async function remove(set: Live<DaemonSet>, { pod, failed }: Extract<DaemonStep, { do: 'remove' }>): Promise<void> {
    if (failed) {
      const message = `Found failed daemon pod ${keyOf(pod)} on node ${nodeOfDaemon(pod)}, will try to kill it`;
      events.record(DAEMON_SETS, set, { type: 'Warning', reason: 'FailedDaemonPod', message });
    }
    await pods.remove(pod);
    const message = `Deleted pod: ${pod.metadata.name}`;
    events.record(DAEMON_SETS, set, { type: 'Normal', reason: 'SuccessfulDelete', message });
  }
}

/** What of a node decides about daemons. */
function nodeFace({ metadata, spec }: Live<Node>): string {
  return JSON.stringify([metadata.labels, spec?.taints, spec?.unschedulable]);
}
