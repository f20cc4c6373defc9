import { KeyedSerial } from '#base/queue.ts';
import type { KubeObject } from '#cluster/store/objects.ts';
import { formatQuantity, nanoOf } from '#spec/kubernetes/quantity.ts';
import type { ResourceQuota } from '#spec/kubernetes/types.gen.ts';
import type { Cache } from '../cache/cache.ts';
import { isObject, type JsonObject } from '../codec/json.ts';
import { qosClass } from '../resources/hooks.ts';
import type { Resource } from '../resources/table.ts';
import { forbidden } from '../status.ts';
import type { Reservation, ValidatingPlugin } from './admission.ts';

/**
 * ResourceQuota. Usage is counted from the objects themselves, so that no book can be wrong; creations in a namespace with quotas
 * take turns until each is in the cache, so that two cannot both take the last of something.
 */
export function resourceQuota(cache: Cache): ValidatingPlugin {
  const turns = new KeyedSerial<string>('quota of namespace');
  return {
    name: 'ResourceQuota',
    validate({ resource, object, old, context }) {
      const { namespace } = object.metadata;
      if (namespace === undefined || old || context.subresource !== '') return;
      const quotas = [...cache.resource('resourcequotas').all(namespace)].map(
        (s) => s.object as unknown as ResourceQuota,
      );
      if (quotas.length === 0) return;
      return takeTurn(turns, namespace, cache, () => check(cache, quotas, resource, object));
    },
  };
}

function takeTurn(
  turns: KeyedSerial<string>,
  namespace: string,
  cache: Cache,
  check: () => void,
): Promise<Reservation> {
  return new Promise((begin, refuse) => {
    turns
      .run(namespace, async () => {
        await cache.fresh();
        check();
        await new Promise<void>((done) => {
          begin({ settled: (revision) => cache.waitFor(revision), done });
        });
      })
      .catch(refuse);
  });
}

function check(cache: Cache, quotas: readonly ResourceQuota[], resource: Resource, object: KubeObject): void {
  const asked = usageOf(resource.facts.resource, resource.facts.group, object);
  for (const quota of quotas) {
    const hard = quota.spec?.hard ?? {};
    const concerned = Object.keys(hard).filter((name) => asked[name] !== undefined && inScope(quota, resource, object));
    if (concerned.length === 0) {
      requireComputeResources(quota, hard, resource, object);
      continue;
    }
    requireComputeResources(quota, hard, resource, object);
    const used = usedIn(cache, quota, object.metadata.namespace ?? '', concerned);
    const over = concerned.filter(
      (name) => (used[name] ?? 0n) + (asked[name] ?? 0n) > nanoOf(hard[name]) && (asked[name] ?? 0n) > 0n,
    );
    if (over.length === 0) continue;
    const show = (amounts: Record<string, bigint>): string =>
      over
        .map(
          (n) =>
            `${n}=${formatQuantity({ nano: amounts[n] ?? 0n, format: n.includes('memory') || n.includes('storage') ? 'binary' : 'decimal' })}`,
        )
        .join(',');
    throw forbidden(
      { group: resource.facts.group, resource: resource.facts.resource, name: object.metadata.name },
      `exceeded quota: ${quota.metadata.name ?? ''}, requested: ${show(asked)}, used: ${show(used)}, limited: ${over.map((n) => `${n}=${hard[n] ?? ''}`).join(',')}`,
    );
  }
}

/** A namespace that rations cpu or memory takes no pod that does not say what it needs of them. */
function requireComputeResources(
  quota: ResourceQuota,
  hard: Record<string, string>,
  resource: Resource,
  object: KubeObject,
): void {
  if (resource.facts.resource !== 'pods' || !inScope(quota, resource, object)) return;
  const spec = part(object, 'spec');
  const containers = [...list(spec['containers']), ...list(spec['initContainers'])];
  const missing = Object.keys(hard).filter((name) => {
    const [kind, what] = COMPUTE[name] ?? [];
    if (!kind || !what) return false;
    return containers.some((c) => part(part(c, 'resources'), kind)[what] === undefined);
  });
  if (missing.length > 0)
    throw forbidden(
      { group: '', resource: 'pods', name: object.metadata.name },
      `failed quota: ${quota.metadata.name ?? ''}: must specify ${missing.sort().join(',')}`,
    );
}

const COMPUTE: Record<string, [kind: 'requests' | 'limits', resource: string]> = {
  cpu: ['requests', 'cpu'],
  memory: ['requests', 'memory'],
  'requests.cpu': ['requests', 'cpu'],
  'requests.memory': ['requests', 'memory'],
  'limits.cpu': ['limits', 'cpu'],
  'limits.memory': ['limits', 'memory'],
};

const list = (value: unknown): JsonObject[] => (Array.isArray(value) ? value.filter(isObject) : []);
const part = (o: JsonObject, name: string): JsonObject => (isObject(o[name]) ? o[name] : {});
const NANO = 1_000_000_000n;

