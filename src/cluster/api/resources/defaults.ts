import type { TypeFacts } from '#spec/kubernetes/facts.ts';
import type { PodSpec } from '#spec/kubernetes/types.gen.ts';
import { cloneJson, isObject, type JsonObject } from '../codec/json.ts';
import { visitStructs } from './visit.ts';

/**
 * Defaults as Kubernetes fills them in before anything is stored, a row a type. A row is either the values of absent fields or a
 * function for what depends on others. Types are met outermost first, so an owner can prepare what its parts look at.
 */
type Row = JsonObject | ((o: JsonObject) => void);

export function setDefaults(type: TypeFacts, object: JsonObject): void {
  visitStructs(type, object, (t, struct) => {
    const row = ROWS[t.name];
    if (typeof row === 'function') row(struct);
    else if (row) fill(struct, row);
  });
}

function fill(o: JsonObject, values: JsonObject): void {
  for (const [name, value] of Object.entries(values)) o[name] ??= cloneJson(value);
}

const objects = (list: unknown): JsonObject[] => (Array.isArray(list) ? list.filter(isObject) : []);
const RBAC = 'rbac.authorization.k8s.io';
const MODE_0644 = 420;

/** Copies limits to absent requests. */
function requestsFromLimits(o: JsonObject): void {
  const resources = o['resources'];
  if (!isObject(resources) || !isObject(resources['limits'])) return;
  resources['requests'] = { ...resources['limits'], ...(isObject(resources['requests']) ? resources['requests'] : {}) };
}

/** What a Pod gets and a pod template does not. */
function podDefaults(o: JsonObject): void {
  const spec = o['spec'];
  if (!isObject(spec)) return;
  spec['enableServiceLinks'] ??= true;
  for (const container of [...objects(spec['containers']), ...objects(spec['initContainers'])]) {
    requestsFromLimits(container);
    if (spec['hostNetwork'] === true)
      for (const port of objects(container['ports'])) port['hostPort'] ??= port['containerPort'];
  }
}

function containerDefaults(o: JsonObject): void {
  fill(o, { resources: {}, terminationMessagePath: '/dev/termination-log', terminationMessagePolicy: 'File' });
  const image = typeof o['image'] === 'string' ? o['image'] : '';
  o['imagePullPolicy'] ??= pullPolicyOf(image);
}

/** `latest`, said or implied, is pulled always; a digest pins the image. */
export function pullPolicyOf(image: string): string {
  if (image.includes('@')) return 'IfNotPresent';
  const tag = /:([^/:]+)$/.exec(image)?.[1] ?? 'latest';
  return tag === 'latest' ? 'Always' : 'IfNotPresent';
}

function volumeDefaults(o: JsonObject): void {
  if (Object.keys(o).length === 1 && 'name' in o) o['emptyDir'] = {};
}

function serviceSpecDefaults(o: JsonObject): void {
  fill(o, { type: 'ClusterIP', sessionAffinity: 'None' });
  if (o['sessionAffinity'] === 'ClientIP') fill(o, { sessionAffinityConfig: { clientIP: { timeoutSeconds: 10800 } } });
  const outside = o['type'] === 'NodePort' || o['type'] === 'LoadBalancer';
  if (outside || (Array.isArray(o['externalIPs']) && o['externalIPs'].length > 0))
    fill(o, { externalTrafficPolicy: 'Cluster' });
  if (o['type'] !== 'ExternalName') fill(o, { internalTrafficPolicy: 'Cluster' });
  if (o['type'] === 'LoadBalancer') fill(o, { allocateLoadBalancerNodePorts: true });
}

function servicePortDefaults(o: JsonObject): void {
  fill(o, { protocol: 'TCP' });
  if (o['targetPort'] === undefined || o['targetPort'] === 0 || o['targetPort'] === '') o['targetPort'] = o['port'];
}

function deploymentStrategyDefaults(o: JsonObject): void {
  fill(o, { type: 'RollingUpdate' });
  if (o['type'] !== 'RollingUpdate') return;
  fill(o, { rollingUpdate: {} });
  if (isObject(o['rollingUpdate'])) fill(o['rollingUpdate'], { maxUnavailable: '25%', maxSurge: '25%' });
}

function statefulSetDefaults(o: JsonObject): void {
  fill(o, {
    replicas: 1,
    podManagementPolicy: 'OrderedReady',
    updateStrategy: {},
    revisionHistoryLimit: 10,
    persistentVolumeClaimRetentionPolicy: {},
  });
  if (isObject(o['persistentVolumeClaimRetentionPolicy']))
    fill(o['persistentVolumeClaimRetentionPolicy'], { whenDeleted: 'Retain', whenScaled: 'Retain' });
  const update = o['updateStrategy'];
  if (isObject(update)) {
    fill(update, { type: 'RollingUpdate' });
    if (update['type'] === 'RollingUpdate') fill(update, { rollingUpdate: {} });
    if (isObject(update['rollingUpdate'])) fill(update['rollingUpdate'], { partition: 0 });
  }
  for (const claim of objects(o['volumeClaimTemplates'])) {
    fill(claim, { apiVersion: 'v1', kind: 'PersistentVolumeClaim', spec: {}, status: { phase: 'Pending' } });
  }
}

