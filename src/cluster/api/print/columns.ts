import { isObject, type JsonObject } from '../codec/json.ts';
import { podCells } from './pods.ts';
import {
  age,
  at,
  countOf,
  duration,
  joined,
  labelsText,
  listOf,
  NONE,
  selectorText,
  sizeOf,
  stringsOf,
  textOf,
} from './text.ts';

/** What `kubectl get` shows of a kind, a row a column. `wide` ones show with `-o wide`. */
export interface Column {
  name: string;
  type: 'string' | 'integer';
  wide: boolean;
  cell: (object: JsonObject, nowMs: number) => string | number;
}

const text = (name: string, cell: Column['cell']): Column => ({ name, type: 'string', wide: false, cell });
const integer = (name: string, path: string): Column => ({
  name,
  type: 'integer',
  wide: false,
  cell: (o) => countOf(at(o, path)),
});
const count = (name: string, path: string): Column => ({
  name,
  type: 'string',
  wide: false,
  cell: (o) => String(sizeOf(at(o, path))),
});
const wide = (name: string, cell: Column['cell']): Column => ({ name, type: 'string', wide: true, cell });
const field =
  (path: string, absent = '') =>
  (o: JsonObject): string =>
    textOf(at(o, path), absent);
const AGE: Column = text('Age', (o, nowMs) => age(at(o, 'metadata.creationTimestamp'), nowMs));
const NAME: Column = text('Name', field('metadata.name'));

const containersOf =
  (path: string) =>
  (o: JsonObject): JsonObject[] =>
    listOf(at(o, `${path}.containers`));
const containerNames = (path: string): Column =>
  wide('Containers', (o) =>
    containersOf(path)(o)
      .map((c) => textOf(c['name']))
      .join(','),
  );
const containerImages = (path: string): Column =>
  wide('Images', (o) =>
    containersOf(path)(o)
      .map((c) => textOf(c['image']))
      .join(','),
  );
const selector = (path: string): Column => wide('Selector', (o) => selectorText(at(o, path)));
const TEMPLATE = [
  containerNames('spec.template.spec'),
  containerImages('spec.template.spec'),
  selector('spec.selector'),
];

const condition = (o: JsonObject, type: string): string =>
  textOf(listOf(at(o, 'status.conditions')).find((c) => c['type'] === type)?.['status'], 'Unknown');

function nodeStatus(o: JsonObject): string {
  const ready = condition(o, 'Ready');
  const word =
    ready === 'True'
      ? 'Ready'
      : ready === 'Unknown' && listOf(at(o, 'status.conditions')).every((c) => c['type'] !== 'Ready')
        ? 'Unknown'
        : 'NotReady';
  return at(o, 'spec.unschedulable') === true ? `${word},SchedulingDisabled` : word;
}

function nodeRoles(o: JsonObject): string {
  const labels = at(o, 'metadata.labels');
  const prefix = 'node-role.kubernetes.io/';
  return joined(
    isObject(labels)
      ? Object.keys(labels)
          .filter((l) => l.startsWith(prefix))
          .map((l) => l.slice(prefix.length))
          .sort()
      : [],
  );
}

const nodeAddress =
  (type: string) =>
  (o: JsonObject): string =>
    textOf(listOf(at(o, 'status.addresses')).find((a) => a['type'] === type)?.['address'], NONE);

function externalAddress(o: JsonObject): string {
  const spec = at(o, 'spec');
  const type = isObject(spec) ? spec['type'] : '';
  const external = stringsOf(at(o, 'spec.externalIPs'));
  if (type === 'ExternalName') return textOf(at(o, 'spec.externalName'), NONE);
  const given = listOf(at(o, 'status.loadBalancer.ingress')).map((i) => textOf(i['ip']) || textOf(i['hostname']));
  if (type === 'LoadBalancer') return joined([...given, ...external], '<pending>');
  return joined(external);
}

function servicePorts(o: JsonObject): string {
  return joined(
    listOf(at(o, 'spec.ports')).map(
      (p) => `${textOf(p['port'])}${p['nodePort'] ? `:${textOf(p['nodePort'])}` : ''}/${textOf(p['protocol'])}`,
    ),
  );
}

