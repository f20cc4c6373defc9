import { messageOf } from '#base/errors.ts';
import { DONE, type Requeue } from '#cluster/client/queue.ts';
import { HPAS, type KubeObject, keyIn, type Live, PODS, type Resource, timestamp } from '#cluster/client/resources.ts';
import { resourceOfKind } from '#spec/kubernetes/facts.ts';
import { milliOf, nanoOf } from '#spec/kubernetes/quantity.ts';
import { formatRequirements, matchesRequirements, parseSelector } from '#spec/kubernetes/selector.ts';
import type {
  HorizontalPodAutoscaler,
  HorizontalPodAutoscalerCondition,
  HorizontalPodAutoscalerStatus,
  HPAScalingRules,
  MetricSpec,
  MetricStatus,
  MetricTarget,
  Pod,
  Quantity,
} from '#spec/kubernetes/types.gen.ts';
import {
  type ControllerDeps,
  conditionOf,
  millis,
  type Reconciler,
  reconciler,
  withCondition,
  writeStatus,
} from './loop.ts';
import { isActive, isReady } from './pods.ts';

/** Present use of pods, by container; `cpu` in cores and `memory` in bytes as quantities. */
export interface PodMetrics {
  /** Pods without a sample are absent. */
  usage(namespace: string, pods: readonly Live<Pod>[]): Promise<Map<string, PodUsage>>;
}
export interface PodUsage {
  atMs: number;
  containers: Record<string, Record<string, Quantity>>;
}

const SYNC_MS = 15_000;
const TOLERANCE = 0.1;

/** How far use may be from its target before anything is done: down and up, as parts of one. */
export interface Tolerance {
  down: number;
  up: number;
}

export function toleranceOf({ spec: { behavior } }: HorizontalPodAutoscaler): Tolerance {
  const part = (rules: HPAScalingRules | undefined): number =>
    rules?.tolerance === undefined ? TOLERANCE : milliOf(rules.tolerance) / 1000;
  return { down: part(behavior?.scaleDown), up: part(behavior?.scaleUp) };
}

function isWithin(ratio: number, { down, up }: Tolerance): boolean {
  return ratio >= 1 - down && ratio <= 1 + up;
}
const DOWN_WINDOW_SECONDS = 300;
// A pod that has just started burns cpu to start; its figure says nothing about the load.
const CPU_INITIALIZATION_MS = 300_000;
const READINESS_DELAY_MS = 30_000;

export interface MetricResult {
  replicas: number;
  status: MetricStatus;
  /** How the wish is explained: `cpu resource utilization (percentage of request)`. */
  what: string;
}

interface Sample {
  pod: Live<Pod>;
  usedNano: bigint;
  requestNano: bigint;
}

