import type { Clock } from '#base/clock.ts';
import type { KubeObject } from '#cluster/store/objects.ts';
import type { CacheEvent } from '../cache/cache.ts';
import type { Sink } from '../http/types.ts';
import { renderOne, type View, viewKey } from '../print/render.ts';
import { partialMetadata } from '../print/table.ts';
import type { Resource } from '../resources/table.ts';
import { isEverything, type Selection, selects } from '../selectors.ts';
import { badRequest, StatusError } from '../status.ts';
import { parseVersion } from './list.ts';
import type { Registry } from './registry.ts';

/**
 * A watch: what is there now (when asked for), then every change, one JSON line each. With a selector an object that begins to match
 * is ADDED and one that stops matching DELETED. Events are encoded once for all watchers of one kind and form.
 */
export interface WatchQuery {
  namespace: string | undefined;
  selection: Selection;
  resourceVersion: string;
  resourceVersionMatch: string;
  sendInitialEvents: boolean | undefined;
  bookmarks: boolean;
  timeoutSeconds: number | undefined;
}

/** A reader that holds more than this unread is cut off: it would hold our memory instead of its own. */
const MAX_PENDING_BYTES = 8 * 1024 * 1024;
/** … and one that has read nothing for so long while something waits. */
const STALLED_MS = 60_000;
const BOOKMARK_MS = 60_000;
const DEFAULT_TIMEOUT_SECONDS = 1800;

type EventType = 'ADDED' | 'MODIFIED' | 'DELETED';

export interface WatchOptions {
  registry: Registry;
  resource: Resource;
  query: WatchQuery;
  view: View;
  clock: Clock;
  random: () => number;
}

/** Checks the request, so that its errors are answers with a code, and returns what starts the stream. */
export async function prepareWatch(options: WatchOptions): Promise<(sink: Sink) => () => void> {
  const { registry, resource, query } = options;
  const cache = registry.cache.resource(resource.storage);
  const from = parseVersion(query.resourceVersion);
  if (query.sendInitialEvents !== undefined && query.resourceVersionMatch !== 'NotOlderThan')
    throw badRequest('sendInitialEvents is set, but resourceVersionMatch is not: it must be "NotOlderThan"');
  const initial = query.sendInitialEvents ?? from === 0;
  if (query.resourceVersion === '' || query.sendInitialEvents) await registry.cache.fresh();
  await registry.cache.waitFor(from);
  if (!initial && from > 0) cache.subscribe(from, () => undefined)(); // 410 now, while it can still be the answer's code
  return (sink) => new WatchStream(options, sink).start(initial, from);
}

class WatchStream {
  readonly #o: WatchOptions;
  readonly #sink: Sink;
  readonly #key: string;
  readonly #all: boolean;
  #cancel: (() => void)[] = [];
  #sentHeaders = false;
  #stalledSinceMs: number | undefined;

  constructor(options: WatchOptions, sink: Sink) {
    this.#o = options;
    this.#sink = sink;
    this.#key = viewKey(options.resource, options.view);
    this.#all = isEverything(options.query.selection);
  }

  start(initial: boolean, from: number): () => void {
    const { registry, resource, query, clock, random } = this.#o;
    const cache = registry.cache.resource(resource.storage);
    const stop = (): void => {
      for (const cancel of this.#cancel.splice(0)) cancel();
    };
    const seconds = query.timeoutSeconds ?? DEFAULT_TIMEOUT_SECONDS * (1 + random());
    this.#cancel.push(clock.after(seconds * 1000, () => this.#sink.end()));
    if (query.bookmarks) this.#bookmarkAfter(BOOKMARK_MS);
    try {
      if (initial) this.#sendPresent();
      const unsubscribe = cache.subscribe(
        initial ? registry.cache.revision : Math.max(from, 0) || registry.cache.revision,
        (event) => this.#take(event),
      );
      this.#cancel.push(unsubscribe);
    } catch (error) {
      // The history moved on between the check and now: the stream's first line says so.
      if (!(error instanceof StatusError)) throw error;
      this.#send('ERROR', error.status);
      this.#sink.end();
    }
    return stop;
  }

  #sendPresent(): void {
    const { registry, resource, query } = this.#o;
    const found = [...registry.cache.resource(resource.storage).all(query.namespace)].filter((s) =>
      this.#selects(s.object),
    );
    found.sort((a, b) => (a.key < b.key ? -1 : 1));
    for (const { object } of found) this.#send('ADDED', this.#render(object));
    if (query.sendInitialEvents) this.#bookmark({ 'k8s.io/initial-events-end': 'true' });
  }

