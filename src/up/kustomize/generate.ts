import { createHash } from 'node:crypto';
import type { JsonObject } from '#spec/kubernetes/json.ts';
import { UpInvalid } from '#up/errors.ts';
import type { Generator, GeneratorOptions } from '#up/kustomize/file.ts';
import type { UpObject } from '#up/objects.ts';

/** What a generator reads: bytes of a file relative to its kustomization. */
export type ReadBytes = (path: string) => Promise<Uint8Array>;

export interface Generated {
  object: UpObject;
  /** Its name ends in a hash of its content, so that a change rolls the pods that use it. */
  hashed: boolean;
}

export async function generate(
  kind: 'ConfigMap' | 'Secret',
  wish: Generator,
  common: GeneratorOptions | undefined,
  read: ReadBytes,
  where: string,
): Promise<Generated> {
  if (wish.behavior !== undefined && wish.behavior !== 'create')
    throw new UpInvalid({
      where,
      problem: `behavior ${wish.behavior} of ${wish.name} is not supported: only create is`,
    });
  const data = await entriesOf(wish, read, where);
  const options = { ...common, ...wish.options };
  const labels = { ...common?.labels, ...wish.options?.labels };
  const annotations = { ...common?.annotations, ...wish.options?.annotations };
  const object: UpObject = {
    apiVersion: 'v1',
    kind,
    metadata: {
      name: wish.name,
      ...(wish.namespace === undefined ? {} : { namespace: wish.namespace }),
      ...(Object.keys(labels).length === 0 ? {} : { labels }),
      ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
    },
    ...contentOf(kind, data),
    ...(kind === 'Secret' ? { type: wish.type ?? 'Opaque' } : {}),
    ...(options.immutable ? { immutable: true } : {}),
  };
  return { object, hashed: !options.disableNameSuffixHash };
}

function contentOf(kind: 'ConfigMap' | 'Secret', data: ReadonlyMap<string, Uint8Array>): JsonObject {
  const plain: JsonObject = {};
  const binary: JsonObject = {};
  for (const [key, bytes] of data) {
    const buffer = Buffer.from(bytes);
    const text = buffer.toString('utf8');
    if (kind === 'ConfigMap' && Buffer.from(text).equals(buffer)) plain[key] = text;
    else (kind === 'Secret' ? plain : binary)[key] = buffer.toString('base64');
  }
  return { data: plain, ...(Object.keys(binary).length === 0 ? {} : { binaryData: binary }) };
}

async function entriesOf(wish: Generator, read: ReadBytes, where: string): Promise<ReadonlyMap<string, Uint8Array>> {
  const out = new Map<string, Uint8Array>();
  const add = (key: string, value: Uint8Array): void => {
    if (!/^[-._a-zA-Z0-9]+$/.test(key))
      throw new UpInvalid({ where, problem: `${wish.name}: ${JSON.stringify(key)} is no key` });
    if (out.has(key)) throw new UpInvalid({ where, problem: `${wish.name} has the key ${key} twice` });
    out.set(key, value);
  };
  for (const file of wish.files) {
    const equals = file.indexOf('=');
    const path = file.slice(equals + 1);
    add(equals < 0 ? (path.split('/').at(-1) ?? path) : file.slice(0, equals), await read(path));
  }
  for (const literal of wish.literals) {
    const [, key, value = ''] = /^([^=]+)=(.*)$/s.exec(literal) ?? [];
    if (key === undefined)
      throw new UpInvalid({ where, problem: `${wish.name}: ${JSON.stringify(literal)} is not KEY=VALUE` });
    add(key, Buffer.from(value.replace(/^(["'])(.*)\1$/s, '$2')));
  }
  for (const file of [...wish.envs, ...(wish.env === undefined ? [] : [wish.env])]) {
    const text = Buffer.from(await read(file)).toString('utf8');
    for (const line of text.split(/\r?\n/)) {
      const [, key, value = ''] = /^\s*([^#=\s][^=]*?)\s*=(.*)$/.exec(line) ?? [];
      if (key !== undefined) add(key, Buffer.from(value));
    }
  }
  return out;
}

// Letters that make no words, and none that look alike: kustomize's own alphabet for hashes.
const FRIENDLY: Readonly<Record<string, string>> = { '0': 'g', '1': 'h', '3': 'k', a: 'm', e: 't' };

/** Ten letters of the SHA-256 of what is in it, as kustomize makes them (the name is left empty), so that both agree on names. */
export function contentHash({ kind, metadata: _, ...object }: UpObject): string {
  const { data, binaryData, type } = object as { data?: JsonObject; binaryData?: JsonObject; type?: string };
  const name = '';
  const body =
    kind === 'Secret'
      ? { data: sorted(data), kind, name, type: type ?? '' }
      : { ...(binaryData ? { binaryData: sorted(binaryData) } : {}), data: sorted(data), kind, name };
  const hex = createHash('sha256').update(goJson(body)).digest('hex');
  return [...hex.slice(0, 10)].map((c) => FRIENDLY[c] ?? c).join('');
}

/** Go writes maps in the order of their keys; nothing in them is an empty text to kustomize. */
function sorted(value: JsonObject | undefined): JsonObject | string {
  const entries = Object.entries(value ?? {});
  return entries.length === 0 ? '' : Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Go's encoder writes these three and two separators of lines as escapes. */
function goJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
