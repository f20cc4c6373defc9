import type { KubernetesObject } from '#spec/kubernetes/types.gen.ts';

/** An object as it is sent to a server: it names its type. Fields beyond the metadata are the kind's own. */
export type UpObject = KubernetesObject & { apiVersion: string; kind: string; metadata: { name: string } };

/** An image that has to be built before its pods can start. */
export interface BuildWish {
  service: string;
  /** The name it gets, and by which the pods ask for it. */
  image: string;
  /** Folder on this machine. */
  context: string;
  /** Relative to the context; undefined: `Dockerfile`. */
  dockerfile?: string;
  dockerfileInline?: string;
  args: Readonly<Record<string, string>>;
  target?: string;
}

/** All that an application is: what to build, and the objects in the order in which they are applied. */
export interface AppPlan {
  app: string;
  /** Where objects without a namespace of their own go. */
  namespace: string;
  builds: readonly BuildWish[];
  objects: readonly UpObject[];
}

/** On a claim that `estiba down` keeps unless told otherwise. */
export const KEEP_LABEL = 'estiba.dev/keep';

/** The same object without members that are undefined: `exactOptionalPropertyTypes` and JSON both want them absent. */
export function compact<T extends object>(value: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as T;
}

export function unlessEmpty<T>(list: readonly T[]): T[] | undefined {
  return list.length === 0 ? undefined : [...list];
}

export function unlessBare<V>(record: Readonly<Record<string, V>>): Record<string, V> | undefined {
  return Object.keys(record).length === 0 ? undefined : { ...record };
}

/** `apps/v1 Deployment shop/web` */
export function nameOf(object: {
  apiVersion?: string;
  kind?: string;
  metadata: { namespace?: string; name?: string };
}): string {
  const { namespace, name = '' } = object.metadata;
  return `${object.kind ?? ''} ${namespace ? `${namespace}/` : ''}${name}`;
}

// What others refer to stands first; what runs stands last. Kinds that are not listed come between.
const ORDER = [
  'Namespace',
  'CustomResourceDefinition',
  'PriorityClass',
  'StorageClass',
  'ResourceQuota',
  'LimitRange',
  'ServiceAccount',
  'Role',
  'ClusterRole',
  'RoleBinding',
  'ClusterRoleBinding',
  'Secret',
  'ConfigMap',
  'PersistentVolume',
  'PersistentVolumeClaim',
  'NetworkPolicy',
  'Service',
];
const RUNS = [
  'Pod',
  'ReplicaSet',
  'Deployment',
  'StatefulSet',
  'DaemonSet',
  'Job',
  'CronJob',
  'HorizontalPodAutoscaler',
  'Ingress',
];

/** Objects in the order of being applied; removal goes the other way. Stable within a kind. */
export function inOrder<T extends { kind?: string }>(objects: readonly T[]): T[] {
  const rank = ({ kind = '' }: T): number => {
    const first = ORDER.indexOf(kind);
    if (first >= 0) return first;
    const last = RUNS.indexOf(kind);
    return last >= 0 ? ORDER.length + 1 + last : ORDER.length;
  };
  return [...objects].sort((a, b) => rank(a) - rank(b));
}
