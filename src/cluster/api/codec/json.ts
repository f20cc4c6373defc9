import { parseAllDocuments } from 'yaml';
import { badRequest } from '../status.ts';

/** A JSON object; keys may be any name, `__proto__` included: read with `own`, write with `put`. */
export type JsonObject = { [key: string]: unknown };

// Deeper objects are no Kubernetes objects, and everything after the parser walks recursively.
export const MAX_DEPTH = 150;
const MAX_DUPLICATES = 20;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function own(object: JsonObject, key: string): unknown {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

/** Assignment that makes a plain property of `__proto__`, too. */
export function put(object: JsonObject, key: string, value: unknown): void {
  if (key === '__proto__')
    Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true });
  else object[key] = value;
}

export function cloneJson<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(cloneJson) as T;
  const out: JsonObject = {};
  for (const [key, item] of Object.entries(value)) if (item !== undefined) put(out, key, cloneJson(item));
  return out as T;
}

/** Same JSON; a key with `undefined` counts as absent. */
export function equalJson(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) || Array.isArray(b)) {
    if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false;
    return a.every((item, i) => equalJson(item, b[i]));
  }
  const left = a as JsonObject;
  const right = b as JsonObject;
  let size = 0;
  for (const key of Object.keys(left)) {
    if (left[key] === undefined) continue;
    size++;
    if (!equalJson(left[key], own(right, key))) return false;
  }
  for (const key of Object.keys(right)) if (right[key] !== undefined) size--;
  return size === 0;
}

export interface ParsedBody {
  value: unknown;
  /** Paths of keys that occur twice in one object; the last one counts. */
  duplicates: string[];
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

export function decodeUtf8(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch (error) {
    throw badRequest('the body of the request is not valid UTF-8', error);
  }
}

/** JSON text with bounds. `findDuplicates` costs a second pass over the text. */
export function parseJson(text: string, rule: { findDuplicates: boolean }): ParsedBody {
  const deepest = depthOf(text);
  if (deepest > MAX_DEPTH) throw badRequest(`the object is nested ${deepest} levels deep; the limit is ${MAX_DEPTH}`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw badRequest(`error decoding from json: ${error instanceof Error ? error.message : ''}`, error);
  }
  return { value, duplicates: rule.findDuplicates ? duplicateKeys(text) : [] };
}

export function parseYaml(text: string): ParsedBody {
  // JSON is YAML, and what clients mostly send under YAML's media type.
  if (/^\s*[{[]/.test(text)) {
    try {
      return parseJson(text, { findDuplicates: true });
    } catch (error) {
      if (depthOf(text) > MAX_DEPTH) throw error;
    }
  }
  if (depthByIndent(text) > MAX_DEPTH) throw badRequest(`the object is nested more than ${MAX_DEPTH} levels deep`);
  const documents = parseAllDocuments(text, { uniqueKeys: false, maxAliasCount: 100 } as Parameters<
    typeof parseAllDocuments
  >[1]);
  const document = Array.isArray(documents) ? documents[0] : undefined;
  if (!document) throw badRequest('error converting YAML to JSON: the body is empty');
  if (document.errors.length > 0)
    throw badRequest(`error converting YAML to JSON: yaml: ${document.errors[0]?.message.split('\n')[0] ?? ''}`);
  try {
    // Through JSON text: dates, maps with non-string keys and the like become what JSON can say.
    const json = JSON.stringify(document.toJS({ maxAliasCount: 100 }));
    return parseJson(json ?? 'null', { findDuplicates: false });
  } catch (error) {
    throw badRequest('error converting YAML to JSON: the document cannot be written as JSON', error);
  }
}

/** Bound on YAML nesting before the recursive parser sees it: flow brackets, and one level an indented line. */
function depthByIndent(text: string): number {
  let compact = 0;
  for (const line of text.split('\n')) {
    const dashes = /^\s*((?:- )+)/.exec(line)?.[1]?.length ?? 0;
    const indent = line.length - line.trimStart().length;
    compact = Math.max(compact, dashes / 2 + Math.floor(indent / 2));
  }
  return Math.max(compact, depthOf(text));
}

function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x22) {
      for (i++; i < text.length && text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++;
    } else if (c === 0x7b || c === 0x5b) deepest = Math.max(deepest, ++depth);
    else if (c === 0x7d || c === 0x5d) depth--;
  }
  return deepest;
}

/** Walks well-formed JSON text and names keys that an object has twice. */
function duplicateKeys(text: string): string[] {
  const found: string[] = [];
  const stack: { keys: Set<string> | undefined; path: string; index: number; key: string }[] = [];
  let expectKey = false;
  for (let i = 0; i < text.length && found.length < MAX_DUPLICATES; i++) {
    const c = text[i];
    const top = stack.at(-1);
    if (c === '"') {
      const start = i;
      for (i++; text[i] !== '"'; i++) if (text[i] === '\\') i++;
      if (expectKey && top?.keys) {
        const key = JSON.parse(text.slice(start, i + 1)) as string;
        if (top.keys.has(key)) found.push(top.path === '' ? key : `${top.path}.${key}`);
        top.keys.add(key);
        top.key = key;
        expectKey = false;
      }
    } else if (c === '{' || c === '[') {
      const path = !top
        ? ''
        : top.keys
          ? top.path === ''
            ? top.key
            : `${top.path}.${top.key}`
          : `${top.path}[${top.index}]`;
      stack.push({ keys: c === '{' ? new Set() : undefined, path, index: 0, key: '' });
      expectKey = c === '{';
    } else if (c === '}' || c === ']') {
      stack.pop();
      expectKey = false;
    } else if (c === ',' && top) {
      top.index++;
      expectKey = top.keys !== undefined;
    }
  }
  return found;
}
