import { isObject, type JsonObject } from '#spec/kubernetes/json.ts';
import { nameOf, type UpObject } from '#up/objects.ts';

export type ChangeKind = 'create' | 'change' | 'same' | 'remove';

export interface Change {
  kind: ChangeKind;
  object: UpObject;
  /** `spec.template.spec.containers[web].image: "a" → "b"` */
  lines: readonly string[];
}

// Written by the server, not by anybody's wish.
const SERVER_METADATA = new Set([
  'managedFields',
  'resourceVersion',
  'generation',
  'uid',
  'creationTimestamp',
  'selfLink',
]);
const MAX_TEXT = 120;

/** What applying would change, from the object as it is and as the server says it would be. */
export function changeOf(object: UpObject, live: unknown, rehearsed: unknown): Change {
  if (live === undefined) return { kind: 'create', object, lines: [] };
  const [before, after] = [leaves(told(live)), leaves(told(rehearsed))];
  const lines: string[] = [];
  const isSecret = object.kind === 'Secret';
  const show = (path: string, value: string | undefined): string =>
    value === undefined ? '(none)' : isSecret && /^(data|stringData)\b/.test(path) ? '(secret)' : short(value);
  for (const path of [...new Set([...before.keys(), ...after.keys()])].sort()) {
    const [old, now] = [before.get(path), after.get(path)];
    if (old !== now) lines.push(`${path}: ${show(path, old)} → ${show(path, now)}`);
  }
  return { kind: lines.length === 0 ? 'same' : 'change', object, lines };
}

export function removal(object: UpObject): Change {
  return { kind: 'remove', object, lines: [] };
}

const SIGNS: Readonly<Record<ChangeKind, string>> = { create: '+', change: '~', same: '=', remove: '-' };

/** One line an object, and below a changed one its fields. Objects that stay as they are are counted only. */
export function renderChanges(changes: readonly Change[]): string {
  const shown = changes.filter((c) => c.kind !== 'same');
  const lines = shown.flatMap(({ kind, object, lines }) => [
    `${SIGNS[kind]} ${nameOf(object)}`,
    ...lines.map((l) => `    ${l}`),
  ]);
  const count = (kind: ChangeKind): number => changes.filter((c) => c.kind === kind).length;
  const sum = `${count('create')} to create, ${count('change')} to change, ${count('remove')} to remove, ${count('same')} as they are`;
  return `${[...lines, sum].join('\n')}\n`;
}

function told(value: unknown): JsonObject {
  const { status: _, ...object } = (value ?? {}) as JsonObject;
  const metadata = isObject(object['metadata']) ? object['metadata'] : {};
  return {
    ...object,
    metadata: Object.fromEntries(Object.entries(metadata).filter(([key]) => !SERVER_METADATA.has(key))),
  };
}

/** Every scalar by its path; items of lists by their names where they have some. */
function leaves(value: unknown, path = '', into = new Map<string, string>()): Map<string, string> {
  if (Array.isArray(value))
    for (const [i, item] of value.entries()) {
      const name = isObject(item) && typeof item['name'] === 'string' ? item['name'] : String(i);
      leaves(item, `${path}[${name}]`, into);
    }
  else if (isObject(value)) {
    for (const [key, item] of Object.entries(value)) leaves(item, path === '' ? key : `${path}.${key}`, into);
    if (Object.keys(value).length === 0) into.set(path, '{}');
  } else into.set(path, JSON.stringify(value) ?? 'null');
  return into;
}

function short(text: string): string {
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT - 1)}…` : text;
}