function daemonSetUpdateDefaults(o: JsonObject): void {
  fill(o, { type: 'RollingUpdate' });
  if (o['type'] === 'RollingUpdate') fill(o, { rollingUpdate: {} });
  if (isObject(o['rollingUpdate'])) fill(o['rollingUpdate'], { maxUnavailable: 1, maxSurge: 0 });
}

function jobSpecDefaults(o: JsonObject): void {
  if (o['completions'] === undefined && o['parallelism'] === undefined) o['completions'] = 1;
  fill(o, {
    parallelism: 1,
    backoffLimit: o['backoffLimitPerIndex'] === undefined ? 6 : 2147483647,
    completionMode: 'NonIndexed',
    suspend: false,
  });
  fill(o, {
    manualSelector: false,
    podReplacementPolicy: o['podFailurePolicy'] === undefined ? 'TerminatingOrFailed' : 'Failed',
  });
}

/** The template's labels select and name what has neither selector nor labels: core/v1's replication controllers. */
function replicationControllerDefaults(o: JsonObject): void {
  const spec = o['spec'];
  if (!isObject(spec)) return;
  fill(spec, { replicas: 1 });
  const template =
    isObject(spec['template']) && isObject(spec['template']['metadata']) ? spec['template']['metadata'] : {};
  if (isObject(template['labels'])) {
    fill(spec, { selector: template['labels'] });
    if (isObject(o['metadata'])) fill(o['metadata'], { labels: template['labels'] });
  }
}

function limitRangeItemDefaults(o: JsonObject): void {
  if (o['type'] !== 'Container') return;
  const part = (name: string): JsonObject => (isObject(o[name]) ? o[name] : {});
  const limits = { ...part('max'), ...part('default') };
  if (Object.keys(limits).length > 0) o['default'] = limits;
  const requests = { ...part('min'), ...limits, ...part('defaultRequest') };
  // A minimum is a default request only where no default limit says more.
  for (const [name, value] of Object.entries(part('min')))
    if (!(name in limits) && !(name in part('defaultRequest'))) requests[name] = value;
  if (Object.keys(requests).length > 0) o['defaultRequest'] = requests;
}

function autoscalerDefaults(o: JsonObject): void {
  fill(o, { minReplicas: 1 });
  if (!Array.isArray(o['metrics']) || o['metrics'].length === 0) {
    o['metrics'] = [
      { type: 'Resource', resource: { name: 'cpu', target: { type: 'Utilization', averageUtilization: 80 } } },
    ];
  }
  const behavior = o['behavior'];
  if (!isObject(behavior)) return;
  fill(behavior, { scaleUp: {}, scaleDown: {} });
  const percent = { type: 'Percent', value: 100, periodSeconds: 15 };
  const pods = { type: 'Pods', value: 4, periodSeconds: 15 };
  if (isObject(behavior['scaleUp']))
    fill(behavior['scaleUp'], { stabilizationWindowSeconds: 0, selectPolicy: 'Max', policies: [pods, percent] });
  if (isObject(behavior['scaleDown'])) fill(behavior['scaleDown'], { selectPolicy: 'Max', policies: [percent] });
}

function networkPolicyDefaults(o: JsonObject): void {
  fill(o, { podSelector: {} });
  if (o['policyTypes'] === undefined)
    o['policyTypes'] = ['Ingress', ...(Array.isArray(o['egress']) && o['egress'].length > 0 ? ['Egress'] : [])];
}

function subjectDefaults(o: JsonObject): void {
  if (o['apiGroup'] !== undefined && o['apiGroup'] !== '') return;
  if (o['kind'] === 'User' || o['kind'] === 'Group') o['apiGroup'] = RBAC;
  else delete o['apiGroup'];
}

function namespaceDefaults(o: JsonObject): void {
  const metadata = isObject(o['metadata']) ? o['metadata'] : {};
  if (typeof metadata['name'] === 'string') {
    metadata['labels'] = {
      ...(isObject(metadata['labels']) ? metadata['labels'] : {}),
      'kubernetes.io/metadata.name': metadata['name'],
    };
  }
  fill(o, { spec: {}, status: {} });
  if (isObject(o['status'])) fill(o['status'], { phase: 'Active' });
}

const PHASE_PENDING = (o: JsonObject): void => {
  fill(o, { status: {} });
  if (isObject(o['status'])) fill(o['status'], { phase: 'Pending' });
};

