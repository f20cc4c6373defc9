import type { KubeObject } from '#cluster/store/objects.ts';
import { compareQuantities } from '#spec/kubernetes/quantity.ts';
import { cloneJson, equalJson, isObject, type JsonObject } from '../codec/json.ts';
import { type FieldError, fieldForbidden, invalid } from '../status.ts';

/** What an update of a kind may not change, by `Kind`. */
export type UpdateRule = (object: KubeObject, old: KubeObject) => FieldError[];

function at(object: JsonObject, path: string): unknown {
  let value: unknown = object;
  for (const name of path.split('.')) value = isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined;
  return value;
}

const immutable =
  (...paths: string[]): UpdateRule =>
  (object, old) =>
    paths.flatMap((path) =>
      equalJson(at(object, path), at(old, path)) ? [] : [invalid(path, at(object, path) ?? null, 'field is immutable')],
    );

const forbidden =
  (...paths: string[]): UpdateRule =>
  (object, old) =>
    paths.flatMap((path) =>
      equalJson(at(object, path), at(old, path)) ? [] : [fieldForbidden(path, `updates to ${path} are forbidden.`)],
    );

/** Everything under spec but `free` must stay. */
function specBut(object: KubeObject, old: KubeObject, free: readonly string[]): boolean {
  const rest = (o: KubeObject): JsonObject => {
    const copy = { ...(isObject(o['spec']) ? o['spec'] : {}) };
    for (const field of free) delete copy[field];
    return copy;
  };
  return equalJson(rest(object), rest(old));
}

const STATEFULSET_FREE = [
  'replicas',
  'ordinals',
  'template',
  'updateStrategy',
  'revisionHistoryLimit',
  'persistentVolumeClaimRetentionPolicy',
  'minReadySeconds',
];

