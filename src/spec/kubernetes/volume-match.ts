import { matchesNodeSelector, type NamedNode } from './node-match.ts';
import { compareQuantities } from './quantity.ts';
import { matchesSelector } from './selector.ts';
import type { PersistentVolume, PersistentVolumeClaim } from './types.gen.ts';

export const NO_PROVISIONER = 'kubernetes.io/no-provisioner';
export const SELECTED_NODE = 'volume.kubernetes.io/selected-node';

const CLASS_ANNOTATION = 'volume.beta.kubernetes.io/storage-class';

/** The class of a claim or a volume: the annotation of before 1.6 still comes first, as upstream; '' is none. */
export function storageClassOf({ metadata, spec }: PersistentVolume | PersistentVolumeClaim): string {
  return metadata.annotations?.[CLASS_ANNOTATION] ?? spec?.storageClassName ?? '';
}

export function volumeReaches(volume: PersistentVolume, node: NamedNode): boolean {
  const required = volume.spec?.nodeAffinity?.required;
  return !required || matchesNodeSelector(required, node);
}

/** Whether an unheld volume could serve a claim: class, size, modes, selector, and no other claim named on it. */
export function suits(volume: PersistentVolume, claim: PersistentVolumeClaim): boolean {
  const { spec } = volume;
  const held = spec?.claimRef;
  if (held && (held.name !== claim.metadata.name || held.namespace !== claim.metadata.namespace)) return false;
  if (held?.uid && held.uid !== claim.metadata.uid) return false;
  if (volume.metadata.deletionTimestamp) return false;
  if (storageClassOf(volume) !== storageClassOf(claim)) return false;
  if ((spec?.volumeMode ?? 'Filesystem') !== (claim.spec.volumeMode ?? 'Filesystem')) return false;
  if (!(claim.spec.accessModes ?? []).every((mode) => spec?.accessModes?.includes(mode))) return false;
  if (claim.spec.selector && !matchesSelector(claim.spec.selector, volume.metadata.labels)) return false;
  const wanted = claim.spec.resources?.requests?.['storage'] ?? '0';
  return compareQuantities(spec?.capacity?.['storage'] ?? '0', wanted) >= 0;
}
