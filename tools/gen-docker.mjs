// Derives the Docker Engine API's facts from its Swagger files: gen-docker.mjs SPECS_DIR (the folder with swagger-v*.yaml).
//
//   src/spec/docker/types.gen.ts   TypeScript types of the definitions that the routes we serve send and take
//   src/spec/docker/facts.gen.ts   routes with their query parameters, and the schemas of request bodies
//
// Fields that newer versions dropped come from the older file: clients of that age still send them.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

const dir = process.argv[2];
if (!dir) throw new Error('usage: gen-docker.mjs SPECS_DIR');
const load = (name) => parse(readFileSync(join(dir, name), 'utf8'), { maxAliasCount: -1 });
const api = load('swagger-v1.55.yaml');
const older = load('swagger-v1.44.yaml');

const SWARM = /^\/(swarm|nodes|services|tasks|secrets|configs|plugins)(\/|$)/;
// Fields that were gone before 1.44, which clients of API 1.24 to 1.41 still send (api-CHANGELOG).
const LEGACY = {
  Resources: { KernelMemory: { type: 'integer' }, DiskQuota: { type: 'integer' } },
};

// Fields that no Swagger file has and the clients send all the same.
const UNDOCUMENTED = {
  ContainerExec: { Detach: { type: 'boolean' }, Container: { type: 'string' } },
  ContainerCreate: {
    name: { type: 'string' },
    Runtime: { type: 'string' },
    Dns: { type: 'array', items: { type: 'string' } },
  },
  // dockerode sends the query's values in the body as well.
  ImageCommit: Object.fromEntries(
    ['comment', 'author', 'repo', 'tag', 'container'].map((k) => [k, { type: 'string' }]),
  ),
  VolumeCreate: { Mountpoint: { type: 'string' } },
  ExecStart: { hijack: { type: 'boolean' }, stdin: { type: 'boolean' } },
};
const LOGIN = { auth: { type: 'string' }, identitytoken: { type: 'string' }, registrytoken: { type: 'string' } };

const definitions = mergeDefinitions(api.definitions, older.definitions);
for (const [name, properties] of Object.entries({ ...LEGACY, AuthConfig: LOGIN }))
  definitions[name].properties = { ...definitions[name].properties, ...properties };
const routes = [];
const bodies = {};
const wantedTypes = new Set(['ErrorResponse', 'ContainerStatsResponse', 'EventMessage']);

for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    const parameters = operation.parameters ?? [];
    const query = parameters
      .filter((p) => p.in === 'query')
      .map((p) => [p.name, p.type === 'array' ? 'array' : p.type]);
    const filters = parameters.find((p) => p.name === 'filters');
    const body = parameters.find((p) => p.in === 'body' && p.schema);
    routes.push({
      method: method.toUpperCase(),
      path,
      id: operation.operationId,
      query: Object.fromEntries(query),
      ...(filters ? { filters: filterNames(filters.description) } : {}),
    });
    if (SWARM.test(path)) continue;
    if (body && body.schema.type !== 'string') {
      const old = older.paths[path]?.[method]?.parameters?.find((p) => p.in === 'body')?.schema;
      bodies[operation.operationId] = withFields(mergeSchema(body.schema, old), UNDOCUMENTED[operation.operationId]);
    }
    for (const response of Object.values(operation.responses ?? {})) collect(response.schema);
  }
}
for (const schema of Object.values(bodies)) collect(schema);

const reachable = reach(Object.values(bodies));
const facts = {
  routes,
  bodies: Object.fromEntries(Object.entries(bodies).map(([id, schema]) => [id, compact(schema)])),
  definitions: Object.fromEntries([...reachable].sort().map((name) => [name, compact(definitions[name])])),
};
writeFileSync(
  'src/spec/docker/facts.gen.ts',
  `// Made by tools/gen-docker.mjs; do not edit.
import type { ApiFacts } from '#spec/docker/facts.ts';

export const FACTS: ApiFacts = ${JSON.stringify(facts)};
`,
);
writeFileSync(
  'src/spec/docker/types.gen.ts',
  `// Made by tools/gen-docker.mjs; do not edit.
${[...wantedTypes].sort().map(printType).join('\n')}

/** Request bodies by operation id. */
export interface Bodies {
${Object.entries(bodies)
  .map(([id, schema]) => `  ${id}: ${typeOf(schema, 1)};`)
  .join('\n')}
}
`,
);

