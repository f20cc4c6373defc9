import { createHash } from 'node:crypto';
import {
  type FieldType,
  KUBERNETES_VERSION,
  kubernetesFacts,
  pathOf,
  type ResourceFacts,
  type TypeFacts,
} from '#spec/kubernetes/facts.ts';
import { type Dialect, definitionName, refTo, type Schema, split, typeSchema } from './schema.ts';

/**
 * OpenAPI documents made from the facts at first use: one of version 2 for everything, one of version 3 for each group and version.
 * Paths carry what clients look for in them: the kind, the action, and the parameters of a PATCH that tell them that the server
 * validates fields and knows dry runs.
 */
let v2: string | undefined;
const v3 = new Map<string, string>();

export function openApiV2(): string {
  v2 ??= JSON.stringify(documentV2());
  return v2;
}

export function documentV2(): {
  definitions: Record<string, Schema>;
  paths: Record<string, Schema>;
  [field: string]: unknown;
} {
  const definitions: Record<string, Schema> = {};
  for (const type of kubernetesFacts().types.values()) definitions[definitionName(type.name)] = typeSchema(type, 'v2');
  return {
    swagger: '2.0',
    info: { title: 'Kubernetes', version: `v${KUBERNETES_VERSION}.0` },
    paths: pathsOf(kubernetesFacts().resources, 'v2'),
    definitions,
  };
}

/** `/openapi/v3`: where each document is; the hash lets clients keep it. */
export function openApiV3Index(): object {
  const paths: Record<string, { serverRelativeURL: string }> = {};
  for (const apiVersion of versions()) {
    const path = folderOf(apiVersion);
    const hash = createHash('sha256')
      .update(openApiV3(apiVersion) ?? '')
      .digest('hex')
      .slice(0, 32)
      .toUpperCase();
    paths[path] = { serverRelativeURL: `/openapi/v3/${path}?hash=${hash}` };
  }
  return { paths };
}

export function openApiV3(apiVersion: string): string | undefined {
  const known = v3.get(apiVersion);
  if (known !== undefined) return known;
  const resources = kubernetesFacts().resources.filter((r) => r.apiVersion === apiVersion);
  if (resources.length === 0) return undefined;
  const schemas: Record<string, Schema> = {};
  for (const type of reachable(resources)) schemas[definitionName(type.name)] = typeSchema(type, 'v3');
  const text = JSON.stringify({
    openapi: '3.0.0',
    info: { title: 'Kubernetes', version: `v${KUBERNETES_VERSION}.0` },
    paths: pathsOf(resources, 'v3'),
    components: { schemas },
  });
  v3.set(apiVersion, text);
  return text;
}

function versions(): Set<string> {
  return new Set(kubernetesFacts().resources.map((r) => r.apiVersion));
}

export function folderOf(apiVersion: string): string {
  return apiVersion.includes('/') ? `apis/${apiVersion}` : `api/${apiVersion}`;
}

function reachable(resources: readonly ResourceFacts[]): Set<TypeFacts> {
  const { types, byKind } = kubernetesFacts();
  const found = new Set<TypeFacts>();
  const visit = (type: TypeFacts | undefined): void => {
    if (!type || found.has(type)) return;
    found.add(type);
    for (const field of type.fields.values()) visitField(field.type);
  };
  const visitField = (type: FieldType): void => {
    if (type.kind === 'ref') visit(type.type);
    else if (type.kind !== 'scalar') visitField(type.item);
  };
  for (const resource of resources) {
    visit(resource.type);
    visit(types.get(`${resource.type.name}List`));
    for (const sub of resource.subresources.values())
      visit(byKind.get(`${sub.apiVersion} ${sub.kind}`)?.type ?? types.get(typeNameOf(sub)));
  }
  visit(types.get('meta.v1.DeleteOptions'));
  visit(types.get('meta.v1.Status'));
  return found;
}

function typeNameOf(sub: { apiVersion: string; kind: string }): string {
  const [group, version] = split(sub.apiVersion);
  return `${group === '' ? 'core' : (group.split('.')[0] ?? '')}.${version}.${sub.kind}`;
}

const QUERY = {
  dryRun: 'string',
  fieldManager: 'string',
  fieldValidation: 'string',
  force: 'boolean',
  labelSelector: 'string',
  fieldSelector: 'string',
  limit: 'integer',
  continue: 'string',
  watch: 'boolean',
  resourceVersion: 'string',
  gracePeriodSeconds: 'integer',
  propagationPolicy: 'string',
} as const;

interface Operation {
  method: string;
  action: string;
  verb: string;
  query: readonly (keyof typeof QUERY)[];
  body: boolean;
  many: boolean;
}