function endpointsText(o: JsonObject): string {
  const all = listOf(at(o, 'subsets')).flatMap((subset) => {
    const ports = listOf(subset['ports']);
    return listOf(subset['addresses']).flatMap((a) =>
      ports.length === 0 ? [textOf(a['ip'])] : ports.map((p) => `${textOf(a['ip'])}:${textOf(p['port'])}`),
    );
  });
  return all.length > 3 ? `${all.slice(0, 3).join(',')} + ${all.length - 3} more...` : joined(all);
}

function jobStatus(o: JsonObject): string {
  const conditions = listOf(at(o, 'status.conditions'))
    .filter((c) => c['status'] === 'True')
    .map((c) => c['type']);
  for (const word of ['Complete', 'Failed']) if (conditions.includes(word)) return word;
  if (at(o, 'metadata.deletionTimestamp') !== undefined) return 'Terminating';
  if (conditions.includes('Suspended')) return 'Suspended';
  if (conditions.includes('FailureTarget')) return 'FailureTarget';
  return conditions.includes('SuccessCriteriaMet') ? 'SuccessCriteriaMet' : 'Running';
}

function jobCompletions(o: JsonObject): string {
  const done = countOf(at(o, 'status.succeeded'));
  const wanted = at(o, 'spec.completions');
  const parallelism = countOf(at(o, 'spec.parallelism'));
  if (wanted !== undefined) return `${done}/${textOf(wanted)}`;
  return parallelism > 1 ? `${done}/1 of ${parallelism}` : `${done}/1`;
}

function jobDuration(o: JsonObject, nowMs: number): string {
  const start = at(o, 'status.startTime');
  if (typeof start !== 'string') return '';
  const end = at(o, 'status.completionTime');
  return duration((typeof end === 'string' ? Date.parse(end) : nowMs) - Date.parse(start));
}

function autoscalerTargets(o: JsonObject): string {
  const current = listOf(at(o, 'status.currentMetrics'));
  const texts = listOf(at(o, 'spec.metrics')).map((m, i) => {
    const kind = textOf(m['type']);
    const part = m[`${kind.charAt(0).toLowerCase()}${kind.slice(1)}`];
    const target = isObject(part) && isObject(part['target']) ? part['target'] : {};
    const now = current[i]?.[`${kind.charAt(0).toLowerCase()}${kind.slice(1)}`];
    const nowValues = isObject(now) && isObject(now['current']) ? now['current'] : {};
    const name = kind === 'Resource' && isObject(part) ? `${textOf(part['name'])}: ` : '';
    if (target['averageUtilization'] !== undefined)
      return `${name}${nowValues['averageUtilization'] === undefined ? '<unknown>' : `${textOf(nowValues['averageUtilization'])}%`}/${textOf(target['averageUtilization'])}%`;
    const wanted = textOf(target['averageValue']) || textOf(target['value']);
    return `${name}${textOf(nowValues['averageValue']) || textOf(nowValues['value'], '<unknown>')}/${wanted}${target['averageValue'] === undefined ? '' : ' (avg)'}`;
  });
  return texts.length > 2 ? `${texts.slice(0, 2).join(', ')} + ${texts.length - 2} more...` : texts.join(', ') || NONE;
}

const ACCESS_MODES: Record<string, string> = {
  ReadWriteOnce: 'RWO',
  ReadOnlyMany: 'ROX',
  ReadWriteMany: 'RWX',
  ReadWriteOncePod: 'RWOP',
};
const accessModes =
  (path: string) =>
  (o: JsonObject): string =>
    stringsOf(at(o, path))
      .map((m) => ACCESS_MODES[m] ?? m)
      .join(',');
const phase = (o: JsonObject): string =>
  at(o, 'metadata.deletionTimestamp') === undefined ? field('status.phase')(o) : 'Terminating';
const isDefault = (o: JsonObject, annotation: string): string => {
  const annotations = at(o, 'metadata.annotations');
  return isObject(annotations) && annotations[annotation] === 'true' ? ' (default)' : '';
};

function quotaText(o: JsonObject, limits: boolean): string {
  const hard = at(o, 'status.hard') ?? at(o, 'spec.hard');
  const used = at(o, 'status.used');
  if (!isObject(hard)) return '';
  return Object.keys(hard)
    .filter((name) => name.startsWith('limits.') === limits)
    .sort()
    .map((name) => `${name}: ${isObject(used) ? textOf(used[name], '0') : '0'}/${textOf(hard[name])}`)
    .join(', ');
}

