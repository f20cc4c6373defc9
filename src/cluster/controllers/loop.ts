import type { Clock } from '#base/clock.ts';
import { describeChain, isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { Random } from '#base/random.ts';
import type { EventRecorder } from '#cluster/client/events.ts';
import { DONE, type Requeue, WorkQueue } from '#cluster/client/queue.ts';
import { controllerOf, type KubeObject, keyIn, keyOf, type Live, type ObjectKey } from '#cluster/client/resources.ts';
import type { ClusterView, Collection } from '#cluster/client/view.ts';
import { equalJson } from '#spec/kubernetes/json.ts';

/** What every controller gets. */
export interface ControllerDeps {
  view: ClusterView;
  clock: Clock;
  random: Random;
  log: Logger;
  /** A recorder that signs with the component's name. */
  events(component: string): EventRecorder;
}

export interface Controller {
  readonly name: string;
  start(): void;
  stop(): Promise<void>;
}

export interface Reconciler extends Controller {
  readonly queue: WorkQueue;
}

/** A controller made of a queue of keys and a function that reads the present state and makes one move. */
export function reconciler(
  deps: ControllerDeps,
  name: string,
  reconcile: (key: ObjectKey) => Promise<Requeue>,
  concurrency = 4,
): Reconciler {
  const queue = new WorkQueue({
    name,
    clock: deps.clock,
    work: reconcile,
    concurrency,
    onError: (key, error, failures) => {
      // A conflict is everyday life: somebody wrote first, the next run reads it. Others are told once they persist.
      const expected = isCode(error, 'KUBE_CONFLICT', 'KUBE_NOT_FOUND', 'KUBE_UNREACHABLE') && failures < 5;
      if (expected) deps.log.debug(`${name} again`, () => ({ key, error: describeChain(error) }));
      else deps.log.warn(`${name} failed`, { key, failures, error: describeChain(error) });
    },
  });
  return { name, queue, start: () => queue.start(), stop: () => queue.stop() };
}

/** Every change of an object brings its own key. */
export function onSelf<T extends KubeObject>(collection: Collection<T>, { queue }: Reconciler): void {
  collection.informer.onChange((now, before) => {
    const object = now ?? before;
    if (object) queue.add(keyOf(object));
  });
}

/** Every change of an object brings its controlling owner, if that is of `kind`; and the one it had before. */
export function onOwned<T extends KubeObject>(collection: Collection<T>, kind: string, { queue }: Reconciler): void {
  collection.informer.onChange((now, before) => {
    for (const object of [now, before]) {
      const owner = object && controllerOf(object);
      if (owner?.kind === kind) queue.add(keyIn(object?.metadata.namespace, owner.name));
    }
  });
}

/** Writes a status that differs from the stored one. */
export async function writeStatus<T extends KubeObject & { status?: unknown }>(
  collection: Collection<T>,
  object: Live<T>,
  status: NonNullable<T['status']>,
): Promise<void> {
  if (equalJson(object.status ?? {}, status)) return;
  await collection.updateStatus({ ...object, status });
}

export interface Condition {
  type: string;
  status: string;
  reason?: string;
  message?: string;
  lastTransitionTime?: string;
  lastUpdateTime?: string;
  observedGeneration?: number;
}

/** Conditions with one set anew: its transition time moves only when its status does. */
export function withCondition<C extends Condition>(conditions: readonly C[] | undefined, wanted: C, now: string): C[] {
  const known = conditions?.find((c) => c.type === wanted.type);
  const fresh: C = {
    ...wanted,
    lastTransitionTime: known && known.status === wanted.status ? (known.lastTransitionTime ?? now) : now,
  };
  if (!conditions || !known) return [...(conditions ?? []), fresh];
  return conditions.map((c) => (c.type === wanted.type ? fresh : c));
}

export function withoutCondition<C extends Condition>(conditions: readonly C[] | undefined, type: string): C[] {
  return (conditions ?? []).filter((c) => c.type !== type);
}

export function conditionOf<C extends Condition>(conditions: readonly C[] | undefined, type: string): C | undefined {
  return conditions?.find((c) => c.type === type);
}

/** `50%` of `total`, or the number itself. */
export function scaledValue(value: number | string | undefined, total: number, round: 'up' | 'down'): number {
  if (typeof value === 'number') return value;
  if (value === undefined) return 0;
  const percent = /^(\d+)%$/.exec(value)?.[1];
  if (percent === undefined) return Number(value) || 0;
  const exact = (Number(percent) * total) / 100;
  return round === 'up' ? Math.ceil(exact) : Math.floor(exact);
}

export function millis(time: string | undefined): number {
  return time === undefined ? Number.NaN : Date.parse(time);
}

/** The sooner of two times to look again. */
export function sooner(a: number | undefined, b: number | undefined): number | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return Math.min(a, b);
}

export function again(afterMs: number | undefined): Requeue {
  return afterMs === undefined ? DONE : { afterMs: Math.max(1, afterMs) };
}

/** Most workloads are no larger: all their pods are made in one turn. */
const FIRST_BATCH = 4;

/**
 * Runs `work` on all, in batches of 4, 8, 16, …: when the first ones are refused (a full quota) the others need not be tried. Answers
 * the first failure, if any.
 */
export async function slowStart<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<unknown> {
  for (let from = 0, size = FIRST_BATCH; from < items.length; from += size, size *= 2) {
    const results = await Promise.allSettled(items.slice(from, from + size).map(work));
    const failed = results.find((r) => r.status === 'rejected');
    if (failed) return failed.reason;
  }
  return undefined;
}

const SUFFIX_ALPHABET = 'bcdfghjklmnpqrstvwxz2456789';

/** Five characters that spell no words, as the server's generateName appends; the base is cut so that the name stays legal. */
export function generatedName(base: string, random: Random): string {
  const letters = Array.from({ length: 5 }, () => SUFFIX_ALPHABET[Math.floor(random.next() * SUFFIX_ALPHABET.length)]);
  return `${base.slice(0, 58)}${letters.join('')}`;
}

/** FNV-1a over canonical JSON, in the alphabet of pod-template-hash. Equal templates hash equal whatever their key order. */
export function templateHash(template: unknown, collisions = 0): string {
  const text = canonical(template) + (collisions > 0 ? `#${collisions}` : '');
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return String(hash >>> 0)
    .split('')
    .map((digit) => SUFFIX_ALPHABET[Number(digit) + 7] ?? digit)
    .join('');
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  const entries = Object.entries(value).filter(([, v]) => v !== undefined);
  entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([k, v]) => `${JSON.stringify(k)}:${canonical(v)}`).join(',')}}`;
}
