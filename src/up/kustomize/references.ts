import { isObject, type JsonObject } from '#spec/kubernetes/json.ts';
import type { UpObject } from '#up/objects.ts';

/** Asks for the name that an object has now: undefined when it has not been renamed. */
export type Renamed = (kind: string, name: string) => string | undefined;

// Fields that hold the name of an object of a kind, wherever they stand.
const NAMES: Readonly<Record<string, string>> = {
  secretName: 'Secret',
  claimName: 'PersistentVolumeClaim',
  serviceAccountName: 'ServiceAccount',
  serviceAccount: 'ServiceAccount',
  storageClassName: 'StorageClass',
  priorityClassName: 'PriorityClass',
  volumeName: 'PersistentVolume',
};
// Objects whose `name` is that of an object of a kind.
const REFERENCES: Readonly<Record<string, string>> = {
  configMap: 'ConfigMap',
  configMapRef: 'ConfigMap',
  configMapKeyRef: 'ConfigMap',
  secret: 'Secret',
  secretRef: 'Secret',
  secretKeyRef: 'Secret',
  imagePullSecrets: 'Secret',
  service: 'Service',
};
// Objects that name kind and name.
const TYPED = new Set(['roleRef', 'subjects', 'scaleTargetRef', 'dataSource', 'dataSourceRef']);

/** Points every reference of an object to the names that others have now. The object is changed in place. */
export function renameReferences(object: UpObject, renamed: Renamed): void {
  const { metadata, ...rest } = object;
  walk(rest as JsonObject, '', object.kind, renamed);
}

function walk(value: unknown, key: string, kind: string, renamed: Renamed): void {
  if (Array.isArray(value)) {
    for (const item of value) walk(item, key, kind, renamed);
    return;
  }
  if (!isObject(value)) return;
  const rename = (field: string, target: string): void => {
    const name = value[field];
    const now = typeof name === 'string' ? renamed(target, name) : undefined;
    if (now !== undefined) value[field] = now;
  };
  for (const [field, target] of Object.entries(NAMES)) rename(field, target);
  if (kind === 'StatefulSet') rename('serviceName', 'Service');
  const referenced = kind === 'ServiceAccount' && key === 'secrets' ? 'Secret' : REFERENCES[key];
  if (referenced !== undefined) rename('name', referenced);
  if (TYPED.has(key) && typeof value['kind'] === 'string') rename('name', value['kind']);
  for (const [field, item] of Object.entries(value)) walk(item, field, kind, renamed);
}
