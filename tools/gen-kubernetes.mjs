#!/usr/bin/env node
// Kubernetes' published API (Swagger 2.0, optionally gzipped) → src/spec/kubernetes/facts.gen.ts (the table that drives the API
// server) and types.gen.ts (the same as TypeScript). Facts only: names, types, list types, merge keys, verbs; descriptions stay out.
//
//     node tools/gen-kubernetes.mjs /path/to/swagger.json.gz /path/to/kubernetes/api /path/to/kubernetes/apimachinery
//
// The two checkouts hold `generated.proto` files: field numbers of the protobuf form, which typed clients send.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';

// The Swagger file itself says 'unversioned'.
const RELEASE = '1.36';
const OUT = new URL('../src/spec/kubernetes/', import.meta.url);

// Groups and kinds that are served. What is not named here is absent from discovery and refused by name.
const SERVED = {
  v1: 'Binding ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount',
  'apps/v1': 'ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet',
  'authentication.k8s.io/v1': 'SelfSubjectReview TokenReview TokenRequest',
  'authorization.k8s.io/v1':
    'LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview',
  'autoscaling/v2': 'HorizontalPodAutoscaler',
  'autoscaling/v1': 'HorizontalPodAutoscaler Scale',
  'batch/v1': 'CronJob Job',
  'coordination.k8s.io/v1': 'Lease',
  'discovery.k8s.io/v1': 'EndpointSlice',
  'events.k8s.io/v1': 'Event',
  'networking.k8s.io/v1': 'Ingress IngressClass NetworkPolicy',
  'node.k8s.io/v1': 'RuntimeClass',
  'policy/v1': 'Eviction PodDisruptionBudget',
  'rbac.authorization.k8s.io/v1': 'ClusterRole ClusterRoleBinding Role RoleBinding',
  'scheduling.k8s.io/v1': 'PriorityClass',
  'storage.k8s.io/v1': 'StorageClass',
};

// Discovery facts that Swagger does not carry: short names and categories, as `kubectl api-resources` prints them.
const SHORT = {
  configmaps: 'cm',
  endpoints: 'ep',
  events: 'ev',
  limitranges: 'limits',
  namespaces: 'ns',
  nodes: 'no',
  persistentvolumeclaims: 'pvc',
  persistentvolumes: 'pv',
  pods: 'po',
  replicationcontrollers: 'rc',
  resourcequotas: 'quota',
  serviceaccounts: 'sa',
  services: 'svc',
  daemonsets: 'ds',
  deployments: 'deploy',
  replicasets: 'rs',
  statefulsets: 'sts',
  cronjobs: 'cj',
  horizontalpodautoscalers: 'hpa',
  ingresses: 'ing',
  networkpolicies: 'netpol',
  poddisruptionbudgets: 'pdb',
  priorityclasses: 'pc',
  storageclasses: 'sc',
};
const IN_ALL = new Set(
  'pods replicationcontrollers services daemonsets deployments replicasets statefulsets cronjobs jobs horizontalpodautoscalers'.split(
    ' ',
  ),
);

// Other meta objects that travel on the wire without being stored.
const META = [
  'Status',
  'DeleteOptions',
  'APIGroupList',
  'APIResourceList',
  'LabelSelector',
  'ListMeta',
  'ObjectMeta',
  'Condition',
];

const [, , source, apiDir, machineryDir] = process.argv;
if (!source || !apiDir || !machineryDir)
  throw new Error('usage: gen-kubernetes.mjs SWAGGER.json[.gz] API_DIR APIMACHINERY_DIR');
const raw = readFileSync(source);
const swagger = JSON.parse((source.endsWith('.gz') ? gunzipSync(raw) : raw).toString('utf8'));

// ---- names: io.k8s.api.core.v1.Pod → core.v1.Pod; io.k8s.apimachinery.pkg.apis.meta.v1.X → meta.v1.X
const short = (ref) =>
  ref
    .replace('#/definitions/', '')
    .replace(/^io\.k8s\.apimachinery\.pkg\.apis\./, '')
    .replace(/^io\.k8s\.api\./, '');
const full = new Map(Object.keys(swagger.definitions).map((name) => [short(name), name]));

