import { defineError } from '#base/errors.ts';

/**
 * Parsing strings of JSON once, at the edge. A `Shape<T>` turns an unknown value into a `T` or says which path breaks
 * which rule:
 *
 *     const Port = object({ port: integer({ min: 1, max: 65535 }), proto: optional(oneOf('tcp', 'udp')) });
 *     Port(JSON.parse(text), '$')   // InvalidValue: $.port: 70000 is not an integer between 1 and 65535
 *
 * Paths are written as JSON readers expect them: `$.mounts[3].destination`.
 */
export type Shape<T> = (value: unknown, path: string) => T;

export type Out<S> = S extends Shape<infer T> ? T : never;

export const InvalidValue = defineError('INVALID_VALUE', (d: { path: string; value: unknown; rule: string }) => ({
  message: `${d.path}: ${preview(d.value)} ${d.rule}`,
}));

export function fail(path: string, value: unknown, rule: string): never {
  throw new InvalidValue({ path, value, rule });
}

export function string(
  rule: { match?: RegExp; says?: string; maxLength?: number; nonEmpty?: boolean } = {},
): Shape<string> {
  return (value, path) => {
    if (typeof value !== 'string') return fail(path, value, 'is not a string');
    if (rule.nonEmpty && value === '') return fail(path, value, 'must not be empty');
    if (rule.maxLength !== undefined && value.length > rule.maxLength)
      return fail(path, value, `is longer than ${rule.maxLength} characters`);
    if (rule.match && !rule.match.test(value))
      return fail(path, value, rule.says ?? `does not match ${rule.match.source}`);
    return value;
  };
}

/** A string that a system call will take: a NUL byte in it would cut it short without a word. */
export function text(rule: { nonEmpty?: boolean } = {}): Shape<string> {
  const base = string(rule);
  return (value, path) => {
    const s = base(value, path);
    return s.includes('\0') ? fail(path, value, 'contains a NUL byte') : s;
  };
}

export function integer(rule: { min?: number; max?: number } = {}): Shape<number> {
  const { min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER } = rule;
  const says =
    rule.min === undefined && rule.max === undefined
      ? 'is not an integer'
      : `is not an integer between ${min} and ${max}`;
  return (value, path) =>
    Number.isInteger(value) && Number(value) >= min && Number(value) <= max ? Number(value) : fail(path, value, says);
}

export function number(): Shape<number> {
  return (value, path) =>
    typeof value === 'number' && Number.isFinite(value) ? value : fail(path, value, 'is not a number');
}

export function boolean(): Shape<boolean> {
  return (value, path) => (typeof value === 'boolean' ? value : fail(path, value, 'is not true or false'));
}

export function oneOf<const T extends string | number>(...allowed: readonly T[]): Shape<T> {
  return (value, path) =>
    allowed.includes(value as T) ? (value as T) : fail(path, value, `is none of ${allowed.join(', ')}`);
}

export function array<T>(item: Shape<T>, rule: { max?: number } = {}): Shape<T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) return fail(path, value, 'is not a list');
    if (rule.max !== undefined && value.length > rule.max) return fail(path, value, `has more than ${rule.max} items`);
    return value.map((v, i) => item(v, `${path}[${i}]`));
  };
}

/** A JSON object used as a map. Keys like `__proto__` are plain keys here. */
export function record<T>(item: Shape<T>, key?: Shape<string>): Shape<Record<string, T>> {
  return (value, path) => {
    const source = plainObject(value, path);
    const result: Record<string, T> = Object.create(null);
    for (const [k, v] of Object.entries(source)) {
      key?.(k, `${path} key`);
      result[k] = item(v, member(path, k));
    }
    return result;
  };
}

const OPTIONAL = Symbol('optional');
export type Optional<T> = Shape<T | undefined> & { [OPTIONAL]: true };

/** The key may be missing; `null` counts as missing, as Go's decoders take it. */
export function optional<T>(shape: Shape<T>): Optional<T> {
  const result: Shape<T | undefined> = (value, path) =>
    value === undefined || value === null ? undefined : shape(value, path);
  return Object.assign(result, { [OPTIONAL]: true as const });
}

export function withDefault<T>(shape: Shape<T>, fallback: T): Shape<T> {
  return (value, path) => (value === undefined || value === null ? fallback : shape(value, path));
}

type Fields = Record<string, Shape<unknown>>;
type OptionalKeys<F> = { [K in keyof F]: F[K] extends { [OPTIONAL]: true } ? K : never }[keyof F];
export type ObjectOf<F extends Fields> = { [K in Exclude<keyof F, OptionalKeys<F>>]: Out<F[K]> } & {
  [K in OptionalKeys<F>]?: Exclude<Out<F[K]>, undefined>;
};

/** `unknown`: what happens to keys that are not declared: `keep` them (extensible formats), `drop`, or `reject`. */
export function object<F extends Fields>(
  fields: F,
  rule: { unknown?: 'keep' | 'drop' | 'reject' } = {},
): Shape<ObjectOf<F>> {
  const names = Object.keys(fields);
  return (value, path) => {
    const source = plainObject(value, path);
    const result: Record<string, unknown> = {};
    for (const name of names) {
      const present = Object.hasOwn(source, name) ? source[name] : undefined;
      const parsed = fields[name]?.(present, member(path, name));
      if (parsed !== undefined) result[name] = parsed;
    }
    if (rule.unknown === 'keep' || rule.unknown === 'reject') {
      for (const name of Object.keys(source)) {
        if (Object.hasOwn(fields, name)) continue;
        if (rule.unknown === 'reject') fail(member(path, name), source[name], 'is not a known field');
        Object.defineProperty(result, name, {
          value: source[name],
          enumerable: true,
          configurable: true,
          writable: true,
        });
      }
    }
    return result as ObjectOf<F>;
  };
}

/** Adds a rule to a shape: `check` returns what is wrong, or undefined. */
export function refine<T>(shape: Shape<T>, check: (value: T) => string | undefined): Shape<T> {
  return (value, path) => {
    const parsed = shape(value, path);
    const wrong = check(parsed);
    return wrong === undefined ? parsed : fail(path, value, wrong);
  };
}

export function anything(): Shape<unknown> {
  return (value) => value;
}

function plainObject(value: unknown, path: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return fail(path, value, 'is not an object');
  return value as Record<string, unknown>;
}

export function member(path: string, key: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(key) ? `${path}.${key}` : `${path}[${JSON.stringify(key)}]`;
}

function preview(value: unknown): string {
  if (value === undefined) return 'is missing and';
  const json = JSON.stringify(value) ?? String(value);
  return json.length > 80 ? `${json.slice(0, 77)}...` : json;
}
