import { readdir, readFile, stat } from 'node:fs/promises';
import { join, relative, resolve } from 'node:path';
import { parse } from 'yaml';
import { kubernetesFacts } from '#spec/kubernetes/facts.ts';
import { isObject, type JsonObject } from '#spec/kubernetes/json.ts';
import { applyJsonPatch } from '#spec/kubernetes/patch/json.ts';
import { applyMergePatch } from '#spec/kubernetes/patch/merge.ts';
import { applyStrategicPatch } from '#spec/kubernetes/patch/strategic.ts';
import { matchesRequirements, parseSelector } from '#spec/kubernetes/selector.ts';
import { UpInvalid } from '#up/errors.ts';
import { type Kustomization, type PatchTarget, type PatchWish, readKustomization } from '#up/kustomize/file.ts';
import { contentHash, generate } from '#up/kustomize/generate.ts';
import { renameReferences } from '#up/kustomize/references.ts';
import { type Item, rename, transform } from '#up/kustomize/transform.ts';
import { readManifests } from '#up/manifests/read.ts';
import type { UpObject } from '#up/objects.ts';

export const KUSTOMIZATION_FILES = ['kustomization.yaml', 'kustomization.yml', 'Kustomization'];

// A base that includes itself would never end.
const MAX_DEPTH = 20;

/** The objects of a kustomization as `kubectl kustomize` makes them: bases first, each layer changing what is below it. */
export async function loadKustomization(folder: string): Promise<UpObject[]> {
  const items = await loadLayer(folder, 0);
  for (const item of items) if (item.hashed) rename(item, `${item.object.metadata.name}-${contentHash(item.object)}`);
  pointToNewNames(items);
  return items.map(({ object }) => object);
}

async function loadLayer(folder: string, depth: number): Promise<Item[]> {
  if (depth > MAX_DEPTH)
    throw new UpInvalid({ where: folder, problem: `kustomizations nested deeper than ${MAX_DEPTH}` });
  const file = await kustomizationIn(folder);
  const k = readKustomization(await readFile(file, 'utf8'), file);
  const items: Item[] = [];
  for (const resource of [...k.resources, ...k.bases])
    items.push(...(await loadResource(folder, resource, file, depth)));
  items.push(...(await generated(k, folder, file)));
  const patched = await patchAll(items, k, folder, file);
  transform(patched, k);
  pointToNewNames(patched);
  return patched;
}

async function kustomizationIn(folder: string): Promise<string> {
  const names = await readdir(folder);
  const found = KUSTOMIZATION_FILES.find((name) => names.includes(name));
  if (!found) throw new UpInvalid({ where: folder, problem: `has no ${KUSTOMIZATION_FILES[0]}` });
  return join(folder, found);
}

async function loadResource(folder: string, resource: string, file: string, depth: number): Promise<Item[]> {
  if (/^(https?|git|ssh):|^git@|\?ref=/.test(resource))
    throw new UpInvalid({
      where: file,
      problem: `${resource} is not on this machine`,
      hint: 'clone it and name the folder',
    });
  const path = join(folder, resource);
  const found = await stat(path).catch((cause: unknown) => {
    throw new UpInvalid({ where: file, problem: `there is no ${resource}` }, { cause });
  });
  if (found.isDirectory()) return loadLayer(path, depth + 1);
  return readManifests(await readFile(path, 'utf8'), path).map((object) => fresh(object));
}

function fresh(object: UpObject, hashed = false): Item {
  return { object, names: new Set([object.metadata.name]), hashed };
}

async function generated(k: Kustomization, folder: string, file: string): Promise<Item[]> {
  const read = (path: string): Promise<Uint8Array> => {
    // kustomize's own rule: a kustomization reads nothing above its folder.
    if (relative(folder, resolve(folder, path)).startsWith('..'))
      throw new UpInvalid({ where: file, problem: `${path} lies outside the folder of the kustomization` });
    return readFile(join(folder, path));
  };
  const items: Item[] = [];
  for (const [kind, wishes] of [
    ['ConfigMap', k.configMapGenerator],
    ['Secret', k.secretGenerator],
  ] as const)
    for (const wish of wishes) {
      const { object, hashed } = await generate(kind, wish, k.generatorOptions, read, file);
      items.push(fresh(object, hashed));
    }
  return items;
}

async function patchAll(items: Item[], k: Kustomization, folder: string, file: string): Promise<Item[]> {
  const wishes: PatchWish[] = [
    ...k.patchesStrategicMerge.map((text) => (text.includes('\n') ? { patch: text } : { path: text })),
    ...k.patchesJson6902,
    ...k.patches,
  ];
  let out = items;
  for (const wish of wishes) {
    const where = wish.path === undefined ? file : join(folder, wish.path);
    const text = wish.path === undefined ? (wish.patch ?? '') : await readFile(where, 'utf8');
    out = applyPatch(out, wish, text, where);
  }
  return out;
}

