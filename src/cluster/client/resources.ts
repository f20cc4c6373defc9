import type * as k8s from '#spec/kubernetes/types.gen.ts';

/** An object as the server returns it: named, with identity and revision. Cached ones are shared: never change them in place. */
export type Live<T extends { metadata: k8s.ObjectMeta }> = T & { metadata: LiveMeta };
export type LiveMeta = k8s.ObjectMeta & {
  name: string;
  uid: string;
  resourceVersion: string;
  creationTimestamp: string;
};
export type KubeObject = { apiVersion?: string; kind?: string; metadata: k8s.ObjectMeta };

/** `namespace/name`, or `name` for what lives outside namespaces. */
export type ObjectKey = string;

/** A typed handle on a resource: the type of its objects and its path. */
export interface Resource<T extends KubeObject> {
  readonly apiVersion: string;
  readonly kind: string;
  readonly plural: string;
  readonly namespaced: boolean;
  /** Never set; carries the type. */
  readonly object?: T;
}

function namespaced<T extends KubeObject>(apiVersion: string, kind: string, plural: string): Resource<T> {
  return { apiVersion, kind, plural, namespaced: true };
}

function clusterWide<T extends KubeObject>(apiVersion: string, kind: string, plural: string): Resource<T> {
  return { apiVersion, kind, plural, namespaced: false };
}

export const CLUSTER_ROLES = clusterWide<k8s.ClusterRole>(
  'rbac.authorization.k8s.io/v1',
  'ClusterRole',
  'clusterroles',
);
export const CONFIG_MAPS = namespaced<k8s.ConfigMap>('v1', 'ConfigMap', 'configmaps');
export const CONTROLLER_REVISIONS = namespaced<k8s.ControllerRevision>(
  'apps/v1',
  'ControllerRevision',
  'controllerrevisions',
);
export const CRON_JOBS = namespaced<k8s.CronJob>('batch/v1', 'CronJob', 'cronjobs');
export const DAEMON_SETS = namespaced<k8s.DaemonSet>('apps/v1', 'DaemonSet', 'daemonsets');
export const DEPLOYMENTS = namespaced<k8s.Deployment>('apps/v1', 'Deployment', 'deployments');
export const ENDPOINTS = namespaced<k8s.Endpoints>('v1', 'Endpoints', 'endpoints');
export const ENDPOINT_SLICES = namespaced<k8s.EndpointSlice>('discovery.k8s.io/v1', 'EndpointSlice', 'endpointslices');
export const EVENTS = namespaced<k8s.Event>('v1', 'Event', 'events');
export const HPAS = namespaced<k8s.HorizontalPodAutoscaler>(
  'autoscaling/v2',
  'HorizontalPodAutoscaler',
  'horizontalpodautoscalers',
);
export const INGRESS_CLASSES = clusterWide<k8s.IngressClass>('networking.k8s.io/v1', 'IngressClass', 'ingressclasses');
export const INGRESSES = namespaced<k8s.Ingress>('networking.k8s.io/v1', 'Ingress', 'ingresses');
export const JOBS = namespaced<k8s.Job>('batch/v1', 'Job', 'jobs');
export const LEASES = namespaced<k8s.Lease>('coordination.k8s.io/v1', 'Lease', 'leases');
export const NAMESPACES = clusterWide<k8s.Namespace>('v1', 'Namespace', 'namespaces');
export const NETWORK_POLICIES = namespaced<k8s.NetworkPolicy>(
  'networking.k8s.io/v1',
  'NetworkPolicy',
  'networkpolicies',
);
export const NODES = clusterWide<k8s.Node>('v1', 'Node', 'nodes');
export const PERSISTENT_VOLUMES = clusterWide<k8s.PersistentVolume>('v1', 'PersistentVolume', 'persistentvolumes');
export const PERSISTENT_VOLUME_CLAIMS = namespaced<k8s.PersistentVolumeClaim>(
  'v1',
  'PersistentVolumeClaim',
  'persistentvolumeclaims',
);
export const POD_DISRUPTION_BUDGETS = namespaced<k8s.PodDisruptionBudget>(
  'policy/v1',
  'PodDisruptionBudget',
  'poddisruptionbudgets',
);
export const PODS = namespaced<k8s.Pod>('v1', 'Pod', 'pods');
export const REPLICA_SETS = namespaced<k8s.ReplicaSet>('apps/v1', 'ReplicaSet', 'replicasets');
export const REPLICATION_CONTROLLERS = namespaced<k8s.ReplicationController>(
  'v1',
  'ReplicationController',
  'replicationcontrollers',
);
export const RESOURCE_QUOTAS = namespaced<k8s.ResourceQuota>('v1', 'ResourceQuota', 'resourcequotas');
export const SECRETS = namespaced<k8s.Secret>('v1', 'Secret', 'secrets');
export const SERVICE_ACCOUNTS = namespaced<k8s.ServiceAccount>('v1', 'ServiceAccount', 'serviceaccounts');
export const SERVICES = namespaced<k8s.Service>('v1', 'Service', 'services');
export const STATEFUL_SETS = namespaced<k8s.StatefulSet>('apps/v1', 'StatefulSet', 'statefulsets');
export const STORAGE_CLASSES = clusterWide<k8s.StorageClass>('storage.k8s.io/v1', 'StorageClass', 'storageclasses');

export function keyOf(object: KubeObject): ObjectKey {
  const { namespace, name = '' } = object.metadata;
  return namespace ? `${namespace}/${name}` : name;
}

export function splitKey(key: ObjectKey): { namespace: string; name: string } {
  const slash = key.indexOf('/');
  return slash < 0 ? { namespace: '', name: key } : { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}

export function keyIn(namespace: string | undefined, name: string): ObjectKey {
  return namespace ? `${namespace}/${name}` : name;
}

export function pathFor(
  resource: Resource<KubeObject>,
  at: { namespace?: string; name?: string; sub?: string },
): string {
  const root = resource.apiVersion.includes('/') ? `/apis/${resource.apiVersion}` : `/api/${resource.apiVersion}`;
  const scope = resource.namespaced && at.namespace ? `/namespaces/${encodeURIComponent(at.namespace)}` : '';
  const name = at.name ? `/${encodeURIComponent(at.name)}` : '';
  return `${root}${scope}/${resource.plural}${name}${at.sub ? `/${at.sub}` : ''}`;
}

/** The owner that acts on this object; there is at most one (API: `controller: true`). */
export function controllerOf(object: KubeObject): k8s.OwnerReference | undefined {
  return object.metadata.ownerReferences?.find((o) => o.controller === true);
}

export function ownerReference(
  resource: Resource<KubeObject>,
  owner: { metadata: k8s.ObjectMeta },
): k8s.OwnerReference {
  return {
    apiVersion: resource.apiVersion,
    kind: resource.kind,
    name: owner.metadata.name ?? '',
    uid: owner.metadata.uid ?? '',
    controller: true,
    blockOwnerDeletion: true,
  };
}

/** Our server's resourceVersions are the store's revisions: decimal numbers that grow with every write. */
export function revisionOf(object: KubeObject): number {
  return Number(object.metadata.resourceVersion ?? 0);
}

/** Seconds precision, as `metav1.Time` is written. */
export function timestamp(ms: number): k8s.Time {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

/** Six digits, as `metav1.MicroTime` is written. */
export function microTimestamp(ms: number): k8s.MicroTime {
  return `${new Date(ms).toISOString().slice(0, 23)}000Z`;
}
