import type { Clock } from '#base/clock.ts';
import {
  type Changed,
  type KubeObject,
  type ObjectStore,
  ROOT,
  type StoredObject,
  type Watch,
} from '#cluster/store/objects.ts';
import { timedOut, tooOldResourceVersion, unavailable } from '../status.ts';

/**
 * The newest state of everything in memory, fed by one watch of the store, and the recent past of each resource. Reads and watches
 * are served from here; the store sees writes and paged lists only.
 *
 *     store ── one watch ──▶ cache ── events, each encoded once ──▶ watchers
 */
export interface CacheEvent {
  type: 'ADDED' | 'MODIFIED' | 'DELETED';
  revision: number;
  object: KubeObject;
  /** As it was before; tells watches with selectors who came and who went. */
  previous: KubeObject | undefined;
  /** Encoded forms, by a key of the form's asker; so a thousand watchers cost one encoding. */
  encoded: Map<string, Buffer>;
}

export type Listener = (event: CacheEvent) => void;

/** Events kept for watches that come back. Older ones get 410 and list anew. */
const HISTORY_EVENTS = 4096;
const FRESH_WAIT_MS = 3_000;

export class ResourceCache {
  readonly #objects = new Map<string, StoredObject>();
  /** Keys by namespace: listing one namespace must not walk the others. */
  readonly #namespaces = new Map<string, Set<string>>();
  readonly #listeners = new Set<Listener>();
  #history: CacheEvent[] = [];
  /** The newest revision that has fallen out of the history. */
  #forgotten: number;
  /** Grows with every change: derived indexes compare it. */
  changes = 0;

  constructor(startRevision: number) {
    this.#forgotten = startRevision;
  }

  get size(): number {
    return this.#objects.size;
  }

  get(key: string): StoredObject | undefined {
    return this.#objects.get(key);
  }

  *all(namespace?: string): Generator<StoredObject> {
    if (namespace === undefined) {
      yield* this.#objects.values();
      return;
    }
    for (const key of this.#namespaces.get(namespace) ?? []) {
      const stored = this.#objects.get(key);
      if (stored) yield stored;
    }
  }

  /** Calls `listener` for what happens from now on, after replaying what happened since `revision`. Returns what ends it. */
  subscribe(revision: number, listener: Listener): () => void {
    if (revision < this.#forgotten) throw tooOldResourceVersion(revision, this.#forgotten);
    for (const event of this.#history) if (event.revision > revision) listener(event);
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get watchers(): number {
    return this.#listeners.size;
  }

  load(stored: StoredObject): void {
    this.#put(stored);
  }

  apply(change: Changed): void {
    const key = change.type === 'put' ? change.stored.key : change.key;
    const before = this.#objects.get(key);
    if (change.type === 'put') {
      this.#put(change.stored);
      const { revision, object } = change.stored;
      this.#tell({
        type: before ? 'MODIFIED' : 'ADDED',
        revision,
        object,
        previous: before?.object,
        encoded: new Map(),
      });
    } else if (before) {
      this.#objects.delete(key);
      const namespace = before.object.metadata.namespace ?? '';
      const keys = this.#namespaces.get(namespace);
      keys?.delete(key);
      if (keys?.size === 0) this.#namespaces.delete(namespace);
      this.changes++;
      const metadata = { ...before.object.metadata, resourceVersion: String(change.revision) };
      const object = { ...before.object, metadata };
      this.#tell({ type: 'DELETED', revision: change.revision, object, previous: before.object, encoded: new Map() });
    }
  }

  #put(stored: StoredObject): void {
    this.changes++;
    this.#objects.set(stored.key, stored);
    const namespace = stored.object.metadata.namespace ?? '';
    const keys = this.#namespaces.get(namespace);
    if (keys) keys.add(stored.key);
    else this.#namespaces.set(namespace, new Set([stored.key]));
  }

