import type { Clock } from '#base/clock.ts';
import { sleep } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import { PERSISTENT_VOLUME_CLAIMS } from '#cluster/client/resources.ts';
import { APP_LABEL, SERVICE_LABEL, START_GATE } from '#spec/estiba/cluster.ts';
import type { PodTemplateSpec } from '#spec/kubernetes/types.gen.ts';
import type { Cluster, LiveObject } from '#up/cluster.ts';
import { type Change, changeOf, removal } from '#up/diff.ts';
import { NoSuchApp, NotOurs, NotReady, WillNotBeReady } from '#up/errors.ts';
import { type AppPlan, inOrder, KEEP_LABEL, nameOf, type UpObject } from '#up/objects.ts';
import { type Readiness, readinessOf } from '#up/ready.ts';
import { type AppRecord, dropRecord, listRecords, readRecord, writeRecord } from '#up/record.ts';
import { EMPTY_WORLD, lookAround } from '#up/why/world.ts';

/** What is told while it happens. */
export interface Progress {
  applied(change: Change): void;
  waiting(states: readonly { name: string; readiness: Readiness }[]): void;
}

export interface Deed {
  changes: readonly Change[];
  /** The app with its labels, as it is sent. */
  objects: readonly UpObject[];
  /** What stood before; undefined for a new app. */
  before: AppRecord | undefined;
}

// Fast enough to seem live, slow enough to cost the server nothing.
const LOOK_EVERY_MS = 250;

/** What `estiba up` would do, without doing it: each object against what runs, and what the app no longer has. */
export async function rehearse(cluster: Cluster, plan: AppPlan): Promise<Deed> {
  const before = await readRecord(cluster, plan.namespace, plan.app);
  const changes: Change[] = [];
  const objects: UpObject[] = [];
  for (const wanted of plan.objects) {
    const live = await cluster.find(wanted);
    // A namespace that is there already is somebody's: it is used, not owned.
    if (live && wanted.kind === 'Namespace' && live.metadata.labels?.[APP_LABEL] !== plan.app) continue;
    checkOwner(wanted, live, plan.app);
    const object = labelled(wanted, plan.app);
    objects.push(object);
    changes.push(changeOf(object, live, live && (await rehearsed(cluster, object))));
  }
  const gone = await leftovers(cluster, plan.app, before, objects);
  return { changes: [...changes, ...gone.map(removal)], objects, before };
}

/** A job's template cannot be changed: such a job is made anew. */
async function rehearsed(cluster: Cluster, object: UpObject): Promise<LiveObject | UpObject | undefined> {
  try {
    return await cluster.rehearse(object);
  } catch (error) {
    if (object.kind === 'Job' && isCode(error, 'KUBE_INVALID')) return object;
    throw error;
  }
}

function checkOwner(wanted: UpObject, live: LiveObject | undefined, app: string): void {
  const owner = live?.metadata.labels?.[APP_LABEL];
  if (owner !== undefined && owner !== app) throw new NotOurs({ what: nameOf(wanted), app, owner });
}

function labelled(object: UpObject, app: string): UpObject {
  return { ...object, metadata: { ...object.metadata, labels: { ...object.metadata.labels, [APP_LABEL]: app } } };
}

/** Objects of earlier applies that the app does not have any more. Claims that keep data are left. */
async function leftovers(
  cluster: Cluster,
  app: string,
  before: AppRecord | undefined,
  objects: readonly UpObject[],
): Promise<UpObject[]> {
  const known = new Set(objects.map(idOf));
  const earlier = [...(before?.objects ?? []), ...(before?.pending ?? [])];
  const gone = new Map(earlier.filter((o) => !known.has(idOf(o))).map((o) => [idOf(o), o]));
  const out: UpObject[] = [];
  for (const object of gone.values()) {
    if (object.kind === 'Namespace' || object.metadata.labels?.[KEEP_LABEL]) continue;
    const live = await cluster.find(object);
    if (live?.metadata.labels?.[APP_LABEL] === app) out.push(object);
  }
  return inOrder(out).reverse();
}

function idOf({ apiVersion, kind, metadata }: UpObject): string {
  return `${apiVersion.split('/')[0]} ${kind} ${metadata.namespace ?? ''}/${metadata.name}`;
}

