import type { FieldFacts, FieldType, TypeFacts } from '#spec/kubernetes/facts.ts';
import { equalJson, isObject, type JsonObject, own, put } from '../codec/json.ts';

/**
 * Sets of fields as server-side apply keeps them (`FieldsV1`): a tree whose edges are path elements in their written form,
 *
 *     f:NAME        a field of a struct or map        k:{"name":"x"}   an item of a map list, by its keys
 *     v:VALUE       a member of a set                 .                the node itself belongs to the set
 *
 * Leaves are members. `equal`, `union`, … never change their arguments.
 */
export interface FieldSet {
  /** The node itself is a member. */
  member: boolean;
  children: Map<string, FieldSet>;
}

export const emptySet = (): FieldSet => ({ member: false, children: new Map() });
const leaf = (): FieldSet => ({ member: true, children: new Map() });

export function isEmpty(set: FieldSet): boolean {
  return !set.member && set.children.size === 0;
}

export function fromFieldsV1(value: unknown): FieldSet {
  const out = emptySet();
  if (!isObject(value)) return out;
  for (const [key, child] of Object.entries(value)) {
    if (key === '.') out.member = true;
    else {
      const set = fromFieldsV1(child);
      out.children.set(key, isEmpty(set) ? leaf() : set);
    }
  }
  return out;
}

export function toFieldsV1(set: FieldSet): JsonObject {
  const out: JsonObject = {};
  if (set.member && set.children.size > 0) out['.'] = {};
  for (const [key, child] of [...set.children].sort(([a], [b]) => (a < b ? -1 : 1))) put(out, key, toFieldsV1(child));
  return out;
}

export function union(a: FieldSet, b: FieldSet): FieldSet {
  const out: FieldSet = { member: a.member || b.member, children: new Map(a.children) };
  for (const [key, child] of b.children) {
    const mine = out.children.get(key);
    out.children.set(key, mine ? union(mine, child) : child);
  }
  return out;
}

/** Members of `a` that are not members of `b`. */
export function difference(a: FieldSet, b: FieldSet): FieldSet {
  const out: FieldSet = { member: a.member && !b.member, children: new Map() };
  for (const [key, child] of a.children) {
    const theirs = b.children.get(key);
    const rest = theirs ? difference(child, theirs) : child;
    if (!isEmpty(rest)) out.children.set(key, rest);
  }
  return out;
}

/** Members of `a` that are neither members of `b` nor lie below one: what is left when whole values have gone. */
export function outside(a: FieldSet, b: FieldSet): FieldSet {
  if (b.member) return emptySet();
  const out: FieldSet = { member: a.member, children: new Map() };
  for (const [key, child] of a.children) {
    const theirs = b.children.get(key);
    const rest = theirs ? outside(child, theirs) : child;
    if (!isEmpty(rest)) out.children.set(key, rest);
  }
  return out;
}

export function intersection(a: FieldSet, b: FieldSet): FieldSet {
  const out: FieldSet = { member: a.member && b.member, children: new Map() };
  for (const [key, child] of a.children) {
    const theirs = b.children.get(key);
    if (!theirs) continue;
    const both = intersection(child, theirs);
    if (!isEmpty(both)) out.children.set(key, both);
  }
  return out;
}

export function equalSets(a: FieldSet, b: FieldSet): boolean {
  if (a.member !== b.member || a.children.size !== b.children.size) return false;
  for (const [key, child] of a.children) {
    const theirs = b.children.get(key);
    if (!theirs || !equalSets(child, theirs)) return false;
  }
  return true;
}

/** Every member as a readable path: `.spec.containers[name="a"].image`. */
export function pathsOf(set: FieldSet, at = ''): string[] {
  const here = set.member && at !== '' ? [at] : [];
  return [...here, ...[...set.children].flatMap(([key, child]) => pathsOf(child, at + readable(key)))];
}

function readable(element: string): string {
  const text = element.slice(2);
  if (element.startsWith('f:')) return `.${text}`;
  if (element.startsWith('v:')) return `[=${text}]`;
  const keys = JSON.parse(text) as JsonObject;
  return `[${Object.entries(keys)
    .map(([k, v]) => `${k}=${JSON.stringify(v)}`)
    .join(',')}]`;
}

// ---- how a value is seen: as one thing, as fields, as items by key, as a set

export type Shape =
  | { is: 'leaf' }
  | { is: 'fields'; childType: (name: string) => Shape }
  | { is: 'map-list'; keys: readonly string[]; item: Shape }
  | { is: 'set' };

const LEAF: Shape = { is: 'leaf' };
const structs = new WeakMap<TypeFacts, Shape>();

