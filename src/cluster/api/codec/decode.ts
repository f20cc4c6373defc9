import type { FieldType, ScalarType, TypeFacts } from '#spec/kubernetes/facts.ts';
import { canonicalQuantity } from '#spec/kubernetes/quantity.ts';
import { isObject, type JsonObject, put } from './json.ts';

/**
 * One walk over a body with its type's facts: unknown fields are dropped and named, `null` is dropped, scalars get their stored
 * form (quantities canonical, times to the second), and a value of the wrong type stops with upstream's sentence.
 */
export interface Decoded {
  object: JsonObject;
  /** `unknown field "spec.replcas"`, at most `MAX_UNKNOWN` of them. */
  unknown: string[];
}

/** A value that its field cannot hold; the caller adds which object it was. */
export class WrongType extends Error {}

const MAX_UNKNOWN = 50;

export function decodeObject(type: TypeFacts, value: JsonObject): Decoded {
  const unknown: string[] = [];
  return { object: decodeStruct(type, value, '', unknown), unknown };
}

function decodeStruct(type: TypeFacts, value: unknown, path: string, unknown: string[]): JsonObject {
  if (!isObject(value)) throw new WrongType(unmarshal(value, path, goName(type)));
  const out: JsonObject = {};
  for (const [name, item] of Object.entries(value)) {
    const field = type.fields.get(name);
    if (!field) {
      if (unknown.length < MAX_UNKNOWN) unknown.push(`unknown field "${join(path, name)}"`);
      continue;
    }
    if (item === null || item === undefined) continue;
    out[name] = decodeValue(field.type, item, join(path, name), unknown);
  }
  return out;
}

function decodeValue(type: FieldType, value: unknown, path: string, unknown: string[]): unknown {
  switch (type.kind) {
    case 'ref':
      return decodeStruct(type.type, value, path, unknown);
    case 'list':
      if (!Array.isArray(value)) throw new WrongType(unmarshal(value, path, 'slice'));
      return value.map((item, i) =>
        item === null ? zeroOf(type.item) : decodeValue(type.item, item, `${path}[${i}]`, unknown),
      );
    case 'map': {
      if (!isObject(value)) throw new WrongType(unmarshal(value, path, 'map'));
      const out: JsonObject = {};
      for (const [key, item] of Object.entries(value)) {
        put(out, key, item === null ? zeroOf(type.item) : decodeValue(type.item, item, join(path, key), unknown));
      }
      return out;
    }
    case 'scalar':
      return decodeScalar(type.scalar, value, path);
  }
}

/** Go reads `null` in a list or map as the item's zero value. */
function zeroOf(type: FieldType): unknown {
  if (type.kind === 'list') return [];
  if (type.kind !== 'scalar') return {};
  const zeros: Partial<Record<ScalarType, unknown>> = { string: '', bytes: '', bool: false, quantity: '0', any: {} };
  return Object.hasOwn(zeros, type.scalar) ? zeros[type.scalar] : 0;
}

function decodeScalar(scalar: ScalarType, value: unknown, path: string): unknown {
  switch (scalar) {
    case 'any':
      return value;
    case 'string':
      if (typeof value === 'string') return value;
      break;
    case 'bool':
      if (typeof value === 'boolean') return value;
      break;
    case 'int32':
      if (Number.isInteger(value) && Number(value) >= -(2 ** 31) && Number(value) < 2 ** 31) return value;
      break;
    case 'int64':
      if (Number.isInteger(value)) return value;
      break;
    case 'double':
      if (typeof value === 'number') return value;
      break;
    case 'intstr':
      if (typeof value === 'string' || (Number.isInteger(value) && Math.abs(Number(value)) < 2 ** 31)) return value;
      break;
    case 'quantity': {
      const text = typeof value === 'string' || typeof value === 'number' ? canonicalQuantity(value) : undefined;
      if (text !== undefined) return text;
      throw new WrongType(
        `${path}: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'`,
      );
    }
    case 'bytes':
      if (typeof value === 'string') return base64(value, path);
      break;
    case 'time':
    case 'microtime':
      if (typeof value === 'string') return time(value, path, scalar);
      break;
  }
  throw new WrongType(unmarshal(value, path, GO_NAMES[scalar]));
}

function base64(value: string, path: string): string {
  const compact = value.replaceAll(/[\r\n]/g, '');
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(compact) || compact.length % 4 !== 0) {
    const at = /[^A-Za-z0-9+/\r\n]/.exec(value)?.index ?? value.length;
    throw new WrongType(`${path}: illegal base64 data at input byte ${at}`);
  }
  return compact;
}

const RFC3339 = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;

function time(value: string, path: string, scalar: 'time' | 'microtime'): string {
  const at = RFC3339.test(value) ? Date.parse(value) : Number.NaN;
  if (Number.isNaN(at))
    throw new WrongType(`${path}: parsing time ${JSON.stringify(value)} as "2006-01-02T15:04:05Z07:00": cannot parse`);
  if (scalar === 'time') return `${new Date(at).toISOString().slice(0, 19)}Z`;
  const micros = (/\.(\d+)/.exec(value)?.[1] ?? '').padEnd(6, '0').slice(0, 6);
  return `${new Date(at).toISOString().slice(0, 19)}.${micros}Z`;
}

const GO_NAMES: Record<ScalarType, string> = {
  string: 'string',
  bytes: '[]uint8',
  bool: 'bool',
  int32: 'int32',
  int64: 'int64',
  double: 'float64',
  any: 'interface {}',
  intstr: 'intstr.IntOrString',
  quantity: 'resource.Quantity',
  time: 'time.Time',
  microtime: 'time.Time',
};

function goName(type: TypeFacts): string {
  const [group = '', version = '', kind = ''] = type.name.split('.');
  return group === '' ? kind : `${version}.${kind}`;
}

function unmarshal(value: unknown, path: string, goType: string): string {
  const found = Array.isArray(value) ? 'array' : typeof value === 'boolean' ? 'bool' : typeof value;
  const what = typeof value === 'number' && goType !== 'string' ? `number ${value}` : found;
  return `json: cannot unmarshal ${what} into Go struct field ${path === '' ? '.' : path} of type ${goType}`;
}

function join(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}
