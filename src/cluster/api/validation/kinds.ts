import { isIP } from 'node:net';
import { Cron } from 'croner';
import type { KubeObject } from '#cluster/store/objects.ts';
import { matchesSelector } from '#spec/kubernetes/selector.ts';
import type { LabelSelector } from '#spec/kubernetes/types.gen.ts';
import { isObject, type JsonObject } from '../codec/json.ts';
import { duplicate, type FieldError, fieldForbidden, invalid, notSupported, required } from '../status.ts';
import { dnsSubdomain, qualifiedName } from './names.ts';

/** Rules of whole kinds, by `Kind`: what looks at more than one part of the object. */
export type KindRule = (object: KubeObject) => FieldError[];

const spec = (o: KubeObject): JsonObject => (isObject(o['spec']) ? o['spec'] : {});
const list = (value: unknown): JsonObject[] => (Array.isArray(value) ? value.filter(isObject) : []);
const templateOf = (s: JsonObject): JsonObject => (isObject(s['template']) ? s['template'] : {});
const templateLabels = (s: JsonObject): Record<string, string> | undefined => {
  const metadata = templateOf(s)['metadata'];
  return isObject(metadata) ? (metadata['labels'] as Record<string, string> | undefined) : undefined;
};
const templateSpec = (s: JsonObject): JsonObject => {
  const inner = templateOf(s)['spec'];
  return isObject(inner) ? inner : {};
};

/** Workloads whose selector must select what their template makes, and whose pods always restart. */
function workload(o: KubeObject): FieldError[] {
  const s = spec(o);
  const selector = s['selector'] as LabelSelector | undefined;
  const errors: FieldError[] = [];
  if (selector && Object.keys(selector.matchLabels ?? {}).length + (selector.matchExpressions ?? []).length === 0)
    errors.push(invalid('spec.selector', selector, `empty selector is invalid for ${o.kind.toLowerCase()}`));
  else if (selector && s['template'] !== undefined && !matchesSelector(selector, templateLabels(s)))
    errors.push(
      invalid('spec.template.metadata.labels', templateLabels(s) ?? {}, '`selector` does not match template `labels`'),
    );
  const restart = templateSpec(s)['restartPolicy'];
  if (restart !== undefined && restart !== 'Always')
    errors.push(notSupported('spec.template.spec.restartPolicy', restart, ['Always']));
  if (templateSpec(s)['activeDeadlineSeconds'] !== undefined)
    errors.push(
      fieldForbidden('spec.template.spec.activeDeadlineSeconds', `activeDeadlineSeconds in ${o.kind} is not Supported`),
    );
  return errors;
}

function deployment(o: KubeObject): FieldError[] {
  const s = spec(o);
  const deadline = Number(s['progressDeadlineSeconds'] ?? 600);
  const ready = Number(s['minReadySeconds'] ?? 0);
  const strategy = isObject(s['strategy']) ? s['strategy'] : {};
  return [
    ...workload(o),
    ...(deadline <= ready
      ? [invalid('spec.progressDeadlineSeconds', deadline, 'must be greater than minReadySeconds')]
      : []),
    ...(strategy['type'] === 'Recreate' && strategy['rollingUpdate'] !== undefined
      ? [fieldForbidden('spec.strategy.rollingUpdate', "may not be specified when strategy `type` is 'Recreate'")]
      : []),
  ];
}

function jobTemplateRules(s: JsonObject, at: string): FieldError[] {
  const restart = templateSpec(s)['restartPolicy'];
  const errors: FieldError[] = [];
  if (s['template'] !== undefined && restart !== 'OnFailure' && restart !== 'Never') {
    errors.push(
      restart === 'Always' || restart === undefined
        ? required(`${at}.template.spec.restartPolicy`, 'valid values: "OnFailure", "Never"')
        : notSupported(`${at}.template.spec.restartPolicy`, restart, ['OnFailure', 'Never']),
    );
  }
  if (s['completionMode'] === 'Indexed' && s['completions'] === undefined)
    errors.push(required(`${at}.completions`, 'when completion mode is Indexed'));
  if (s['podFailurePolicy'] !== undefined && restart !== 'Never')
    errors.push(
      invalid(
        `${at}.template.spec.restartPolicy`,
        restart ?? '',
        'only "Never" is supported when podFailurePolicy is specified',
      ),
    );
  return errors;
}