const SCALARS = {
  'io.k8s.apimachinery.pkg.util.intstr.IntOrString': 'intstr',
  'io.k8s.apimachinery.pkg.api.resource.Quantity': 'quantity',
  'io.k8s.apimachinery.pkg.apis.meta.v1.Time': 'time',
  'io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime': 'microtime',
  'io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1': 'any',
  'io.k8s.apimachinery.pkg.apis.meta.v1.Patch': 'any',
  'io.k8s.apimachinery.pkg.runtime.RawExtension': 'any',
};

function typeOf(schema) {
  if (schema.$ref) return SCALARS[schema.$ref.replace('#/definitions/', '')] ?? short(schema.$ref);
  switch (schema.type) {
    case 'array':
      return `[${typeOf(schema.items)}]`;
    case 'object':
      return schema.additionalProperties ? `{${typeOf(schema.additionalProperties)}}` : 'any';
    case 'string':
      return schema.format === 'byte' ? 'bytes' : 'string';
    case 'integer':
      return schema.format === 'int64' ? 'int64' : 'int32';
    case 'number':
      return 'double';
    case 'boolean':
      return 'bool';
    default:
      return 'any';
  }
}

function attributesOf(schema) {
  const out = [];
  const list = schema['x-kubernetes-list-type'];
  if (list === 'map') out.push(`map=${schema['x-kubernetes-list-map-keys'].join(',')}`);
  else if (list) out.push(list);
  if (schema['x-kubernetes-map-type'] === 'atomic') out.push('atomic');
  if (schema['x-kubernetes-patch-merge-key']) out.push(`merge=${schema['x-kubernetes-patch-merge-key']}`);
  const strategies = (schema['x-kubernetes-patch-strategy'] ?? '').split(',').filter(Boolean);
  if (strategies.includes('retainKeys')) out.push('retain');
  if (strategies.includes('merge') && !schema['x-kubernetes-patch-merge-key']) out.push('merge');
  if (schema.enum) out.push(`enum=${schema.enum.join('|')}`);
  return out;
}

// ---- which types: everything reachable from the served kinds
const reached = new Set();
function reach(name) {
  if (reached.has(name) || !full.has(name)) return;
  reached.add(name);
  const text = JSON.stringify(swagger.definitions[full.get(name)]);
  for (const [, ref] of text.matchAll(/"\$ref":"#\/definitions\/([^"]+)"/g)) if (!SCALARS[ref]) reach(short(ref));
}
const kindOf = new Map(); // short type name → [apiVersion, kind]
for (const [name, schema] of Object.entries(swagger.definitions)) {
  for (const { group, version, kind } of schema['x-kubernetes-group-version-kind'] ?? []) {
    const apiVersion = group ? `${group}/${version}` : version;
    const served = SERVED[apiVersion]?.split(' ') ?? [];
    const base = kind.replace(/List$/, '');
    if (name.includes('.apimachinery.') || !(served.includes(kind) || served.includes(base))) continue;
    kindOf.set(short(name), [apiVersion, kind]);
    reach(short(name));
  }
}
for (const kind of META) reach(`meta.v1.${kind}`);

// ---- protobuf: field numbers by type; what JSON inlines is a message of its own there, so a number may be a path: 2.5
const messages = new Map(); // core.v1.Pod → Map(field → { number, type })
function readProto(file) {
  const text = readFileSync(file, 'utf8').replace(/\/\/.*$/gm, '');
  const pkg = /^package ([\w.]+);/m.exec(text)?.[1] ?? '';
  const prefix = pkg.replace(/^k8s\.io\.apimachinery\.pkg\.apis\./, '').replace(/^k8s\.io\.api\./, '');
  for (const [, name, body] of text.matchAll(/^message (\w+) \{([\s\S]*?)^\}/gm)) {
    const fields = new Map();
    for (const [, type, field, number] of body.matchAll(
      /^\s*(?:optional |repeated )?((?:map<[^>]+>)|[\w.]+) (\w+) = (\d+);/gm,
    )) {
      const full = type
        .replace(/^\./, '')
        .replace(/^k8s\.io\.apimachinery\.pkg\.apis\./, '')
        .replace(/^k8s\.io\.api\./, '');
      fields.set(field, { number, type: full.includes('.') ? full : `${prefix}.${full}` });
    }
    messages.set(`${prefix}.${name}`, fields);
  }
}
for (const dir of [apiDir, machineryDir]) {
  for (const file of readdirSync(dir, { recursive: true, encoding: 'utf8' }))
    if (file.endsWith('generated.proto')) readProto(join(dir, file));
}
function wirePath(typeName, field, depth = 0) {
  const message = messages.get(typeName);
  if (!message) return undefined;
  // Go's own capitals show in two names: uID, aPIGroup.
  const direct = message.get(field) ?? [...message].find(([name]) => name.toLowerCase() === field.toLowerCase())?.[1];
  if (direct) return direct.number;
  if (depth > 2) return undefined;
  const known = swagger.definitions[full.get(typeName)]?.properties ?? {};
  for (const [name, { number, type }] of message) {
    // A member that JSON does not know stands for its own members.
    if (depth === 0 && name in known) continue;
    const inner = messages.has(type) ? wirePath(type, field, depth + 1) : undefined;
    if (inner) return `${number}.${inner}`;
  }
  return undefined;
}
const noWire = [];

