import { parseAllDocuments } from 'yaml';
import { badRequest } from '../status.ts';

export { cloneJson, equalJson, isObject, type JsonObject, own, put } from '#spec/kubernetes/json.ts';

// Deeper objects are no Kubernetes objects, and everything after the parser walks recursively.
export const MAX_DEPTH = 150;
const MAX_DUPLICATES = 20;

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
