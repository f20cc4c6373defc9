import { DONE, type Requeue } from '#cluster/client/queue.ts';
import { type KubeObject, keyIn, keyOf, type Live, type Resource } from '#cluster/client/resources.ts';
import type { Collection } from '#cluster/client/view.ts';
import { kubernetesFacts } from '#spec/kubernetes/facts.ts';
import type { OwnerReference } from '#spec/kubernetes/types.gen.ts';
import { type ControllerDeps, type Reconciler, reconciler } from './loop.ts';

export const FOREGROUND = 'foregroundDeletion';
export const ORPHAN = 'orphan';

/** Every kind that can be listed, watched and deleted. Events come and go by the thousand and own nothing: they are left out. */
export function collectableResources(): Resource<KubeObject>[] {
  return kubernetesFacts()
    .resources.filter((r) => r.verbs.has('delete') && r.verbs.has('list') && r.verbs.has('watch') && r.kind !== 'Event')
    .map((r) => ({ apiVersion: r.apiVersion, kind: r.kind, plural: r.resource, namespaced: r.namespaced }));
}

export type OwnerState = 'solid' | 'gone' | 'waiting';

export type GarbagePlan =
  | { do: 'nothing' }
  | { do: 'delete'; policy: 'Foreground' | 'Background'; why: string }
  /** Owners that are gone leave the list while others hold the object. */
  | { do: 'dropOwners'; uids: string[] };

/** `waiting`: the owner is being deleted in the foreground and stays until this one has gone. */
export function planGarbage(
  owners: readonly OwnerState[],
  refs: readonly OwnerReference[],
  hasDependents: boolean,
): GarbagePlan {
  if (refs.length === 0) return { do: 'nothing' };
  const uids = refs.filter((_, i) => owners[i] !== 'solid').map((r) => r.uid);
  if (owners.includes('solid')) return uids.length > 0 ? { do: 'dropOwners', uids } : { do: 'nothing' };
  if (owners.includes('waiting') && hasDependents)
    return { do: 'delete', policy: 'Foreground', why: 'its owner waits for it and all below it' };
  return { do: 'delete', policy: 'Background', why: 'no owner is left' };
}

/**
 * Children follow their owners. Owners' ends are seen by watching everything; a missing owner is asked for at the server before
 * anything is deleted because of it: our copy of one kind may lag behind that of another.
 */