  #tell(event: CacheEvent): void {
    this.#history.push(event);
    if (this.#history.length > 2 * HISTORY_EVENTS) {
      this.#forgotten = this.#history[HISTORY_EVENTS - 1]?.revision ?? this.#forgotten;
      this.#history = this.#history.slice(HISTORY_EVENTS);
    }
    for (const listener of this.#listeners) listener(event);
  }
}

export interface CacheOptions {
  store: ObjectStore;
  clock: Clock;
  /** The store has other writers (more than one API server): reads ask it how far it is. */
  shared: boolean;
  /** The feed has ended without being stopped; the server cannot serve any more. */
  onBroken: (error: unknown) => void;
}

export class Cache {
  readonly #options: CacheOptions;
  readonly #resources = new Map<string, ResourceCache>();
  #waiting: { revision: number; go: () => void }[] = [];
  #watch: Watch | undefined;
  #startRevision = 0;
  #revision = 0;
  #lastWrite = 0;
  #stopped = false;

  constructor(options: CacheOptions) {
    this.#options = options;
  }

  /** The revision up to which everything is in. */
  get revision(): number {
    return this.#revision;
  }

  async start(): Promise<void> {
    const { items, revision } = await this.#options.store.all();
    this.#startRevision = revision;
    this.#revision = revision;
    for (const stored of items) this.resource(resourceOfKey(stored.key)).load(stored);
    this.#watch = this.#options.store.watch(revision + 1);
    this.#follow(this.#watch).catch((error: unknown) => {
      if (!this.#stopped) this.#options.onBroken(error);
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#watch?.cancel();
    for (const waiter of this.#waiting.splice(0)) waiter.go();
  }

  resource(name: string): ResourceCache {
    const known = this.#resources.get(name);
    if (known) return known;
    const made = new ResourceCache(this.#startRevision);
    this.#resources.set(name, made);
    return made;
  }

  /** Told by writers: reads that begin after this see it. */
  written(revision: number): void {
    if (revision > this.#lastWrite) this.#lastWrite = revision;
  }

  /** Resolves when a read from the cache sees all that was acknowledged before the call. */
  async fresh(): Promise<void> {
    const revision = this.#options.shared ? (await this.#options.store.status()).revision : this.#lastWrite;
    await this.waitFor(revision);
  }

  async waitFor(revision: number): Promise<void> {
    if (this.#revision >= revision) return;
    if (this.#stopped) throw unavailable('the server is shutting down');
    // Revisions of other keys, or a driver that delivers late: ask, rather than wait for the next change.
    this.#poke();
    await new Promise<void>((go, fail) => {
      const waiter = {
        revision,
        go: () => {
          cancel();
          go();
        },
      };
      const cancel = this.#options.clock.after(FRESH_WAIT_MS, () => {
        this.#waiting = this.#waiting.filter((w) => w !== waiter);
        fail(timedOut(`Too large resource version: ${revision}, current: ${this.#revision}`));
      });
      this.#waiting.push(waiter);
    });
  }

  #poke(): void {
    this.#watch?.progress().then(
      // `progress` resolves when the events have been handed over; the loop below takes them in before the next turn.
      (revision) => setImmediate(() => this.#reached(revision)),
      () => undefined, // the watch has ended: #follow reports it
    );
  }

  async #follow(watch: Watch): Promise<void> {
    for await (const batch of this.#options.store.changes(watch)) {
      for (const change of batch.changes) {
        this.resource(resourceOfKey(change.type === 'put' ? change.stored.key : change.key)).apply(change);
      }
      this.#reached(batch.revision);
    }
    if (!this.#stopped) throw unavailable('the watch of the store has ended');
  }

  #reached(revision: number): void {
    if (revision <= this.#revision) return;
    this.#revision = revision;
    const due = this.#waiting.filter((w) => w.revision <= revision);
    if (due.length === 0) return;
    this.#waiting = this.#waiting.filter((w) => w.revision > revision);
    for (const waiter of due) waiter.go();
  }
}

function resourceOfKey(key: string): string {
  return key.slice(ROOT.length, key.indexOf('/', ROOT.length));
}