/** Undefined when nothing can be said: no pod has a sample, or a request is missing where a share of it is asked for. */
export function proposeReplicas(
  spec: MetricSpec,
  pods: readonly Live<Pod>[],
  usage: ReadonlyMap<string, PodUsage>,
  current: number,
  nowMs: number,
  tolerance: Tolerance = { down: TOLERANCE, up: TOLERANCE },
): MetricResult | { wrong: { reason: string; message: string } } {
  const source =
    spec.type === 'Resource' ? spec.resource : spec.type === 'ContainerResource' ? spec.containerResource : undefined;
  if (!source)
    return wrong(
      'InvalidMetricSourceType',
      `metrics of type ${spec.type} need a custom metrics API, which is not served here`,
    );
  const container = spec.containerResource?.container;
  const { name, target } = source;
  const counted: Sample[] = [];
  const unready: Live<Pod>[] = [];
  const missing: Live<Pod>[] = [];
  for (const pod of pods.filter(isActive)) {
    const requestNano = requestOf(pod, name, container);
    if (target.type === 'Utilization' && requestNano === 0n)
      return wrong('FailedGetResourceMetric', `missing request for ${name} in container of Pod ${pod.metadata.name}`);
    const sample = usage.get(pod.metadata.name);
    if (pod.status?.phase === 'Pending' || (name === 'cpu' && !settled(pod, sample, nowMs))) unready.push(pod);
    else if (!sample) missing.push(pod);
    else counted.push({ pod, requestNano, usedNano: usedOf(sample, name, container) });
  }
  if (counted.length === 0)
    return wrong('FailedGetResourceMetric', `did not receive metrics for targeted pods (pods might be unready)`);
  const ratio = ratioOf(counted, target);
  const withGuess = (): number => {
    // Cautious both ways: silent pods are taken as idle when growing and as fully used when shrinking.
    const grows = ratio > 1;
    const silent = [...missing, ...(grows ? unready : [])].map((pod): Sample => {
      const requestNano = requestOf(pod, name, container);
      const fullNano = target.type === 'Utilization' ? requestNano : nanoOf(target.averageValue);
      return { pod, requestNano, usedNano: grows ? 0n : fullNano };
    });
    const all = [...counted, ...silent];
    const again = ratioOf(all, target);
    if (isWithin(again, tolerance) || again > 1 !== grows) return current;
    const wished = Math.ceil(again * all.length);
    return grows ? Math.max(current, wished) : Math.min(current, wished);
  };
  const within = isWithin(ratio, tolerance);
  const replicas = within
    ? current
    : missing.length + unready.length > 0
      ? withGuess()
      : Math.ceil(ratio * counted.length);
  const used = counted.reduce((sum, s) => sum + s.usedNano, 0n);
  const requested = counted.reduce((sum, s) => sum + s.requestNano, 0n);
  const averageValue = asQuantity(used / BigInt(counted.length), name);
  const shown =
    target.type === 'Utilization'
      ? { averageUtilization: Number((used * 100n) / (requested === 0n ? 1n : requested)), averageValue }
      : { averageValue };
  const status: MetricStatus = container
    ? { type: spec.type, containerResource: { name, container, current: shown } }
    : { type: spec.type, resource: { name, current: shown } };
  const share = target.type === 'Utilization' ? ' utilization (percentage of request)' : '';
  return { replicas, status, what: `${name} ${container ? 'container ' : ''}resource${share}` };
}

function wrong(reason: string, message: string): { wrong: { reason: string; message: string } } {
  return { wrong: { reason, message } };
}

/** Present use over wished use. */
function ratioOf(samples: readonly Sample[], target: MetricTarget): number {
  const used = Number(samples.reduce((sum, s) => sum + s.usedNano, 0n));
  if (target.type === 'Utilization') {
    const requested = Number(samples.reduce((sum, s) => sum + s.requestNano, 0n));
    return used / requested / ((target.averageUtilization ?? 80) / 100);
  }
  return used / samples.length / Number(nanoOf(target.averageValue) || 1n);
}

function settled(pod: Live<Pod>, sample: PodUsage | undefined, nowMs: number): boolean {
  const startedMs = millis(pod.status?.startTime ?? pod.metadata.creationTimestamp);
  const ready = conditionOf(pod.status?.conditions, 'Ready');
  const readyMs = millis(ready?.lastTransitionTime);
  if (nowMs - startedMs < CPU_INITIALIZATION_MS)
    return isReady(pod) && (sample === undefined || sample.atMs >= readyMs);
  return isReady(pod) || readyMs - startedMs > READINESS_DELAY_MS;
}

function requestOf(pod: Pod, name: string, container: string | undefined): bigint {
  return pod.spec.containers
    .filter((c) => container === undefined || c.name === container)
    .reduce((sum, c) => sum + nanoOf(c.resources?.requests?.[name]), 0n);
}

function usedOf(sample: PodUsage, name: string, container: string | undefined): bigint {
  return Object.entries(sample.containers)
    .filter(([c]) => container === undefined || c === container)
    .reduce((sum, [, resources]) => sum + nanoOf(resources[name]), 0n);
}