const ROWS: Record<string, Row> = {
  'core.v1.Pod': podDefaults,
  'core.v1.PodSpec': (o) => {
    fill(o, {
      dnsPolicy: 'ClusterFirst',
      restartPolicy: 'Always',
      schedulerName: 'default-scheduler',
      securityContext: {},
      terminationGracePeriodSeconds: 30,
    } satisfies Partial<PodSpec>);
    // The old name of the field is kept beside the new one for old clients.
    const account = o['serviceAccountName'] ?? o['serviceAccount'];
    if (account !== undefined) Object.assign(o, { serviceAccountName: account, serviceAccount: account });
  },
  'core.v1.Container': containerDefaults,
  'core.v1.EphemeralContainer': containerDefaults,
  'core.v1.ContainerPort': { protocol: 'TCP' },
  'core.v1.Probe': { timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3 },
  'core.v1.HTTPGetAction': { path: '/', scheme: 'HTTP' },
  'core.v1.GRPCAction': { service: '' },
  'core.v1.ObjectFieldSelector': { apiVersion: 'v1' },
  'core.v1.Volume': volumeDefaults,
  'core.v1.ConfigMapVolumeSource': { defaultMode: MODE_0644 },
  'core.v1.SecretVolumeSource': { defaultMode: MODE_0644 },
  'core.v1.DownwardAPIVolumeSource': { defaultMode: MODE_0644 },
  'core.v1.ProjectedVolumeSource': { defaultMode: MODE_0644 },
  'core.v1.HostPathVolumeSource': { type: '' },
  'core.v1.ServiceAccountTokenProjection': { expirationSeconds: 3600 },
  'core.v1.ImageVolumeSource': (o) => {
    o['pullPolicy'] ??= pullPolicyOf(typeof o['reference'] === 'string' ? o['reference'] : '');
  },
  'core.v1.ServiceSpec': serviceSpecDefaults,
  'core.v1.Service': { status: { loadBalancer: {} } },
  'core.v1.ServicePort': servicePortDefaults,
  'core.v1.EndpointPort': { protocol: 'TCP' },
  'core.v1.Secret': { type: 'Opaque' },
  'core.v1.Namespace': namespaceDefaults,
  'core.v1.PersistentVolumeClaim': PHASE_PENDING,
  'core.v1.PersistentVolumeClaimSpec': { volumeMode: 'Filesystem', resources: {} },
  'core.v1.PersistentVolume': PHASE_PENDING,
  'core.v1.PersistentVolumeSpec': { volumeMode: 'Filesystem', persistentVolumeReclaimPolicy: 'Retain' },
  'core.v1.ReplicationController': replicationControllerDefaults,
  'core.v1.LimitRangeItem': limitRangeItemDefaults,
  'apps.v1.DeploymentSpec': { replicas: 1, revisionHistoryLimit: 10, progressDeadlineSeconds: 600, strategy: {} },
  'apps.v1.DeploymentStrategy': deploymentStrategyDefaults,
  'apps.v1.ReplicaSetSpec': { replicas: 1 },
  'apps.v1.StatefulSetSpec': statefulSetDefaults,
  'apps.v1.DaemonSetSpec': { revisionHistoryLimit: 10, updateStrategy: {} },
  'apps.v1.DaemonSetUpdateStrategy': daemonSetUpdateDefaults,
  'batch.v1.JobSpec': jobSpecDefaults,
  'batch.v1.CronJobSpec': {
    concurrencyPolicy: 'Allow',
    suspend: false,
    successfulJobsHistoryLimit: 3,
    failedJobsHistoryLimit: 1,
  },
  'batch.v1.PodFailurePolicyOnPodConditionsPattern': { status: 'True' },
  'autoscaling.v2.HorizontalPodAutoscalerSpec': autoscalerDefaults,
  'autoscaling.v1.HorizontalPodAutoscalerSpec': { minReplicas: 1 },
  'discovery.v1.EndpointPort': { name: '', protocol: 'TCP' },
  'networking.v1.NetworkPolicySpec': networkPolicyDefaults,
  'networking.v1.NetworkPolicyPort': { protocol: 'TCP' },
  'networking.v1.Ingress': { status: { loadBalancer: {} } },
  'networking.v1.IngressClassParametersReference': { scope: 'Cluster' },
  'rbac.v1.RoleRef': (o) => {
    if (o['apiGroup'] === undefined || o['apiGroup'] === '') o['apiGroup'] = RBAC;
  },
  'rbac.v1.Subject': subjectDefaults,
  'scheduling.v1.PriorityClass': { preemptionPolicy: 'PreemptLowerPriority' },
  'storage.v1.StorageClass': { reclaimPolicy: 'Delete', volumeBindingMode: 'Immediate' },
};