/** A list is a JSON patch, an object a strategic one; without a target the patch names the object it is for. */
function applyPatch(items: Item[], wish: PatchWish, text: string, where: string): Item[] {
  const patch: unknown = /^\s*[[-](?!--)/.test(text) ? parse(text) : undefined;
  if (Array.isArray(patch)) {
    if (!wish.target) throw new UpInvalid({ where, problem: 'a JSON patch needs a target' });
    const target = wish.target;
    const chosen = items.filter((item) => isTarget(item, target));
    for (const item of chosen)
      item.object = named(applyJsonPatch(item.object as unknown as JsonObject, patch), item, wish);
    return items;
  }
  let out = items;
  for (const part of readPatches(text, where)) {
    const target: PatchTarget = wish.target ?? exactly(part);
    const chosen = new Set(out.filter((item) => isTarget(item, target)));
    if (chosen.size === 0 && !wish.target)
      throw new UpInvalid({ where, problem: `no resource matches the patch for ${part.kind} ${part.metadata.name}` });
    out = out.flatMap((item) => {
      if (!chosen.has(item)) return [item];
      if ((part as { $patch?: unknown }).$patch === 'delete') return [];
      item.object = named(merge(item.object, part), item, wish);
      return [item];
    });
  }
  return out;
}

/** Patches of a target may leave their name away. */
function readPatches(text: string, where: string): UpObject[] {
  const value: unknown = parse(text);
  if (isObject(value) && (!isObject(value['metadata']) || value['metadata']['name'] === undefined))
    return [
      {
        ...value,
        metadata: { ...(isObject(value['metadata']) ? value['metadata'] : {}), name: '' },
      } as unknown as UpObject,
    ];
  return readManifests(text, where);
}

function merge(object: UpObject, patch: UpObject): unknown {
  const type = kubernetesFacts().typesByKind.get(`${object.apiVersion} ${object.kind}`);
  const [target, change] = [object as unknown as JsonObject, patch as unknown as JsonObject];
  return type ? applyStrategicPatch(type, target, change) : applyMergePatch(target, change);
}

/** A patch changes neither name nor kind unless told that it may. */
function named(patched: unknown, { object }: Item, { options }: PatchWish): UpObject {
  const result = patched as UpObject;
  if (!options?.allowNameChange) result.metadata = { ...result.metadata, name: object.metadata.name };
  if (!options?.allowKindChange) return { ...result, apiVersion: object.apiVersion, kind: object.kind };
  return result;
}

function exactly({ apiVersion, kind, metadata }: UpObject): PatchTarget {
  const [group, version] = apiVersion.includes('/') ? apiVersion.split('/') : ['', apiVersion];
  const anchored = metadata.namespace === undefined ? {} : { namespace: metadata.namespace };
  return {
    ...(group === undefined ? {} : { group }),
    ...(version === undefined ? {} : { version }),
    kind,
    name: metadata.name,
    ...anchored,
  };
}

/** Fields of a target are regular expressions that match the whole. */
function isTarget({ object, names }: Item, target: PatchTarget): boolean {
  const [group = '', version = ''] = object.apiVersion.includes('/')
    ? object.apiVersion.split('/')
    : ['', object.apiVersion];
  const fits = (wish: string | undefined, ...values: (string | undefined)[]): boolean =>
    wish === undefined || values.some((v) => new RegExp(`^(?:${wish})$`).test(v ?? ''));
  return (
    fits(target.group, group) &&
    fits(target.version, version) &&
    fits(target.kind, object.kind) &&
    (target.name === '' || fits(target.name, ...names)) &&
    fits(target.namespace, object.metadata.namespace) &&
    (target.labelSelector === undefined || selects(target.labelSelector, object.metadata.labels ?? {})) &&
    (target.annotationSelector === undefined || selects(target.annotationSelector, object.metadata.annotations ?? {}))
  );
}

function selects(text: string, labels: Readonly<Record<string, string>>): boolean {
  const requirements = parseSelector(text);
  if (typeof requirements === 'string') throw new UpInvalid({ where: text, problem: requirements });
  return matchesRequirements(requirements, labels);
}

function pointToNewNames(items: readonly Item[]): void {
  const now = new Map<string, string>();
  for (const { object, names } of items)
    for (const name of names)
      if (name !== object.metadata.name) now.set(`${object.kind} ${name}`, object.metadata.name);
  for (const { object } of items) renameReferences(object, (kind, name) => now.get(`${kind} ${name}`));
}