function endpointSliceAddresses(o: JsonObject): string {
  const all = listOf(at(o, 'endpoints')).flatMap((e) => stringsOf(e['addresses']));
  return all.length > 3 ? `${all.slice(0, 3).join(',')} + ${all.length - 3} more...` : joined(all, '<unset>');
}

const subjects =
  (kind: string) =>
  (o: JsonObject): string =>
    listOf(at(o, 'subjects'))
      .filter((s) => s['kind'] === kind)
      .map((s) => (kind === 'ServiceAccount' ? `${textOf(s['namespace'])}/${textOf(s['name'])}` : textOf(s['name'])))
      .join(', ');
const BINDING = [
  NAME,
  text('Role', (o) => `${field('roleRef.kind')(o)}/${field('roleRef.name')(o)}`),
  AGE,
  wide('Users', subjects('User')),
  wide('Groups', subjects('Group')),
  wide('ServiceAccounts', subjects('ServiceAccount')),
];
const CREATED_AT = text('Created At', field('metadata.creationTimestamp'));

const pod =
  (pick: 'ready' | 'status' | 'restarts') =>
  (o: JsonObject, nowMs: number): string =>
    podCells(o, nowMs)[pick];

export const DEFAULT_COLUMNS: readonly Column[] = [NAME, AGE];

