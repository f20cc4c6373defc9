import { fail } from '#base/shape.ts';

/**
 * The `filters` query: `{"label":["a=b"]}` since API 1.22, `{"label":{"a=b":true}}` before and in some clients still. All
 * names must hold; of one name's values any may.
 */
export class Filters {
  readonly #values: ReadonlyMap<string, readonly string[]>;

  constructor(values: ReadonlyMap<string, readonly string[]> = new Map()) {
    this.#values = values;
  }

  get(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  has(name: string): boolean {
    return this.get(name).length > 0;
  }

  /** True when nothing was asked for under this name, or `matches` one of the values. */
  any(name: string, matches: (value: string) => boolean): boolean {
    return !this.has(name) || this.get(name).some(matches);
  }

  every(name: string, matches: (value: string) => boolean): boolean {
    return this.get(name).every(matches);
  }

  /** `dangling=true`; undefined when not asked. */
  flag(name: string): boolean | undefined {
    const value = this.get(name)[0];
    if (value === undefined) return undefined;
    if (/^(1|true)$/i.test(value)) return true;
    if (/^(0|false)$/i.test(value)) return false;
    return fail(`filters.${name}`, value, 'is neither true nor false');
  }

  /** Names outside `known` are errors: a filter that is not looked at would list, or prune, too much. */
  allow(...known: string[]): this {
    for (const name of this.#values.keys()) {
      if (!known.includes(name))
        fail(`filters.${name}`, this.get(name), `is not a filter here; known are ${known.join(', ')}`);
    }
    return this;
  }
}

export function parseFilters(text: string | undefined): Filters {
  if (text === undefined || text === '') return new Filters();
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return fail('filters', text, 'is not JSON');
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
    return fail('filters', parsed, 'is not an object');
  return new Filters(new Map(Object.entries(parsed).map(([name, value]) => [name, values(name, value)])));
}

function values(name: string, value: unknown): string[] {
  if (Array.isArray(value))
    return value.map((v) => (typeof v === 'string' ? v : fail(`filters.${name}`, v, 'is not a string')));
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value)
      .filter(([, on]) => on === true)
      .map(([key]) => key);
  }
  return fail(`filters.${name}`, value, 'is neither a list nor an object');
}

/** `key`, `key=value`: whether labels have it. `key!=value` for prune's `label!`. */
export function labelMatches(labels: Readonly<Record<string, string>> | undefined, wish: string): boolean {
  const at = wish.indexOf('=');
  const key = at < 0 ? wish : wish.slice(0, at);
  if (!labels || !Object.hasOwn(labels, key)) return false;
  return at < 0 || labels[key] === wish.slice(at + 1);
}
