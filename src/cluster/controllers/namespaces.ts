import { DONE, type Requeue } from '#cluster/client/queue.ts';
import { EVENTS, type KubeObject, type Live, NAMESPACES, PODS, pathFor, timestamp } from '#cluster/client/resources.ts';
import type { Namespace, NamespaceCondition } from '#spec/kubernetes/types.gen.ts';
import { collectableResources } from './garbage.ts';
import { type ControllerDeps, onSelf, type Reconciler, reconciler, withCondition, writeStatus } from './loop.ts';

const FINALIZER = 'kubernetes';
// Pods leave with their grace period; their kubelet's answer comes as an event, but not every kind is watched for this.
const LOOK_AGAIN_MS = 1_000;

/** What is left in a dying namespace, as conditions of it. */
export function remainingConditions(
  namespace: Live<Namespace>,
  left: ReadonlyMap<string, readonly Live<KubeObject>[]>,
  nowMs: number,
): NamespaceCondition[] {
  const counts = [...left].filter(([, objects]) => objects.length > 0);
  const finalizers = new Map<string, number>();
  for (const [, objects] of counts)
    for (const object of objects)
      for (const name of object.metadata.finalizers ?? []) finalizers.set(name, (finalizers.get(name) ?? 0) + 1);
  const content = counts.map(([kind, objects]) => `${kind} has ${objects.length} resource instances`).sort();
  const pending = [...finalizers].map(([name, n]) => `${name} in ${n} resource instances`).sort();
  const now = timestamp(nowMs);
  let conditions = withCondition<NamespaceCondition>(
    namespace.status?.conditions,
    content.length > 0
      ? {
          type: 'NamespaceContentRemaining',
          status: 'True',
          reason: 'SomeResourcesRemain',
          message: `Some resources are remaining: ${content.join(', ')}`,
        }
      : {
          type: 'NamespaceContentRemaining',
          status: 'False',
          reason: 'ContentRemoved',
          message: 'All content successfully removed',
        },
    now,
  );
  conditions = withCondition<NamespaceCondition>(
    conditions,
    pending.length > 0
      ? {
          type: 'NamespaceFinalizersRemaining',
          status: 'True',
          reason: 'SomeFinalizersRemain',
          message: `Some content in the namespace has finalizers remaining: ${pending.join(', ')}`,
        }
      : {
          type: 'NamespaceFinalizersRemaining',
          status: 'False',
          reason: 'ContentHasNoFinalizers',
          message: 'All content-preserving finalizers finished',
        },
    now,
  );
  return conditions;
}

/** A namespace being deleted is emptied, pods first asked and waited for, then let go through its finalizer. */
export function namespaceController(deps: ControllerDeps): Reconciler {
  const { view, clock } = deps;
  const namespaces = view.of(NAMESPACES);
  const loop = reconciler(deps, 'namespace', reconcile);
  const collections = collectableResources()
    .filter((r) => r.namespaced)
    .map((r) => view.of(r));
  onSelf(namespaces, loop);
  for (const collection of collections)
    collection.informer.onChange((now, before) => {
      const name = before?.metadata.namespace;
      if (!now && name && namespaces.get(name)?.metadata.deletionTimestamp) loop.queue.add(name);
    });
  return loop;

  async function reconcile(name: string): Promise<Requeue> {
    const namespace = namespaces.get(name);
    if (!namespace?.metadata.deletionTimestamp || !namespace.spec?.finalizers?.includes(FINALIZER)) return DONE;
    for (const collection of collections)
      for (const object of collection.inNamespace(name))
        if (!object.metadata.deletionTimestamp)
          await collection.remove(object, {
            propagationPolicy: 'Background',
            // Nobody will end a pod that no kubelet holds.
            ...(collection.resource.plural === PODS.plural ? {} : { gracePeriodSeconds: 0 }),
          });
    const left = new Map<string, Live<KubeObject>[]>();
    for (const collection of collections) {
      const { apiVersion, plural } = collection.resource;
      const group = apiVersion.includes('/') ? `.${apiVersion.split('/')[0]}` : '.';
      left.set(`${plural}${group}`, collection.inNamespace(name));
    }
    const some = [...left.values()].some((objects) => objects.length > 0);
    const conditions = remainingConditions(namespace, left, clock.now());
    if (some) {
      await writeStatus(namespaces, namespace, { ...namespace.status, phase: 'Terminating', conditions });
      return { afterMs: LOOK_AGAIN_MS };
    }
    await view.client.raw({ method: 'DELETE', path: pathFor(EVENTS, { namespace: name }) });
    const finalizers = namespace.spec.finalizers.filter((f) => f !== FINALIZER);
    await view.client.update(NAMESPACES, { ...namespace, spec: { ...namespace.spec, finalizers } }, 'finalize');
    return DONE;
  }
}
