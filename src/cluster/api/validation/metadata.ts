import type { KubeMetadata } from '#cluster/store/objects.ts';
import { type FieldError, fieldForbidden, invalid, required, tooLong } from '../status.ts';
import { labelValue, type NameRule, qualifiedName } from './names.ts';

const ANNOTATIONS_MAX_BYTES = 256 * 1024;
const NAME_MAX = 253;

export function validateMetadata(metadata: KubeMetadata, nameRule: NameRule, namespaced: boolean): FieldError[] {
  const errors: FieldError[] = [];
  if (metadata.name === undefined || metadata.name === '')
    errors.push(required('metadata.name', 'name or generateName is required'));
  else {
    const wrong = metadata.name.length > NAME_MAX ? `must be no more than ${NAME_MAX} bytes` : nameRule(metadata.name);
    if (wrong) errors.push(invalid('metadata.name', metadata.name, wrong));
  }
  if (!namespaced && metadata.namespace) errors.push(fieldForbidden('metadata.namespace', 'not allowed on this type'));
  errors.push(
    ...validateLabels(metadata.labels, 'metadata.labels'),
    ...validateAnnotations(metadata.annotations, 'metadata.annotations'),
  );
  for (const [i, owner] of (metadata.ownerReferences ?? []).entries()) {
    const at = `metadata.ownerReferences[${i}]`;
    for (const field of ['apiVersion', 'kind', 'name', 'uid'] as const) {
      if (!owner[field]) errors.push(invalid(`${at}.${field}`, owner[field] ?? '', `${field} must not be empty`));
    }
  }
  const controllers = (metadata.ownerReferences ?? []).filter((o) => o.controller);
  if (controllers.length > 1)
    errors.push(
      invalid('metadata.ownerReferences', controllers.length, 'Only one reference can have Controller set to true'),
    );
  for (const [i, finalizer] of (metadata.finalizers ?? []).entries()) {
    const wrong = qualifiedName(finalizer);
    if (wrong) errors.push(invalid(`metadata.finalizers[${i}]`, finalizer, wrong));
  }
  return errors;
}

export function validateLabels(labels: Record<string, string> | undefined, path: string): FieldError[] {
  return Object.entries(labels ?? {}).flatMap(([key, value]) => {
    const wrongKey = qualifiedName(key);
    const wrongValue = labelValue(value);
    return [
      ...(wrongKey ? [invalid(path, key, wrongKey)] : []),
      ...(wrongValue ? [invalid(path, value, wrongValue)] : []),
    ];
  });
}

function validateAnnotations(annotations: Record<string, string> | undefined, path: string): FieldError[] {
  let bytes = 0;
  const errors = Object.entries(annotations ?? {}).flatMap(([key, value]) => {
    bytes += Buffer.byteLength(key) + Buffer.byteLength(value);
    const wrong = qualifiedName(key.toLowerCase());
    return wrong ? [invalid(path, key, wrong)] : [];
  });
  return bytes > ANNOTATIONS_MAX_BYTES ? [...errors, tooLong(path, ANNOTATIONS_MAX_BYTES)] : errors;
}

/** What an update may not change. */
export function validateMetadataUpdate(metadata: KubeMetadata, old: KubeMetadata): FieldError[] {
  const errors: FieldError[] = [];
  for (const field of [
    'name',
    'namespace',
    'uid',
    'creationTimestamp',
    'deletionTimestamp',
    'deletionGracePeriodSeconds',
  ] as const) {
    if (metadata[field] !== old[field])
      errors.push(invalid(`metadata.${field}`, metadata[field] ?? null, 'field is immutable'));
  }
  if (old.deletionTimestamp) {
    const added = (metadata.finalizers ?? []).filter((f) => !(old.finalizers ?? []).includes(f));
    if (added.length > 0)
      errors.push(
        fieldForbidden(
          'metadata.finalizers',
          `no new finalizers can be added if the object is being deleted, found new finalizers []string{${added.map((f) => JSON.stringify(f)).join(', ')}}`,
        ),
      );
  }
  return errors;
}
