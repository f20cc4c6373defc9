import type { TypeFacts } from '#spec/kubernetes/facts.ts';
import { compareQuantities } from '#spec/kubernetes/quantity.ts';
import { isObject, type JsonObject } from '../codec/json.ts';
import { visitStructs } from '../resources/visit.ts';
import {
  duplicate,
  type FieldError,
  fieldForbidden,
  fieldNotFound,
  invalid,
  notSupported,
  required,
  tooLong,
} from '../status.ts';
import { validateLabels } from './metadata.ts';
import {
  configKey,
  dnsLabel,
  dnsSubdomain,
  envName,
  labelValue,
  type NameRule,
  portName,
  portNumber,
  qualifiedName,
} from './names.ts';

/**
 * Rules that hold for a type wherever it stands: what the facts require and enumerate, then a row of its own where Kubernetes checks
 * more. Rules of whole kinds are in kinds.ts, rules of updates in updates.ts.
 */
const MAX_ERRORS = 200;

export function validateTypes(type: TypeFacts, object: JsonObject): FieldError[] {
  const errors: FieldError[] = [];
  const outer: Outer = { claims: [] };
  visitStructs(type, object, (t, struct, path) => {
    if (t.name === 'apps.v1.StatefulSetSpec') outer.claims = claimNames(struct);
    // Status is written by controllers; upstream checks little of it, and a wrong one must not block a spec.
    if (path.startsWith('status') || path.startsWith('metadata') || errors.length >= MAX_ERRORS) return;
    errors.push(...validateFacts(t, struct, path), ...(ROWS[t.name]?.(struct, path, outer) ?? []));
  });
  return errors;
}

// The OpenAPI marks as required what Go always writes; these may be absent from what a client sends.
const MAY_BE_ABSENT = new Set([
  'apps.v1.ControllerRevision.revision',
  'apps.v1.StatefulSetSpec.serviceName',
  'core.v1.Event.metadata',
  'core.v1.HTTPHeader.value',
  'core.v1.LimitRangeSpec.limits',
  'core.v1.Sysctl.value',
  'core.v1.ServiceAccountTokenProjection.expirationSeconds',
  'discovery.v1.EndpointSlice.endpoints',
  'rbac.v1.ClusterRole.rules',
  'rbac.v1.Role.rules',
  'scheduling.v1.PriorityClass.value',
  'networking.v1.NetworkPolicySpec.podSelector',
  'events.v1.Event.eventTime',
  'authentication.v1.TokenRequestSpec.audiences',
]);

function validateFacts(type: TypeFacts, struct: JsonObject, path: string): FieldError[] {
  const errors: FieldError[] = [];
  const at = (name: string): string => (path === '' ? name : `${path}.${name}`);
  for (const field of type.fields.values()) {
    const value = struct[field.name];
    if (value === undefined || value === '') {
      if (field.required && !MAY_BE_ABSENT.has(`${type.name}.${field.name}`) && field.name !== 'status')
        errors.push(required(at(field.name)));
    } else if (field.values && typeof value === 'string' && !field.values.includes(value)) {
      errors.push(notSupported(at(field.name), value, field.values));
    } else if (
      field.required &&
      Array.isArray(value) &&
      value.length === 0 &&
      NOT_EMPTY.has(`${type.name}.${field.name}`)
    ) {
      errors.push(required(at(field.name)));
    }
  }
  return errors;
}

const NOT_EMPTY = new Set([
  'core.v1.PodSpec.containers',
  'core.v1.NodeSelector.nodeSelectorTerms',
  'rbac.v1.PolicyRule.verbs',
]);

/** What a type's rule knows of the objects around it. */
interface Outer {
  /** Claims a stateful set makes for each pod: volumes by the same names. */
  claims: readonly string[];
}

type Row = (o: JsonObject, path: string, outer: Outer) => FieldError[];

const named =
  (rule: NameRule, field: string): Row =>
  (o, path) => {
    const value = o[field];
    const wrong = typeof value === 'string' && value !== '' ? rule(value) : undefined;
    return wrong ? [invalid(`${path}.${field}`, value, wrong)] : [];
  };

const NOTHING: Outer = { claims: [] };

const notNegative =
  (...fields: string[]): Row =>
  (o, path) =>
    fields.flatMap((f) =>
      Number(o[f]) < 0 ? [invalid(`${path}.${f}`, o[f], 'must be greater than or equal to 0')] : [],
    );

const rows =
  (...all: Row[]): Row =>
  (o, path, outer) =>
    all.flatMap((row) => row(o, path, outer));

const list = (value: unknown): JsonObject[] => (Array.isArray(value) ? value.filter(isObject) : []);
const names = (value: unknown): string[] => list(value).map((o) => String(o['name'] ?? ''));

