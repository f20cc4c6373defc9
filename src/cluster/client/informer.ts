import { type Clock, sleep } from '#base/clock.ts';
import { assert, describeChain, isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { Random } from '#base/random.ts';
import type { Status } from '#spec/kubernetes/types.gen.ts';
import type { KubeClient, ListOptions } from './client.ts';
import { refusalFrom } from './errors.ts';
import { type KubeObject, keyOf, type Live, type ObjectKey, type Resource, revisionOf } from './resources.ts';

/** `now` undefined: it is gone; `before` undefined: it is new. */
export type ChangeHandler<T extends KubeObject> = (now: Live<T> | undefined, before: Live<T> | undefined) => void;

export interface InformerDeps {
  client: KubeClient;
  clock: Clock;
  random: Random;
  log: Logger;
}

type Index<T extends KubeObject> = { of: (object: Live<T>) => readonly string[]; keys: Map<string, Set<ObjectKey>> };

const BACKOFF_MS = { base: 200, max: 30_000 };
// A server that accepts watches and ends them at once must not be asked in a circle.
const HEALTHY_WATCH_MS = 1_000;

/**
 * A local copy of one resource, kept by list and watch. It resumes from the last revision it saw and lists again when the server
 * has compacted that away; a lost event costs a delay, nothing more.
 *
 *     list @R ──▶ watch from R ──▶ event @r: apply, R = r ──▶ … ──▶ stream ends: watch from R
 *       ▲                                                              │
 *       └───────────────────────── 410 Gone ◀──────────────────────────┘
 *
 * `observe` adds what our own writes returned before the watch tells of it, so a reconciler reads its own writes and needs no
 * expectations. It is sound because revisions are ordered: an object at or below R that is not here has been deleted.
 */
export class Informer<T extends KubeObject> {
  readonly resource: Resource<T>;
  readonly #deps: InformerDeps;
  readonly #options: ListOptions;
  readonly #items = new Map<ObjectKey, Live<T>>();
  readonly #indexes = new Map<string, Index<T>>();
  readonly #handlers: ChangeHandler<T>[] = [];
  /** Uids that our own delete took away and whose DELETED event is still to come. */
  readonly #deleted = new Set<string>();
  readonly #stop = new AbortController();
  #revision = 0;
  #running: Promise<void> | undefined;
  #markSynced: () => void = () => undefined;
  readonly synced: Promise<void>;
  hasSynced = false;

  constructor(deps: InformerDeps, resource: Resource<T>, options: ListOptions = {}) {
    this.#deps = deps;
    this.resource = resource;
    this.#options = options;
    this.synced = new Promise((resolve) => {
      this.#markSynced = resolve;
    });
  }

  get(key: ObjectKey): Live<T> | undefined {
    return this.#items.get(key);
  }

  list(): Live<T>[] {
    return [...this.#items.values()];
  }

  get size(): number {
    return this.#items.size;
  }

  /** The revision up to which all changes are in; own writes may be ahead of it. */
  get revision(): number {
    return this.#revision;
  }

  /** Declares an index; `of` must depend on the object alone. */
  addIndex(name: string, of: (object: Live<T>) => readonly string[]): void {
    if (this.#indexes.has(name)) return;
    const index: Index<T> = { of, keys: new Map() };
    this.#indexes.set(name, index);
    for (const [key, object] of this.#items) for (const value of of(object)) addTo(index.keys, value, key);
  }

  by(name: string, value: string): Live<T>[] {
    const index = this.#indexes.get(name);
    assert(index, `${this.resource.plural} has no index ${name}`);
    const out: Live<T>[] = [];
    for (const key of index.keys.get(value) ?? []) {
      const object = this.#items.get(key);
      if (object) out.push(object);
    }
    return out;
  }

  /** Handlers run synchronously, in order of registration; they get what is already here as new. */
  onChange(handler: ChangeHandler<T>): void {
    this.#handlers.push(handler);
    for (const object of this.#items.values()) handler(object, undefined);
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  /** What a write of ours answered. */
  observe(object: Live<T>): void {
    const known = this.#items.get(keyOf(object));
    if (!known && revisionOf(object) <= this.#revision) return;
    if (!this.#deleted.has(object.metadata.uid)) this.#put(object);
  }

  /** A delete of ours took this object away at once. */
  observeGone(object: Live<T>): void {
    const known = this.#items.get(keyOf(object));
    if (known?.metadata.uid !== object.metadata.uid) return;
    this.#deleted.add(object.metadata.uid);
    this.#drop(keyOf(object));
  }

  async #run(): Promise<void> {
    const { clock, random, log } = this.#deps;
    const signal = this.#stop.signal;
    let failures = 0;
    let listed = false;
    while (!signal.aborted) {
      const startedMs = clock.monotonic();
      try {
        if (!listed) await this.#relist();
        listed = true;
        await this.#follow(signal);
        if (clock.monotonic() - startedMs >= HEALTHY_WATCH_MS) failures = 0;
        else failures++;
      } catch (error) {
        if (signal.aborted) return;
        if (isCode(error, 'KUBE_GONE')) listed = false;
        else failures++;
        log.debug('informer', () => ({ of: this.resource.plural, error: describeChain(error) }));
      }
      const ceilingMs = Math.min(BACKOFF_MS.max, BACKOFF_MS.base * 2 ** Math.max(0, failures - 1));
      if (failures > 0) await sleep(clock, ceilingMs * (0.5 + random.next() / 2), signal).catch(ignoreAbort);
    }
  }

  async #relist(): Promise<void> {
    const page = await this.#deps.client.list(this.resource, this.#options);
    if (this.#stop.signal.aborted) return;
    const revision = Number(page.resourceVersion);
    const present = new Set(page.items.map(keyOf));
    for (const [key, object] of this.#items) {
      if (!present.has(key) && revisionOf(object) <= revision) this.#drop(key);
    }
    for (const item of page.items) {
      if (!this.#deleted.has(item.metadata.uid)) this.#put(item);
    }
    // Deletions of ours up to this list are in it; the marks have no event to wait for any more.
    for (const uid of [...this.#deleted])
      if (!page.items.some((i) => i.metadata.uid === uid)) this.#deleted.delete(uid);
    this.#revision = Math.max(this.#revision, revision);
    this.hasSynced = true;
    this.#markSynced();
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const from = { ...this.#options, resourceVersion: String(this.#revision) };
    for await (const event of this.#deps.client.watch(this.resource, from, signal)) {
      if (signal.aborted) return;
      if (event.type === 'ERROR') {
        const status: Status = event.object as KubeObject & Status;
        throw refusalFrom(status.code ?? 500, { ...status, kind: 'Status' });
      }
      const { object } = event;
      this.#revision = Math.max(this.#revision, revisionOf(object));
      if (event.type === 'BOOKMARK') continue;
      const { uid } = object.metadata;
      if (event.type !== 'DELETED') {
        if (!this.#deleted.has(uid)) this.#put(object);
      } else if (!this.#deleted.delete(uid) && this.#items.get(keyOf(object))?.metadata.uid === uid) {
        this.#drop(keyOf(object), object);
      }
    }
  }

  #put(object: Live<T>): void {
    const key = keyOf(object);
    const before = this.#items.get(key);
    if (before && revisionOf(before) >= revisionOf(object)) return;
    // The same name with another uid: the old one's end was missed. Handlers see both halves.
    if (before && before.metadata.uid !== object.metadata.uid) {
      this.#drop(key);
      this.#put(object);
      return;
    }
    this.#items.set(key, object);
    for (const index of this.#indexes.values()) reindex(index, key, before, object);
    for (const handler of this.#handlers) handler(object, before);
  }

  #drop(key: ObjectKey, last?: Live<T>): void {
    const before = this.#items.get(key);
    if (!before) return;
    this.#items.delete(key);
    for (const index of this.#indexes.values()) reindex(index, key, before, undefined);
    for (const handler of this.#handlers) handler(undefined, last ?? before);
  }
}

function reindex<T extends KubeObject>(
  index: Index<T>,
  key: ObjectKey,
  before: Live<T> | undefined,
  now: Live<T> | undefined,
): void {
  const old = before ? index.of(before) : [];
  const fresh = now ? index.of(now) : [];
  for (const value of old) {
    if (fresh.includes(value)) continue;
    const keys = index.keys.get(value);
    keys?.delete(key);
    if (keys?.size === 0) index.keys.delete(value);
  }
  for (const value of fresh) addTo(index.keys, value, key);
}

function addTo(map: Map<string, Set<ObjectKey>>, value: string, key: ObjectKey): void {
  const keys = map.get(value);
  if (keys) keys.add(key);
  else map.set(value, new Set([key]));
}

/** Only an abort rejects a sleep, and the loop looks at the signal next. */
function ignoreAbort(): void {}
