import type { FieldType, TypeFacts } from '#spec/kubernetes/facts.ts';
import { isObject, type JsonObject } from '../codec/json.ts';

/** Calls `enter` for every struct of a typed value, outermost first, with its JSON path as Kubernetes writes it. */
export function visitStructs(
  type: TypeFacts,
  value: JsonObject,
  enter: (type: TypeFacts, struct: JsonObject, path: string) => void,
  path = '',
): void {
  enter(type, value, path);
  for (const [name, item] of Object.entries(value)) {
    const field = type.fields.get(name);
    if (field && item !== undefined) visitValue(field.type, item, path === '' ? name : `${path}.${name}`, enter);
  }
}

function visitValue(
  type: FieldType,
  value: unknown,
  path: string,
  enter: (type: TypeFacts, struct: JsonObject, path: string) => void,
): void {
  if (type.kind === 'ref') {
    if (isObject(value)) visitStructs(type.type, value, enter, path);
  } else if (type.kind === 'list') {
    if (Array.isArray(value) && type.item.kind !== 'scalar')
      for (const [i, item] of value.entries()) visitValue(type.item, item, `${path}[${i}]`, enter);
  } else if (type.kind === 'map' && type.item.kind !== 'scalar' && isObject(value)) {
    for (const [key, item] of Object.entries(value)) visitValue(type.item, item, `${path}[${key}]`, enter);
  }
}
