import type { Clock } from '#base/clock.ts';
import { describeChain, isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { Serial } from '#base/queue.ts';
import type { Event, ObjectReference } from '#spec/kubernetes/types.gen.ts';
import type { KubeClient } from './client.ts';
import { EVENTS, type KubeObject, keyIn, type Resource, timestamp } from './resources.ts';

export type EventType = 'Normal' | 'Warning';

export interface EventText {
  type: EventType;
  reason: string;
  message: string;
}

export interface RecorderOptions {
  client: KubeClient;
  clock: Clock;
  log: Logger;
  /** What `kubectl describe` shows under From: `deployment-controller`. */
  component: string;
  host?: string;
  /** Writes wait this long, so that telling of work does not delay the work; times are of when it happened. */
  lagMs?: number;
}

// As client-go's correlator: the eleventh different message of one kind within ten minutes is folded into one event; an object
// may fill a burst of 25, then one every five minutes.
const FOLD_AFTER = 10;
const FOLD_WINDOW_MS = 600_000;
const BURST = 25;
const REFILL_MS = 300_000;
const MAX_TRACKED = 4_096;
const MAX_MESSAGE = 1_024;

interface Group {
  startedMs: number;
  messages: Set<string>;
}
interface Known {
  name: string;
  count: number;
  firstMs: number;
}

/**
 * Writes core/v1 Events. A repeated one raises `count` on the first; like ones are folded; a flood is cut. Recording never
 * fails and never waits: an event that cannot be written is logged and lost.
 */
export class EventRecorder {
  readonly #options: RecorderOptions;
  readonly #groups = new Map<string, Group>();
  readonly #known = new Map<string, Known>();
  readonly #tokens = new Map<string, { left: number; atMs: number }>();
  readonly #writes = new Serial('events', MAX_TRACKED);
  #sequence = 0n;

  constructor(options: RecorderOptions) {
    this.#options = options;
  }

  record(resource: Resource<KubeObject>, about: KubeObject, text: EventText): void {
    const { clock, log, lagMs = 0 } = this.#options;
    const nowMs = clock.now();
    const reference = referenceTo(resource, about);
    const message = this.#foldedMessage(reference, text, nowMs);
    if (!this.#mayWrite(reference, nowMs)) return;
    const write = (): void => {
      this.#writes
        .run(() => this.#write(reference, { ...text, message }, nowMs))
        .catch((error: unknown) =>
          log.debug('event lost', () => ({ reason: text.reason, error: describeChain(error) })),
        );
    };
    if (lagMs === 0) write();
    else clock.after(lagMs, write);
  }

  /** Resolves when all that was recorded so far is written or lost. */
  async flush(): Promise<void> {
    await this.#writes.run(() => undefined);
  }

  #foldedMessage(about: ObjectReference, text: EventText, nowMs: number): string {
    const key = `${about.uid} ${text.type} ${text.reason}`;
    let group = this.#groups.get(key);
    if (!group || nowMs - group.startedMs > FOLD_WINDOW_MS) group = { startedMs: nowMs, messages: new Set() };
    remember(this.#groups, key, group);
    const message = text.message.slice(0, MAX_MESSAGE);
    if (group.messages.has(message)) return message;
    if (group.messages.size >= FOLD_AFTER) return `(combined from similar events): ${message}`.slice(0, MAX_MESSAGE);
    group.messages.add(message);
    return message;
  }

  #mayWrite(about: ObjectReference, nowMs: number): boolean {
    const key = about.uid ?? `${about.namespace}/${about.name}`;
    const bucket = this.#tokens.get(key) ?? { left: BURST, atMs: nowMs };
    const left = Math.min(BURST, bucket.left + (nowMs - bucket.atMs) / REFILL_MS);
    remember(this.#tokens, key, { left: Math.max(0, left - 1), atMs: nowMs });
    return left >= 1;
  }

  async #write(about: ObjectReference, text: EventText, nowMs: number): Promise<void> {
    const { client } = this.#options;
    const folded = text.message.startsWith('(combined from similar events)');
    const key = `${about.uid} ${text.type} ${text.reason} ${folded ? '' : text.message}`;
    const namespace = about.namespace ?? 'default';
    const known = this.#known.get(key);
    if (known) {
      const count = known.count + 1;
      const patch = { count, lastTimestamp: timestamp(nowMs), message: text.message };
      try {
        await client.patch(EVENTS, keyIn(namespace, known.name), patch, { type: 'merge' });
        remember(this.#known, key, { ...known, count });
        return;
      } catch (error) {
        // It outlived its hour: a new one begins.
        if (!isCode(error, 'KUBE_NOT_FOUND')) throw error;
      }
    }
    const name = `${about.name}.${(BigInt(nowMs) * 1_000_000n + this.#sequence++).toString(16)}`;
    await client.create(EVENTS, this.#event(about, text, { namespace, name }, nowMs));
    remember(this.#known, key, { name, count: 1, firstMs: nowMs });
  }

  #event(about: ObjectReference, text: EventText, metadata: { namespace: string; name: string }, nowMs: number): Event {
    const { component, host } = this.#options;
    return {
      metadata,
      involvedObject: about,
      type: text.type,
      reason: text.reason,
      message: text.message,
      source: { component, ...(host === undefined ? {} : { host }) },
      firstTimestamp: timestamp(nowMs),
      lastTimestamp: timestamp(nowMs),
      count: 1,
      reportingComponent: component,
      reportingInstance: host ?? '',
    };
  }
}

export function referenceTo(resource: Resource<KubeObject>, object: KubeObject): ObjectReference {
  const { namespace, name = '', uid, resourceVersion } = object.metadata;
  return {
    apiVersion: resource.apiVersion,
    kind: resource.kind,
    name,
    ...(namespace === undefined ? {} : { namespace }),
    ...(uid === undefined ? {} : { uid }),
    ...(resourceVersion === undefined ? {} : { resourceVersion }),
  };
}

/** Puts the key last; the one not touched for longest is forgotten past the bound. */
function remember<V>(map: Map<string, V>, key: string, value: V): void {
  map.delete(key);
  map.set(key, value);
  if (map.size > MAX_TRACKED) {
    const oldest = map.keys().next().value;
    if (oldest !== undefined) map.delete(oldest);
  }
}