/** Applies what was rehearsed: intent first, then the objects in order, then what is no longer wanted goes. */
export async function applyDeed(
  cluster: Cluster,
  plan: AppPlan,
  deed: Deed,
  progress: Progress,
  wait: WaitOptions,
): Promise<void> {
  const { app, namespace } = plan;
  const { objects, changes, before } = deed;
  // The record lives in the app's namespace, which may be the first thing to make.
  const homes = changes.filter((c) => c.object.kind === 'Namespace' && c.kind !== 'remove');
  for (const change of homes) await applyOne(cluster, change, progress);
  const earlier = [...(before?.objects ?? [])];
  // What an apply that was cut short has made is still to be found.
  const pending = [...objects, ...(before?.pending ?? [])];
  await writeRecord(cluster, { app, namespace, objects: earlier, pending });
  for (const change of dependenciesFirst(changes)) {
    if (homes.includes(change)) continue;
    const needed = ungatedDependencies(change.object);
    if (needed.length > 0)
      await waitReady(
        cluster,
        app,
        objects.filter((o) => isOneOf(o, needed)),
        progress,
        wait,
      );
    await applyOne(cluster, change, progress);
  }
  await writeRecord(cluster, { app, namespace, objects, pending: [] });
}

/** Services that have to be ready before this object is applied: where nobody opens gates, order does what they would. */
function ungatedDependencies(object: UpObject): string[] {
  const template = (object as { spec?: { template?: PodTemplateSpec } }).spec?.template;
  const written = template?.metadata?.annotations?.[START_GATE];
  if (written === undefined || template?.spec?.schedulingGates) return [];
  return Object.keys(JSON.parse(written) as Record<string, string>);
}

function isOneOf({ metadata }: UpObject, services: readonly string[]): boolean {
  return services.includes(metadata.labels?.[SERVICE_LABEL] ?? '');
}

/** The same changes, each after those of the services that it waits for. Compose has refused circles. */
function dependenciesFirst(changes: readonly Change[]): Change[] {
  const out = new Set<Change>();
  const add = (change: Change): void => {
    if (out.has(change)) return;
    const needed = ungatedDependencies(change.object);
    for (const other of changes) if (other !== change && isOneOf(other.object, needed)) add(other);
    out.add(change);
  };
  for (const change of changes) add(change);
  return [...out];
}

async function applyOne(cluster: Cluster, change: Change, progress: Progress): Promise<void> {
  const { kind, object } = change;
  if (kind === 'remove') await cluster.remove(object);
  else if (kind !== 'same') await applyOrReplace(cluster, object);
  progress.applied(change);
}

async function applyOrReplace(cluster: Cluster, object: UpObject): Promise<void> {
  try {
    await cluster.apply(object);
  } catch (error) {
    if (object.kind !== 'Job' || !isCode(error, 'KUBE_INVALID')) throw error;
    await cluster.remove(object);
    await cluster.apply(object);
  }
}

/** A new version may be given seconds; the old one, which has to come back, gets at least this. */
const UNDO_MIN_MS = 120_000;

export interface WaitOptions {
  clock: Clock;
  timeoutMs: number;
  signal?: AbortSignal;
}

/** Waits until everything is ready; throws when it cannot become so, or the time is over. */
export async function waitReady(
  cluster: Cluster,
  app: string,
  objects: readonly UpObject[],
  progress: Progress,
  { clock, timeoutMs, signal }: WaitOptions,
): Promise<void> {
  const runs = objects.filter((o) => ['Deployment', 'StatefulSet', 'DaemonSet', 'Job', 'Pod'].includes(o.kind));
  const endMs = clock.monotonic() + timeoutMs;
  for (;;) {
    const states = await look(cluster, app, runs);
    progress.waiting(states);
    const textOf = ({ name, readiness }: (typeof states)[number]): string => `${name}: ${readiness.says}`;
    const failed = states.filter((s) => s.readiness.state === 'failed');
    if (failed.length > 0) throw new WillNotBeReady({ app, failed: failed.map(textOf) });
    const waiting = states.filter((s) => s.readiness.state === 'waiting');
    if (waiting.length === 0) return;
    if (clock.monotonic() >= endMs)
      throw new NotReady({ app, seconds: timeoutMs / 1000, waiting: waiting.map(textOf) });
    await sleep(clock, LOOK_EVERY_MS, signal);
  }
}

