import type { KubeObject } from '#cluster/store/objects.ts';
import { isObject, type JsonObject } from '../codec/json.ts';

/**
 * What an object asks for that is kept and has no effect on this cluster, a sentence each. It is sent as `Warning` headers, which kubectl
 * prints, with every write: nothing is ignored in silence. What would be wrong to run without is refused where it runs (the node's `refusal`,
 * the provisioner).
 */
export function unserved(object: KubeObject): string[] {
  const rows = ROWS[object.kind];
  return rows ? rows(object) : [];
}

type Row = (object: KubeObject) => string[];

const part = (value: unknown, ...path: string[]): JsonObject => {
  let at = value;
  for (const name of path) at = isObject(at) ? at[name] : undefined;
  return isObject(at) ? at : {};
};
const list = (value: unknown): JsonObject[] => (Array.isArray(value) ? value.filter(isObject) : []);

function podSpec(spec: JsonObject, at: string): string[] {
  const said: string[] = [];
  const say = (field: string, why: string): void => {
    said.push(`${at}.${field}: ${why}`);
  };
  if (spec['schedulingGroup'] !== undefined) say('schedulingGroup', 'has no effect, each pod is scheduled by itself');
  if (spec['resourceClaims'] !== undefined)
    say('resourceClaims', 'devices are not allocated here, no node will run it');
  if (spec['hostUsers'] === false)
    say('hostUsers', 'user namespaces for pods are not served here, no node will run it');
  if (spec['runtimeClassName'] !== undefined)
    say('runtimeClassName', 'pods run on the runtime of their node, no node will run it');
  const security = part(spec, 'securityContext');
  if (security['seLinuxOptions'] !== undefined) say('securityContext.seLinuxOptions', NO_SELINUX);
  for (const field of ['initContainers', 'containers'])
    list(spec[field]).forEach((container, i) => {
      const own = part(container, 'securityContext');
      if (own['seLinuxOptions'] !== undefined) say(`${field}[${i}].securityContext.seLinuxOptions`, NO_SELINUX);
      if (container['resizePolicy'] !== undefined)
        say(`${field}[${i}].resizePolicy`, 'has no effect, resources of running containers cannot be changed');
    });
  list(spec['volumes']).forEach((volume, i) => {
    const kind = UNMOUNTED.find((name) => volume[name] !== undefined);
    if (kind) say(`volumes[${i}].${kind}`, 'nodes of this cluster cannot mount it, the pod will wait');
  });
  return said;
}

const NO_SELINUX = 'has no effect, nodes do not label with SELinux';
const UNMOUNTED =
  'awsElasticBlockStore azureDisk azureFile cephfs cinder csi fc flexVolume flocker gcePersistentDisk gitRepo glusterfs image iscsi nfs photonPersistentDisk portworxVolume quobyte rbd scaleIO storageos vsphereVolume'.split(
    ' ',
  );

const template: Row = (o) => podSpec(part(o, 'spec', 'template', 'spec'), 'spec.template.spec');

const DEFAULT_AFFINITY_SECONDS = 10_800;

const service: Row = (o) => {
  const spec = part(o, 'spec');
  const seconds = part(spec, 'sessionAffinityConfig', 'clientIP')['timeoutSeconds'];
  return [
    ...(spec['trafficDistribution'] === undefined
      ? []
      : ['spec.trafficDistribution: has no effect, connections are spread over all endpoints']),
    ...(seconds === undefined || seconds === DEFAULT_AFFINITY_SECONDS
      ? []
      : [
          'spec.sessionAffinityConfig.clientIP.timeoutSeconds: a client keeps its endpoint for longer, as long as that one serves',
        ]),
    ...(spec['healthCheckNodePort']
      ? [`spec.healthCheckNodePort: nothing answers at port ${String(spec['healthCheckNodePort'])}`]
      : []),
  ];
};

const FOREIGN_INGRESS = /^(nginx\.ingress|traefik\.ingress|haproxy\.org|alb\.ingress)/;

const ingress: Row = (o) => {
  const foreign = Object.keys(o.metadata.annotations ?? {}).filter((name) => FOREIGN_INGRESS.test(name));
  const ours = part(o, 'spec')['ingressClassName'] === 'estiba';
  return ours ? foreign.map((name) => `metadata.annotations[${name}]: has no effect, it is another controller's`) : [];
};

const storageClass: Row = (o) => {
  if (o['provisioner'] !== 'estiba.dev/local') return [];
  return [
    ...(Object.keys(part(o, 'parameters')).length > 0 ? ['parameters: the provisioner has none'] : []),
    ...(o['allowVolumeExpansion'] === true ? ['allowVolumeExpansion: has no effect, sizes are not enforced'] : []),
    ...(Array.isArray(o['mountOptions']) && o['mountOptions'].length > 0
      ? ['mountOptions: have no effect, volumes are directories']
      : []),
  ];
};

const namespace: Row = (o) =>
  Object.keys(o.metadata.labels ?? {})
    .filter((name) => name.startsWith('pod-security.kubernetes.io/'))
    .map(
      (name) => `metadata.labels[${name}]: Pod Security is not enforced here, nothing is refused or reported for it`,
    );

const ROWS: Record<string, Row> = {
  Pod: (o) => podSpec(part(o, 'spec'), 'spec'),
  PodTemplate: (o) => podSpec(part(o, 'template', 'spec'), 'template.spec'),
  Deployment: template,
  ReplicaSet: template,
  ReplicationController: template,
  StatefulSet: template,
  DaemonSet: template,
  Job: template,
  CronJob: (o) =>
    podSpec(part(o, 'spec', 'jobTemplate', 'spec', 'template', 'spec'), 'spec.jobTemplate.spec.template.spec'),
  Service: service,
  Ingress: ingress,
  StorageClass: storageClass,
  Namespace: namespace,
  PriorityClass: () => ['value: pods of a higher priority are scheduled first, and push no others out'],
  IngressClass: (o) =>
    part(o, 'spec')['parameters'] === undefined
      ? []
      : ['spec.parameters: the class estiba has none; they are for other controllers'],
};
