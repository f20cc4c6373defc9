import { isObject, type JsonObject } from '../codec/json.ts';

/** Reading and writing of cells. */
export const NONE = '<none>';

export function at(object: JsonObject, path: string): unknown {
  let value: unknown = object;
  for (const name of path.split('.')) value = isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined;
  return value;
}

export const textOf = (value: unknown, absent = ''): string =>
  value === undefined || value === null || value === '' ? absent : String(value);
export const countOf = (value: unknown): number => (typeof value === 'number' ? value : 0);
export const listOf = (value: unknown): JsonObject[] => (Array.isArray(value) ? value.filter(isObject) : []);
export const stringsOf = (value: unknown): string[] => (Array.isArray(value) ? value.map(String) : []);
export const sizeOf = (value: unknown): number =>
  Array.isArray(value) ? value.length : isObject(value) ? Object.keys(value).length : 0;
export const joined = (parts: readonly string[], absent = NONE): string =>
  parts.length === 0 ? absent : parts.join(',');

/** Time since, as kubectl writes ages: two units while that says something, else one. */
export function age(timestamp: unknown, nowMs: number): string {
  const at = typeof timestamp === 'string' ? Date.parse(timestamp) : Number.NaN;
  return Number.isNaN(at) ? '<unknown>' : duration(nowMs - at);
}

export function duration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < -1) return '<invalid>';
  if (seconds < 0) return '0s';
  if (seconds < 120) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10) return two(minutes, 'm', seconds % 60, 's');
  if (minutes < 180) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 8) return two(hours, 'h', minutes % 60, 'm');
  if (hours < 48) return `${hours}h`;
  const days = Math.floor(hours / 24);
  if (days < 8) return two(days, 'd', hours % 24, 'h');
  if (days < 730) return `${days}d`;
  const years = Math.floor(days / 365);
  return years < 8 ? two(years, 'y', days % 365, 'd') : `${years}y`;
}

function two(a: number, unitA: string, b: number, unitB: string): string {
  return b === 0 ? `${a}${unitA}` : `${a}${unitA}${b}${unitB}`;
}

export function labelsText(labels: unknown): string {
  return isObject(labels) && Object.keys(labels).length > 0
    ? Object.entries(labels)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([k, v]) => `${k}=${String(v)}`)
        .join(',')
    : NONE;
}

export function selectorText(selector: unknown): string {
  if (!isObject(selector)) return NONE;
  const equal = isObject(selector['matchLabels'])
    ? Object.entries(selector['matchLabels']).map(([k, v]) => `${k}=${String(v)}`)
    : [];
  const expressions = listOf(selector['matchExpressions']).map((e) => {
    const values = stringsOf(e['values']).join(',');
    if (e['operator'] === 'In') return `${String(e['key'])} in (${values})`;
    if (e['operator'] === 'NotIn') return `${String(e['key'])} notin (${values})`;
    return e['operator'] === 'Exists' ? String(e['key']) : `!${String(e['key'])}`;
  });
  return joined([...equal.sort(), ...expressions]);
}