function cronJob(o: KubeObject): FieldError[] {
  const s = spec(o);
  const errors: FieldError[] = [];
  const schedule = String(s['schedule'] ?? '');
  if (schedule.includes('TZ'))
    errors.push(invalid('spec.schedule', schedule, 'cannot use TZ or CRON_TZ in schedule, use timeZone field instead'));
  else if (schedule !== '' && !isSchedule(schedule))
    errors.push(
      invalid(
        'spec.schedule',
        schedule,
        'is not a cron schedule: expected five fields or a descriptor such as @hourly',
      ),
    );
  const zone = s['timeZone'];
  if (typeof zone === 'string' && !isTimeZone(zone))
    errors.push(invalid('spec.timeZone', zone, `unknown time zone ${zone}`));
  if (o.metadata.name.length > 52)
    errors.push(invalid('metadata.name', o.metadata.name, 'must be no more than 52 characters'));
  const job = isObject(s['jobTemplate']) && isObject(s['jobTemplate']['spec']) ? s['jobTemplate']['spec'] : undefined;
  return job ? [...errors, ...jobTemplateRules(job, 'spec.jobTemplate.spec')] : errors;
}

function isSchedule(text: string): boolean {
  if (/^@every \d+(\.\d+)?(ns|us|ms|s|m|h)/.test(text)) return true;
  try {
    new Cron(text, { paused: true });
    return text.startsWith('@') || text.trim().split(/\s+/).length === 5;
  } catch {
    return false; // that it does not parse is the answer
  }
}

function isTimeZone(zone: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: zone });
    return zone !== '' && zone.toLowerCase() !== 'local';
  } catch {
    return false; // RangeError: unknown zone
  }
}

