import { nearest } from '#spec/dockerfile/syntax.ts';

/** What a flag holds: `text`; `switch` (`--link`, `--link=false`); `list` may stand several times. */
export type FlagKind = 'text' | 'switch' | 'list';

export interface Flags {
  text(name: string): string | undefined;
  on(name: string): boolean;
  list(name: string): string[];
}

export type FlagProblem = (problem: string, rule: string) => never;

export function parseFlags(
  given: readonly string[],
  known: Readonly<Record<string, FlagKind>>,
  fail: FlagProblem,
): Flags {
  const values = new Map<string, string[]>();
  for (const flag of given) {
    const [, name = '', , value] = /^--([^=]*)(=([\s\S]*))?$/.exec(flag) ?? [];
    const kind = Object.hasOwn(known, name) ? known[name] : undefined;
    if (!kind) {
      const near = nearest(name, Object.keys(known));
      const list = Object.keys(known)
        .map((k) => `--${k}`)
        .join(', ');
      return fail(
        `unknown flag --${name}`,
        near ? `did you mean --${near}?` : list === '' ? 'this instruction takes no flags' : `known are ${list}`,
      );
    }
    if (kind !== 'list' && values.has(name)) return fail(`--${name} stands twice`, 'only one of them can hold');
    if (kind !== 'switch' && value === undefined) return fail(`--${name} has no value`, `write --${name}=VALUE`);
    if (kind === 'switch' && value !== undefined && value !== 'true' && value !== 'false') {
      return fail(`--${name}=${value} is neither true nor false`, `write --${name} or --${name}=false`);
    }
    values.set(name, [...(values.get(name) ?? []), value ?? 'true']);
  }
  return {
    text: (name) => values.get(name)?.[0],
    on: (name) => values.get(name)?.[0] === 'true',
    list: (name) => values.get(name) ?? [],
  };
}
