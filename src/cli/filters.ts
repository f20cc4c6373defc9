import { CliUsage } from '#cli/errors.ts';
import type { Flags } from '#cli/verb.ts';

/** `--filter KEY=VALUE`s as the API wants them: `{"key":["value"]}`. */
export function filtersOf(flags: Flags, more: Readonly<Record<string, readonly string[]>> = {}): string | undefined {
  const out: Record<string, string[]> = Object.fromEntries(Object.entries(more).map(([k, v]) => [k, [...v]]));
  for (const written of flags.list('filter')) {
    const [, key, value = ''] = /^\s*([^=]+?)\s*=(.*)$/s.exec(written) ?? [];
    if (key === undefined) throw new CliUsage({ why: `invalid filter '${written}': must be KEY=VALUE` });
    out[key] = [...(out[key] ?? []), value.trim()];
  }
  return Object.keys(out).length === 0 ? undefined : JSON.stringify(out);
}