function asQuantity(nano: bigint, name: string): Quantity {
  return name === 'cpu' ? `${nano / 1_000_000n}m` : `${nano / 1_000_000_000n}`;
}

/** What was wished and done before; kept in memory, as upstream does. */
export interface ScaleHistory {
  wishes: { atMs: number; replicas: number }[];
  changes: { atMs: number; by: number }[];
}

/** Smooths a wish: windows of stabilization, then at most so much change a period, then the bounds. */
export function limitScale(
  hpa: Live<HorizontalPodAutoscaler>,
  current: number,
  wish: number,
  history: ScaleHistory,
  nowMs: number,
): { replicas: number; condition: { reason: string; message: string; limited: boolean }; held: string | undefined } {
  const { minReplicas = 1, maxReplicas, behavior } = hpa.spec;
  const up = behavior?.scaleUp ?? {};
  const down = behavior?.scaleDown ?? {};
  const recent = (seconds: number): number[] =>
    history.wishes.filter((w) => w.atMs > nowMs - seconds * 1000).map((w) => w.replicas);
  const floor = Math.min(wish, ...recent(up.stabilizationWindowSeconds ?? 0));
  const ceiling = Math.max(wish, ...recent(down.stabilizationWindowSeconds ?? DOWN_WINDOW_SECONDS));
  let replicas = Math.min(Math.max(current, floor), ceiling);
  const held = replicas !== wish ? (wish < current ? 'ScaleDownStabilized' : 'ScaleUpStabilized') : undefined;
  let condition = {
    reason: 'DesiredWithinRange',
    message: 'the desired count is within the acceptable range',
    limited: false,
  };
  const most = replicas > current ? rateLimit(up, current, history, nowMs, 1) : Number.POSITIVE_INFINITY;
  const least = replicas < current ? rateLimit(down, current, history, nowMs, -1) : 0;
  if (replicas > most) {
    condition = {
      reason: 'ScaleUpLimit',
      message: 'the desired replica count is increasing faster than the maximum scale rate',
      limited: true,
    };
    replicas = Math.max(current, most);
  } else if (replicas < least) {
    condition = {
      reason: 'ScaleDownLimit',
      message: 'the desired replica count is decreasing faster than the maximum scale rate',
      limited: true,
    };
    replicas = Math.min(current, least);
  }
  if (replicas > maxReplicas) {
    condition = {
      reason: 'TooManyReplicas',
      message: 'the desired replica count is more than the maximum replica count',
      limited: true,
    };
    replicas = maxReplicas;
  } else if (replicas < minReplicas) {
    condition = {
      reason: 'TooFewReplicas',
      message: 'the desired replica count is less than the minimum replica count',
      limited: true,
    };
    replicas = minReplicas;
  }
  return { replicas, condition, held };
}

const DEFAULT_UP: NonNullable<HPAScalingRules['policies']> = [
  { type: 'Percent', value: 100, periodSeconds: 15 },
  { type: 'Pods', value: 4, periodSeconds: 15 },
];
const DEFAULT_DOWN: NonNullable<HPAScalingRules['policies']> = [{ type: 'Percent', value: 100, periodSeconds: 15 }];

function rateLimit(
  rules: HPAScalingRules,
  current: number,
  history: ScaleHistory,
  nowMs: number,
  sign: 1 | -1,
): number {
  if (rules.selectPolicy === 'Disabled') return current;
  const limits = (rules.policies ?? (sign === 1 ? DEFAULT_UP : DEFAULT_DOWN)).map((policy) => {
    const since = nowMs - policy.periodSeconds * 1000;
    const changed = history.changes
      .filter((c) => c.atMs > since && Math.sign(c.by) === sign)
      .reduce((sum, c) => sum + c.by, 0);
    const start = current - changed;
    if (policy.type === 'Pods') return start + sign * policy.value;
    const share = start * (1 + (sign * policy.value) / 100);
    return sign === 1 ? Math.ceil(share) : Math.floor(share);
  });
  // `Max` is the policy that changes most.
  const widest = (rules.selectPolicy ?? 'Max') === 'Max';
  return widest === (sign === 1) ? Math.max(...limits) : Math.min(...limits);
}

