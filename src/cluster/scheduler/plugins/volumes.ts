import type { Live, ObjectKey } from '#cluster/client/resources.ts';
import { matchesNodeTerm } from '#spec/kubernetes/node-match.ts';
import type { PersistentVolume, PersistentVolumeClaim, StorageClass } from '#spec/kubernetes/types.gen.ts';
import { NO_PROVISIONER, SELECTED_NODE, storageClassOf, suits, volumeReaches } from '#spec/kubernetes/volume-match.ts';
import type { NodeInfo } from '../state.ts';
import type { Verdict } from '../verdict.ts';
import type { FilterPlugin, NodeFilter } from './plugin.ts';

/** Reads of the volume objects; the scheduler gives its caches. */
export interface VolumeFacts {
  claim(key: ObjectKey): Live<PersistentVolumeClaim> | undefined;
  volume(name: string): Live<PersistentVolume> | undefined;
  storageClass(name: string): Live<StorageClass> | undefined;
  /** Volumes no claim holds. */
  freeVolumes(): Iterable<Live<PersistentVolume>>;
}

const UNBOUND: Verdict = { code: 'CLAIM_UNBOUND', text: 'pod has unbound immediate PersistentVolumeClaims' };
const NODE_CONFLICT: Verdict = { code: 'VOLUME_NODE', text: "node(s) didn't match PersistentVolume's node affinity" };
const NONE_FREE: Verdict = {
  code: 'VOLUME_NONE_FREE',
  text: "node(s) didn't find available persistent volumes to bind",
};
const IN_USE: Verdict = {
  code: 'VOLUME_IN_USE',
  text: 'node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod',
};

export const volumes: FilterPlugin = {
  name: 'VolumeBinding',
  prepare({ claims, pod }, { volumes: facts, state }) {
    if (claims.length === 0) return undefined;
    const checks: NodeFilter[] = [];
    for (const name of claims) {
      const key = `${pod.metadata.namespace}/${name}`;
      const claim = facts.claim(key);
      if (!claim || claim.metadata.deletionTimestamp)
        return { forAll: { code: 'CLAIM_MISSING', text: `persistentvolumeclaim "${name}" not found` } };
      if (claim.spec.accessModes?.includes('ReadWriteOncePod') && state.claimUsers(key) > 0) return { forAll: IN_USE };
      if (claim.spec.volumeName) {
        const volume = facts.volume(claim.spec.volumeName);
        if (!volume) return { forAll: UNBOUND };
        checks.push((node) => (volumeReaches(volume, node) ? undefined : NODE_CONFLICT));
        continue;
      }
      if (!bindsLate(claim, facts)) return { forAll: UNBOUND };
      checks.push((node) => (canBindOn(claim, node, facts) ? undefined : NONE_FREE));
    }
    return (node) => {
      for (const check of checks) {
        const verdict = check(node);
        if (verdict) return verdict;
      }
      return undefined;
    };
  },
};

/** A class that waits for its first consumer leaves the choice of node to us. */
export function bindsLate(claim: PersistentVolumeClaim, facts: VolumeFacts): boolean {
  return facts.storageClass(storageClassOf(claim))?.volumeBindingMode === 'WaitForFirstConsumer';
}

function canBindOn(claim: Live<PersistentVolumeClaim>, node: NodeInfo, facts: VolumeFacts): boolean {
  const chosen = claim.metadata.annotations?.[SELECTED_NODE];
  if (chosen) return chosen === node.name;
  for (const volume of facts.freeVolumes()) if (suits(volume, claim) && volumeReaches(volume, node)) return true;
  const storageClass = facts.storageClass(storageClassOf(claim));
  if (!storageClass || storageClass.provisioner === NO_PROVISIONER) return false;
  const { allowedTopologies = [] } = storageClass;
  if (allowedTopologies.length === 0) return true;
  return allowedTopologies.some((t) =>
    matchesNodeTerm(
      {
        matchExpressions: (t.matchLabelExpressions ?? []).map((e) => ({
          key: e.key,
          operator: 'In' as const,
          values: e.values,
        })),
      },
      node,
    ),
  );
}