export const COLUMNS: Record<string, readonly Column[]> = {
  pods: [
    NAME,
    text('Ready', pod('ready')),
    text('Status', pod('status')),
    text('Restarts', pod('restarts')),
    AGE,
    wide('IP', field('status.podIP', NONE)),
    wide('Node', field('spec.nodeName', NONE)),
    wide('Nominated Node', field('status.nominatedNodeName', NONE)),
    wide('Readiness Gates', (o) => {
      const gates = listOf(at(o, 'spec.readinessGates'));
      return gates.length === 0
        ? NONE
        : `${gates.filter((g) => condition(o, textOf(g['conditionType'])) === 'True').length}/${gates.length}`;
    }),
  ],
  nodes: [
    NAME,
    text('Status', nodeStatus),
    text('Roles', nodeRoles),
    AGE,
    text('Version', field('status.nodeInfo.kubeletVersion')),
    wide('Internal-IP', nodeAddress('InternalIP')),
    wide('External-IP', nodeAddress('ExternalIP')),
    wide('OS-Image', field('status.nodeInfo.osImage', '<unknown>')),
    wide('Kernel-Version', field('status.nodeInfo.kernelVersion', '<unknown>')),
    wide('Container-Runtime', field('status.nodeInfo.containerRuntimeVersion', '<unknown>')),
  ],
  services: [
    NAME,
    text('Type', field('spec.type')),
    text('Cluster-IP', field('spec.clusterIP', NONE)),
    text('External-IP', externalAddress),
    text('Port(s)', servicePorts),
    AGE,
    wide('Selector', (o) => labelsText(at(o, 'spec.selector'))),
  ],
  namespaces: [NAME, text('Status', field('status.phase')), AGE],
  deployments: [
    NAME,
    text('Ready', (o) => `${countOf(at(o, 'status.readyReplicas'))}/${countOf(at(o, 'spec.replicas'))}`),
    { ...integer('Up-to-date', 'status.updatedReplicas'), type: 'string' },
    { ...integer('Available', 'status.availableReplicas'), type: 'string' },
    AGE,
    ...TEMPLATE,
  ],
  replicasets: [
    NAME,
    integer('Desired', 'spec.replicas'),
    integer('Current', 'status.replicas'),
    integer('Ready', 'status.readyReplicas'),
    AGE,
    ...TEMPLATE,
  ],
  replicationcontrollers: [
    NAME,
    integer('Desired', 'spec.replicas'),
    integer('Current', 'status.replicas'),
    integer('Ready', 'status.readyReplicas'),
    AGE,
    containerNames('spec.template.spec'),
    containerImages('spec.template.spec'),
    wide('Selector', (o) => labelsText(at(o, 'spec.selector'))),
  ],
  statefulsets: [
    NAME,
    text('Ready', (o) => `${countOf(at(o, 'status.readyReplicas'))}/${countOf(at(o, 'spec.replicas'))}`),
    AGE,
    containerNames('spec.template.spec'),
    containerImages('spec.template.spec'),
  ],
  daemonsets: [
    NAME,
    integer('Desired', 'status.desiredNumberScheduled'),
    integer('Current', 'status.currentNumberScheduled'),
    integer('Ready', 'status.numberReady'),
    integer('Up-to-date', 'status.updatedNumberScheduled'),
    integer('Available', 'status.numberAvailable'),
    text('Node Selector', (o) => labelsText(at(o, 'spec.template.spec.nodeSelector'))),
    AGE,
    ...TEMPLATE,
  ],
  jobs: [
    NAME,
    text('Status', jobStatus),
    text('Completions', jobCompletions),
    text('Duration', jobDuration),
    AGE,
    ...TEMPLATE,
  ],
  cronjobs: [
    NAME,
    text('Schedule', field('spec.schedule')),
    text('Timezone', field('spec.timeZone', NONE)),
    text('Suspend', (o) => (at(o, 'spec.suspend') === true ? 'True' : 'False')),
    { ...integer('Active', 'status.active'), cell: (o) => sizeOf(at(o, 'status.active')) },
    text('Last Schedule', (o, nowMs) =>
      at(o, 'status.lastScheduleTime') === undefined ? NONE : age(at(o, 'status.lastScheduleTime'), nowMs),
    ),
    AGE,
    containerNames('spec.jobTemplate.spec.template.spec'),
    containerImages('spec.jobTemplate.spec.template.spec'),
  ],
  horizontalpodautoscalers: [
    NAME,
    text('Reference', (o) => `${field('spec.scaleTargetRef.kind')(o)}/${field('spec.scaleTargetRef.name')(o)}`),
    text('Targets', autoscalerTargets),
    text('MinPods', (o) => textOf(at(o, 'spec.minReplicas'), '<unset>')),
    { ...integer('MaxPods', 'spec.maxReplicas') },
    integer('Replicas', 'status.currentReplicas'),
    AGE,
  ],
  configmaps: [
    NAME,
    { ...count('Data', 'data'), cell: (o) => String(sizeOf(at(o, 'data')) + sizeOf(at(o, 'binaryData'))) },
    AGE,
  ],
  secrets: [
    NAME,
    text('Type', field('type')),
    { name: 'Data', type: 'integer', wide: false, cell: (o) => sizeOf(at(o, 'data')) },
    AGE,
  ],
  serviceaccounts: [
    NAME,
    { name: 'Secrets', type: 'integer', wide: false, cell: (o) => sizeOf(at(o, 'secrets')) },
    AGE,
  ],
  endpoints: [NAME, text('Endpoints', endpointsText), AGE],
  endpointslices: [
    NAME,
    text('AddressType', field('addressType')),
    text('Ports', (o) =>
      joined(
        listOf(at(o, 'ports')).map((p) => textOf(p['port'])),
        '<unset>',
      ),
    ),
    text('Endpoints', endpointSliceAddresses),
    AGE,
  ],
  events: [
    text('Last Seen', (o, nowMs) =>
      age(
        at(o, 'lastTimestamp') ??
          at(o, 'series.lastObservedTime') ??
          at(o, 'eventTime') ??
          at(o, 'metadata.creationTimestamp'),
        nowMs,
      ),
    ),
    text('Type', field('type')),
    text('Reason', field('reason')),
    text('Object', (o) => `${field('involvedObject.kind')(o).toLowerCase()}/${field('involvedObject.name')(o)}`),
    wide('Subobject', field('involvedObject.fieldPath')),
    wide('Source', (o) =>
      joined(
        [field('source.component')(o) || field('reportingComponent')(o), field('source.host')(o)].filter(Boolean),
        '',
      ),
    ),
    text('Message', (o) => field('message')(o).trim()),
    wide('First Seen', (o, nowMs) => age(at(o, 'firstTimestamp') ?? at(o, 'eventTime'), nowMs)),
    wide('Count', (o) => textOf(at(o, 'series.count') ?? at(o, 'count'), '1')),
    wide('Name', field('metadata.name')),
  ],
  persistentvolumes: [
    NAME,
    text('Capacity', field('spec.capacity.storage')),
    text('Access Modes', accessModes('spec.accessModes')),
    text('Reclaim Policy', field('spec.persistentVolumeReclaimPolicy')),
    text('Status', phase),
    text('Claim', (o) =>
      at(o, 'spec.claimRef') === undefined
        ? ''
        : `${field('spec.claimRef.namespace')(o)}/${field('spec.claimRef.name')(o)}`,
    ),
    text('StorageClass', field('spec.storageClassName')),
    text('VolumeAttributesClass', field('spec.volumeAttributesClassName', '<unset>')),
    text('Reason', field('status.reason')),
    AGE,
    wide('VolumeMode', field('spec.volumeMode', '<unset>')),
  ],
  persistentvolumeclaims: [
    NAME,
    text('Status', phase),
    text('Volume', field('spec.volumeName')),
    text('Capacity', (o) => (at(o, 'spec.volumeName') === undefined ? '' : field('status.capacity.storage')(o))),
    text('Access Modes', (o) => (at(o, 'spec.volumeName') === undefined ? '' : accessModes('status.accessModes')(o))),
    text('StorageClass', field('spec.storageClassName')),
    text('VolumeAttributesClass', field('spec.volumeAttributesClassName', '<unset>')),
    AGE,
    wide('VolumeMode', field('spec.volumeMode', '<unset>')),
  ],
  storageclasses: [
    text('Name', (o) => field('metadata.name')(o) + isDefault(o, 'storageclass.kubernetes.io/is-default-class')),
    text('Provisioner', field('provisioner')),
    text('ReclaimPolicy', field('reclaimPolicy', 'Delete')),
    text('VolumeBindingMode', field('volumeBindingMode', '<unset>')),
    text('AllowVolumeExpansion', (o) => String(at(o, 'allowVolumeExpansion') === true)),
    AGE,
  ],
  ingresses: [
    NAME,
    text('Class', field('spec.ingressClassName', NONE)),
    text('Hosts', (o) =>
      joined(
        listOf(at(o, 'spec.rules'))
          .map((r) => textOf(r['host']))
          .filter(Boolean),
        '*',
      ),
    ),
    text('Address', (o) =>
      listOf(at(o, 'status.loadBalancer.ingress'))
        .map((i) => textOf(i['ip']) || textOf(i['hostname']))
        .join(','),
    ),
    text('Ports', (o) => (sizeOf(at(o, 'spec.tls')) > 0 ? '80, 443' : '80')),
    AGE,
  ],
  ingressclasses: [
    NAME,
    text('Controller', field('spec.controller')),
    text('Parameters', (o) =>
      at(o, 'spec.parameters') === undefined
        ? NONE
        : `${field('spec.parameters.kind')(o)}/${field('spec.parameters.name')(o)}`,
    ),
    AGE,
  ],
  networkpolicies: [NAME, text('Pod-Selector', (o) => selectorText(at(o, 'spec.podSelector'))), AGE],
  poddisruptionbudgets: [
    NAME,
    text('Min Available', (o) => textOf(at(o, 'spec.minAvailable'), 'N/A')),
    text('Max Unavailable', (o) => textOf(at(o, 'spec.maxUnavailable'), 'N/A')),
    integer('Allowed Disruptions', 'status.disruptionsAllowed'),
    AGE,
  ],
  resourcequotas: [NAME, text('Request', (o) => quotaText(o, false)), text('Limit', (o) => quotaText(o, true)), AGE],
  limitranges: [NAME, CREATED_AT],
  priorityclasses: [
    NAME,
    integer('Value', 'value'),
    text('Global-Default', (o) => String(at(o, 'globalDefault') === true)),
    AGE,
    text('PreemptionPolicy', field('preemptionPolicy')),
  ],
  roles: [NAME, CREATED_AT],
  clusterroles: [NAME, CREATED_AT],
  rolebindings: BINDING,
  clusterrolebindings: BINDING,
  leases: [NAME, text('Holder', field('spec.holderIdentity')), AGE],
  runtimeclasses: [NAME, text('Handler', field('handler')), AGE],
  controllerrevisions: [
    NAME,
    text('Controller', (o) => {
      const owner = listOf(at(o, 'metadata.ownerReferences')).find((r) => r['controller'] === true);
      const group = textOf(owner?.['apiVersion']).split('/')[0] ?? '';
      return owner ? `${textOf(owner['kind']).toLowerCase()}.${group}/${textOf(owner['name'])}` : NONE;
    }),
    integer('Revision', 'revision'),
    AGE,
  ],
  podtemplates: [
    NAME,
    containerNames('template.spec'),
    containerImages('template.spec'),
    wide('Pod Labels', (o) => labelsText(at(o, 'template.metadata.labels'))),
  ].map((c) => ({ ...c, wide: false })),
};
