/**
 * What becomes of a field of Docker's API. Every field of the specification has exactly one fate in the tables beside; one that a new
 * version of the specification brings fails the test until somebody decides.
 */
export type Fate =
  /** Said so, the engine is asked for something else than without it. */
  | { fate: 'works'; value: unknown; beside?: object; key?: string }
  /** Honoured where this test cannot look: in which module or test. */
  | { fate: 'proved'; where: string }
  /** Sent, it is an error with these words. */
  | { fate: 'refused'; value: unknown; says: RegExp; beside?: object }
  /** dockerd on Linux takes it and does nothing: why nobody misses anything. */
  | { fate: 'as dockerd'; why: string };

export type Fates = Readonly<Record<string, Fate>>;

export const works = (value: unknown, beside?: object): Fate => ({
  fate: 'works',
  value,
  ...(beside ? { beside } : {}),
});
/** A map in which not every key has a meaning. */
export const worksAt = (key: string, value: unknown): Fate => ({ fate: 'works', value, key });
export const proved = (where: string): Fate => ({ fate: 'proved', where });
export const refused = (value: unknown, says: RegExp, beside?: object): Fate => ({
  fate: 'refused',
  value,
  says,
  ...(beside ? { beside } : {}),
});
export const asDockerd = (why: string): Fate => ({ fate: 'as dockerd', why });

/** The same fate for fields of one parent. */
export function all(prefix: string, names: readonly string[], fate: Fate): Fates {
  return Object.fromEntries(names.map((name) => [`${prefix}${name}`, fate]));
}

/** Fields of one object that only have a meaning together: each is tried with another value than its first. */
export function together(prefix: string, values: Readonly<Record<string, readonly [unknown, unknown]>>): Fates {
  let beside: object = {};
  for (const [name, [first]] of Object.entries(values)) beside = withValue(beside, `${prefix}${name}`, first);
  return Object.fromEntries(
    Object.entries(values).map(([name, [, second]]) => [`${prefix}${name}`, works(second, beside)]),
  );
}

const STEP = /^\.?([^.[\]{}]+)|^\[\]|^\{\}/;
/** The key that stands for any in a map. */
const ANY_KEY = 'k';

/** A copy of `body` with the field at `path` set: `Mounts[].Target`, `Labels{}`. Of lists it is the first item. */
export function withValue(body: object, path: string, value: unknown, anyKey = ANY_KEY): object {
  const [step = '', name] = STEP.exec(path) ?? [];
  const rest = path.slice(step.length);
  if (step === '[]') {
    const [first, ...others] = Array.isArray(body) ? body : [];
    return [rest === '' ? value : withValue(first ?? {}, rest, value, anyKey), ...others];
  }
  const key = step === '{}' ? (Object.keys(body)[0] ?? anyKey) : (name ?? '');
  const inner = (body as Record<string, unknown>)[key];
  return { ...body, [key]: rest === '' ? value : withValue((inner ?? {}) as object, rest, value, anyKey) };
}

/** One body with the fields of another where it has none. */
export function merged(over: object, under: object): object {
  return Object.fromEntries(
    [...new Set([...Object.keys(under), ...Object.keys(over)])].map((key) => {
      const [a, b] = [(over as Record<string, unknown>)[key], (under as Record<string, unknown>)[key]];
      return [key, a ?? b];
    }),
  );
}
