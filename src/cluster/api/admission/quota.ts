import { KeyedSerial } from '#base/queue.ts';
import type { KubeObject } from '#cluster/store/objects.ts';
import { nanoOf } from '#spec/kubernetes/quantity.ts';
import { formatUsage, objectUsage, podInScopes, resourceCountedBy, type Usage } from '#spec/kubernetes/quota-usage.ts';
import type { Pod, ResourceQuota } from '#spec/kubernetes/types.gen.ts';
import type { Cache } from '../cache/cache.ts';
import { isObject, type JsonObject } from '../codec/json.ts';
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
  const asked = objectUsage(resource.facts.resource, resource.facts.group, object);
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
    const show = (amounts: Usage): string => over.map((n) => `${n}=${formatUsage(n, amounts[n] ?? 0n)}`).join(',');
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
function usedIn(cache: Cache, quota: ResourceQuota, namespace: string, names: readonly string[]): Usage {
  const used: Usage = {};
  for (const resource of new Set(names.map(resourceCountedBy))) {
    for (const { object } of cache.resource(resource).all(namespace)) {
      if (resource === 'pods' && !podInScopes(quota, object as unknown as Pod)) continue;
      const group = object.apiVersion.includes('/') ? (object.apiVersion.split('/')[0] ?? '') : '';
      const usage = objectUsage(resource, group, object);
      for (const name of names) if (usage[name] !== undefined) used[name] = (used[name] ?? 0n) + usage[name];
    }
  }
  return used;
}

function inScope(quota: ResourceQuota, resource: Resource, object: KubeObject): boolean {
  return resource.facts.resource !== 'pods' || podInScopes(quota, object as unknown as Pod);
}
