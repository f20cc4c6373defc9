import { isCode } from '#base/errors.ts';
import { KubeClient } from '#cluster/client/client.ts';
import { keyIn, type Live, pathFor, type Resource } from '#cluster/client/resources.ts';
import type { Transport } from '#cluster/client/transport.ts';
import { resourceOfKind } from '#spec/kubernetes/facts.ts';
import type { KubernetesObject } from '#spec/kubernetes/types.gen.ts';
import { KindUnknown } from '#up/errors.ts';
import { nameOf, type UpObject } from '#up/objects.ts';

export const FIELD_MANAGER = 'estiba-up';

export type LiveObject = Live<KubernetesObject>;

/** A cluster as `up` needs it: any kind of object, by server-side apply. */
export class Cluster {
  readonly client: KubeClient;
  readonly #found = new Map<string, Promise<Resource<KubernetesObject>>>();

  constructor(transport: Transport) {
    this.client = new KubeClient(transport, { fieldManager: FIELD_MANAGER });
  }

  async find(object: UpObject): Promise<LiveObject | undefined> {
    return this.client.find(await this.#resource(object), keyIn(object.metadata.namespace, object.metadata.name));
  }

  /** What the object would be after being applied, without applying it; undefined where its namespace is not there yet. */
  async rehearse(object: UpObject): Promise<LiveObject | undefined> {
    try {
      return await this.#apply(object, { dryRun: 'All' });
    } catch (error) {
      if (isCode(error, 'KUBE_NOT_FOUND')) return undefined;
      throw error;
    }
  }

  apply(object: UpObject): Promise<LiveObject> {
    return this.#apply(object, {});
  }

  /** Dependants are removed too: before it (`Foreground`: gone means all is gone) or after. Nothing when it is gone already. */
  async remove(object: UpObject, propagationPolicy: 'Foreground' | 'Background' = 'Background'): Promise<void> {
    const resource = await this.#resource(object);
    try {
      const key = keyIn(object.metadata.namespace, object.metadata.name);
      await this.client.delete(resource, key, { propagationPolicy });
    } catch (error) {
      if (!isCode(error, 'KUBE_NOT_FOUND')) throw error;
    }
  }

  async #apply(object: UpObject, more: Record<string, string>): Promise<LiveObject> {
    const resource = await this.#resource(object);
    const { namespace, name } = object.metadata;
    const path = pathFor(resource, namespace === undefined ? { name } : { namespace, name });
    // The file is what the app is: a field that somebody else set meanwhile comes back to what the file says.
    const query = new URLSearchParams({ fieldManager: FIELD_MANAGER, force: 'true', ...more });
    return this.client.raw<LiveObject>({
      method: 'PATCH',
      path: `${path}?${query.toString()}`,
      body: object,
      contentType: 'application/apply-patch+yaml',
    });
  }

  #resource(object: UpObject): Promise<Resource<KubernetesObject>> {
    const { apiVersion, kind } = object;
    const id = `${apiVersion} ${kind}`;
    const known = this.#found.get(id) ?? this.#discover(object);
    this.#found.set(id, known);
    return known;
  }

  /** Kinds of Kubernetes are known; others the server tells. */
  async #discover(object: UpObject): Promise<Resource<KubernetesObject>> {
    const { apiVersion, kind } = object;
    const facts = resourceOfKind(apiVersion, kind);
    if (facts) return { apiVersion, kind, plural: facts.resource, namespaced: facts.namespaced };
    const unknown = new KindUnknown({ apiVersion, kind, from: nameOf(object) });
    const path = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
    const list = await this.client
      .raw<{ resources?: { name: string; kind: string; namespaced: boolean }[] }>({ method: 'GET', path })
      .catch((error: unknown) => {
        throw isCode(error, 'KUBE_NOT_FOUND') ? unknown : error;
      });
    const found = list.resources?.find((r) => r.kind === kind && !r.name.includes('/'));
    if (!found) throw unknown;
    return { apiVersion, kind, plural: found.name, namespaced: found.namespaced };
  }
}
