import { DONE, type Requeue } from '#cluster/client/queue.ts';
import { keyIn, keyOf, type Live, ownerReference, PERSISTENT_VOLUME_CLAIMS, PODS } from '#cluster/client/resources.ts';
import { claimNameOf } from '#spec/kubernetes/pod-volumes.ts';
import type { PersistentVolumeClaim, Pod, Volume } from '#spec/kubernetes/types.gen.ts';
import { type ControllerDeps, type Reconciler, reconciler } from './loop.ts';
import { isOver } from './pods.ts';

/** The claims that a pod's generic ephemeral volumes ask for, as they are to be made. Pure. */
export function ephemeralClaims(pod: Live<Pod>): PersistentVolumeClaim[] {
  if (pod.metadata.deletionTimestamp || isOver(pod)) return [];
  return (pod.spec.volumes ?? []).flatMap((volume) => claimFor(pod, volume) ?? []);
}

function claimFor(pod: Live<Pod>, volume: Volume): PersistentVolumeClaim | undefined {
  const template = volume.ephemeral?.volumeClaimTemplate;
  if (!template) return undefined;
  const { labels, annotations } = template.metadata ?? {};
  return {
    metadata: {
      name: claimNameOf(pod, volume) ?? '',
      namespace: pod.metadata.namespace ?? '',
      ...(labels ? { labels } : {}),
      ...(annotations ? { annotations } : {}),
      ownerReferences: [ownerReference(PODS, pod)],
    },
    spec: template.spec,
  };
}

/** Makes the claims of pods' `ephemeral` volumes; owner references take them away with the pod. */
export function ephemeralController(deps: ControllerDeps): Reconciler {
  const { view } = deps;
  const pods = view.of(PODS);
  const claims = view.of(PERSISTENT_VOLUME_CLAIMS);
  const events = deps.events('ephemeral_volume');
  const loop = reconciler(deps, 'ephemeral-volumes', reconcile);
  pods.informer.onChange((now) => {
    if (now?.spec.volumes?.some((volume) => volume.ephemeral)) loop.queue.add(keyOf(now));
  });
  claims.informer.onChange((now, before) => {
    const owner = !now && before?.metadata.ownerReferences?.find((o) => o.kind === 'Pod' && o.controller);
    if (owner) loop.queue.add(keyIn(before?.metadata.namespace, owner.name));
  });
  return loop;

  async function reconcile(key: string): Promise<Requeue> {
    const pod = pods.get(key);
    for (const wanted of pod ? ephemeralClaims(pod) : []) {
      const { name = '', namespace } = wanted.metadata;
      const known = claims.get(keyIn(namespace, name));
      if (!known) await claims.create(wanted);
      else if (pod && !known.metadata.ownerReferences?.some((o) => o.uid === pod.metadata.uid)) {
        // Its data is somebody else's: it must neither be used nor taken away with the pod.
        const message = `PVC ${namespace}/${name} was not created for pod ${key} (pod is not owner)`;
        events.record(PODS, pod, { type: 'Warning', reason: 'FailedCreate', message });
      }
    }
    return DONE;
  }
}