// ---- resources: paths give scope, verbs and sub-resources
const resources = new Map();
for (const [path, item] of Object.entries(swagger.paths)) {
  const m =
    /^\/(?:api|apis\/([^/]+))\/([^/]+)\/(namespaces\/\{namespace\}\/)?([a-z]+)(?:\/\{name\}(?:\/([a-z]+)(\/\{path\})?)?)?$/.exec(
      path,
    );
  if (!m || m[6] || path.includes('/watch/')) continue;
  const [, group = '', version, namespaced, plural, sub] = m;
  const apiVersion = group ? `${group}/${version}` : version;
  for (const op of Object.values(item)) {
    const gvk = op['x-kubernetes-group-version-kind'];
    const action = op['x-kubernetes-action'];
    if (!gvk || !action) continue;
    const key = `${apiVersion} ${plural}`;
    if (!sub && !SERVED[apiVersion]?.split(' ').includes(gvk.kind)) continue;
    if (sub && !resources.has(key) && !Object.keys(SERVED).includes(apiVersion)) continue;
    const entry = resources.get(key) ?? {
      apiVersion,
      plural,
      kind: '',
      namespaced: false,
      verbs: new Set(),
      subs: new Map(),
    };
    resources.set(key, entry);
    if (namespaced) entry.namespaced = true;
    const verb = {
      get: 'get',
      list: 'list',
      post: 'create',
      put: 'update',
      patch: 'patch',
      delete: 'delete',
      deletecollection: 'deletecollection',
      connect: 'connect',
    }[action];
    if (sub) {
      const s = entry.subs.get(sub) ?? {
        kind: gvk.kind,
        apiVersion: gvk.group ? `${gvk.group}/${gvk.version}` : gvk.version,
        verbs: new Set(),
      };
      s.verbs.add(verb);
      entry.subs.set(sub, s);
    } else {
      entry.kind = gvk.kind;
      entry.verbs.add(verb);
      if (verb === 'list') entry.verbs.add('watch');
    }
  }
}

const LATER = ['ephemeralcontainers', 'resize']; // sub-resources of a later round
const order = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch', 'connect'];
const verbs = (set) => order.filter((v) => set.has(v)).join(',');