function duplicates(value: unknown, path: string, field = 'name'): FieldError[] {
  const seen = new Set<unknown>();
  return list(value).flatMap((item, i) => {
    const id = item[field];
    const again = seen.has(id);
    seen.add(id);
    return again ? [duplicate(`${path}[${i}].${field}`, id)] : [];
  });
}

function claimNames(spec: JsonObject): string[] {
  return list(spec['volumeClaimTemplates']).map((claim) =>
    isObject(claim['metadata']) ? String(claim['metadata']['name'] ?? '') : '',
  );
}

function podSpec(o: JsonObject, path: string, outer: Outer): FieldError[] {
  const volumes = new Set([...names(o['volumes']), ...outer.claims]);
  const containers = [...list(o['initContainers']), ...list(o['containers'])];
  const errors = [...duplicates(o['volumes'], `${path}.volumes`), ...duplicates(containers, `${path}.containers`)];
  for (const part of ['initContainers', 'containers'] as const) {
    list(o[part]).forEach((container, i) => {
      list(container['volumeMounts']).forEach((mount, j) => {
        if (mount['name'] && !volumes.has(String(mount['name'])))
          errors.push(fieldNotFound(`${path}.${part}[${i}].volumeMounts[${j}].name`, mount['name']));
      });
      if (part === 'initContainers' && container['restartPolicy'] !== 'Always')
        errors.push(...noProbes(container, `${path}.${part}[${i}]`));
    });
  }
  if (Number(o['activeDeadlineSeconds']) < 1)
    errors.push(
      invalid(
        `${path}.activeDeadlineSeconds`,
        o['activeDeadlineSeconds'],
        'must be between 1 and 2147483647, inclusive',
      ),
    );
  const restart = o['restartPolicy'];
  if (restart !== undefined && !['Always', 'OnFailure', 'Never'].includes(String(restart)))
    errors.push(notSupported(`${path}.restartPolicy`, restart, ['Always', 'OnFailure', 'Never']));
  return errors;
}

function noProbes(container: JsonObject, path: string): FieldError[] {
  return ['lifecycle', 'livenessProbe', 'readinessProbe', 'startupProbe'].flatMap((f) =>
    container[f] === undefined
      ? []
      : [fieldForbidden(`${path}.${f}`, 'may not be set for init containers without restartPolicy=Always')],
  );
}

function container(o: JsonObject, path: string): FieldError[] {
  const errors = [
    ...named(dnsLabel, 'name')(o, path, NOTHING),
    ...duplicates(o['volumeMounts'], `${path}.volumeMounts`, 'mountPath'),
  ];
  if (o['image'] === undefined || o['image'] === '') errors.push(required(`${path}.image`));
  else if (String(o['image']) !== String(o['image']).trim())
    errors.push(invalid(`${path}.image`, o['image'], 'must not have leading or trailing whitespace'));
  return errors;
}

/** Exactly one of the ways a thing can be done. */
function oneSource(o: JsonObject, path: string, others: readonly string[], what: string): FieldError[] {
  const set = Object.keys(o).filter((key) => !others.includes(key) && o[key] !== undefined);
  if (set.length === 0) return [required(path, what)];
  return set
    .slice(1)
    .map((key) =>
      fieldForbidden(
        `${path}.${key}`,
        `may not specify more than 1 ${what.includes('volume') ? 'volume' : 'handler'} type`,
      ),
    );
}

function resources(o: JsonObject, path: string): FieldError[] {
  const limits = isObject(o['limits']) ? o['limits'] : {};
  const requests = isObject(o['requests']) ? o['requests'] : {};
  const negative = [
    ...Object.entries(limits).map(([k, v]) => [`limits[${k}]`, v] as const),
    ...Object.entries(requests).map(([k, v]) => [`requests[${k}]`, v] as const),
  ]
    .filter(([, v]) => String(v).startsWith('-'))
    .map(([k, v]) => invalid(`${path}.${k}`, v, 'must be greater than or equal to 0'));
  const over = Object.entries(requests).flatMap(([name, value]) => {
    const limit = limits[name];
    return limit !== undefined && compareQuantities(String(value), String(limit)) > 0
      ? [invalid(`${path}.requests`, value, `must be less than or equal to ${name} limit of ${String(limit)}`)]
      : [];
  });
  const unknown = Object.keys({ ...limits, ...requests }).flatMap((name) => {
    const wrong =
      qualifiedName(name) ??
      (name.includes('/') || STANDARD.test(name) ? undefined : 'must be a standard resource for containers');
    return wrong ? [invalid(`${path}[${name}]`, name, wrong)] : [];
  });
  return [...negative, ...over, ...unknown];
}
const STANDARD = /^(cpu|memory|ephemeral-storage|storage|hugepages-.+)$/;

