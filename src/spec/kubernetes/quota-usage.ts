import type { Amounts } from './pod-resources.ts';
import { podAmounts } from './pod-resources.ts';
import { formatQuantity, nanoOf } from './quantity.ts';
import type { PersistentVolumeClaim, Pod, ResourceQuota, Service } from './types.gen.ts';
import { storageClassOf } from './volume-match.ts';

/** Nano units by the name under which a quota counts them. */
export type Usage = Record<string, bigint>;

const NANO = 1_000_000_000n;
const COUNTED = new Set([
  'pods',
  'services',
  'secrets',
  'configmaps',
  'persistentvolumeclaims',
  'replicationcontrollers',
  'resourcequotas',
]);

/** The resource whose objects a quota name counts: `requests.cpu` → pods, `count/jobs.batch` → jobs. */
export function resourceCountedBy(name: string): string {
  if (name.startsWith('count/')) return name.slice(6).split('.')[0] ?? '';
  if (name.startsWith('services')) return 'services';
  if (name.includes('storage') && !name.includes('ephemeral')) return 'persistentvolumeclaims';
  return COUNTED.has(name) ? name : 'pods';
}

export function objectUsage(resource: string, group: string, object: { metadata: object }): Usage {
  const usage: Usage = { [`count/${resource}${group === '' ? '' : `.${group}`}`]: NANO };
  if (COUNTED.has(resource)) usage[resource] = NANO;
  if (resource === 'pods') Object.assign(usage, podUsage(object as Pod));
  if (resource === 'services') {
    const { spec } = object as Service;
    if (spec?.type === 'LoadBalancer') usage['services.loadbalancers'] = NANO;
    usage['services.nodeports'] = NANO * BigInt((spec?.ports ?? []).filter((p) => p.nodePort).length);
  }
  if (resource === 'persistentvolumeclaims') {
    const { spec } = object as PersistentVolumeClaim;
    const size = nanoOf(spec?.resources?.requests?.['storage']);
    usage['requests.storage'] = size;
    const storageClass = storageClassOf(object as PersistentVolumeClaim);
    if (storageClass !== '') {
      const of = `${storageClass}.storageclass.storage.k8s.io`;
      usage[`${of}/requests.storage`] = size;
      usage[`${of}/persistentvolumeclaims`] = NANO;
    }
  }
  return usage;
}

/** A pod that has ended uses nothing but its place in the list. */
function podUsage(pod: Pod): Usage {
  if (pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed') return { pods: 0n };
  const usage: Usage = {};
  for (const kind of ['requests', 'limits'] as const)
    for (const [name, amount] of Object.entries(podAmounts(pod.spec, kind) satisfies Amounts)) {
      const nano = name === 'cpu' ? BigInt(amount) * 1_000_000n : BigInt(amount) * NANO;
      usage[`${kind}.${name}`] = nano;
      if (kind === 'requests') usage[name] = nano;
    }
  return usage;
}

export function podInScopes(quota: ResourceQuota, pod: Pod): boolean {
  const bestEffort = pod.status?.qosClass === 'BestEffort';
  const terminating = pod.spec.activeDeadlineSeconds !== undefined;
  const meets: Record<string, boolean> = {
    BestEffort: bestEffort,
    NotBestEffort: !bestEffort,
    Terminating: terminating,
    NotTerminating: !terminating,
  };
  const scopes = (quota.spec?.scopes ?? []).every((s) => meets[s] ?? true);
  const priority = pod.spec.priorityClassName ?? '';
  const selected = (quota.spec?.scopeSelector?.matchExpressions ?? []).every((e) => {
    if (e.scopeName !== 'PriorityClass') return meets[e.scopeName] ?? true;
    if (e.operator === 'In') return (e.values ?? []).includes(priority);
    if (e.operator === 'NotIn') return !(e.values ?? []).includes(priority);
    return (e.operator === 'Exists') === (priority !== '');
  });
  return scopes && selected;
}

/** As the server stores it: sizes with binary suffixes. */
export function formatUsage(name: string, nano: bigint): string {
  return formatQuantity({ nano, format: name.includes('memory') || name.includes('storage') ? 'binary' : 'decimal' });
}