export function garbageController(deps: ControllerDeps): Reconciler {
  const { view, log } = deps;
  const collections = new Map<string, Collection<KubeObject>>();
  const byKind = new Map<string, Collection<KubeObject>>();
  /** By owner uid, the children as queue keys. */
  const children = new Map<string, Set<string>>();
  const present = new Map<string, Live<KubeObject>>();
  const loop = reconciler(deps, 'garbage', reconcile, 16);
  for (const resource of collectableResources()) watch(view.of(resource));
  return loop;

  function watch(collection: Collection<KubeObject>): void {
    const { apiVersion, plural, kind } = collection.resource;
    const id = `${apiVersion}/${plural}`;
    collections.set(id, collection);
    byKind.set(`${apiVersion} ${kind}`, collection);
    collection.informer.onChange((now, before) => {
      const key = `${id}|${keyOf((now ?? before) as KubeObject)}`;
      if (now) present.set(now.metadata.uid, now);
      else if (before) present.delete(before.metadata.uid);
      for (const { uid } of before?.metadata.ownerReferences ?? []) unlink(uid, key);
      for (const { uid } of now?.metadata.ownerReferences ?? [])
        children.set(uid, (children.get(uid) ?? new Set()).add(key));
      if (now) {
        const dying = now.metadata.deletionTimestamp !== undefined;
        if (now.metadata.ownerReferences?.length || dying) loop.queue.add(key);
        if (dying && !before?.metadata.deletionTimestamp) addAll(children.get(now.metadata.uid));
      } else if (before) {
        addAll(children.get(before.metadata.uid));
        // An owner that waits for this child looks again.
        for (const ref of before.metadata.ownerReferences ?? []) queueOwner(ref, before.metadata.namespace);
      }
    });
  }

  function unlink(uid: string, key: string): void {
    const keys = children.get(uid);
    keys?.delete(key);
    if (keys?.size === 0) children.delete(uid);
  }

  function addAll(keys: ReadonlySet<string> | undefined): void {
    for (const key of keys ?? []) loop.queue.add(key);
  }

  function queueOwner(ref: OwnerReference, namespace: string | undefined): void {
    const collection = byKind.get(`${ref.apiVersion} ${ref.kind}`);
    if (!collection) return;
    const { apiVersion, plural, namespaced } = collection.resource;
    loop.queue.add(`${apiVersion}/${plural}|${keyIn(namespaced ? namespace : '', ref.name)}`);
  }

  async function reconcile(key: string): Promise<Requeue> {
    const [id = '', objectKey = ''] = key.split('|');
    const collection = collections.get(id);
    const object = collection?.get(objectKey);
    if (!collection || !object) return DONE;
    if (object.metadata.deletionTimestamp) {
      const finalizers = object.metadata.finalizers ?? [];
      if (finalizers.includes(ORPHAN)) await orphan(collection, object);
      else if (finalizers.includes(FOREGROUND)) await foreground(collection, object);
      return DONE;
    }
    const refs = object.metadata.ownerReferences ?? [];
    const states = await Promise.all(refs.map((ref) => stateOf(ref, object)));
    const plan = planGarbage(states, refs, (children.get(object.metadata.uid)?.size ?? 0) > 0);
    if (plan.do === 'nothing') return DONE;
    log.debug('garbage', () => ({ key, ...plan }));
    if (plan.do === 'delete') {
      await collection.remove(object, { propagationPolicy: plan.policy });
      return DONE;
    }
    const ownerReferences = refs.filter((r) => !plan.uids.includes(r.uid));
    await collection.update({ ...object, metadata: { ...object.metadata, ownerReferences } });
    return DONE;
  }

  async function stateOf(ref: OwnerReference, child: Live<KubeObject>): Promise<OwnerState> {
    const collection = byKind.get(`${ref.apiVersion} ${ref.kind}`);
    // An owner of a kind that is not served cannot be shown to be gone.
    if (!collection) return 'solid';
    const known = present.get(ref.uid);
    const ownerKey = keyIn(collection.resource.namespaced ? child.metadata.namespace : '', ref.name);
    const owner = known ?? (await collection.fresh(ownerKey));
    if (owner?.metadata.uid !== ref.uid) return 'gone';
    const inForeground = owner.metadata.deletionTimestamp && owner.metadata.finalizers?.includes(FOREGROUND);
    return inForeground ? 'waiting' : 'solid';
  }

  /** The owner goes last: its children are told to go, those that block it are waited for. */
  async function foreground(collection: Collection<KubeObject>, owner: Live<KubeObject>): Promise<void> {
    const keys = [...(children.get(owner.metadata.uid) ?? [])];
    const blocking = keys.filter((key) => {
      const child = childAt(key);
      return child?.metadata.ownerReferences?.some((r) => r.uid === owner.metadata.uid && r.blockOwnerDeletion);
    });
    if (blocking.length === 0) await dropFinalizer(collection, owner, FOREGROUND);
    for (const key of keys) if (!childAt(key)?.metadata.deletionTimestamp) loop.queue.add(key);
  }

  async function orphan(collection: Collection<KubeObject>, owner: Live<KubeObject>): Promise<void> {
    for (const key of [...(children.get(owner.metadata.uid) ?? [])]) {
      const child = childAt(key);
      const home = collections.get(key.split('|')[0] ?? '');
      if (!child || !home) continue;
      const ownerReferences = (child.metadata.ownerReferences ?? []).filter((r) => r.uid !== owner.metadata.uid);
      await home.update({ ...child, metadata: { ...child.metadata, ownerReferences } });
    }
    await dropFinalizer(collection, owner, ORPHAN);
  }

  function childAt(key: string): Live<KubeObject> | undefined {
    const [id = '', objectKey = ''] = key.split('|');
    return collections.get(id)?.get(objectKey);
  }

  async function dropFinalizer(
    collection: Collection<KubeObject>,
    object: Live<KubeObject>,
    name: string,
  ): Promise<void> {
    const finalizers = (object.metadata.finalizers ?? []).filter((f) => f !== name);
    await collection.update({ ...object, metadata: { ...object.metadata, finalizers } });
  }
}