function env(o: JsonObject, path: string): FieldError[] {
  const errors = named(envName, 'name')(o, path, NOTHING);
  const from = o['valueFrom'];
  if (isObject(from)) {
    if (o['value'] !== undefined && o['value'] !== '')
      errors.push(invalid(`${path}.valueFrom`, '', 'may not be specified when `value` is not empty'));
    const sources = Object.keys(from).length;
    if (sources !== 1)
      errors.push(
        invalid(
          `${path}.valueFrom`,
          '',
          sources === 0
            ? 'must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`'
            : 'may not have more than one field specified at a time',
        ),
      );
  }
  return errors;
}

function labelSelector(o: JsonObject, path: string): FieldError[] {
  return [
    ...validateLabels(o['matchLabels'] as Record<string, string> | undefined, `${path}.matchLabels`),
    ...list(o['matchExpressions']).flatMap((e, i) => {
      const at = `${path}.matchExpressions[${i}]`;
      const values = Array.isArray(e['values']) ? e['values'] : [];
      const operator = String(e['operator'] ?? '');
      const wrongKey = qualifiedName(String(e['key'] ?? ''));
      const errors = wrongKey ? [invalid(`${at}.key`, e['key'], wrongKey)] : [];
      if (operator === 'In' || operator === 'NotIn') {
        if (values.length === 0)
          errors.push(required(`${at}.values`, "must be specified when `operator` is 'In' or 'NotIn'"));
      } else if (operator === 'Exists' || operator === 'DoesNotExist') {
        if (values.length > 0)
          errors.push(
            fieldForbidden(`${at}.values`, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
          );
      } else errors.push(invalid(`${at}.operator`, operator, 'not a valid selector operator'));
      return errors;
    }),
  ];
}

function containerPort(o: JsonObject, path: string): FieldError[] {
  const errors = named(portName, 'name')(o, path, NOTHING);
  const wrong = o['containerPort'] === undefined ? undefined : portNumber(o['containerPort']);
  if (wrong) errors.push(invalid(`${path}.containerPort`, o['containerPort'], wrong));
  const host = o['hostPort'] === undefined || o['hostPort'] === 0 ? undefined : portNumber(o['hostPort']);
  if (host) errors.push(invalid(`${path}.hostPort`, o['hostPort'], host));
  return errors;
}

function servicePort(o: JsonObject, path: string): FieldError[] {
  const wrong = o['port'] === undefined ? undefined : portNumber(o['port']);
  const target = o['targetPort'];
  const wrongTarget =
    typeof target === 'string' ? portName(target) : target === undefined ? undefined : portNumber(target);
  return [
    ...named(dnsLabel, 'name')(o, path, NOTHING),
    ...(wrong ? [invalid(`${path}.port`, o['port'], wrong)] : []),
    ...(wrongTarget ? [invalid(`${path}.targetPort`, target, wrongTarget)] : []),
  ];
}

function probe(o: JsonObject, path: string): FieldError[] {
  const errors = oneSource(
    o,
    path,
    [
      'failureThreshold',
      'initialDelaySeconds',
      'periodSeconds',
      'successThreshold',
      'terminationGracePeriodSeconds',
      'timeoutSeconds',
    ],
    'must specify a handler type',
  );
  const liveness = /\.(livenessProbe|startupProbe)$/.test(path);
  if (liveness && o['successThreshold'] !== undefined && o['successThreshold'] !== 1)
    errors.push(invalid(`${path}.successThreshold`, o['successThreshold'], 'must be 1'));
  return [
    ...errors,
    ...notNegative('initialDelaySeconds', 'timeoutSeconds', 'periodSeconds', 'failureThreshold')(o, path, NOTHING),
  ];
}

function volumeMount(o: JsonObject, path: string): FieldError[] {
  const sub = o['subPath'];
  const mount = String(o['mountPath'] ?? '');
  return [
    ...(mount.includes(':') ? [invalid(`${path}.mountPath`, mount, "must not contain ':'")] : []),
    ...(typeof sub === 'string' && (sub.startsWith('/') || sub.split('/').includes('..'))
      ? [invalid(`${path}.subPath`, sub, sub.startsWith('/') ? 'must be a relative path' : "must not contain '..'")]
      : []),
  ];
}

function toleration(o: JsonObject, path: string): FieldError[] {
  const operator = o['operator'] ?? 'Equal';
  const errors: FieldError[] = [];
  if (!o['key'] && operator !== 'Exists')
    errors.push(
      invalid(
        `${path}.operator`,
        operator,
        'operator must be Exists when `key` is empty, which means "match all values and all keys"',
      ),
    );
  if (operator === 'Exists' && o['value'])
    errors.push(invalid(`${path}.operator`, o, "value must be empty when `operator` is 'Exists'"));
  if (o['tolerationSeconds'] !== undefined && o['effect'] !== 'NoExecute')
    errors.push(
      invalid(`${path}.effect`, o['effect'] ?? '', "effect must be 'NoExecute' when `tolerationSeconds` is set"),
    );
  return errors;
}

function taint(o: JsonObject, path: string): FieldError[] {
  const wrong = labelValue(String(o['value'] ?? ''));
  return [
    ...named(qualifiedName, 'key')(o, path, NOTHING),
    ...(wrong ? [invalid(`${path}.value`, o['value'], wrong)] : []),
  ];
}

function rollingUpdate(o: JsonObject, path: string): FieldError[] {
  const zero = (v: unknown): boolean => v === 0 || v === '0%' || v === undefined;
  const errors = (['maxUnavailable', 'maxSurge'] as const).flatMap((f) => {
    const v = o[f];
    if (typeof v === 'string' && !/^\d+%$/.test(v))
      return [
        invalid(
          `${path}.${f}`,
          v,
          "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        ),
      ];
    return typeof v === 'number' && v < 0 ? [invalid(`${path}.${f}`, v, 'must be greater than or equal to 0')] : [];
  });
  if (zero(o['maxUnavailable']) && zero(o['maxSurge']))
    errors.push(invalid(`${path}.maxUnavailable`, o['maxUnavailable'] ?? 0, 'may not be 0 when `maxSurge` is 0'));
  return errors;
}

function spread(o: JsonObject, path: string): FieldError[] {
  return Number(o['maxSkew']) <= 0 ? [invalid(`${path}.maxSkew`, o['maxSkew'], 'must be greater than zero')] : [];
}

const DATA_MAX_BYTES = 1024 * 1024;
function keyedData(...fields: string[]): Row {
  return (o, path) => {
    let bytes = 0;
    const errors = fields.flatMap((f) =>
      Object.entries(isObject(o[f]) ? o[f] : {}).flatMap(([key, value]) => {
        bytes += Buffer.byteLength(String(value));
        const wrong = configKey(key);
        return wrong ? [invalid(`${path === '' ? '' : `${path}.`}${f}`, key, wrong)] : [];
      }),
    );
    return bytes > DATA_MAX_BYTES * (fields.includes('binaryData') ? 1 : 4 / 3)
      ? [...errors, tooLong('', DATA_MAX_BYTES)]
      : errors;
  };
}

const ROWS: Record<string, Row> = {
  'core.v1.PodSpec': podSpec,
  'core.v1.Container': container,
  'core.v1.ContainerPort': containerPort,
  'core.v1.EnvVar': env,
  'core.v1.Volume': rows(named(dnsLabel, 'name'), (o, path) =>
    oneSource(o, path, ['name'], 'must specify a volume type'),
  ),
  'core.v1.VolumeMount': volumeMount,
  'core.v1.Probe': probe,
  'core.v1.ResourceRequirements': resources,
  'core.v1.Toleration': toleration,
  'core.v1.Taint': taint,
  'core.v1.TopologySpreadConstraint': spread,
  'core.v1.ServicePort': servicePort,
  'core.v1.ConfigMap': keyedData('data', 'binaryData'),
  'core.v1.Secret': keyedData('data'),
  'core.v1.LocalObjectReference': named(dnsSubdomain, 'name'),
  'meta.v1.LabelSelector': labelSelector,
  'apps.v1.DeploymentSpec': notNegative(
    'replicas',
    'minReadySeconds',
    'revisionHistoryLimit',
    'progressDeadlineSeconds',
  ),
  'apps.v1.RollingUpdateDeployment': rollingUpdate,
  'apps.v1.ReplicaSetSpec': notNegative('replicas', 'minReadySeconds'),
  'apps.v1.StatefulSetSpec': notNegative('replicas', 'minReadySeconds', 'revisionHistoryLimit'),
  'apps.v1.DaemonSetSpec': notNegative('minReadySeconds', 'revisionHistoryLimit'),
  'batch.v1.JobSpec': notNegative(
    'parallelism',
    'completions',
    'backoffLimit',
    'ttlSecondsAfterFinished',
    'activeDeadlineSeconds',
  ),
  'batch.v1.CronJobSpec': notNegative(
    'successfulJobsHistoryLimit',
    'failedJobsHistoryLimit',
    'startingDeadlineSeconds',
  ),
};