export function shapeOfType(type: TypeFacts): Shape {
  if (type.atomic) return LEAF;
  const known = structs.get(type);
  if (known) return known;
  const made: Shape = {
    is: 'fields',
    childType: (name) => {
      const field = type.fields.get(name);
      return field ? shapeOfField(field) : LEAF;
    },
  };
  structs.set(type, made);
  return made;
}

function shapeOfField(field: FieldFacts): Shape {
  if (field.atomic) return LEAF;
  if (field.type.kind !== 'list') return shapeOf(field.type);
  if (field.listType?.is === 'map')
    return { is: 'map-list', keys: field.listType.keys, item: shapeOf(field.type.item) };
  return field.listType?.is === 'set' ? { is: 'set' } : LEAF;
}

function shapeOf(type: FieldType): Shape {
  if (type.kind === 'ref') return shapeOfType(type.type);
  if (type.kind !== 'map') return LEAF;
  const item = shapeOf(type.item);
  return { is: 'fields', childType: () => item };
}

// Keys of map lists that are absent from an item count as their default, or `ports` without protocols would have no identity.
const KEY_DEFAULTS: Record<string, unknown> = { protocol: 'TCP' };

export function itemElement(keys: readonly string[], item: unknown): string {
  const id: JsonObject = {};
  for (const key of [...keys].sort()) {
    const value = isObject(item) ? (own(item, key) ?? KEY_DEFAULTS[key]) : undefined;
    if (value !== undefined) id[key] = value;
  }
  return `k:${JSON.stringify(id)}`;
}

/** Children of a value by path element; undefined when it counts as one thing. */
export function childrenOf(shape: Shape, value: unknown): Map<string, { value: unknown; shape: Shape }> | undefined {
  if (shape.is === 'fields' && isObject(value)) {
    const out = new Map<string, { value: unknown; shape: Shape }>();
    for (const [name, child] of Object.entries(value)) {
      if (child !== undefined) out.set(`f:${name}`, { value: child, shape: shape.childType(name) });
    }
    return out;
  }
  if (shape.is === 'map-list' && Array.isArray(value)) {
    return new Map(value.map((item) => [itemElement(shape.keys, item), { value: item, shape: shape.item }]));
  }
  if (shape.is === 'set' && Array.isArray(value)) {
    return new Map(value.map((item) => [`v:${JSON.stringify(item)}`, { value: item, shape: LEAF }]));
  }
  return undefined;
}

/** All fields a value sets. Items of lists and empty containers are members of their own, as upstream's sets have them. */
export function fieldsOf(shape: Shape, value: unknown, isItem = false): FieldSet {
  const children = childrenOf(shape, value);
  if (!children || children.size === 0) return leaf();
  const out: FieldSet = { member: isItem, children: new Map() };
  for (const [element, child] of children) {
    out.children.set(element, fieldsOf(child.shape, child.value, element.startsWith('k:')));
  }
  return out;
}

/** What differs from `before` to `after`. */
export interface Comparison {
  /** Added or with another value. */
  changed: FieldSet;
  removed: FieldSet;
}

export function compare(shape: Shape, before: unknown, after: unknown): Comparison {
  const changed = emptySet();
  const removed = emptySet();
  compareInto(shape, before, after, changed, removed);
  return { changed, removed };
}

function compareInto(shape: Shape, before: unknown, after: unknown, changed: FieldSet, removed: FieldSet): void {
  if (before === after) return;
  const was = childrenOf(shape, before);
  const is = childrenOf(shape, after);
  if (!was || !is) {
    if (!equalJson(before, after)) changed.member = true;
    return;
  }
  for (const [element, child] of is) {
    const old = was.get(element);
    if (!old) changed.children.set(element, fieldsOf(child.shape, child.value, element.startsWith('k:')));
    else descend(element, child.shape, old.value, child.value, changed, removed);
  }
  for (const [element, child] of was) {
    if (!is.has(element)) removed.children.set(element, fieldsOf(child.shape, child.value, true));
  }
  // From something to nothing and back: the container itself has changed hands.
  if ((was.size === 0) !== (is.size === 0)) changed.member = true;
}

function descend(
  element: string,
  shape: Shape,
  before: unknown,
  after: unknown,
  changed: FieldSet,
  removed: FieldSet,
): void {
  // Most of an object is as it was: seen so, it needs no sets.
  if (equalJson(before, after)) return;
  const c = emptySet();
  const r = emptySet();
  compareInto(shape, before, after, c, r);
  if (!isEmpty(c)) changed.children.set(element, c);
  if (!isEmpty(r)) removed.children.set(element, r);
}
