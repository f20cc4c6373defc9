import { readFileSync } from 'node:fs';
import { errnoOf } from '#base/errors.ts';
import { CliUsage } from '#cli/errors.ts';

export type Json = { [key: string]: unknown };

export function readLocal(flag: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new CliUsage({ why: `--${flag}: ${path}: ${errnoOf(error) ?? 'cannot be read'}` }, { cause: error });
  }
}

export function wrong(flag: string, value: string, rule: string): never {
  throw new CliUsage({ why: `invalid argument ${JSON.stringify(value)} for --${flag}: ${rule}` });
}

/** `KEY=VALUE`s; a key alone has an empty value. */
export function pairs(written: readonly string[]): Record<string, string> {
  return Object.fromEntries(written.map((w) => split2(w, '=')));
}

export function split2(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + separator.length)];
}

/** One record of CSV, as docker reads `--mount` and `--network`: a field in quotes may have commas of its own (RFC 4180). */
export function csvFields(record: string): string[] {
  return [...`${record},`.matchAll(/("(?:[^"]|"")*"|[^,]*),/g)].map(([, field = '']) => {
    const inner = /^"(.*)"$/s.exec(field)?.[1];
    return inner === undefined ? field : inner.replaceAll('""', '"');
  });
}

export function withoutUndefined(value: Json): Json {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined));
}

export function unlessEmpty<T>(items: readonly T[]): T[] | undefined {
  return items.length === 0 ? undefined : [...items];
}

export function unlessBare<T extends object>(value: T): T | undefined {
  return Object.keys(value).length === 0 ? undefined : value;
}