/** The names of filters stand in the text alone: a list, one a line, each in backquotes. */
function filterNames(text) {
  return [...new Set([...text.matchAll(/^\s*- `([a-z!-]+)/gm)].map(([, name]) => name))];
}

/** Schema as the checker reads it: `s` `i` `n` `b` `any`, `[item]`, `{map:value}`, `@Name`, or an object of fields. */
function compact(schema) {
  if (!schema) return 'any';
  if (schema.$ref) return `@${refName(schema)}`;
  // A reference with a description beside it is written as an allOf of one.
  if (schema.allOf?.length === 1) return compact(schema.allOf[0]);
  if (schema.allOf) return mergeObjects(schema.allOf.map((part) => compactObject(resolve(part))));
  switch (schema.type) {
    case 'string':
      return 's';
    case 'integer':
      return 'i';
    case 'number':
      return 'n';
    case 'boolean':
      return 'b';
    case 'array':
      return [compact(schema.items)];
    default:
      return compactObject(schema);
  }
}

function compactObject(schema) {
  if (schema.allOf) return mergeObjects(schema.allOf.map((part) => compactObject(resolve(part))));
  if (schema.properties)
    return Object.fromEntries(Object.entries(schema.properties).map(([name, value]) => [name, compact(value)]));
  if (typeof schema.additionalProperties === 'object') return { '*': compact(schema.additionalProperties) };
  return 'any';
}

function mergeObjects(objects) {
  return Object.assign({}, ...objects.filter((o) => typeof o === 'object'));
}

function resolve(schema) {
  return schema.$ref ? definitions[refName(schema)] : schema;
}

function refName(schema) {
  return schema.$ref.replace('#/definitions/', '');
}

function withFields(schema, fields) {
  return fields ? { allOf: [schema, { properties: fields }] } : schema;
}

function mergeDefinitions(newer, old) {
  const result = {};
  for (const name of new Set([...Object.keys(newer), ...Object.keys(old)]))
    result[name] = mergeSchema(newer[name], old[name]);
  return result;
}

function mergeSchema(newer, old) {
  if (!newer || !old) return newer ?? old;
  if (newer.allOf && old.allOf)
    return { ...newer, allOf: newer.allOf.map((part, i) => mergeSchema(part, old.allOf[i])) };
  if (newer.properties && old.properties) return { ...newer, properties: { ...old.properties, ...newer.properties } };
  return newer;
}

/** Names of definitions that the schemas mention, directly or not. */
function reach(schemas, found = new Set()) {
  const walk = (schema) => {
    if (!schema || typeof schema !== 'object') return;
    if (schema.$ref) {
      const name = refName(schema);
      if (!found.has(name)) {
        found.add(name);
        walk(definitions[name]);
      }
      return;
    }
    for (const part of schema.allOf ?? []) walk(part);
    for (const part of Object.values(schema.properties ?? {})) walk(part);
    walk(schema.items);
    walk(schema.additionalProperties);
  };
  for (const schema of schemas) walk(schema);
  return found;
}

function collect(schema) {
  for (const name of reach([schema])) wantedTypes.add(name);
}

function printType(name) {
  const schema = definitions[name];
  if (!schema) return '';
  return `export type ${typeName(name)} = ${typeOf(schema, 0)};`;
}

function typeName(name) {
  return name.replace(/[^A-Za-z0-9]/g, '');
}

function typeOf(schema, depth) {
  if (!schema) return 'unknown';
  if (schema.$ref) return typeName(refName(schema));
  if (schema.allOf) return schema.allOf.map((part) => typeOf(part, depth)).join(' & ');
  switch (schema.type) {
    case 'string':
      return 'string';
    case 'integer':
    case 'number':
      return 'number';
    case 'boolean':
      return 'boolean';
    case 'array': {
      const item = typeOf(schema.items, depth);
      return /[ &|]/.test(item) && !item.startsWith('{') ? `(${item})[]` : `${item}[]`;
    }
    default:
      break;
  }
  if (schema.properties) {
    const pad = '  '.repeat(depth + 1);
    const fields = Object.entries(schema.properties).map(([key, value]) => {
      const name = /^[A-Za-z_$][\w$]*$/.test(key) ? key : JSON.stringify(key);
      return `${pad}${name}?: ${typeOf(value, depth + 1)} | null;\n`;
    });
    return `{\n${fields.join('')}${'  '.repeat(depth)}}`;
  }
  if (typeof schema.additionalProperties === 'object')
    return `Record<string, ${typeOf(schema.additionalProperties, depth)}>`;
  return 'unknown';
}
