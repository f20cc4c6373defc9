import { isCode } from '#base/errors.ts';
import type { Binding, DeleteOptions, Eviction, ListMeta } from '#spec/kubernetes/types.gen.ts';
import { refusalFrom } from './errors.ts';
import { type KubeObject, type Live, type ObjectKey, pathFor, type Resource, splitKey } from './resources.ts';
import type { ApiRequest, Transport, WatchEvent } from './transport.ts';

export interface ListOptions {
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
}

export interface ListPage<T extends KubeObject> {
  items: Live<T>[];
  /** Watch from here. */
  resourceVersion: string;
}

/** `merge` RFC 7386, `strategic` Kubernetes' merge keys, `json` RFC 6902, `apply` server-side apply. */
export type PatchType = 'merge' | 'strategic' | 'json' | 'apply';

const PATCH_TYPES: Record<PatchType, string> = {
  merge: 'application/merge-patch+json',
  strategic: 'application/strategic-merge-patch+json',
  json: 'application/json-patch+json',
  apply: 'application/apply-patch+yaml',
};

// Below the server's own bound of answers; large lists come in pages so that neither side holds them twice.
const PAGE_ITEMS = 5_000;

/** The verbs of the Kubernetes API, typed by resource. Every refusal is an error of `errors.ts`. */
export class KubeClient {
  readonly #transport: Transport;
  readonly #fieldManager: string;

  constructor(transport: Transport, options: { fieldManager: string }) {
    this.#transport = transport;
    this.#fieldManager = options.fieldManager;
  }

  get<T extends KubeObject>(resource: Resource<T>, key: ObjectKey): Promise<Live<T>> {
    return this.#send<Live<T>>({ method: 'GET', path: pathFor(resource, splitKey(key)) });
  }

  async find<T extends KubeObject>(resource: Resource<T>, key: ObjectKey): Promise<Live<T> | undefined> {
    try {
      return await this.get(resource, key);
    } catch (error) {
      if (isCode(error, 'KUBE_NOT_FOUND')) return undefined;
      throw error;
    }
  }

  /** All pages of a list, at one revision. */
  async list<T extends KubeObject>(resource: Resource<T>, options: ListOptions = {}): Promise<ListPage<T>> {
    const items: Live<T>[] = [];
    let next = '';
    for (;;) {
      const path = withQuery(pathFor(resource, { namespace: options.namespace ?? '' }), {
        ...selectors(options),
        limit: String(PAGE_ITEMS),
        ...(next === '' ? {} : { continue: next }),
      });
      const page = await this.#send<{ items?: Live<T>[]; metadata: ListMeta }>({ method: 'GET', path });
      items.push(...(page.items ?? []));
      next = page.metadata.continue ?? '';
      if (next === '') return { items, resourceVersion: page.metadata.resourceVersion ?? '' };
    }
  }

  watch<T extends KubeObject>(
    resource: Resource<T>,
    options: ListOptions & { resourceVersion: string },
    signal: AbortSignal,
  ): AsyncIterable<WatchEvent<Live<T>>> {
    const path = withQuery(pathFor(resource, { namespace: options.namespace ?? '' }), {
      ...selectors(options),
      watch: 'true',
      allowWatchBookmarks: 'true',
      resourceVersion: options.resourceVersion,
    });
    return this.#transport.watch(path, signal) as AsyncIterable<WatchEvent<Live<T>>>;
  }

  create<T extends KubeObject>(resource: Resource<T>, object: T): Promise<Live<T>> {
    const path = pathFor(resource, { namespace: object.metadata.namespace ?? '' });
    return this.#send<Live<T>>({ method: 'POST', path: this.#managed(path), body: named(resource, object) });
  }

  /** Fails with `KUBE_CONFLICT` unless the object's resourceVersion is the present one. */
  update<T extends KubeObject>(resource: Resource<T>, object: T, sub = ''): Promise<Live<T>> {
    const { namespace = '', name = '' } = object.metadata;
    const path = pathFor(resource, { namespace, name, sub });
    return this.#send<Live<T>>({ method: 'PUT', path: this.#managed(path), body: named(resource, object) });
  }

  updateStatus<T extends KubeObject>(resource: Resource<T>, object: T): Promise<Live<T>> {
    return this.update(resource, object, 'status');
  }

  patch<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    patch: unknown,
    options: { type: PatchType; sub?: string; force?: boolean },
  ): Promise<Live<T>> {
    const path = this.#managed(pathFor(resource, { ...splitKey(key), sub: options.sub ?? '' }));
    return this.#send<Live<T>>({
      method: 'PATCH',
      path: options.force ? `${path}&force=true` : path,
      body: patch,
      contentType: PATCH_TYPES[options.type],
    });
  }

  /** Answers the object while finalizers or a grace period keep it, undefined when it is gone at once. */
  async delete<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    options: Omit<DeleteOptions, 'apiVersion' | 'kind'> = {},
  ): Promise<Live<T> | undefined> {
    const body: DeleteOptions = { apiVersion: 'v1', kind: 'DeleteOptions', ...options };
    const answer = await this.#send<KubeObject>({ method: 'DELETE', path: pathFor(resource, splitKey(key)), body });
    return answer.metadata?.deletionTimestamp ? (answer as Live<T>) : undefined;
  }

  /** Refused with `KUBE_TOO_MANY` when a disruption budget forbids it. */
  async evict(pod: ObjectKey, options: Omit<DeleteOptions, 'apiVersion' | 'kind'> = {}): Promise<void> {
    const { namespace, name } = splitKey(pod);
    const body: Eviction = {
      apiVersion: 'policy/v1',
      kind: 'Eviction',
      metadata: { namespace, name },
      deleteOptions: options,
    };
    await this.#send({ method: 'POST', path: `/api/v1/namespaces/${namespace}/pods/${name}/eviction`, body });
  }

  /** Binds a pod to a node; refused with `KUBE_CONFLICT` when it is bound already or has another uid. */
  async bind(pod: Live<KubeObject>, nodeName: string): Promise<void> {
    const { namespace = '', name, uid } = pod.metadata;
    const body: Binding = {
      apiVersion: 'v1',
      kind: 'Binding',
      metadata: { namespace, name, uid },
      target: { apiVersion: 'v1', kind: 'Node', name: nodeName },
    };
    await this.#send({ method: 'POST', path: `/api/v1/namespaces/${namespace}/pods/${name}/binding`, body });
  }

  /** For the calls that have no verb here (discovery, scale of an unknown kind, `/version`). */
  raw<T>(request: ApiRequest): Promise<T> {
    return this.#send<T>(request);
  }

  async #send<T>(request: ApiRequest): Promise<T> {
    const answer = await this.#transport.request(request);
    if (answer.status >= 400) throw refusalFrom(answer.status, answer.body);
    return answer.body as T;
  }

  #managed(path: string): string {
    return withQuery(path, { fieldManager: this.#fieldManager });
  }
}

function selectors(options: ListOptions): Record<string, string> {
  return {
    ...(options.labelSelector ? { labelSelector: options.labelSelector } : {}),
    ...(options.fieldSelector ? { fieldSelector: options.fieldSelector } : {}),
  };
}

function withQuery(path: string, query: Record<string, string>): string {
  return `${path}?${new URLSearchParams(query).toString()}`;
}

/** List items come without apiVersion and kind; what is sent must carry them. */
function named<T extends KubeObject>(resource: Resource<T>, object: T): T {
  return object.kind === resource.kind ? object : { ...object, apiVersion: resource.apiVersion, kind: resource.kind };
}