interface Scale extends KubeObject {
  spec: { replicas?: number };
  status?: { replicas?: number; selector?: string };
}

export function autoscaleController(deps: ControllerDeps, metrics: PodMetrics): Reconciler {
  const { view, clock } = deps;
  const hpas = view.of(HPAS);
  const pods = view.of(PODS);
  const events = deps.events('horizontal-pod-autoscaler');
  const histories = new Map<string, ScaleHistory>();
  const loop = reconciler(deps, 'autoscale', reconcile);
  // Its own status must not bring it back at once: the metrics come every 15 seconds.
  hpas.informer.onChange((now, before) => {
    if (now && now.metadata.generation !== before?.metadata.generation)
      loop.queue.add(keyIn(now.metadata.namespace, now.metadata.name));
    else if (now && !before) loop.queue.add(keyIn(now.metadata.namespace, now.metadata.name));
    else if (!now && before) histories.delete(before.metadata.uid);
  });
  return loop;

  async function reconcile(key: string): Promise<Requeue> {
    const hpa = hpas.get(key);
    if (!hpa) return DONE;
    const status = await decide(hpa);
    await writeStatus(hpas, hpas.get(key) ?? hpa, status);
    return { afterMs: SYNC_MS };
  }

  async function decide(hpa: Live<HorizontalPodAutoscaler>): Promise<HorizontalPodAutoscalerStatus> {
    const nowMs = clock.now();
    let conditions = hpa.status?.conditions ?? [];
    const set = (type: string, status: string, reason: string, message: string): void => {
      const wanted: HorizontalPodAutoscalerCondition = { type, status, reason, message };
      conditions = withCondition(conditions, wanted, timestamp(nowMs));
    };
    const base = (current: number, desired: number): HorizontalPodAutoscalerStatus => ({
      ...hpa.status,
      currentReplicas: current,
      desiredReplicas: desired,
      conditions,
      observedGeneration: hpa.metadata.generation ?? 0,
    });
    let scale: Live<Scale>;
    const target = targetOf(hpa);
    const targetKey = keyIn(hpa.metadata.namespace, hpa.spec.scaleTargetRef.name);
    try {
      if (!target) throw new Error(`${hpa.spec.scaleTargetRef.kind} cannot be scaled`);
      scale = await view.client.raw<Live<Scale>>({ method: 'GET', path: scalePath(target, targetKey) });
    } catch (error) {
      const message = `the HPA controller was unable to get the target's current scale: ${messageOf(error)}`;
      set('AbleToScale', 'False', 'FailedGetScale', message);
      events.record(HPAS, hpa, { type: 'Warning', reason: 'FailedGetScale', message: messageOf(error) });
      return base(hpa.status?.currentReplicas ?? 0, hpa.status?.desiredReplicas ?? 0);
    }
    set('AbleToScale', 'True', 'SucceededGetScale', "the HPA controller was able to get the target's current scale");
    const current = scale.spec.replicas ?? 0;
    if (current === 0) {
      set(
        'ScalingActive',
        'False',
        'ScalingDisabled',
        'scaling is disabled since the replica count of the target is zero',
      );
      return base(0, 0);
    }
    const selected = podsOf(hpa, scale.status?.selector ?? '');
    const usage = await metrics.usage(hpa.metadata.namespace ?? '', selected);
    const results = (hpa.spec.metrics ?? []).map((m) =>
      proposeReplicas(m, selected, usage, current, nowMs, toleranceOf(hpa)),
    );
    const good = results.filter((r): r is MetricResult => 'replicas' in r);
    const bad = results.find((r): r is { wrong: { reason: string; message: string } } => 'wrong' in r);
    const top = good.reduce<MetricResult | undefined>((a, b) => (a && a.replicas >= b.replicas ? a : b), undefined);
    // With one metric silent, the others may still raise the count; they may not lower it.
    if (!top || (bad && top.replicas <= current)) {
      const { reason, message } = bad?.wrong ?? { reason: 'InvalidMetrics', message: 'no metrics are given' };
      const text = `the HPA was unable to compute the replica count: ${message}`;
      set('ScalingActive', 'False', reason, text);
      events.record(HPAS, hpa, { type: 'Warning', reason, message });
      return base(current, hpa.status?.desiredReplicas ?? current);
    }
    set(
      'ScalingActive',
      'True',
      'ValidMetricFound',
      `the HPA was able to successfully calculate a replica count from ${top.what}`,
    );
    const history = histories.get(hpa.metadata.uid) ?? { wishes: [{ atMs: nowMs, replicas: current }], changes: [] };
    histories.set(hpa.metadata.uid, history);
    const { replicas, condition, held } = limitScale(hpa, current, top.replicas, history, nowMs);
    remember(history, nowMs, top.replicas, replicas - current);
    if (held)
      set(
        'AbleToScale',
        'True',
        held,
        'recent recommendations were higher or lower than current one, applying the stabilized recommendation',
      );
    else set('AbleToScale', 'True', 'ReadyForNewScale', 'recommended size matches current size');
    set('ScalingLimited', condition.limited ? 'True' : 'False', condition.reason, condition.message);
    const currentMetrics = good.map((r) => r.status);
    if (replicas === current || !target) return { ...base(current, replicas), currentMetrics };
    await view.client.raw({
      method: 'PUT',
      path: scalePath(target, targetKey),
      body: { ...scale, spec: { ...scale.spec, replicas } },
    });
    const why = replicas > current ? `${top.what} above target` : 'All metrics below target';
    const message = `New size: ${replicas}; reason: ${why}`;
    events.record(HPAS, hpa, { type: 'Normal', reason: 'SuccessfulRescale', message });
    set(
      'AbleToScale',
      'True',
      'SucceededRescale',
      `the HPA controller was able to update the target scale to ${replicas}`,
    );
    return { ...base(current, replicas), currentMetrics, lastScaleTime: timestamp(nowMs) };
  }

  function podsOf(hpa: Live<HorizontalPodAutoscaler>, selector: string): Live<Pod>[] {
    const requirements = parseSelector(selector);
    if (typeof requirements === 'string' || formatRequirements(requirements) === '') return [];
    return pods
      .inNamespace(hpa.metadata.namespace ?? '')
      .filter((p) => matchesRequirements(requirements, p.metadata.labels));
  }
}

// Longer than any stabilization window or period may be (3 600 s and 1 800 s).
const HISTORY_MS = 3_600_000;

function remember(history: ScaleHistory, atMs: number, wish: number, by: number): void {
  history.wishes = [...history.wishes.filter((w) => w.atMs > atMs - HISTORY_MS), { atMs, replicas: wish }];
  history.changes = history.changes.filter((c) => c.atMs > atMs - HISTORY_MS);
  if (by !== 0) history.changes.push({ atMs, by });
}

function targetOf(hpa: Live<HorizontalPodAutoscaler>): Resource<KubeObject> | undefined {
  const { apiVersion = '', kind } = hpa.spec.scaleTargetRef;
  const facts = resourceOfKind(apiVersion, kind);
  if (!facts?.subresources.has('scale')) return undefined;
  return { apiVersion, kind, plural: facts.resource, namespaced: true };
}

function scalePath({ apiVersion, plural }: Resource<KubeObject>, key: string): string {
  const [namespace = '', name = ''] = key.split('/');
  const root = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  return `${root}/namespaces/${namespace}/${plural}/${name}/scale`;
}