  #take(event: CacheEvent): void {
    const { namespace } = this.#o.query;
    if (namespace !== undefined && event.object.metadata.namespace !== namespace) return;
    const type = this.#typeOf(event);
    if (type === undefined) return;
    // The first line of a Table watch carries the columns, so it is this reader's own.
    if (this.#o.view.accepted.form === 'table' && !this.#sentHeaders) {
      this.#send(type, this.#render(event.object));
      return;
    }
    if (this.#sink.take) {
      this.#sink.take({ type, object: this.#render(event.object) });
      return;
    }
    const key = `${type} ${this.#key}`;
    let bytes = event.encoded.get(key);
    if (!bytes) {
      bytes = line(type, this.#render(event.object));
      event.encoded.set(key, bytes);
    }
    this.#write(bytes);
  }

  #typeOf(event: CacheEvent): EventType | undefined {
    if (this.#all) return event.type;
    const was = event.previous !== undefined && this.#selects(event.previous);
    const is = event.type !== 'DELETED' && this.#selects(event.object);
    if (is) return was ? 'MODIFIED' : 'ADDED';
    return was ? 'DELETED' : undefined;
  }

  #selects(object: KubeObject): boolean {
    return this.#all || selects(this.#o.query.selection, object, this.#o.resource.fields);
  }

  #render(object: KubeObject): unknown {
    const headers = !this.#sentHeaders;
    this.#sentHeaders = true;
    return renderOne(this.#o.resource, object, this.#o.view, headers);
  }

  #bookmarkAfter(delayMs: number): void {
    this.#cancel.push(
      this.#o.clock.after(delayMs, () => {
        this.#bookmark();
        this.#bookmarkAfter(delayMs);
      }),
    );
    // Fired timers leave their cancel behind: keep the list short.
    if (this.#cancel.length > 16) this.#cancel.splice(2, 8);
  }

  #bookmark(annotations?: Record<string, string>): void {
    const { facts } = this.#o.resource;
    const metadata = {
      resourceVersion: String(this.#o.registry.cache.revision),
      ...(annotations ? { annotations } : {}),
    };
    const bare = { kind: facts.kind, apiVersion: facts.apiVersion, metadata } as unknown as KubeObject;
    this.#send(
      'BOOKMARK',
      this.#o.view.accepted.form === 'metadata'
        ? partialMetadata(bare)
        : this.#o.view.accepted.form === 'table'
          ? renderOne(this.#o.resource, bare, this.#o.view, false)
          : bare,
    );
  }

  #send(type: EventType | 'BOOKMARK' | 'ERROR', object: unknown): void {
    if (this.#sink.take) this.#sink.take({ type, object });
    else this.#write(line(type, object));
  }

  #write(bytes: Buffer): void {
    if (this.#sink.write(bytes)) {
      this.#stalledSinceMs = undefined;
      return;
    }
    const now = this.#o.clock.monotonic();
    this.#stalledSinceMs ??= now;
    if (this.#sink.pendingBytes() > MAX_PENDING_BYTES || now - this.#stalledSinceMs > STALLED_MS) this.#sink.destroy();
  }
}

function line(type: EventType | 'BOOKMARK' | 'ERROR', object: unknown): Buffer {
  return Buffer.from(`{"type":"${type}","object":${JSON.stringify(object)}}\n`);
}
