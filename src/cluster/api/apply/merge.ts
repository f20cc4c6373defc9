import { cloneJson, isObject, type JsonObject, put } from '../codec/json.ts';
import { childrenOf, type FieldSet, itemElement, type Shape } from './fieldset.ts';

/** The live value with everything the configuration says: fields merge, items match by their keys, the rest is replaced. */
export function mergeConfig(shape: Shape, live: unknown, config: unknown): unknown {
  if (shape.is === 'fields' && isObject(config)) {
    const out: JsonObject = isObject(live) ? cloneJson(live) : {};
    for (const [name, value] of Object.entries(config)) {
      put(
        out,
        name,
        mergeConfig(shape.childType(name), isObject(live) && Object.hasOwn(live, name) ? live[name] : undefined, value),
      );
    }
    return out;
  }
  if (shape.is === 'map-list' && Array.isArray(config))
    return mergeItems(shape, Array.isArray(live) ? live : [], config);
  if (shape.is === 'set' && Array.isArray(config)) {
    const seen = new Set((Array.isArray(live) ? live : []).map((v) => JSON.stringify(v)));
    return [...(Array.isArray(live) ? live : []), ...config.filter((v) => !seen.has(JSON.stringify(v)))];
  }
  return cloneJson(config);
}

function mergeItems(
  shape: Shape & { is: 'map-list' },
  live: readonly unknown[],
  config: readonly unknown[],
): unknown[] {
  const wanted = new Map(config.map((item) => [itemElement(shape.keys, item), item]));
  const merged = live.map((item) => {
    const element = itemElement(shape.keys, item);
    const change = wanted.get(element);
    if (change === undefined) return cloneJson(item);
    wanted.delete(element);
    return mergeConfig(shape.item, item, change);
  });
  return [...merged, ...[...wanted.values()].map((item) => mergeConfig(shape.item, undefined, item))];
}

/** The value without the members of `gone`. A container that loses its last child goes with it, unless it is a member of `keep`. */
export function removeFields(shape: Shape, value: unknown, gone: FieldSet, keep: FieldSet): unknown {
  const children = childrenOf(shape, value);
  if (!children) return value;
  const dropped = new Set<string>();
  const changed = new Map<string, unknown>();
  for (const [element, set] of gone.children) {
    const child = children.get(element);
    if (!child) continue;
    const kept = keep.children.get(element);
    if (set.member && !kept) dropped.add(element);
    else if (set.children.size > 0) {
      const rest = removeFields(child.shape, child.value, set, kept ?? { member: false, children: new Map() });
      if (isBare(rest) && !kept) dropped.add(element);
      else changed.set(element, rest);
    }
  }
  return rebuild(shape, value, dropped, changed);
}

function rebuild(
  shape: Shape,
  value: unknown,
  dropped: ReadonlySet<string>,
  changed: ReadonlyMap<string, unknown>,
): unknown {
  if (isObject(value)) {
    const out: JsonObject = {};
    for (const [name, item] of Object.entries(value)) {
      const element = `f:${name}`;
      if (!dropped.has(element)) put(out, name, changed.has(element) ? changed.get(element) : item);
    }
    return out;
  }
  if (!Array.isArray(value)) return value;
  const elementOf = (item: unknown): string =>
    shape.is === 'map-list' ? itemElement(shape.keys, item) : `v:${JSON.stringify(item)}`;
  return value
    .filter((item) => !dropped.has(elementOf(item)))
    .map((item) => (changed.has(elementOf(item)) ? changed.get(elementOf(item)) : item));
}

function isBare(value: unknown): boolean {
  return Array.isArray(value) ? value.length === 0 : isObject(value) && Object.keys(value).length === 0;
}