function statefulSet(object: KubeObject, old: KubeObject): FieldError[] {
  return specBut(object, old, STATEFULSET_FREE)
    ? []
    : [
        fieldForbidden(
          'spec',
          "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ),
      ];
}

const POD_MESSAGE =
  'pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)';

function pod(object: KubeObject, old: KubeObject): FieldError[] {
  const frozen = (o: KubeObject): JsonObject => {
    const copy = cloneJson(isObject(o['spec']) ? o['spec'] : {});
    for (const part of ['containers', 'initContainers']) {
      for (const container of Array.isArray(copy[part]) ? copy[part] : [])
        if (isObject(container)) delete container['image'];
    }
    for (const field of ['activeDeadlineSeconds', 'tolerations', 'schedulingGates', 'ephemeralContainers'])
      delete copy[field];
    return copy;
  };
  const errors = equalJson(frozen(object), frozen(old)) ? [] : [fieldForbidden('spec', POD_MESSAGE)];
  const tolerations = (o: KubeObject): unknown[] => (at(o, 'spec.tolerations') as unknown[] | undefined) ?? [];
  if (!tolerations(old).every((t) => tolerations(object).some((n) => equalJson(n, t))))
    errors.push(
      fieldForbidden('spec.tolerations', 'existing toleration can not be modified except its tolerationSeconds'),
    );
  const gates = (o: KubeObject): string[] =>
    ((at(o, 'spec.schedulingGates') as JsonObject[] | undefined) ?? []).map((g) => String(g['name']));
  const added = gates(object).filter((g) => !gates(old).includes(g));
  if (added.length > 0)
    errors.push(fieldForbidden('spec.schedulingGates', 'only deletion is allowed, but found new scheduling gate'));
  return errors;
}

function job(object: KubeObject, old: KubeObject): FieldError[] {
  const rules = immutable(
    'spec.selector',
    'spec.completionMode',
    'spec.podFailurePolicy',
    'spec.backoffLimitPerIndex',
  )(object, old);
  // A suspended job that has never started may still be steered to other nodes.
  const suspended = at(old, 'spec.suspend') === true && at(old, 'status.startTime') === undefined;
  if (!suspended) rules.push(...immutable('spec.template')(object, old));
  const completions = at(object, 'spec.completions');
  const elastic = at(object, 'spec.completionMode') === 'Indexed' && completions === at(object, 'spec.parallelism');
  if (completions !== at(old, 'spec.completions') && !elastic)
    rules.push(invalid('spec.completions', completions ?? null, 'field is immutable'));
  return rules;
}

function immutableData(object: KubeObject, old: KubeObject): FieldError[] {
  if (old['immutable'] !== true) return [];
  const errors: FieldError[] =
    object['immutable'] === true ? [] : [fieldForbidden('immutable', 'field is immutable when `immutable` is set')];
  for (const field of ['data', 'binaryData']) {
    if (!equalJson(object[field], old[field]))
      errors.push(fieldForbidden(field, 'field is immutable when `immutable` is set'));
  }
  return errors;
}

function service(object: KubeObject, old: KubeObject): FieldError[] {
  const type = (o: KubeObject): unknown => at(o, 'spec.type');
  const was = at(old, 'spec.clusterIP');
  const is = at(object, 'spec.clusterIP');
  if (type(old) === 'ExternalName' || type(object) === 'ExternalName' || was === undefined || was === is) return [];
  return [invalid('spec.clusterIPs[0]', is ?? '', 'may not change once set')];
}

function claim(object: KubeObject, old: KubeObject): FieldError[] {
  const bound = at(old, 'spec.volumeName') !== undefined;
  const free = ['resources', 'volumeAttributesClassName', ...(bound ? [] : ['volumeName', 'storageClassName'])];
  const errors = specBut(object, old, free)
    ? []
    : [
        fieldForbidden(
          'spec',
          'spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims',
        ),
      ];
  const size = (o: KubeObject): string => String(at(o, 'spec.resources.requests.storage') ?? '0');
  if (compareQuantities(size(object), size(old)) < 0)
    errors.push(fieldForbidden('spec.resources.requests.storage', 'field can not be less than status.capacity'));
  return errors;
}

function volume(object: KubeObject, old: KubeObject): FieldError[] {
  const free = [
    'capacity',
    'accessModes',
    'claimRef',
    'persistentVolumeReclaimPolicy',
    'storageClassName',
    'mountOptions',
    'nodeAffinity',
    'volumeAttributesClassName',
  ];
  return specBut(object, old, free)
    ? []
    : [fieldForbidden('spec.persistentvolumesource', 'spec.persistentvolumesource is immutable after creation')];
}

function roleBinding(object: KubeObject, old: KubeObject): FieldError[] {
  return equalJson(object['roleRef'], old['roleRef'])
    ? []
    : [invalid('roleRef', object['roleRef'], 'cannot change roleRef')];
}

export const UPDATE_RULES: Record<string, UpdateRule> = {
  Pod: pod,
  Deployment: immutable('spec.selector'),
  ReplicaSet: immutable('spec.selector'),
  DaemonSet: immutable('spec.selector'),
  StatefulSet: statefulSet,
  Job: job,
  ConfigMap: immutableData,
  Secret: (object, old) => [...immutable('type')(object, old), ...immutableData(object, old)],
  Service: service,
  PersistentVolumeClaim: claim,
  PersistentVolume: volume,
  RoleBinding: roleBinding,
  ClusterRoleBinding: roleBinding,
  StorageClass: forbidden('parameters', 'provisioner', 'reclaimPolicy', 'volumeBindingMode'),
  PriorityClass: (object, old) => [
    ...forbidden('value')(object, old),
    ...((at(object, 'preemptionPolicy') ?? '') === (at(old, 'preemptionPolicy') ?? '')
      ? []
      : [invalid('preemptionPolicy', object['preemptionPolicy'], 'field is immutable')]),
  ],
  RuntimeClass: immutable('handler'),
  IngressClass: immutable('spec.controller'),
  EndpointSlice: immutable('addressType'),
  ControllerRevision: immutable('data'),
};
