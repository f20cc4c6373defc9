import { type ResourceFacts, resourceOfKind } from '#spec/kubernetes/facts.ts';
import { UpInvalid } from '#up/errors.ts';
import { type AppPlan, inOrder, nameOf, type UpObject } from '#up/objects.ts';

export interface ManifestsInput {
  app: string;
  objects: readonly UpObject[];
  /** Undefined: objects stay where they say, and those that say nothing go to `default`. */
  namespace?: string;
}

/** Manifests as they are, each with a namespace, in the order of being applied. */
export function planManifests({ app, objects, namespace }: ManifestsInput): AppPlan {
  const home = namespace ?? 'default';
  const placed = objects.map((object) => place(object, home));
  const seen = new Set<string>();
  for (const object of placed) {
    const name = `${object.apiVersion} ${nameOf(object)}`;
    if (seen.has(name)) throw new UpInvalid({ where: name, problem: 'stands twice in these files' });
    seen.add(name);
  }
  const makesHome = namespace !== undefined && namespace !== 'default' && !placed.some((o) => isNamespace(o, home));
  const namespaces: UpObject[] = makesHome ? [{ apiVersion: 'v1', kind: 'Namespace', metadata: { name: home } }] : [];
  return { app, namespace: home, builds: [], objects: inOrder([...namespaces, ...placed]) };
}

function place(object: UpObject, namespace: string): UpObject {
  const facts: ResourceFacts | undefined = resourceOfKind(object.apiVersion, object.kind);
  // A kind that is not known here is taken for one that lives in a namespace if it names one.
  if (facts ? !facts.namespaced : object.metadata.namespace === undefined) return object;
  return { ...object, metadata: { ...object.metadata, namespace: object.metadata.namespace ?? namespace } };
}

function isNamespace({ kind, metadata }: UpObject, name: string): boolean {
  return kind === 'Namespace' && metadata.name === name;
}
