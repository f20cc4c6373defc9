import type { FieldFacts, FieldType, TypeFacts } from '#spec/kubernetes/facts.ts';
import { cloneJson, equalJson, isObject, type JsonObject, own, put } from '#spec/kubernetes/json.ts';
import { badRequest } from '#spec/kubernetes/status.ts';

/**
 * Strategic merge patch: a merge patch that knows from the facts which lists are maps by a key. Directives inside the patch:
 *
 *     $patch: replace | delete | merge        of the object or list item that carries it
 *     $retainKeys: [a, b]                     keys the object may keep
 *     $setElementOrder/LIST: [...]            order of the merged list
 *     $deleteFromPrimitiveList/LIST: [...]    values to take out of a list of scalars
 */
export function applyStrategicPatch(type: TypeFacts, target: JsonObject, patch: JsonObject): JsonObject {
  return mergeObject({ kind: 'ref', type }, target, patch);
}

function mergeObject(type: FieldType | undefined, target: JsonObject, patch: JsonObject): JsonObject {
  const directive = own(patch, '$patch');
  if (directive === 'replace') return strip(patch);
  if (directive === 'delete') return {};
  if (directive !== undefined && directive !== 'merge')
    throw badRequest(`invalid strategic merge patch: unknown $patch: ${String(directive)}`);
  const out: JsonObject = {};
  const retain = own(patch, '$retainKeys');
  const kept = Array.isArray(retain) ? new Set(retain) : undefined;
  for (const [key, value] of Object.entries(target)) if (!kept || kept.has(key)) put(out, key, value);
  for (const [key, value] of Object.entries(patch)) {
    if (key.startsWith('$')) continue;
    if (value === null) delete out[key];
    else put(out, key, mergeField(childOf(type, key), key, own(out, key), value, patch));
  }
  applyPrimitiveDeletes(out, patch);
  applyLoneOrders(type, out, patch);
  return out;
}

interface Child {
  type: FieldType | undefined;
  field: FieldFacts | undefined;
}

function childOf(type: FieldType | undefined, key: string): Child {
  if (type?.kind === 'ref') {
    const field = type.type.fields.get(key);
    return { type: field?.type, field };
  }
  return { type: type?.kind === 'map' ? type.item : undefined, field: undefined };
}

function mergeField(child: Child, key: string, live: unknown, value: unknown, patch: JsonObject): unknown {
  if (isObject(value)) return mergeObject(child.type, isObject(live) ? live : {}, value);
  if (!Array.isArray(value)) return value;
  const order = own(patch, `$setElementOrder/${key}`);
  if (!child.field?.merge) return strip(value);
  const item = child.type?.kind === 'list' ? child.type.item : undefined;
  const list = Array.isArray(live) ? live : [];
  const merged =
    child.field.mergeKey === undefined
      ? mergeScalars(list, value)
      : mergeByKey(item, child.field.mergeKey, list, value);
  return Array.isArray(order) ? sortByOrder(merged, order, value, child.field.mergeKey) : merged;
}

function mergeScalars(live: readonly unknown[], patch: readonly unknown[]): unknown[] {
  return [...live, ...patch.filter((v) => !live.some((l) => equalJson(l, v)))];
}

function mergeByKey(
  item: FieldType | undefined,
  key: string,
  live: readonly unknown[],
  patch: readonly unknown[],
): unknown[] {
  if (patch.some((p) => isObject(p) && own(p, '$patch') === 'replace' && Object.keys(p).length === 1))
    return patch.filter((p) => !(isObject(p) && own(p, '$patch') === 'replace')).map(strip);
  let out = [...live];
  for (const entry of patch) {
    if (!isObject(entry))
      throw badRequest(`invalid strategic merge patch: items of this list need the key ${JSON.stringify(key)}`);
    const id = own(entry, key);
    if (id === undefined || id === null)
      throw badRequest(`map: ${JSON.stringify(entry).slice(0, 200)} does not contain declared merge key: ${key}`);
    const same = (v: unknown): boolean => isObject(v) && equalJson(own(v, key), id);
    if (own(entry, '$patch') === 'delete') out = out.filter((v) => !same(v));
    else {
      const at = out.findIndex(same);
      const merged = mergeObject(item, at < 0 ? {} : (out[at] as JsonObject), entry);
      if (at < 0) out.push(merged);
      else out[at] = merged;
    }
  }
  return out;
}

/** Items named in `order` take its order; others stay behind the item they followed, as far as that can be told. */
function sortByOrder(
  list: unknown[],
  order: readonly unknown[],
  patched: readonly unknown[],
  key: string | undefined,
): unknown[] {
  const idOf = (v: unknown): unknown => (key === undefined ? v : isObject(v) ? own(v, key) : undefined);
  const place = new Map(order.map((v, i) => [JSON.stringify(idOf(v)), i]));
  const named = list.filter((v) => place.has(JSON.stringify(idOf(v))));
  named.sort((a, b) => (place.get(JSON.stringify(idOf(a))) ?? 0) - (place.get(JSON.stringify(idOf(b))) ?? 0));
  const inPatch = new Set(patched.map((v) => JSON.stringify(idOf(v))));
  const out: unknown[] = [];
  let next = 0;
  // Server-only items keep their place relative to the live neighbours before them.
  for (const item of list) {
    const id = JSON.stringify(idOf(item));
    if (place.has(id) || inPatch.has(id)) {
      const put = named[next++];
      if (put !== undefined) out.push(put);
    } else out.push(item);
  }
  return [...out, ...named.slice(next)];
}

function applyPrimitiveDeletes(out: JsonObject, patch: JsonObject): void {
  const prefix = '$deleteFromPrimitiveList/';
  for (const [key, gone] of Object.entries(patch)) {
    if (!key.startsWith(prefix) || !Array.isArray(gone)) continue;
    const name = key.slice(prefix.length);
    const list = own(out, name);
    if (Array.isArray(list))
      put(
        out,
        name,
        list.filter((v) => !gone.some((g) => equalJson(g, v))),
      );
  }
}

/** An order without changes to the list itself still sorts it. */
function applyLoneOrders(type: FieldType | undefined, out: JsonObject, patch: JsonObject): void {
  const prefix = '$setElementOrder/';
  for (const [key, order] of Object.entries(patch)) {
    if (!key.startsWith(prefix) || !Array.isArray(order)) continue;
    const name = key.slice(prefix.length);
    const list = own(out, name);
    if (Array.isArray(list) && own(patch, name) === undefined)
      put(out, name, sortByOrder(list, order, [], childOf(type, name).field?.mergeKey));
  }
}

/** A copy without directives and nulls: what a replaced value becomes. */
function strip<T>(value: T): T {
  if (Array.isArray(value)) return value.filter((v) => !(isObject(v) && own(v, '$patch') === 'delete')).map(strip) as T;
  if (!isObject(value)) return cloneJson(value);
  const out: JsonObject = {};
  for (const [key, item] of Object.entries(value))
    if (!key.startsWith('$') && item !== null) put(out, key, strip(item));
  return out as T;
}
