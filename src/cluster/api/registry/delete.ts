import type { KubeObject, StoredObject } from '#cluster/store/objects.ts';
import type { DeleteOptions, Status } from '#spec/kubernetes/types.gen.ts';
import type { Resource } from '../resources/table.ts';
import { badRequest, conflict } from '../status.ts';
import type { Context } from './context.ts';
import { type Place, type Registry, subject } from './registry.ts';

/**
 * Deleting is a state before it is an end: finalizers, a grace period or a namespace's contents keep the object, marked with
 * `deletionTimestamp`, until their owners let go of it.
 */
const MAX_ATTEMPTS = 20;
const ORPHAN = 'orphan';
const FOREGROUND = 'foregroundDeletion';

export async function deleteObject(
  registry: Registry,
  resource: Resource,
  place: Place,
  options: DeleteOptions,
  context: Context,
): Promise<{ object: KubeObject | Status; accepted: boolean }> {
  for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
    const stored = await registry.get(resource, place);
    checkPreconditions(resource, stored, options);
    registry.checkDelete(resource, stored.object, context);
    const wanted = planDelete(resource, stored.object, options, registry.now());
    if (wanted.do === 'nothing') return { object: stored.object, accepted: true };
    if (wanted.do === 'remove') {
      if (await registry.remove(resource, stored, context))
        return { object: answerOf(resource, stored), accepted: false };
    } else {
      const marked = await registry.mark(stored, wanted.object, context);
      if (marked) return { object: marked, accepted: true };
    }
  }
  throw conflict(subject(resource, place.name), 'the object keeps changing; please try again');
}

type DeletePlan = { do: 'remove' } | { do: 'mark'; object: KubeObject } | { do: 'nothing' };

/** Pure: what a delete does to this object now. */
export function planDelete(resource: Resource, object: KubeObject, options: DeleteOptions, now: string): DeletePlan {
  const finalizers = withPropagation(object.metadata.finalizers ?? [], options);
  const graceful = resource.hooks.graceSeconds !== undefined;
  const graceSeconds = resource.hooks.graceSeconds?.(object, options.gracePeriodSeconds) ?? 0;
  const isNamespace = object.kind === 'Namespace';
  if (finalizers.length === 0 && graceSeconds === 0 && !isNamespace) return { do: 'remove' };

  const metadata = { ...object.metadata };
  const already = metadata.deletionTimestamp !== undefined;
  const shorter = graceful && already && graceSeconds < (metadata.deletionGracePeriodSeconds ?? 0);
  const sameFinalizers = finalizers.length === (object.metadata.finalizers ?? []).length;
  if (already && !shorter && sameFinalizers) return { do: 'nothing' };
  if (finalizers.length > 0) metadata.finalizers = finalizers;
  if (!already || shorter) {
    metadata.deletionTimestamp = later(now, graceSeconds);
    metadata.deletionGracePeriodSeconds = graceSeconds;
    if (resource.hasGeneration && !already) metadata.generation = (metadata.generation ?? 1) + 1;
  }
  const marked: KubeObject = { ...object, metadata };
  if (isNamespace) marked['status'] = { ...(object['status'] as object), phase: 'Terminating' };
  return { do: 'mark', object: marked };
}

function withPropagation(finalizers: readonly string[], options: DeleteOptions): string[] {
  const policy =
    options.propagationPolicy ??
    (options.orphanDependents === undefined ? undefined : options.orphanDependents ? 'Orphan' : 'Background');
  if (policy === undefined) return [...finalizers];
  const others = finalizers.filter((f) => f !== ORPHAN && f !== FOREGROUND);
  if (policy === 'Orphan') return [...others, ORPHAN];
  if (policy === 'Foreground') return [...others, FOREGROUND];
  if (policy === 'Background') return others;
  throw badRequest(
    `invalid propagationPolicy ${JSON.stringify(policy)}: must be one of Background, Foreground, Orphan`,
  );
}

function checkPreconditions(resource: Resource, stored: StoredObject, options: DeleteOptions): void {
  const { uid, resourceVersion } = options.preconditions ?? {};
  const { metadata } = stored.object;
  if (uid !== undefined && uid !== metadata.uid)
    throw conflict(
      subject(resource, metadata.name),
      `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${metadata.uid ?? ''}`,
    );
  if (resourceVersion !== undefined && resourceVersion !== String(stored.revision))
    throw conflict(
      subject(resource, metadata.name),
      `Precondition failed: ResourceVersion in precondition: ${resourceVersion}, ResourceVersion in object meta: ${stored.revision}`,
    );
}

/** Pods answer with themselves; others with a Status that names them, as upstream's do. */
function answerOf(resource: Resource, { object }: StoredObject): KubeObject | Status {
  if (resource.facts.resource === 'pods') return object;
  const { name, uid } = object.metadata;
  const { group, resource: kind } = resource.facts;
  return {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Success',
    details: { name, ...(group === '' ? {} : { group }), kind, ...(uid === undefined ? {} : { uid }) },
  };
}

function later(now: string, seconds: number): string {
  return `${new Date(Date.parse(now) + seconds * 1000).toISOString().slice(0, 19)}Z`;
}
