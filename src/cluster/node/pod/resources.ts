import type { ResourceSpec } from '#engine/core/spec.ts';
import { amountsOf, podAmounts } from '#spec/kubernetes/pod-resources.ts';
import type { Container, PodSpec } from '#spec/kubernetes/types.gen.ts';

export const QOS_CLASSES = ['Guaranteed', 'Burstable', 'BestEffort'] as const;
export type QosClass = (typeof QOS_CLASSES)[number];

const CPU_PERIOD_US = 100_000;
const MIN_QUOTA_US = 1_000;
const MIN_SHARES = 2;

export function qosClass(spec: PodSpec): QosClass {
  const all = [...spec.containers, ...(spec.initContainers ?? [])];
  const figures = all.map(({ resources }) => ({
    requests: { ...amountsOf(resources?.limits), ...amountsOf(resources?.requests) },
    limits: amountsOf(resources?.limits),
  }));
  const counted = ['cpu', 'memory'] as const;
  const none = figures.every((f) => counted.every((n) => !f.requests[n] && !f.limits[n]));
  if (none) return 'BestEffort';
  const full = figures.every((f) => counted.every((n) => (f.limits[n] ?? 0) > 0 && f.requests[n] === f.limits[n]));
  return full ? 'Guaranteed' : 'Burstable';
}

/** Guaranteed pods stand beside the groups of the other two classes, as the kubelet's do. */
export function podCgroup(parent: string, qos: QosClass, uid: string): string {
  const middle = qos === 'Guaranteed' ? '' : `/${qos.toLowerCase()}`;
  return `${parent}/kubepods${middle}/pod${uid}`;
}

export function podLimits(spec: PodSpec): { memoryBytes?: number; cpuQuotaUs?: number; cpuShares: number } {
  const limits = podAmounts(spec, 'limits');
  const every = (name: 'cpu' | 'memory'): boolean =>
    spec.containers.every((c) => (amountsOf(c.resources?.limits)[name] ?? 0) > 0);
  const requests = podAmounts(spec);
  return {
    ...(every('memory') && limits['memory'] ? { memoryBytes: limits['memory'] } : {}),
    ...(every('cpu') && limits['cpu'] ? { cpuQuotaUs: quota(limits['cpu']) } : {}),
    cpuShares: shares(requests['cpu'] ?? 0),
  };
}

export function containerResources(container: Container, cgroupParent: string): ResourceSpec {
  const limits = amountsOf(container.resources?.limits);
  const requests = { ...limits, ...amountsOf(container.resources?.requests) };
  return {
    cgroupParent,
    // No swap: what a pod may use is what its limit says.
    ...(limits['memory'] ? { memoryBytes: limits['memory'], memorySwapBytes: limits['memory'] } : {}),
    ...(limits['cpu'] ? { cpuPeriodUs: CPU_PERIOD_US, cpuQuotaUs: quota(limits['cpu']) } : {}),
    cpuShares: shares(requests['cpu'] ?? 0),
    oomKillDisable: false,
    blkioWeightDevices: [],
    readBps: [],
    writeBps: [],
    readIops: [],
    writeIops: [],
    hugepages: [],
  };
}

/** Who goes first when the node runs out of memory: the more of its memory a container asked for, the later. */
export function oomScoreAdj(
  spec: PodSpec,
  container: Container,
  host: { memoryBytes: number; lowest: number },
): number {
  const qos = qosClass(spec);
  const asked =
    amountsOf(container.resources?.requests)['memory'] ?? amountsOf(container.resources?.limits)['memory'] ?? 0;
  const wanted =
    qos === 'Guaranteed'
      ? -997
      : qos === 'BestEffort'
        ? 1000
        : Math.min(999, Math.max(2, 1000 - Math.floor((1000 * asked) / host.memoryBytes)));
  return Math.max(host.lowest, wanted);
}

function quota(milli: number): number {
  return Math.max(MIN_QUOTA_US, Math.floor((milli * CPU_PERIOD_US) / 1000));
}

function shares(milli: number): number {
  return Math.max(MIN_SHARES, Math.floor((milli * 1024) / 1000));
}
