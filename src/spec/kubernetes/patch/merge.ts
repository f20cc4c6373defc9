import { cloneJson, isObject, type JsonObject, own, put } from '#spec/kubernetes/json.ts';

/** RFC 7386: objects merge, `null` removes, everything else replaces. The target is not changed. */
export function applyMergePatch(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return cloneJson(patch);
  const out: JsonObject = isObject(target) ? { ...target } : {};
  if (isObject(target) && Object.hasOwn(target, '__proto__')) put(out, '__proto__', own(target, '__proto__'));
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete out[key];
    else put(out, key, applyMergePatch(own(out, key), value));
  }
  return out;
}