/** What one object counts for, in nano units, under every name a quota may use. Also what the quota controller sums up. */
export function usageOf(resource: string, group: string, object: KubeObject): Record<string, bigint> {
  const counted: Record<string, bigint> = { [`count/${resource}${group === '' ? '' : `.${group}`}`]: NANO };
  if (COUNTED.has(resource)) counted[resource] = NANO;
  const spec = part(object, 'spec');
  if (resource === 'pods') Object.assign(counted, podUsage(object));
  if (resource === 'services') {
    if (spec['type'] === 'LoadBalancer') counted['services.loadbalancers'] = NANO;
    const nodePorts = list(spec['ports']).filter((p) => p['nodePort']).length;
    if (nodePorts > 0) counted['services.nodeports'] = NANO * BigInt(nodePorts);
  }
  if (resource === 'persistentvolumeclaims') {
    const size = nanoOf(part(part(spec, 'resources'), 'requests')['storage'] as string | undefined);
    counted['requests.storage'] = size;
    const storageClass = spec['storageClassName'];
    if (typeof storageClass === 'string') {
      counted[`${storageClass}.storageclass.storage.k8s.io/requests.storage`] = size;
      counted[`${storageClass}.storageclass.storage.k8s.io/persistentvolumeclaims`] = NANO;
    }
  }
  return counted;
}

const COUNTED = new Set([
  'pods',
  'services',
  'secrets',
  'configmaps',
  'persistentvolumeclaims',
  'replicationcontrollers',
  'resourcequotas',
]);

function podUsage(object: KubeObject): Record<string, bigint> {
  const phase = part(object, 'status')['phase'];
  // A pod that has ended uses nothing but its place in the list.
  if (phase === 'Succeeded' || phase === 'Failed') return { pods: 0n };
  const spec = part(object, 'spec');
  const out: Record<string, bigint> = {};
  for (const kind of ['requests', 'limits'] as const) {
    const total: Record<string, bigint> = {};
    for (const container of list(spec['containers']))
      for (const [name, value] of Object.entries(part(part(container, 'resources'), kind)))
        total[name] = (total[name] ?? 0n) + nanoOf(String(value));
    for (const container of list(spec['initContainers']))
      for (const [name, value] of Object.entries(part(part(container, 'resources'), kind))) {
        const nano = nanoOf(String(value));
        if (nano > (total[name] ?? 0n)) total[name] = nano;
      }
    for (const [name, nano] of Object.entries(total)) {
      out[`${kind}.${name}`] = nano;
      if (kind === 'requests') out[name] = nano;
    }
  }
  return out;
}

function usedIn(
  cache: Cache,
  quota: ResourceQuota,
  namespace: string,
  names: readonly string[],
): Record<string, bigint> {
  const used: Record<string, bigint> = {};
  for (const resource of new Set(names.map(resourceCounted))) {
    for (const { object } of cache.resource(resource).all(namespace)) {
      if (resource === 'pods' && !podInScopes(quota, object)) continue;
      const usage = usageOf(
        resource,
        object.apiVersion.includes('/') ? (object.apiVersion.split('/')[0] ?? '') : '',
        object,
      );
      for (const name of names) if (usage[name] !== undefined) used[name] = (used[name] ?? 0n) + usage[name];
    }
  }
  return used;
}

function resourceCounted(name: string): string {
  if (name.startsWith('count/')) return name.slice(6).split('.')[0] ?? '';
  if (name.startsWith('services')) return 'services';
  if (name.includes('storage') && !name.includes('ephemeral')) return 'persistentvolumeclaims';
  return COUNTED.has(name) ? name : 'pods';
}

function inScope(quota: ResourceQuota, resource: Resource, object: KubeObject): boolean {
  return resource.facts.resource !== 'pods' || podInScopes(quota, object);
}

function podInScopes(quota: ResourceQuota, pod: KubeObject): boolean {
  const spec = part(pod, 'spec');
  const bestEffort = qosClass(spec) === 'BestEffort';
  const terminating = spec['activeDeadlineSeconds'] !== undefined;
  const meets: Record<string, boolean> = {
    BestEffort: bestEffort,
    NotBestEffort: !bestEffort,
    Terminating: terminating,
    NotTerminating: !terminating,
  };
  const scopes = (quota.spec?.scopes ?? []).every((s) => meets[s] ?? true);
  const selected = (quota.spec?.scopeSelector?.matchExpressions ?? []).every((e) => {
    if (e.scopeName !== 'PriorityClass') return meets[e.scopeName] ?? true;
    const name = String(spec['priorityClassName'] ?? '');
    if (e.operator === 'In') return (e.values ?? []).includes(name);
    if (e.operator === 'NotIn') return !(e.values ?? []).includes(name);
    return (e.operator === 'Exists') === (name !== '');
  });
  return scopes && selected;
}
