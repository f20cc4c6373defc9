import { fail, member } from '#base/shape.ts';
import { FACTS } from '#spec/docker/facts.gen.ts';
import type { FieldSchema } from '#spec/docker/facts.ts';
import type { Bodies } from '#spec/docker/types.gen.ts';

/**
 * Checks a request body against the API's own schema. A wrong type or an unknown field is an error that names its JSON path;
 * `null` means absent, and names match whatever their case, both as Docker's daemon takes them (Go's `encoding/json`).
 */
export function checkBody<K extends keyof Bodies>(operation: K, value: unknown): Bodies[K] {
  const schema = FACTS.bodies[operation];
  return check(schema ?? 'any', value ?? {}, '$', 0) as Bodies[K];
}

const MAX_DEPTH = 64;

function check(schema: FieldSchema, value: unknown, path: string, depth: number): unknown {
  if (depth > MAX_DEPTH) return fail(path, '…', `is nested deeper than ${MAX_DEPTH} levels`);
  if (typeof schema === 'string') return checkNamed(schema, value, path, depth);
  if (Array.isArray(schema)) {
    if (!Array.isArray(value)) return fail(path, value, 'is not a list');
    return value.map((item, i) => (item === null ? null : check(schema[0] ?? 'any', item, `${path}[${i}]`, depth + 1)));
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return fail(path, value, 'is not an object');
  const result: Record<string, unknown> = {};
  const each = schema['*'];
  const byLowerCase = each === undefined ? lowerCaseNames(schema) : undefined;
  for (const [key, item] of Object.entries(value)) {
    const name = each !== undefined || Object.hasOwn(schema, key) ? key : byLowerCase?.get(key.toLowerCase());
    if (name === undefined) {
      // Old and careless clients send fields of other requests; those that wish nothing (`VolumesFrom: []`) change nothing.
      if (wishesNothing(item)) continue;
      return fail(member(path, key), item, 'is not a field of this request');
    }
    // A map keeps its nulls (an empty port binding, a volume); a field that is null was not given.
    if (item === null && each === undefined) continue;
    const field = item === null ? null : check(each ?? schema[name] ?? 'any', item, member(path, name), depth + 1);
    Object.defineProperty(result, name, { value: field, enumerable: true, configurable: true, writable: true });
  }
  return result;
}

function wishesNothing(value: unknown): boolean {
  if (Array.isArray(value)) return value.length === 0;
  if (typeof value === 'object' && value !== null) return Object.keys(value).length === 0;
  return value === null || value === false || value === '' || value === 0;
}

function checkNamed(schema: string, value: unknown, path: string, depth: number): unknown {
  switch (schema) {
    case 's':
      return typeof value === 'string' ? value : fail(path, value, 'is not a string');
    case 'i':
      return Number.isSafeInteger(value) ? value : fail(path, value, 'is not an integer');
    case 'n':
      return typeof value === 'number' ? value : fail(path, value, 'is not a number');
    case 'b':
      return typeof value === 'boolean' ? value : fail(path, value, 'is not true or false');
    case 'any':
      return value;
    default:
      return check(FACTS.definitions[schema.slice(1)] ?? 'any', value, path, depth);
  }
}

const lowerCaseCache = new WeakMap<object, Map<string, string>>();

function lowerCaseNames(schema: { [field: string]: FieldSchema }): Map<string, string> {
  const known = lowerCaseCache.get(schema);
  if (known) return known;
  const names = new Map(Object.keys(schema).map((name) => [name.toLowerCase(), name]));
  lowerCaseCache.set(schema, names);
  return names;
}