async function look(
  cluster: Cluster,
  app: string,
  objects: readonly UpObject[],
): Promise<{ name: string; readiness: Readiness }[]> {
  const live = await Promise.all(objects.map((object) => cluster.find(object)));
  // Manifests give their pods labels of their own, so pods are read by namespace.
  const namespaces = [...new Set(objects.map((o) => o.metadata.namespace ?? 'default'))];
  const worlds = new Map(
    await Promise.all(
      namespaces.map(async (namespace) => [namespace, await lookAround(cluster.client, namespace)] as const),
    ),
  );
  return objects.map((object, i) => {
    const found = live[i];
    const world = worlds.get(object.metadata.namespace ?? 'default') ?? EMPTY_WORLD;
    const readiness: Readiness = found
      ? readinessOf({ ...found, kind: object.kind }, world)
      : { state: 'failed', says: `somebody removed it from ${app}` };
    return { name: nameOf(object), readiness };
  });
}

/**
 * Brings back what was applied before, and waits until it is: pods of the version that failed would otherwise be counted, scaled and
 * served beside it by whatever comes next. An app that is new goes. Throws as `waitReady` does.
 */
export async function undo(
  cluster: Cluster,
  plan: AppPlan,
  deed: Deed,
  progress: Progress,
  wait: WaitOptions,
): Promise<void> {
  const { before } = deed;
  if (!before || before.objects.length === 0) {
    await takeDown(cluster, plan.app, plan.namespace, { volumes: false }, progress);
    return;
  }
  const back = await rehearse(cluster, { ...plan, objects: before.objects });
  const patient = { ...wait, timeoutMs: Math.max(wait.timeoutMs, UNDO_MIN_MS) };
  await applyDeed(cluster, plan, back, progress, patient);
  await waitReady(cluster, plan.app, back.objects, progress, patient);
}

/** The namespace an app lives in, found by its name. */
export async function findApp(cluster: Cluster, app: string, namespace?: string): Promise<AppRecord> {
  const records = await listRecords(cluster, namespace);
  const found = records.find((r) => r.app === app);
  if (!found) throw new NoSuchApp({ app, known: records.map((r) => r.app) });
  return found;
}

/** Removes an app, what runs first. Claims stay with their namespace unless `volumes`. */
export async function takeDown(
  cluster: Cluster,
  app: string,
  namespace: string,
  { volumes }: { volumes: boolean },
  progress: Progress,
): Promise<UpObject[]> {
  const record = await readRecord(cluster, namespace, app);
  const claims = await keptClaims(cluster, app, namespace);
  const all = new Map([...(record?.objects ?? []), ...(record?.pending ?? []), ...claims].map((o) => [idOf(o), o]));
  const keepsData = !volumes && claims.length > 0;
  const removed: UpObject[] = [];
  for (const object of inOrder([...all.values()]).reverse()) {
    if (object.kind === 'Namespace' ? keepsData : object.metadata.labels?.[KEEP_LABEL] && !volumes) continue;
    const live = await cluster.find(object);
    if (live?.metadata.labels?.[APP_LABEL] !== app) continue;
    // The record goes before the namespace that holds it.
    if (object.kind === 'Namespace') await dropRecord(cluster, { app, namespace });
    await cluster.remove(object, 'Foreground');
    removed.push(object);
    progress.applied(removal(object));
  }
  if (record) await dropRecord(cluster, { app, namespace });
  return removed;
}

/** Claims outlive an app that was taken down, and its record. */
async function keptClaims(cluster: Cluster, app: string, namespace: string): Promise<UpObject[]> {
  const { items } = await cluster.client.list(PERSISTENT_VOLUME_CLAIMS, {
    namespace,
    labelSelector: `${APP_LABEL}=${app}`,
  });
  return items.map(({ metadata }) => ({
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name: metadata.name, namespace, labels: { ...metadata.labels } },
  }));
}

/** Waits until what was removed is gone, pods included. */
export async function waitGone(
  cluster: Cluster,
  objects: readonly UpObject[],
  { clock, timeoutMs, signal }: WaitOptions,
): Promise<string[]> {
  const endMs = clock.monotonic() + timeoutMs;
  for (;;) {
    const live = await Promise.all(objects.map((o) => cluster.find(o)));
    const left = objects.filter((_, i) => live[i] !== undefined);
    if (left.length === 0 || clock.monotonic() >= endMs) return left.map(nameOf);
    await sleep(clock, LOOK_EVERY_MS, signal);
  }
}
