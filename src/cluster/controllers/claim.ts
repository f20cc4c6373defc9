import {
  controllerOf,
  type KubeObject,
  keyOf,
  type Live,
  ownerReference,
  type Resource,
} from '#cluster/client/resources.ts';
import type { Collection } from '#cluster/client/view.ts';
import { matchesRequirements, requirementsOf } from '#spec/kubernetes/selector.ts';
import type { LabelSelector } from '#spec/kubernetes/types.gen.ts';

export interface ClaimPlan<T extends KubeObject> {
  mine: Live<T>[];
  adopt: Live<T>[];
  release: Live<T>[];
}

/** Ours by owner stay ours while the selector fits; orphans that fit are adopted; a dying owner adopts nobody. */
export function planClaims<T extends KubeObject>(
  owner: Live<KubeObject>,
  selector: LabelSelector,
  candidates: readonly Live<T>[],
  mayAdopt: (object: Live<T>) => boolean = () => true,
): ClaimPlan<T> {
  const requirements = requirementsOf(selector);
  const plan: ClaimPlan<T> = { mine: [], adopt: [], release: [] };
  for (const object of candidates) {
    const fits = matchesRequirements(requirements, object.metadata.labels);
    const holder = controllerOf(object);
    if (holder?.uid === owner.metadata.uid) {
      if (fits) plan.mine.push(object);
      else if (!owner.metadata.deletionTimestamp) plan.release.push(object);
    } else if (
      !holder &&
      fits &&
      !owner.metadata.deletionTimestamp &&
      !object.metadata.deletionTimestamp &&
      mayAdopt(object)
    )
      plan.adopt.push(object);
  }
  return plan;
}

/** Carries a claim plan out and answers what is ours now. */
export async function claim<T extends KubeObject, O extends KubeObject>(
  owners: Collection<O>,
  owner: Live<O>,
  children: Collection<T>,
  selector: LabelSelector,
  mayAdopt?: (object: Live<T>) => boolean,
): Promise<Live<T>[]> {
  const { namespace = '', uid } = owner.metadata;
  const orphans = children.ownedBy('').filter((o) => o.metadata.namespace === namespace);
  const plan = planClaims<T>(owner, selector, [...children.ownedBy(uid), ...orphans], mayAdopt);
  for (const object of plan.release) {
    const ownerReferences = (object.metadata.ownerReferences ?? []).filter((o) => o.uid !== uid);
    await children.update({ ...object, metadata: { ...object.metadata, ownerReferences } });
  }
  if (plan.adopt.length === 0) return plan.mine;
  // An owner that was deleted and made again under its name, unseen yet, must not adopt in the old one's name.
  const present = await owners.fresh(keyOf(owner));
  if (present?.metadata.uid !== uid || present.metadata.deletionTimestamp) return plan.mine;
  const reference = ownerReference(owners.resource as Resource<KubeObject>, owner);
  for (const object of plan.adopt) {
    const ownerReferences = [...(object.metadata.ownerReferences ?? []), reference];
    plan.mine.push(await children.update({ ...object, metadata: { ...object.metadata, ownerReferences } }));
  }
  return plan.mine;
}
