import type { FieldFacts, FieldType, ScalarType, TypeFacts } from '#spec/kubernetes/facts.ts';

/**
 * Facts as OpenAPI schemas, in the dialect of version 2 or 3. Descriptions are made from the facts: what a field must be, how lists
 * merge. Upstream's prose is not carried here.
 */
export type Dialect = 'v2' | 'v3';
export type Schema = Record<string, unknown>;

const SCALAR_SCHEMAS: Record<ScalarType, Schema> = {
  string: { type: 'string' },
  bytes: { type: 'string', format: 'byte' },
  bool: { type: 'boolean' },
  int32: { type: 'integer', format: 'int32' },
  int64: { type: 'integer', format: 'int64' },
  double: { type: 'number', format: 'double' },
  any: { type: 'object' },
  intstr: { type: 'string', format: 'int-or-string' },
  quantity: { type: 'string' },
  time: { type: 'string', format: 'date-time' },
  microtime: { type: 'string', format: 'date-time' },
};

/** `core.v1.Pod` → `io.k8s.api.core.v1.Pod`, the names clients know. */
export function definitionName(type: string): string {
  return type.startsWith('meta.')
    ? `io.k8s.apimachinery.pkg.apis.${type}`
    : type.startsWith('io.')
      ? type
      : `io.k8s.api.${type}`;
}

export function refTo(type: string, dialect: Dialect): string {
  return `${dialect === 'v2' ? '#/definitions/' : '#/components/schemas/'}${definitionName(type)}`;
}

export function typeSchema(type: TypeFacts, dialect: Dialect): Schema {
  const properties: Record<string, Schema> = {};
  const required: string[] = [];
  for (const field of type.fields.values()) {
    properties[field.name] = fieldSchema(field, dialect);
    if (field.required) required.push(field.name);
  }
  const [group, version] = split(type.apiVersion ?? '');
  return {
    type: 'object',
    description: type.kind
      ? `${type.kind} of ${type.apiVersion ?? ''}.`
      : `${type.name.split('.').at(-1) ?? type.name}.`,
    ...(Object.keys(properties).length > 0 ? { properties } : {}),
    ...(required.length > 0 ? { required } : {}),
    ...(type.atomic ? { 'x-kubernetes-map-type': 'atomic' } : {}),
    ...(type.kind ? { 'x-kubernetes-group-version-kind': [{ group, kind: type.kind, version }] } : {}),
  };
}

export function split(apiVersion: string): [group: string, version: string] {
  const slash = apiVersion.indexOf('/');
  return slash < 0 ? ['', apiVersion] : [apiVersion.slice(0, slash), apiVersion.slice(slash + 1)];
}

function fieldSchema(field: FieldFacts, dialect: Dialect): Schema {
  const schema = valueSchema(field.type, dialect);
  const { listType } = field;
  const strategies = [...(field.merge ? ['merge'] : []), ...(field.retainKeys ? ['retainKeys'] : [])];
  const out: Schema = {
    description: describe(field),
    // A reference takes no siblings in version 3's dialect, so it goes into allOf.
    ...(dialect === 'v3' && '$ref' in schema ? { allOf: [schema], default: {} } : schema),
    ...(listType ? { 'x-kubernetes-list-type': listType.is } : {}),
    ...(listType?.is === 'map' ? { 'x-kubernetes-list-map-keys': listType.keys } : {}),
    ...(field.atomic ? { 'x-kubernetes-map-type': 'atomic' } : {}),
    ...(strategies.length > 0 ? { 'x-kubernetes-patch-strategy': strategies.join(',') } : {}),
    ...(field.mergeKey === undefined ? {} : { 'x-kubernetes-patch-merge-key': field.mergeKey }),
  };
  if (field.values && schema['type'] === 'string') out['enum'] = field.values;
  return out;
}

function valueSchema(type: FieldType, dialect: Dialect): Schema {
  switch (type.kind) {
    case 'ref':
      return { $ref: refTo(type.type.name, dialect) };
    case 'list':
      return { type: 'array', items: valueSchema(type.item, dialect) };
    case 'map':
      return { type: 'object', additionalProperties: valueSchema(type.item, dialect) };
    case 'scalar':
      if (dialect === 'v3' && type.scalar === 'intstr')
        return { oneOf: [{ type: 'integer' }, { type: 'string' }], format: 'int-or-string' };
      if (dialect === 'v3' && type.scalar === 'quantity') return { oneOf: [{ type: 'string' }, { type: 'number' }] };
      return SCALAR_SCHEMAS[type.scalar];
  }
}

const UNITS: Partial<Record<ScalarType, string>> = {
  quantity: 'A quantity, such as 100m, 1.5Gi or 2e3.',
  intstr: 'A number, or a string such as a name or 25%.',
  time: 'A time as RFC 3339 writes it, to the second.',
  microtime: 'A time as RFC 3339 writes it, to the microsecond.',
  bytes: 'Bytes in base64.',
};

/** One or two sentences from what the facts say of a field. */
function describe(field: FieldFacts): string {
  const sentences: string[] = [];
  if (field.required) sentences.push('Required.');
  const inner = field.type.kind === 'list' || field.type.kind === 'map' ? field.type.item : field.type;
  if (inner.kind === 'scalar') sentences.push(UNITS[inner.scalar] ?? '');
  if (field.values) sentences.push(`One of: ${field.values.map((v) => (v === '' ? '""' : v)).join(', ')}.`);
  if (field.listType?.is === 'map') sentences.push(`Items are told apart by ${field.listType.keys.join(' and ')}.`);
  if (field.listType?.is === 'set') sentences.push('A set: no value twice.');
  if (field.listType?.is === 'atomic') sentences.push('Replaced as a whole.');
  return (
    sentences.filter(Boolean).join(' ') ||
    `The object's ${field.name.replaceAll(/([a-z])([A-Z])/g, '$1 $2').toLowerCase()}.`
  );
}