const WRITE = ['dryRun', 'fieldManager', 'fieldValidation'] as const;
const SELECT = ['labelSelector', 'fieldSelector', 'limit', 'continue', 'watch', 'resourceVersion'] as const;
const OPERATIONS: readonly Operation[] = [
  { method: 'get', action: 'list', verb: 'list', query: SELECT, body: false, many: true },
  { method: 'post', action: 'post', verb: 'create', query: WRITE, body: true, many: true },
  {
    method: 'delete',
    action: 'deletecollection',
    verb: 'deletecollection',
    query: [...SELECT, 'dryRun'],
    body: true,
    many: true,
  },
  { method: 'get', action: 'get', verb: 'get', query: ['resourceVersion'], body: false, many: false },
  { method: 'put', action: 'put', verb: 'update', query: WRITE, body: true, many: false },
  { method: 'patch', action: 'patch', verb: 'patch', query: [...WRITE, 'force'], body: true, many: false },
  {
    method: 'delete',
    action: 'delete',
    verb: 'delete',
    query: ['dryRun', 'gracePeriodSeconds', 'propagationPolicy'],
    body: true,
    many: false,
  },
];

function pathsOf(resources: readonly ResourceFacts[], dialect: Dialect): Record<string, Schema> {
  const paths: Record<string, Schema> = {};
  for (const r of resources) {
    const many = pathOf(r, { namespace: '{namespace}' });
    const one = `${many}/{name}`;
    const pathParameters = (named: boolean): Schema[] => [
      ...(named ? [parameter('name', 'path', 'string', dialect)] : []),
      ...(r.namespaced ? [parameter('namespace', 'path', 'string', dialect)] : []),
    ];
    const add = (path: string, named: boolean, operations: readonly Operation[]): void => {
      if (operations.length === 0) return;
      const item: Schema = { parameters: pathParameters(named) };
      for (const op of operations) item[op.method] = operation(r, op, path, dialect);
      paths[path] = item;
    };
    add(
      many,
      false,
      OPERATIONS.filter((o) => o.many && r.verbs.has(o.verb as 'get')),
    );
    add(
      one,
      true,
      OPERATIONS.filter((o) => !o.many && r.verbs.has(o.verb as 'get')),
    );
    for (const sub of r.subresources.values()) {
      const verbs = OPERATIONS.filter((o) =>
        sub.verbs.has('connect') ? o.verb === 'get' : sub.verbs.has(o.verb as 'get'),
      );
      add(
        `${one}/${sub.name}`,
        true,
        verbs.map((o) => ({ ...o, many: false })),
      );
    }
  }
  return paths;
}

function operation(r: ResourceFacts, op: Operation, path: string, dialect: Dialect): Schema {
  const [group, version] = split(r.apiVersion);
  const ok = op.action === 'list' ? `${r.type.name}List` : r.type.name;
  const patches = [
    'application/json-patch+json',
    'application/merge-patch+json',
    'application/strategic-merge-patch+json',
    'application/apply-patch+yaml',
  ];
  const bodyTypes = op.action === 'patch' ? patches : ['application/json', 'application/yaml'];
  const schema =
    op.action === 'patch'
      ? { type: 'object' }
      : { $ref: refTo(op.method === 'delete' ? 'meta.v1.DeleteOptions' : r.type.name, dialect) };
  const query = op.query.map((name) => parameter(name, 'query', QUERY[name], dialect));
  const common = {
    operationId: `${op.action}${r.kind}${path.replaceAll(/[^A-Za-z]+(.)?/g, (_, c: string | undefined) => (c ?? '').toUpperCase())}`,
    'x-kubernetes-action': op.action,
    'x-kubernetes-group-version-kind': { group, kind: r.kind, version },
  };
  if (dialect === 'v2') {
    const body = op.body ? [{ in: 'body', name: 'body', required: op.method !== 'delete', schema }] : [];
    return {
      ...common,
      consumes: op.body ? bodyTypes : ['*/*'],
      produces: ['application/json', 'application/yaml'],
      parameters: [...body, ...query],
      responses: { 200: { description: 'OK', schema: { $ref: refTo(ok, dialect) } } },
    };
  }
  const content = Object.fromEntries(bodyTypes.map((t) => [t, { schema }]));
  return {
    ...common,
    parameters: query,
    ...(op.body ? { requestBody: { content } } : {}),
    responses: {
      200: { description: 'OK', content: { 'application/json': { schema: { $ref: refTo(ok, dialect) } } } },
    },
  };
}

function parameter(name: string, where: 'path' | 'query', type: string, dialect: Dialect): Schema {
  const base = { name, in: where, ...(where === 'path' ? { required: true } : {}) };
  return dialect === 'v2' ? { ...base, type, uniqueItems: true } : { ...base, schema: { type, uniqueItems: true } };
}