const lines = [];
for (const r of resources.values()) {
  if (!r.kind) continue;
  const apiOrder = r.plural;
  lines.push(
    `R ${r.apiVersion} ${apiOrder} ${r.kind} ${r.namespaced ? 'namespaced' : 'cluster'} ${verbs(r.verbs)} ${SHORT[r.plural] ?? '-'} ${IN_ALL.has(r.plural) ? 'all' : '-'}`,
  );
  for (const [name, s] of [...r.subs].sort())
    if (!LATER.includes(name)) lines.push(`S ${name} ${s.apiVersion} ${s.kind} ${verbs(s.verbs)}`);
}
for (const name of [...reached].sort()) {
  const schema = swagger.definitions[full.get(name)];
  const gvk = kindOf.get(name);
  lines.push(
    `T ${name}${schema['x-kubernetes-map-type'] === 'atomic' ? ' atomic' : ''}${gvk ? ` kind=${gvk.join(',')}` : ''}`,
  );
  for (const [field, p] of Object.entries(schema.properties ?? {}).sort()) {
    const required = (schema.required ?? []).includes(field) ? '!' : '';
    const wire = wirePath(name, field);
    if (!wire && field !== 'apiVersion' && field !== 'kind') noWire.push(`${name}.${field}`);
    lines.push(`${field}${required} ${[typeOf(p), ...attributesOf(p), ...(wire ? [`#${wire}`] : [])].join(' ')}`);
  }
}
if (noWire.length > 0) process.stderr.write(`without a protobuf number: ${noWire.join(' ')}\n`);
const head = (what) =>
  `// ${what}\n// Generated by tools/gen-kubernetes.mjs from Kubernetes ${RELEASE}'s OpenAPI; do not edit.\n`;
writeFileSync(
  new URL('facts.gen.ts', OUT),
  `${head('The facts of the Kubernetes API as a table; facts.ts tells the grammar of a line.')}export const VERSION = '${RELEASE}';\nexport const FACTS = \`\\\n${lines.join('\n').replaceAll('`', '\\`').replaceAll('${', '\\${')}\`;\n`,
);

// ---- TypeScript: one interface a type, named by its kind; where two groups share a name, the less used one gets a prefix.
const PREFERRED = ['core.v1', 'meta.v1', 'apps.v1', 'batch.v1', 'autoscaling.v2', 'networking.v1', 'policy.v1'];
const rank = (name) => {
  const at = PREFERRED.indexOf(name.slice(0, name.lastIndexOf('.')));
  return at < 0 ? PREFERRED.length : at;
};
const tsNames = new Map();
const taken = new Set(['Quantity', 'IntOrString', 'Time', 'MicroTime', 'KubernetesObject']);
for (const name of [...reached].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1))) {
  const [group, version, kind] = name.split('.');
  const pick = taken.has(kind) ? `${group[0].toUpperCase()}${group.slice(1)}${version.toUpperCase()}${kind}` : kind;
  taken.add(pick);
  tsNames.set(name, pick);
}
const TS = {
  string: 'string',
  bytes: 'string',
  bool: 'boolean',
  int32: 'number',
  int64: 'number',
  double: 'number',
  any: 'unknown',
  intstr: 'IntOrString',
  quantity: 'Quantity',
  time: 'Time',
  microtime: 'MicroTime',
};
function tsType(type, attributes) {
  const e = attributes.find((a) => a.startsWith('enum='));
  if (e && type === 'string')
    return e
      .slice(5)
      .split('|')
      .map((v) => `'${v}'`)
      .join(' | ');
  if (type.startsWith('[')) {
    const item = tsType(type.slice(1, -1), attributes);
    return item.includes(' ') ? `(${item})[]` : `${item}[]`;
  }
  if (type.startsWith('{')) return `Record<string, ${tsType(type.slice(1, -1), [])}>`;
  return TS[type] ?? tsNames.get(type) ?? 'unknown';
}
const ts = [...reached]
  .sort((a, b) => (tsNames.get(a) < tsNames.get(b) ? -1 : 1))
  .map((name) => {
    const schema = swagger.definitions[full.get(name)];
    const gvk = kindOf.get(name);
    const fields = Object.entries(schema.properties ?? {}).map(([field, p]) => {
      // What the server has stored always has metadata and, where the kind knows one, a spec.
      const sure = (schema.required ?? []).includes(field) || (gvk && (field === 'metadata' || field === 'spec'));
      const type =
        gvk && field === 'apiVersion'
          ? `'${gvk[0]}'`
          : gvk && field === 'kind'
            ? `'${gvk[1]}'`
            : tsType(typeOf(p), attributesOf(p));
      return `  ${/^[A-Za-z_$][\w$]*$/.test(field) ? field : `'${field}'`}${sure ? '' : '?'}: ${type};\n`;
    });
    return `export interface ${tsNames.get(name)} {\n${fields.join('')}}\n`;
  });
const table = [...kindOf]
  .filter(([, [, kind]]) => !kind.endsWith('List'))
  .map(([name, [apiVersion, kind]]) => `  '${apiVersion} ${kind}': ${tsNames.get(name)};\n`);
writeFileSync(
  new URL('types.gen.ts', OUT),
  `${head('The objects of the Kubernetes API as TypeScript.')}
/** As \`100m\`, \`1.5Gi\`, \`2e3\`; quantity.ts reads it. */
export type Quantity = string;
export type IntOrString = number | string;
/** RFC 3339, seconds, UTC. */
export type Time = string;
/** RFC 3339 with six digits of a second, UTC. */
export type MicroTime = string;
/** What every stored object has. */
export interface KubernetesObject {
  apiVersion?: string;
  kind?: string;
  metadata: ObjectMeta;
}

${ts.join('\n')}
/** Every served kind by \`apiVersion kind\`. */
export interface KindTable {
${table.join('')}}
`,
);
