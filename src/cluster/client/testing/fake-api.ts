import type { Clock } from '#base/clock.ts';
import { KubeUnreachable, refusalFrom } from '#cluster/client/errors.ts';
import { type KubeObject, timestamp } from '#cluster/client/resources.ts';
import type { ApiAnswer, ApiRequest, Transport, WatchEvent } from '#cluster/client/transport.ts';
import { matchesRequirements, parseSelector } from '#spec/kubernetes/selector.ts';
import type { DeleteOptions, ObjectMeta, Pod, Status } from '#spec/kubernetes/types.gen.ts';

type Stored = KubeObject & { spec?: unknown; status?: unknown };
type Change = { revision: number; collection: string; event: WatchEvent };
type Path = { collection: string; namespace: string; name: string; sub: string; query: URLSearchParams };

/**
 * The API server's verbs over a map: enough of them to test clients and loops without a server. No validation, no defaults,
 * no admission: what needs those is tested with the real server in `cluster/simulation`.
 */
export class FakeApi implements Transport {
  readonly #clock: Clock;
  readonly #objects = new Map<string, Map<string, Stored>>();
  readonly #log: Change[] = [];
  readonly #wake = new Set<() => void>();
  #revision = 1;
  #compacted = 0;
  #cuts = 0;
  #uids = 0;
  /** Called before each request; throw to make it fail. */
  before: (request: ApiRequest) => void = () => undefined;
  /** Called after each request was carried out; throw to lose the answer. */
  after: (request: ApiRequest) => void = () => undefined;
  requests: string[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async request(request: ApiRequest): Promise<ApiAnswer> {
    await Promise.resolve();
    this.requests.push(`${request.method} ${request.path.split('?')[0]}`);
    this.before(request);
    const answer = this.#serve(request, parsePath(request.path));
    this.after(request);
    return answer;
  }

  async *watch(path: string, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    const { collection, namespace, query } = parsePath(path);
    let at = Number(query.get('resourceVersion') ?? 0);
    if (at < this.#compacted) throw refusalFrom(410, status(410, 'Expired', 'too old resource version'));
    const cuts = this.#cuts;
    while (!signal.aborted && this.#cuts === cuts) {
      const next = this.#log.find((c) => c.revision > at && c.collection === collection && within(c, namespace));
      if (next) {
        at = next.revision;
        yield next.event;
        continue;
      }
      await new Promise<void>((resolve) => {
        const go = (): void => {
          signal.removeEventListener('abort', go);
          resolve();
        };
        this.#wake.add(go);
        signal.addEventListener('abort', go, { once: true });
      });
    }
  }

  /** Ends all watches, as a restarting server does. */
  cutWatches(): void {
    this.#cuts++;
    this.#notify();
  }

  compact(): void {
    this.#compacted = this.#revision;
    this.#log.length = 0;
  }

  #serve(request: ApiRequest, at: Path): ApiAnswer {
    const items = this.#collection(at.collection);
    const key = at.namespace ? `${at.namespace}/${at.name}` : at.name;
    if (request.method === 'GET' && at.name === '') return { status: 200, body: this.#list(items, at) };
    if (request.method === 'POST' && at.name === '') return this.#create(items, at, request.body as Stored);
    const present = items.get(key);
    if (!present) return refuse(404, 'NotFound', `${at.collection} "${at.name}" not found`);
    switch (request.method) {
      case 'GET':
        return { status: 200, body: present };
      case 'POST':
        return this.#bind(
          at,
          present as Stored & Pod,
          request.body as { target: { name: string }; metadata: ObjectMeta },
        );
      case 'PUT':
        return this.#update(at, present, request.body as Stored);
      case 'PATCH':
        return this.#update(at, present, mergePatch(present, request.body) as Stored);
      case 'DELETE':
        return this.#delete(at, present, (request.body ?? {}) as DeleteOptions);
    }
  }

  #list(items: Map<string, Stored>, at: Path): unknown {
    const selector = parseSelector(at.query.get('labelSelector') ?? '');
    const found = [...items.values()].filter(
      (o) =>
        (at.namespace === '' || o.metadata.namespace === at.namespace) &&
        (typeof selector === 'string' || matchesRequirements(selector, o.metadata.labels)),
    );
    return { kind: 'List', metadata: { resourceVersion: String(this.#revision) }, items: found };
  }

  #create(items: Map<string, Stored>, at: Path, body: Stored): ApiAnswer {
    const name = body.metadata.name ?? '';
    const key = at.namespace ? `${at.namespace}/${name}` : name;
    if (items.has(key)) return refuse(409, 'AlreadyExists', `${at.collection} "${name}" already exists`);
    const metadata = {
      ...body.metadata,
      ...(at.namespace ? { namespace: at.namespace } : {}),
      uid: `uid-${++this.#uids}`,
      generation: 1,
      creationTimestamp: timestamp(this.#clock.now()),
    };
    return { status: 201, body: this.#store(at, 'ADDED', { ...body, metadata }) };
  }

  #update(at: Path, present: Stored, body: Stored): ApiAnswer {
    const wanted = body.metadata.resourceVersion;
    if (wanted && wanted !== present.metadata.resourceVersion)
      return refuse(409, 'Conflict', `${at.collection} "${at.name}": the object has been modified`);
    if (at.sub === 'status') {
      const next = { ...present, status: body.status };
      return { status: 200, body: same(next, present) ? present : this.#store(at, 'MODIFIED', next) };
    }
    const specChanged = !same(body.spec, present.spec);
    const generation = (present.metadata.generation ?? 1) + (specChanged ? 1 : 0);
    const kept = {
      uid: present.metadata.uid ?? '',
      generation,
      resourceVersion: present.metadata.resourceVersion ?? '',
    };
    const next: Stored = { ...body, metadata: { ...body.metadata, ...kept } };
    if ('status' in present && at.sub === '') next.status = present.status;
    if (same(next, present)) return { status: 200, body: present };
    if (next.metadata.deletionTimestamp && (next.metadata.finalizers ?? []).length === 0 && at.collection !== 'pods')
      return { status: 200, body: this.#store(at, 'DELETED', next) };
    return { status: 200, body: this.#store(at, 'MODIFIED', next) };
  }

  #bind(at: Path, pod: Stored & Pod, binding: { target: { name: string }; metadata: ObjectMeta }): ApiAnswer {
    if (pod.spec.nodeName || binding.metadata.uid !== pod.metadata.uid)
      return refuse(409, 'Conflict', `pod ${at.name} is already assigned to node "${pod.spec.nodeName}"`);
    this.#store(at, 'MODIFIED', { ...pod, spec: { ...pod.spec, nodeName: binding.target.name } });
    return { status: 201, body: status(201, '', 'bound') };
  }

  #delete(at: Path, present: Stored, options: DeleteOptions): ApiAnswer {
    if (options.preconditions?.uid && options.preconditions.uid !== present.metadata.uid)
      return refuse(409, 'Conflict', 'the UID in the precondition does not match');
    const pod = present as Stored & Pod;
    const running = at.collection === 'pods' && pod.spec.nodeName;
    const graceSeconds = running ? (options.gracePeriodSeconds ?? pod.spec.terminationGracePeriodSeconds ?? 30) : 0;
    const finalizers = [...(present.metadata.finalizers ?? [])];
    if (options.propagationPolicy === 'Orphan') finalizers.push('orphan');
    if (options.propagationPolicy === 'Foreground') finalizers.push('foregroundDeletion');
    if (graceSeconds === 0 && finalizers.length === 0) {
      this.#store(at, 'DELETED', present);
      return { status: 200, body: status(200, '', 'deleted') };
    }
    if (present.metadata.deletionTimestamp && graceSeconds > 0) return { status: 200, body: present };
    const metadata = {
      ...present.metadata,
      finalizers,
      deletionTimestamp: timestamp(this.#clock.now() + graceSeconds * 1000),
      deletionGracePeriodSeconds: graceSeconds,
    };
    return { status: 200, body: this.#store(at, 'MODIFIED', { ...present, metadata }) };
  }

  #store(at: Path, type: 'ADDED' | 'MODIFIED' | 'DELETED', object: Stored): Stored {
    const revision = ++this.#revision;
    const stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(revision) } };
    const { namespace, name = '' } = stored.metadata;
    const key = namespace ? `${namespace}/${name}` : name;
    if (type === 'DELETED') this.#collection(at.collection).delete(key);
    else this.#collection(at.collection).set(key, stored);
    this.#log.push({ revision, collection: at.collection, event: { type, object: stored } });
    this.#notify();
    return stored;
  }

  #collection(plural: string): Map<string, Stored> {
    const known = this.#objects.get(plural);
    if (known) return known;
    const made = new Map<string, Stored>();
    this.#objects.set(plural, made);
    return made;
  }

  #notify(): void {
    const waiting = [...this.#wake];
    this.#wake.clear();
    for (const wake of waiting) wake();
  }
}

/** For `before` and `after`: the connection breaks. */
export function breakConnection(what: string): never {
  throw new KubeUnreachable({ what });
}

function parsePath(path: string): Path {
  const url = new URL(path, 'http://fake');
  const match =
    /^\/(?:api\/v1|apis\/[^/]+\/[^/]+)(?:\/namespaces\/([^/]+)(?=\/))?\/([^/]+)(?:\/([^/]+))?(?:\/([^/]+))?$/.exec(
      url.pathname,
    );
  const [, namespace = '', collection = '', name = '', sub = ''] = match ?? [];
  return { namespace, collection, name, sub, query: url.searchParams };
}

function within(change: Change, namespace: string): boolean {
  return namespace === '' || change.event.object.metadata.namespace === namespace;
}

function mergePatch(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const out: Record<string, unknown> =
    typeof target === 'object' && target !== null && !Array.isArray(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete out[key];
    else out[key] = mergePatch(out[key], value);
  }
  return out;
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function status(code: number, reason: string, message: string): Status {
  return { kind: 'Status', apiVersion: 'v1', code, reason, message };
}

function refuse(code: number, reason: string, message: string): ApiAnswer {
  return { status: code, body: status(code, reason, message) };
}
