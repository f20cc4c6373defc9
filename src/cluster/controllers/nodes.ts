import { DONE, type Requeue } from '#cluster/client/queue.ts';
import { keyOf, LEASES, type Live, NODES, PODS, timestamp } from '#cluster/client/resources.ts';
import { equalJson } from '#spec/kubernetes/json.ts';
import { isTolerated } from '#spec/kubernetes/node-match.ts';
import type { Node, NodeCondition, Pod, Taint } from '#spec/kubernetes/types.gen.ts';
import {
  again,
  type ControllerDeps,
  conditionOf,
  millis,
  onSelf,
  type Reconciler,
  reconciler,
  sooner,
  withCondition,
} from './loop.ts';
import { isOver } from './pods.ts';

export const NODE_LEASES = 'kube-node-lease';
const NOT_READY = 'node.kubernetes.io/not-ready';
const UNREACHABLE = 'node.kubernetes.io/unreachable';
const UNSCHEDULABLE = 'node.kubernetes.io/unschedulable';
// Kubelets renew every 10 s; upstream gives them 50 s.
const GRACE_MS = 50_000;
const WATCHED: readonly string[] = ['Ready', 'MemoryPressure', 'DiskPressure', 'PIDPressure'];
const PRESSURE: Record<string, string> = {
  MemoryPressure: 'node.kubernetes.io/memory-pressure',
  DiskPressure: 'node.kubernetes.io/disk-pressure',
  PIDPressure: 'node.kubernetes.io/pid-pressure',
  NetworkUnavailable: 'node.kubernetes.io/network-unavailable',
};
const MANAGED_TAINTS = new Set([NOT_READY, UNREACHABLE, UNSCHEDULABLE, ...Object.values(PRESSURE)]);

/** Conditions of a node that has gone silent become Unknown. `seenMs`: when its last sign of life came, by our clock. */
export function planNodeConditions(node: Live<Node>, seenMs: number, nowMs: number): NodeCondition[] | undefined {
  const known = node.status?.conditions;
  const ready = conditionOf(known, 'Ready');
  if (nowMs - seenMs < GRACE_MS || ready?.status === 'Unknown') return undefined;
  let conditions: NodeCondition[] = known ?? [];
  for (const type of WATCHED) {
    const had = conditionOf(known, type);
    if (had?.status === 'Unknown') continue;
    const wanted: NodeCondition = {
      type,
      status: 'Unknown',
      reason: had ? 'NodeStatusUnknown' : 'NodeStatusNeverUpdated',
      message: had ? 'Kubelet stopped posting node status.' : 'Kubelet never posted node status.',
      ...(had?.lastHeartbeatTime ? { lastHeartbeatTime: had.lastHeartbeatTime } : {}),
    };
    conditions = withCondition(conditions, wanted, timestamp(nowMs));
  }
  return conditions;
}

/** Taints that follow from conditions and `unschedulable`; all others are kept. */
export function planTaints(node: Live<Node>, nowMs: number): Taint[] {
  const had = node.spec?.taints ?? [];
  const wanted: Taint[] = [];
  const ready = conditionOf(node.status?.conditions, 'Ready')?.status;
  const readyTaint = ready === 'True' ? undefined : ready === 'False' || ready === undefined ? NOT_READY : UNREACHABLE;
  if (readyTaint) wanted.push({ key: readyTaint, effect: 'NoSchedule' }, { key: readyTaint, effect: 'NoExecute' });
  if (node.spec?.unschedulable) wanted.push({ key: UNSCHEDULABLE, effect: 'NoSchedule' });
  for (const [type, key] of Object.entries(PRESSURE))
    if (conditionOf(node.status?.conditions, type)?.status === 'True') wanted.push({ key, effect: 'NoSchedule' });
  const kept = had.filter((t) => !MANAGED_TAINTS.has(t.key));
  const timed = wanted.map((t) => {
    const known = had.find((h) => h.key === t.key && h.effect === t.effect);
    return known ?? { ...t, ...(t.effect === 'NoExecute' ? { timeAdded: timestamp(nowMs) } : {}) };
  });
  return [...kept, ...timed];
}

/** When a pod has to leave its node because of NoExecute taints; undefined: it may stay. */
export function evictionAtMs(pod: Live<Pod>, node: Live<Node>, nowMs: number): number | undefined {
  const taints = (node.spec?.taints ?? []).filter((t) => t.effect === 'NoExecute');
  let atMs: number | undefined;
  for (const taint of taints) {
    const tolerations = (pod.spec.tolerations ?? []).filter((t) => isTolerated(taint, [t]));
    if (tolerations.length === 0) return nowMs;
    const limits = tolerations.flatMap((t) => (t.tolerationSeconds === undefined ? [] : [t.tolerationSeconds]));
    if (limits.length === 0) continue;
    const sinceMs = taint.timeAdded === undefined ? nowMs : millis(taint.timeAdded);
    atMs = sooner(atMs, sinceMs + Math.max(0, Math.min(...limits)) * 1000);
  }
  return atMs;
}

