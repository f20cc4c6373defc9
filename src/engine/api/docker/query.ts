import { fail } from '#base/shape.ts';
import type { ApiRequest } from '#engine/api/server.ts';

/** Query values as Docker's own daemon reads them. */
export function flag(query: URLSearchParams, name: string, absent = false): boolean {
  const value = query.get(name);
  if (value === null) return absent;
  // Go's httputils.BoolValue: everything but these is true, "yes" and "on" included.
  return !['', '0', 'no', 'false', 'none'].includes(value.trim().toLowerCase());
}

export function integer(query: URLSearchParams, name: string): number | undefined {
  const value = query.get(name);
  if (value === null || value === '') return undefined;
  return /^-?\d{1,15}$/.test(value) ? Number(value) : fail(`query ${name}`, value, 'is not an integer');
}

export function textOf(query: URLSearchParams, name: string): string | undefined {
  return query.get(name) || undefined;
}

/** A header that can stand once; of several the first counts. */
export function headerOf(request: Pick<ApiRequest, 'headers'>, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value[0] : value;
}
