import { DONE, type Requeue } from '#cluster/client/queue.ts';
import { type KubeObject, keyOf, type Live, RESOURCE_QUOTAS } from '#cluster/client/resources.ts';
import type { Collection } from '#cluster/client/view.ts';
import { kubernetesFacts, type ResourceFacts } from '#spec/kubernetes/facts.ts';
import { formatUsage, objectUsage, podInScopes, resourceCountedBy } from '#spec/kubernetes/quota-usage.ts';
import type { Pod, ResourceQuota } from '#spec/kubernetes/types.gen.ts';
import { type ControllerDeps, onSelf, type Reconciler, reconciler, writeStatus } from './loop.ts';

/** What of a quota is used, by every name in `hard`. */
export function quotaUsed(
  quota: ResourceQuota,
  objectsOf: (resource: string) => { group: string; objects: readonly KubeObject[] },
): Record<string, string> {
  const names = Object.keys(quota.spec?.hard ?? {});
  const used = new Map(names.map((n) => [n, 0n]));
  for (const resource of new Set(names.map(resourceCountedBy))) {
    const { group, objects } = objectsOf(resource);
    for (const object of objects) {
      if (resource === 'pods' && !podInScopes(quota, object as Pod)) continue;
      const usage = objectUsage(resource, group, object);
      for (const name of names) if (usage[name] !== undefined) used.set(name, (used.get(name) ?? 0n) + usage[name]);
    }
  }
  return Object.fromEntries([...used].map(([name, nano]) => [name, formatUsage(name, nano)]));
}

/** Keeps `status.used`; what may be created is decided by admission, from the objects themselves. */
export function quotaController(deps: ControllerDeps): Reconciler {
  const { view } = deps;
  const quotas = view.of(RESOURCE_QUOTAS);
  const watched = new Map<string, { group: string; collection: Collection<KubeObject> }>();
  const loop = reconciler(deps, 'quota', reconcile);
  onSelf(quotas, loop);
  return loop;

  async function reconcile(key: string): Promise<Requeue> {
    const quota = quotas.get(key);
    if (!quota) return DONE;
    const { namespace = '' } = quota.metadata;
    const hard = quota.spec?.hard ?? {};
    for (const resource of new Set(Object.keys(hard).map(resourceCountedBy))) await watch(resource);
    const used = quotaUsed(quota, (resource) => {
      const found = watched.get(resource);
      return { group: found?.group ?? '', objects: found?.collection.inNamespace(namespace) ?? [] };
    });
    await writeStatus(quotas, quota, { hard, used });
    return DONE;
  }

  /** Only kinds that some quota counts are followed for it. */
  async function watch(resource: string): Promise<void> {
    if (watched.has(resource)) return;
    const facts = kubernetesFacts().resources.find(
      (r) => r.resource === resource && r.namespaced && r.verbs.has('watch'),
    );
    if (!facts) return;
    const collection = view.of<KubeObject>(handle(facts));
    watched.set(resource, { group: facts.group, collection });
    collection.informer.onChange((now, before) => {
      for (const quota of quotas.inNamespace((now ?? before)?.metadata.namespace ?? ''))
        if (concerns(quota, resource)) loop.queue.add(keyOf(quota));
    });
    await collection.informer.synced;
  }
}

function handle({ apiVersion, kind, resource, namespaced }: ResourceFacts) {
  return { apiVersion, kind, plural: resource, namespaced };
}

function concerns(quota: Live<ResourceQuota>, resource: string): boolean {
  return Object.keys(quota.spec?.hard ?? {}).some((name) => resourceCountedBy(name) === resource);
}