/** Watches over nodes: silence, taints, and the pods that have to leave or have lost their node. */
export function nodeController(deps: ControllerDeps): Reconciler {
  const { view, clock, log } = deps;
  const nodes = view.of(NODES);
  const pods = view.of(PODS);
  const leases = view.of(LEASES);
  const events = deps.events('node-controller');
  /** By node, what its last sign looked like and when we saw it: nodes' own clocks are not trusted. */
  const signs = new Map<string, { sign: string; seenMs: number }>();
  pods.informer.addIndex('node', (p) => [p.spec.nodeName ?? '']);
  const loop = reconciler(deps, 'node', reconcile, 16);
  onSelf(nodes, loop);
  leases.informer.onChange((now) => {
    if (now?.metadata.namespace === NODE_LEASES) noteSign(now.metadata.name);
  });
  pods.informer.onChange((now, before) => {
    if (now?.spec.nodeName && (!before?.spec.nodeName || !nodes.get(now.spec.nodeName)))
      loop.queue.add(now.spec.nodeName);
  });
  return loop;

  function noteSign(name: string): number {
    const heartbeat = conditionOf(nodes.get(name)?.status?.conditions, 'Ready')?.lastHeartbeatTime ?? '';
    const renewed = leases.get(`${NODE_LEASES}/${name}`)?.spec?.renewTime ?? '';
    const sign = `${heartbeat} ${renewed}`;
    const known = signs.get(name);
    if (known?.sign === sign) return known.seenMs;
    signs.set(name, { sign, seenMs: clock.now() });
    return clock.now();
  }

  async function reconcile(name: string): Promise<Requeue> {
    const node = nodes.get(name);
    if (!node) {
      signs.delete(name);
      await dropOrphans(name);
      return DONE;
    }
    const seenMs = noteSign(name);
    const conditions = planNodeConditions(node, seenMs, clock.now());
    let latest = node;
    if (conditions) {
      latest = await nodes.updateStatus({ ...node, status: { ...node.status, conditions } });
      const message = `Node ${name} status is now: NodeNotReady`;
      events.record(NODES, node, { type: 'Normal', reason: 'NodeNotReady', message });
    }
    const taints = planTaints(latest, clock.now());
    if (!equalJson(taints, latest.spec?.taints ?? [])) {
      const { taints: _old, ...spec } = latest.spec ?? {};
      latest = await nodes.update({ ...latest, spec: { ...spec, ...(taints.length > 0 ? { taints } : {}) } });
    }
    const ready = conditionOf(latest.status?.conditions, 'Ready')?.status === 'True';
    let checkAgainMs: number | undefined = Math.max(1, seenMs + GRACE_MS - clock.now());
    if (conditionOf(latest.status?.conditions, 'Ready')?.status === 'Unknown') checkAgainMs = undefined;
    for (const pod of pods.informer.by('node', name)) {
      if (isOver(pod) || pod.metadata.deletionTimestamp) continue;
      if (!ready) await markNotReady(pod);
      const atMs = evictionAtMs(pod, latest, clock.now());
      if (atMs === undefined) continue;
      if (atMs > clock.now()) checkAgainMs = sooner(checkAgainMs, atMs - clock.now());
      else await evict(pod);
    }
    return again(checkAgainMs);
  }

  /** A pod on a node that does not answer must not be sent traffic. */
  async function markNotReady(pod: Live<Pod>): Promise<void> {
    const known = conditionOf(pod.status?.conditions, 'Ready');
    if (known?.status !== 'True') return;
    const conditions = withCondition(pod.status?.conditions, { ...known, status: 'False' }, timestamp(clock.now()));
    await pods.updateStatus({ ...pod, status: { ...pod.status, conditions } });
  }

  async function evict(pod: Live<Pod>): Promise<void> {
    const message = `Marking for deletion Pod ${keyOf(pod)}`;
    events.record(PODS, pod, { type: 'Normal', reason: 'TaintManagerEviction', message });
    await pods.remove(pod);
  }

  /** Nobody will ever report on pods of a node that was deleted. */
  async function dropOrphans(name: string): Promise<void> {
    if ((await nodes.fresh(name)) !== undefined) return;
    for (const pod of pods.informer.by('node', name)) {
      log.debug('pod without node', () => ({ pod: keyOf(pod), node: name }));
      await pods.remove(pod, { gracePeriodSeconds: 0 });
    }
  }
}
