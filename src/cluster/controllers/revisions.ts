import { isCode } from '#base/errors.ts';
import {
  CONTROLLER_REVISIONS,
  type KubeObject,
  keyIn,
  type Live,
  ownerReference,
  type Resource,
} from '#cluster/client/resources.ts';
import type { ClusterView } from '#cluster/client/view.ts';
import { equalJson } from '#spec/kubernetes/json.ts';
import type { ControllerRevision, PodTemplateSpec } from '#spec/kubernetes/types.gen.ts';
import { templateHash } from './loop.ts';

/** The label that says from which revision a pod was made. */
export const REVISION_HASH = 'controller-revision-hash';

type Owner = KubeObject & { spec: { template: PodTemplateSpec; revisionHistoryLimit?: number } };

/** What `kubectl rollout undo` of StatefulSets and DaemonSets patches back: the template, to replace the present one whole. */
function dataOf(template: PodTemplateSpec): Record<string, unknown> {
  return { spec: { template: { ...template, $patch: 'replace' } } };
}

export function templateOf(revision: ControllerRevision): PodTemplateSpec | undefined {
  const data = revision.data as { spec?: { template?: PodTemplateSpec & { $patch?: string } } } | undefined;
  if (!data?.spec?.template) return undefined;
  const { $patch: _patch, ...template } = data.spec.template;
  return template;
}

export interface RevisionPlan {
  /** The revision of the present template, if it exists. */
  current: Live<ControllerRevision> | undefined;
  /** Its number has to become this. */
  number: number;
  remove: Live<ControllerRevision>[];
}

/** `inUse`: names of revisions that pods still run. */
export function planRevisions(
  owner: Live<Owner>,
  revisions: readonly Live<ControllerRevision>[],
  inUse: ReadonlySet<string>,
): RevisionPlan {
  const sorted = [...revisions].sort((a, b) => a.revision - b.revision);
  const data = dataOf(owner.spec.template);
  const current = sorted.findLast((r) => equalJson(r.data, data));
  const highestOther = Math.max(0, ...sorted.filter((r) => r !== current).map((r) => r.revision));
  const number = current && current.revision > highestOther ? current.revision : highestOther + 1;
  const idle = sorted.filter((r) => r !== current && !inUse.has(r.metadata.name));
  const surplus = Math.max(0, idle.length - (owner.spec.revisionHistoryLimit ?? 10));
  return { current, number, remove: idle.slice(0, surplus) };
}

/** Makes sure that the present template has a revision, with the highest number, and drops what exceeds the history limit. */
export async function syncRevisions<T extends Owner>(
  view: ClusterView,
  resource: Resource<T>,
  owner: Live<T>,
  inUse: ReadonlySet<string>,
): Promise<Live<ControllerRevision>> {
  const revisions = view.of(CONTROLLER_REVISIONS);
  const owned = revisions.ownedBy(owner.metadata.uid);
  const plan = planRevisions(owner, owned, inUse);
  for (const old of plan.remove) await revisions.remove(old);
  if (plan.current?.revision === plan.number) return plan.current;
  if (plan.current) return revisions.update({ ...plan.current, revision: plan.number });
  for (let collisions = 0; ; collisions++) {
    const hash = templateHash(owner.spec.template, collisions);
    const name = `${owner.metadata.name}-${hash}`;
    const namespace = owner.metadata.namespace ?? '';
    try {
      return await revisions.create({
        metadata: {
          name,
          namespace,
          labels: { ...owner.spec.template.metadata?.labels, [REVISION_HASH]: hash },
          ownerReferences: [ownerReference(resource as Resource<KubeObject>, owner)],
        },
        data: dataOf(owner.spec.template),
        revision: plan.number,
      });
    } catch (error) {
      if (!isCode(error, 'KUBE_ALREADY_EXISTS')) throw error;
      const holder = await revisions.fresh(keyIn(namespace, name));
      if (holder && equalJson(holder.data, dataOf(owner.spec.template))) return holder;
      if (collisions > MAX_COLLISIONS) throw error;
    }
  }
}

const MAX_COLLISIONS = 16;
