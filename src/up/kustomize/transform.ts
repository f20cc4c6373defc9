import { resourceOfKind } from '#spec/kubernetes/facts.ts';
import { isObject, type JsonObject } from '#spec/kubernetes/json.ts';
import type { Kustomization } from '#up/kustomize/file.ts';
import type { UpObject } from '#up/objects.ts';

/** An object on its way through layers of kustomizations. Patches and references may use any name it has had. */
export interface Item {
  object: UpObject;
  names: Set<string>;
  hashed: boolean;
}

/** What a kustomization says of all its objects; each object is changed in place. */
export function transform(items: readonly Item[], k: Kustomization): void {
  if (k.namespace !== undefined) for (const item of items) setNamespace(item.object, k.namespace, items);
  const { namePrefix = '', nameSuffix = '' } = k;
  if (namePrefix !== '' || nameSuffix !== '')
    for (const item of items) {
      if (['Namespace', 'CustomResourceDefinition', 'APIService'].includes(item.object.kind)) continue;
      rename(item, `${namePrefix}${item.object.metadata.name}${nameSuffix}`);
    }
  for (const { object } of items) {
    addLabels(object, k.commonLabels, { selectors: true, templates: true });
    for (const { pairs, includeSelectors = false, includeTemplates = false } of k.labels)
      addLabels(object, pairs, { selectors: includeSelectors, templates: includeSelectors || includeTemplates });
    addAnnotations(object, k.commonAnnotations);
    for (const container of containersOf(object)) setImage(container, k.images);
  }
  for (const { name, count } of k.replicas)
    for (const { object, names } of items)
      if (names.has(name) && ['Deployment', 'StatefulSet', 'ReplicaSet'].includes(object.kind))
        objectAt(object, 'spec')['replicas'] = count;
}

export function rename(item: Item, name: string): void {
  item.object.metadata.name = name;
  item.names.add(name);
}

function setNamespace(object: UpObject, namespace: string, items: readonly Item[]): void {
  if (object.kind === 'Namespace') object.metadata.name = namespace;
  else if (resourceOfKind(object.apiVersion, object.kind)?.namespaced ?? true) object.metadata.namespace = namespace;
  // Accounts move with their namespace, and so do the bindings that name them.
  const { subjects } = object as UpObject & { subjects?: unknown };
  if (!object.kind.endsWith('RoleBinding') || !Array.isArray(subjects)) return;
  for (const subject of subjects.filter(isObject)) {
    const known = items.some(
      ({ object: o, names }) => o.kind === 'ServiceAccount' && names.has(String(subject['name'])),
    );
    if (subject['kind'] === 'ServiceAccount' && (known || subject['name'] === 'default'))
      subject['namespace'] = namespace;
  }
}

function addLabels(
  object: UpObject,
  labels: Readonly<Record<string, string>>,
  where: { selectors: boolean; templates: boolean },
): void {
  if (Object.keys(labels).length === 0) return;
  object.metadata.labels = { ...object.metadata.labels, ...labels };
  const spec = (object as { spec?: unknown }).spec;
  if (!isObject(spec)) return;
  for (const template of templatesOf(object)) {
    if (where.templates) Object.assign(objectAt(template, 'metadata', 'labels'), labels);
  }
  if (!where.selectors) return;
  if (object.kind === 'Service') {
    if (isObject(spec['selector'])) Object.assign(spec['selector'], labels);
  } else if (['Deployment', 'ReplicaSet', 'DaemonSet', 'StatefulSet'].includes(object.kind))
    Object.assign(objectAt(spec, 'selector', 'matchLabels'), labels);
  else if (['PodDisruptionBudget', 'NetworkPolicy'].includes(object.kind)) {
    const selector = object.kind === 'NetworkPolicy' ? spec['podSelector'] : spec['selector'];
    if (isObject(selector) && isObject(selector['matchLabels'])) Object.assign(selector['matchLabels'], labels);
  }
}

function addAnnotations(object: UpObject, annotations: Readonly<Record<string, string>>): void {
  if (Object.keys(annotations).length === 0) return;
  object.metadata.annotations = { ...object.metadata.annotations, ...annotations };
  for (const template of templatesOf(object)) Object.assign(objectAt(template, 'metadata', 'annotations'), annotations);
}

/** Pod templates of an object; a CronJob has one in the template of its jobs. */
function templatesOf(object: UpObject): JsonObject[] {
  const spec = (object as { spec?: unknown }).spec;
  if (!isObject(spec)) return [];
  const jobs = isObject(spec['jobTemplate']) ? spec['jobTemplate']['spec'] : undefined;
  return [spec['template'], isObject(jobs) ? jobs['template'] : undefined].filter(isObject);
}

function containersOf(object: UpObject): JsonObject[] {
  const specs =
    object.kind === 'Pod' ? [(object as { spec?: unknown }).spec] : templatesOf(object).map((t) => t['spec']);
  return specs.filter(isObject).flatMap((spec) =>
    ['initContainers', 'containers', 'ephemeralContainers'].flatMap((field) => {
      const list = spec[field];
      return Array.isArray(list) ? list.filter(isObject) : [];
    }),
  );
}

function setImage(container: JsonObject, images: Kustomization['images']): void {
  const written = container['image'];
  if (typeof written !== 'string') return;
  const [, name = written, rest = ''] = /^(.+?)((?::[^:/@]+)?(?:@.+)?)$/.exec(written) ?? [];
  const wish = images.find((i) => i.name === name);
  if (!wish) return;
  const version = wish.digest !== undefined ? `@${wish.digest}` : wish.newTag !== undefined ? `:${wish.newTag}` : rest;
  container['image'] = `${wish.newName ?? name}${version}`;
}

/** The object at a path, made on the way when it is missing. */
function objectAt(root: object, ...path: string[]): JsonObject {
  let at = root as JsonObject;
  for (const key of path) {
    const next = at[key];
    const here: JsonObject = isObject(next) ? next : {};
    at[key] = here;
    at = here;
  }
  return at;
}