function service(o: KubeObject): FieldError[] {
  const s = spec(o);
  const ports = list(s['ports']);
  const errors: FieldError[] = [];
  const headless = s['clusterIP'] === 'None';
  if (ports.length === 0 && s['type'] !== 'ExternalName' && !headless) errors.push(required('spec.ports'));
  if (ports.length > 1)
    for (const [i, p] of ports.entries()) if (!p['name']) errors.push(required(`spec.ports[${i}].name`));
  const seenNames = new Set<unknown>();
  const seenPorts = new Set<string>();
  ports.forEach((p, i) => {
    if (p['name'] && seenNames.has(p['name'])) errors.push(duplicate(`spec.ports[${i}].name`, p['name']));
    seenNames.add(p['name']);
    const id = `${String(p['port'])}/${String(p['protocol'])}`;
    if (seenPorts.has(id)) errors.push(duplicate(`spec.ports[${i}]`, { port: p['port'], protocol: p['protocol'] }));
    seenPorts.add(id);
    if (p['nodePort'] && (s['type'] === 'ClusterIP' || s['type'] === 'ExternalName'))
      errors.push(fieldForbidden(`spec.ports[${i}].nodePort`, "may not be used when `type` is 'ClusterIP'"));
  });
  if (s['type'] === 'ExternalName') {
    const name = String(s['externalName'] ?? '').replace(/\.$/, '');
    const wrong = name === '' ? undefined : dnsSubdomain(name);
    if (name === '') errors.push(required('spec.externalName'));
    else if (wrong) errors.push(invalid('spec.externalName', name, wrong));
    if (s['clusterIP'] !== undefined && s['clusterIP'] !== '')
      errors.push(fieldForbidden('spec.clusterIPs[0]', "may not be set when `type` is 'ExternalName'"));
  }
  for (const [i, ip] of (Array.isArray(s['externalIPs']) ? s['externalIPs'] : []).entries())
    if (isIP(String(ip)) === 0)
      errors.push(
        invalid(`spec.externalIPs[${i}]`, ip, 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'),
      );
  if (typeof s['clusterIP'] === 'string' && s['clusterIP'] !== '' && !headless && isIP(s['clusterIP']) === 0)
    errors.push(
      invalid('spec.clusterIPs[0]', s['clusterIP'], 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'),
    );
  return errors;
}

function ingress(o: KubeObject): FieldError[] {
  const s = spec(o);
  const errors: FieldError[] = [];
  if (list(s['rules']).length === 0 && s['defaultBackend'] === undefined)
    errors.push(invalid('spec', {}, 'either `defaultBackend` or `rules` must be specified'));
  list(s['rules']).forEach((rule, i) => {
    const host = String(rule['host'] ?? '');
    const wrong = host === '' ? undefined : dnsSubdomain(host.replace(/^\*\./, ''));
    if (isIP(host) !== 0) errors.push(invalid(`spec.rules[${i}].host`, host, 'must be a DNS name, not an IP address'));
    else if (wrong) errors.push(invalid(`spec.rules[${i}].host`, host, wrong));
    const http = isObject(rule['http']) ? rule['http'] : {};
    list(http['paths']).forEach((p, j) => {
      const at = `spec.rules[${i}].http.paths[${j}]`;
      const path = String(p['path'] ?? '');
      if (p['pathType'] !== 'ImplementationSpecific' && !path.startsWith('/'))
        errors.push(invalid(`${at}.path`, path, 'must be an absolute path'));
      errors.push(...backend(isObject(p['backend']) ? p['backend'] : {}, `${at}.backend`));
    });
  });
  if (isObject(s['defaultBackend'])) errors.push(...backend(s['defaultBackend'], 'spec.defaultBackend'));
  return errors;
}

function backend(b: JsonObject, at: string): FieldError[] {
  const svc = b['service'];
  if (!isObject(svc))
    return b['resource'] === undefined ? [required(at, 'resource or service backend is required')] : [];
  const port = isObject(svc['port']) ? svc['port'] : {};
  return port['name'] || port['number'] ? [] : [required(`${at}.service.port`, 'port name or number is required')];
}

function networkPolicy(o: KubeObject): FieldError[] {
  const s = spec(o);
  const peers = (direction: 'ingress' | 'egress', side: 'from' | 'to'): FieldError[] =>
    list(s[direction]).flatMap((rule, i) =>
      list(rule[side]).flatMap((peer, j) => {
        const at = `spec.${direction}[${i}].${side}[${j}]`;
        if (Object.keys(peer).length === 0) return [required(at, 'must specify a peer')];
        const block = peer['ipBlock'];
        if (!isObject(block)) return [];
        if (Object.keys(peer).length > 1) return [fieldForbidden(at, 'may not specify both ipBlock and another peer')];
        return isCidr(String(block['cidr']))
          ? []
          : [
              invalid(
                `${at}.ipBlock.cidr`,
                block['cidr'],
                'must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)',
              ),
            ];
      }),
    );
  return [...peers('ingress', 'from'), ...peers('egress', 'to')];
}

export function isCidr(text: string): boolean {
  const [address = '', bits = ''] = text.split('/');
  const family = isIP(address);
  return family !== 0 && /^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128);
}

function autoscaler(o: KubeObject): FieldError[] {
  const s = spec(o);
  const min = Number(s['minReplicas'] ?? 1);
  const max = Number(s['maxReplicas'] ?? 0);
  return [
    ...(max < 1 ? [invalid('spec.maxReplicas', max, 'must be greater than 0')] : []),
    ...(min < 1 ? [invalid('spec.minReplicas', min, 'must be greater than or equal to 1')] : []),
    ...(max < min ? [invalid('spec.maxReplicas', max, 'must be greater than or equal to `minReplicas`')] : []),
  ];
}

function disruptionBudget(o: KubeObject): FieldError[] {
  const s = spec(o);
  return s['minAvailable'] !== undefined && s['maxUnavailable'] !== undefined
    ? [
        invalid(
          'spec',
          { minAvailable: s['minAvailable'], maxUnavailable: s['maxUnavailable'] },
          'minAvailable and maxUnavailable cannot be both set',
        ),
      ]
    : [];
}

function claim(o: KubeObject): FieldError[] {
  const s = spec(o);
  const resources = isObject(s['resources']) && isObject(s['resources']['requests']) ? s['resources']['requests'] : {};
  return [
    ...(Array.isArray(s['accessModes']) && s['accessModes'].length > 0
      ? []
      : [required('spec.accessModes', 'at least 1 access mode is required')]),
    ...(resources['storage'] === undefined ? [required('spec.resources[storage]')] : []),
  ];
}

function volume(o: KubeObject): FieldError[] {
  const s = spec(o);
  const known = [
    'accessModes',
    'capacity',
    'claimRef',
    'mountOptions',
    'nodeAffinity',
    'persistentVolumeReclaimPolicy',
    'storageClassName',
    'volumeAttributesClassName',
    'volumeMode',
  ];
  const sources = Object.keys(s).filter((key) => !known.includes(key));
  return [
    ...(Array.isArray(s['accessModes']) && s['accessModes'].length > 0 ? [] : [required('spec.accessModes')]),
    ...(isObject(s['capacity']) && s['capacity']['storage'] !== undefined ? [] : [required('spec.capacity')]),
    ...(sources.length === 0 ? [required('spec', 'must specify a volume type')] : []),
    ...sources.slice(1).map((source) => fieldForbidden(`spec.${source}`, 'may not specify more than 1 volume type')),
  ];
}

function roleBinding(o: KubeObject): FieldError[] {
  const ref = isObject(o['roleRef']) ? o['roleRef'] : {};
  const kinds = o.kind === 'RoleBinding' ? ['Role', 'ClusterRole'] : ['ClusterRole'];
  const errors: FieldError[] = [];
  if (ref['kind'] !== undefined && !kinds.includes(String(ref['kind'])))
    errors.push(notSupported('roleRef.kind', ref['kind'], kinds));
  list(o['subjects']).forEach((subject, i) => {
    if (!['User', 'Group', 'ServiceAccount'].includes(String(subject['kind'])))
      errors.push(notSupported(`subjects[${i}].kind`, subject['kind'], ['ServiceAccount', 'User', 'Group']));
    else if (subject['kind'] === 'ServiceAccount' && o.kind === 'ClusterRoleBinding' && !subject['namespace'])
      errors.push(required(`subjects[${i}].namespace`));
  });
  return errors;
}

function role(o: KubeObject): FieldError[] {
  return list(o['rules']).flatMap((rule, i) => {
    const at = `rules[${i}]`;
    const many = (f: string): number => (Array.isArray(rule[f]) ? rule[f].length : 0);
    if (many('nonResourceURLs') > 0)
      return o.kind === 'Role'
        ? [
            invalid(
              `${at}.nonResourceURLs`,
              rule['nonResourceURLs'],
              'namespaced rules cannot apply to non-resource URLs',
            ),
          ]
        : [];
    return [
      ...(many('apiGroups') === 0
        ? [required(`${at}.apiGroups`, 'resource rules must supply at least one api group')]
        : []),
      ...(many('resources') === 0
        ? [required(`${at}.resources`, 'resource rules must supply at least one resource')]
        : []),
    ];
  });
}

function priorityClass(o: KubeObject): FieldError[] {
  const value = Number(o['value'] ?? 0);
  return value > 1_000_000_000 && !o.metadata.name.startsWith('system-')
    ? [fieldForbidden('value', 'maximum allowed value of a user defined priority is 1000000000')]
    : [];
}

function pod(o: KubeObject): FieldError[] {
  const node = spec(o)['nodeName'];
  const wrong = typeof node === 'string' && node !== '' ? dnsSubdomain(node) : undefined;
  return [
    ...(wrong ? [invalid('spec.nodeName', node, wrong)] : []),
    ...(list(spec(o)['ephemeralContainers']).length > 0
      ? [fieldForbidden('spec.ephemeralContainers', 'cannot be set on create')]
      : []),
  ];
}

function node(o: KubeObject): FieldError[] {
  return list(spec(o)['taints']).flatMap((taint, i) => {
    const wrong = qualifiedName(String(taint['key'] ?? ''));
    return wrong ? [invalid(`spec.taints[${i}].key`, taint['key'], wrong)] : [];
  });
}

export const KIND_RULES: Record<string, KindRule> = {
  Pod: pod,
  Node: node,
  Deployment: deployment,
  ReplicaSet: workload,
  StatefulSet: workload,
  DaemonSet: workload,
  Job: (o) => jobTemplateRules(spec(o), 'spec'),
  CronJob: cronJob,
  Service: service,
  Ingress: ingress,
  NetworkPolicy: networkPolicy,
  HorizontalPodAutoscaler: autoscaler,
  PodDisruptionBudget: disruptionBudget,
  PersistentVolumeClaim: claim,
  PersistentVolume: volume,
  RoleBinding: roleBinding,
  ClusterRoleBinding: roleBinding,
  Role: role,
  ClusterRole: role,
  PriorityClass: priorityClass,
};
