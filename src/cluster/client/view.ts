import { sleep } from '#base/clock.ts';
import { assert, isCode } from '#base/errors.ts';
import type { DeleteOptions } from '#spec/kubernetes/types.gen.ts';
import type { KubeClient, PatchType } from './client.ts';
import { Informer, type InformerDeps } from './informer.ts';
import { controllerOf, type KubeObject, keyOf, type Live, type ObjectKey, type Resource } from './resources.ts';

// A create whose answer was lost is repeated with the same name, so that it cannot make two.
const CREATE_ATTEMPTS = 4;
const CREATE_RETRY_MS = 100;

/** One resource: cached reads, direct writes, and the reads see the writes at once. */
export class Collection<T extends KubeObject> {
  readonly resource: Resource<T>;
  readonly informer: Informer<T>;
  readonly #deps: InformerDeps;

  constructor(deps: InformerDeps, resource: Resource<T>) {
    this.#deps = deps;
    this.resource = resource;
    this.informer = new Informer(deps, resource);
    this.informer.addIndex('namespace', (o) => [o.metadata.namespace ?? '']);
    this.informer.addIndex('controller', (o) => [controllerOf(o)?.uid ?? '']);
  }

  get(key: ObjectKey): Live<T> | undefined {
    return this.informer.get(key);
  }

  list(): Live<T>[] {
    return this.informer.list();
  }

  inNamespace(namespace: string): Live<T>[] {
    return this.informer.by('namespace', namespace);
  }

  /** Objects whose controlling owner has this uid. */
  ownedBy(uid: string): Live<T>[] {
    return this.informer.by('controller', uid);
  }

  /** The server's present object, past the cache: for decisions that must not be made on old news (adoption, preconditions). */
  fresh(key: ObjectKey): Promise<Live<T> | undefined> {
    return this.#deps.client.find(this.resource, key);
  }

  async create(object: T): Promise<Live<T>> {
    assert(object.metadata.name, `${this.resource.kind} to create has a name`);
    let uncertain = false;
    for (let attempt = 1; ; attempt++) {
      try {
        return this.#seen(await this.#deps.client.create(this.resource, object));
      } catch (error) {
        if (uncertain && isCode(error, 'KUBE_ALREADY_EXISTS')) {
          const ours = await this.#deps.client.get(this.resource, keyOf(object));
          if (sameController(ours, object)) return this.#seen(ours);
        }
        if (!isCode(error, 'KUBE_UNREACHABLE') || attempt === CREATE_ATTEMPTS) throw error;
        uncertain = true;
        await sleep(this.#deps.clock, CREATE_RETRY_MS * 2 ** attempt);
      }
    }
  }

  async update(object: T): Promise<Live<T>> {
    return this.#seen(await this.#deps.client.update(this.resource, object));
  }

  async updateStatus(object: T): Promise<Live<T>> {
    return this.#seen(await this.#deps.client.updateStatus(this.resource, object));
  }

  async patch(key: ObjectKey, patch: unknown, type: PatchType = 'merge', sub = ''): Promise<Live<T>> {
    return this.#seen(await this.#deps.client.patch(this.resource, key, patch, { type, sub }));
  }

  /** Deletes exactly this object, not a later one of its name. One that is gone already is no failure. */
  async remove(
    object: Live<T>,
    options: Pick<DeleteOptions, 'gracePeriodSeconds' | 'propagationPolicy'> = {},
  ): Promise<void> {
    try {
      const left = await this.#deps.client.delete(this.resource, keyOf(object), {
        ...options,
        preconditions: { uid: object.metadata.uid },
      });
      if (left) this.#seen(left);
      else this.informer.observeGone(object);
    } catch (error) {
      // A conflict means another uid holds the name by now.
      if (!isCode(error, 'KUBE_NOT_FOUND', 'KUBE_CONFLICT')) throw error;
      this.informer.observeGone(object);
    }
  }

  #seen(object: Live<T>): Live<T> {
    this.informer.observe(object);
    return object;
  }
}

/** The cluster as one process sees it: a `Collection` a resource, shared by all its controllers. */
export class ClusterView {
  readonly client: KubeClient;
  readonly #deps: InformerDeps;
  readonly #collections = new Map<string, { start(): void; stop(): Promise<void>; synced: Promise<void> }>();
  readonly #typed = new Map<string, unknown>();
  #started = false;

  constructor(deps: InformerDeps) {
    this.#deps = deps;
    this.client = deps.client;
  }

  of<T extends KubeObject>(resource: Resource<T>): Collection<T> {
    const id = `${resource.apiVersion}/${resource.plural}`;
    const known = this.#typed.get(id);
    if (known) return known as Collection<T>;
    const made = new Collection(this.#deps, resource);
    this.#typed.set(id, made);
    this.#collections.set(id, made.informer);
    if (this.#started) made.informer.start();
    return made;
  }

  /** Starts all that were asked for and resolves when each has its first list. */
  async start(): Promise<void> {
    this.#started = true;
    for (const informer of this.#collections.values()) informer.start();
    await Promise.all([...this.#collections.values()].map((i) => i.synced));
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#collections.values()].map((i) => i.stop()));
  }
}

function sameController(a: KubeObject, b: KubeObject): boolean {
  return controllerOf(a)?.uid === controllerOf(b)?.uid;
}
