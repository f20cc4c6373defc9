import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import { Serial } from '#base/queue.ts';
import { type KubeObject, keyOf, type ObjectStore, type StoredObject } from '#cluster/store/objects.ts';
import type { Admission } from '../admission/admission.ts';
import { trackUpdate } from '../apply/managed.ts';
import type { Cache } from '../cache/cache.ts';
import { cloneJson, equalJson } from '../codec/json.ts';
import type { Allocators } from '../resources/allocate.ts';
import { setDefaults } from '../resources/defaults.ts';
import type { Resource } from '../resources/table.ts';
import {
  alreadyExists,
  badRequest,
  conflict,
  invalidObject,
  notFound,
  STALE,
  StatusError,
  type Subject,
  timedOut,
  unavailable,
} from '../status.ts';
import { KIND_RULES } from '../validation/kinds.ts';
import { validateMetadata, validateMetadataUpdate } from '../validation/metadata.ts';
import { validateTypes } from '../validation/types.ts';
import { unserved } from '../validation/unserved.ts';
import { UPDATE_RULES } from '../validation/updates.ts';
import { type Context, warn } from './context.ts';

/**
 * Reads and writes of objects, whatever their kind. A write's main path:
 *
 *     decoded object → identity → defaults → admission → the kind's own → validation → quota → managed fields → store
 *
 * Updates read the newest object, let the caller change it, and write it only if nobody else did meanwhile.
 */
export interface RegistryOptions {
  store: ObjectStore;
  cache: Cache;
  clock: Clock;
  admission: Admission;
  allocators: Allocators;
  /** 0 ≤ x < 1; for generated names. */
  random: () => number;
}

export interface Place {
  namespace: string | undefined;
  name: string;
}

/** Attempts of an update that names no resourceVersion and meets other writers. */
const MAX_ATTEMPTS = 20;
const GENERATE_ATTEMPTS = 8;
const EVENT_TTL_MS = 3_600_000;
/** Events written within this time share a lease, so that a busy cluster does not hold a lease an event. */
const LEASE_SHARED_MS = 60_000;
const SUFFIX = 'bcdfghjklmnpqrstvwxz2456789';

export interface UpdateRules {
  /** What of the new object counts: `status` (a namespace's `finalize`, a pod's `binding`) keeps everything else of the old one. */
  part: 'main' | 'status' | 'finalize' | 'binding';
  /** The client said which version it changes: a lost race is its conflict, not ours to retry. */
  insists?: boolean;
  /** An update of what does not exist creates it (PUT, apply). */
  createIfAbsent?: () => KubeObject;
}

export class Registry {
  readonly #o: RegistryOptions;
  readonly #services = new Serial('service allocation');
  #lease: { id: string; madeMs: number } | undefined;

  constructor(options: RegistryOptions) {
    this.#o = options;
  }

  get cache(): Cache {
    return this.#o.cache;
  }

  get store(): ObjectStore {
    return this.#o.store;
  }

  now(): string {
    return `${new Date(this.#o.clock.now()).toISOString().slice(0, 19)}Z`;
  }

  /** The newest acknowledged state. */
  async get(resource: Resource, place: Place): Promise<StoredObject> {
    await this.#o.cache.fresh();
    return this.peek(resource, place);
  }

  /** What the cache has now. */
  peek(resource: Resource, place: Place): StoredObject {
    const stored = this.#o.cache.resource(resource.storage).get(keyOf(resource.storage, place));
    if (!stored) throw notFound(subject(resource, place.name));
    return stored;
  }

  async create(
    resource: Resource,
    namespace: string | undefined,
    object: KubeObject,
    context: Context,
  ): Promise<KubeObject> {
    const generated = !object.metadata.name && object.metadata.generateName !== undefined;
    for (let attempt = 1; ; attempt++) {
      const candidate = cloneJson(object);
      if (generated) candidate.metadata.name = `${String(object.metadata.generateName).slice(0, 58)}${this.#suffix()}`;
      try {
        return await this.#inOrder(resource, () => this.#createOnce(resource, namespace, candidate, context));
      } catch (error) {
        // Two random names were the same: try others before bothering the client.
        if (!generated || attempt >= GENERATE_ATTEMPTS || !isCode(error, 'KUBE_ALREADYEXISTS')) throw error;
      }
    }
  }

  async #createOnce(
    resource: Resource,
    namespace: string | undefined,
    object: KubeObject,
    context: Context,
  ): Promise<KubeObject> {
    this.#identify(resource, namespace, object);
    setDefaults(resource.storedType, object);
    await this.#o.admission.mutate({ resource, object, old: undefined, context });
    resource.hooks.beforeCreate?.(object, { now: this.now(), allocators: this.#o.allocators });
    this.#validate(resource, object);
    for (const text of unserved(object)) warn(context, text);
    const release = await this.#o.admission.validate({ resource, object, old: undefined, context });
    try {
      trackUpdateUnlessApplied(resource, undefined, object, context, this.now());
      const key = keyOf(resource.storage, object.metadata);
      if (this.#o.cache.resource(resource.storage).get(key))
        throw alreadyExists(subject(resource, object.metadata.name));
      if (context.dryRun) return object;
      const lease = resource.storage === 'events' ? await this.#eventLease() : undefined;
      const revision = await this.#storing(() => this.#o.store.create(key, object, lease));
      if (revision === undefined) throw alreadyExists(subject(resource, object.metadata.name));
      this.#o.cache.written(revision);
      await release.settled(revision);
      return at(object, revision);
    } finally {
      release.done();
    }
  }

  /** Reads, changes, writes. `change` gets a copy it may keep; it may be called again when another writer was faster. */
  async update(
    resource: Resource,
    place: Place,
    context: Context,
    rules: UpdateRules,
    change: (live: KubeObject) => KubeObject | Promise<KubeObject>,
  ): Promise<{ object: KubeObject; created: boolean }> {
    for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
      await this.#o.cache.fresh();
      const stored = this.#o.cache.resource(resource.storage).get(keyOf(resource.storage, place));
      if (!stored) {
        if (!rules.createIfAbsent) throw notFound(subject(resource, place.name));
        return { object: await this.create(resource, place.namespace, rules.createIfAbsent(), context), created: true };
      }
      const wanted = await change(cloneJson(stored.object));
      this.#checkExpected(resource, wanted, stored);
      const written = await this.#inOrder(resource, () => this.#writeUpdate(resource, stored, wanted, rules, context));
      if (written) return { object: written, created: false };
      // The client named the version it saw: it must decide again, not we.
      if (rules.insists) break;
    }
    throw conflict(subject(resource, place.name), STALE);
  }

  #checkExpected(resource: Resource, wanted: KubeObject, stored: StoredObject): void {
    const { resourceVersion, uid } = wanted.metadata;
    if (
      resourceVersion !== undefined &&
      resourceVersion !== '' &&
      resourceVersion !== '0' &&
      resourceVersion !== String(stored.revision)
    )
      throw conflict(subject(resource, stored.object.metadata.name), STALE);
    if (uid !== undefined && uid !== '' && uid !== stored.object.metadata.uid)
      throw conflict(
        subject(resource, stored.object.metadata.name),
        `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${stored.object.metadata.uid ?? ''}`,
      );
  }

  /** Undefined: somebody else wrote first. */
  async #writeUpdate(
    resource: Resource,
    stored: StoredObject,
    wanted: KubeObject,
    rules: UpdateRules,
    context: Context,
  ): Promise<KubeObject | undefined> {
    const old = stored.object;
    const object = PARTS[rules.part](resource, old, wanted);
    keepIdentity(object, old);
    if (rules.part === 'main') {
      setDefaults(resource.storedType, object);
      await this.#o.admission.mutate({ resource, object, old, context });
      resource.hooks.beforeUpdate?.(object, old, { now: this.now(), allocators: this.#o.allocators });
      this.#countGeneration(resource, object, old);
      this.#validate(resource, object, old);
      for (const text of unserved(object)) warn(context, text);
    } else await this.#o.admission.mutate({ resource, object, old, context });
    const release = await this.#o.admission.validate({ resource, object, old, context });
    try {
      trackUpdateUnlessApplied(resource, old, object, context, this.now());
      if (isNothingLeft(object)) return await this.#removeFinished(resource, stored, object, context);
      if (sameButTimes(object, old)) return old;
      if (context.dryRun) return object;
      const revision = await this.#storing(() => this.#o.store.update(stored.key, object, stored.revision));
      if (revision === undefined) {
        await this.#catchUp(stored);
        return undefined;
      }
      this.#o.cache.written(revision);
      await release.settled(revision);
      return at(object, revision);
    } finally {
      release.done();
    }
  }

  /** The last finalizer of an object that is being deleted has gone: so does the object. */
  async #removeFinished(
    resource: Resource,
    stored: StoredObject,
    object: KubeObject,
    context: Context,
  ): Promise<KubeObject | undefined> {
    if (!(await this.remove(resource, stored, context))) return undefined;
    return object;
  }

  /** Refuses a delete that admission does not let through. */
  checkDelete(resource: Resource, object: KubeObject, context: Context): void {
    this.#o.admission.checkDelete({ resource, object, context });
  }

  /** Deletes for good; false when it has changed meanwhile. */
  async remove(_resource: Resource, stored: StoredObject, context: Context): Promise<boolean> {
    if (context.dryRun) return true;
    const revision = await this.#storing(() => this.#o.store.delete(stored.key, stored.revision));
    if (revision === undefined) {
      await this.#catchUp(stored);
      return false;
    }
    this.#o.cache.written(revision);
    return true;
  }

  /** Writes an object as it is, for deletes that only mark. Undefined: it has changed meanwhile. */
  async mark(stored: StoredObject, object: KubeObject, context: Context): Promise<KubeObject | undefined> {
    if (context.dryRun) return object;
    const revision = await this.#storing(() => this.#o.store.update(stored.key, object, stored.revision));
    if (revision === undefined) {
      await this.#catchUp(stored);
      return undefined;
    }
    this.#o.cache.written(revision);
    return at(object, revision);
  }

  /** After a lost race: wait until the cache has seen who won. */
  async #catchUp(stored: StoredObject): Promise<void> {
    const { revision } = await this.#o.store.status();
    await this.#o.cache.waitFor(Math.max(revision, stored.revision));
  }

  async #storing<T>(write: () => Promise<T>): Promise<T> {
    try {
      return await write();
    } catch (error) {
      if (isCode(error, 'STORE_VALUE_TOO_LARGE'))
        throw new StatusError(413, 'RequestEntityTooLarge', `etcdserver: request is too large: ${error.message}`, {
          cause: error,
        });
      if (isCode(error, 'STORE_FULL'))
        throw new StatusError(
          500,
          'InternalError',
          `the store takes no more writes: ${error.message}; ${error.hint ?? ''}`,
          { cause: error },
        );
      if (isCode(error, 'STORE_BAD_KEY')) throw badRequest('the name is not one that can be stored', error);
      if (isCode(error, 'STORE_CLOSED', 'STORE_BROKEN')) throw unavailable(error.message);
      if (isCode(error, 'STORE_TIMEOUT')) throw timedOut(error.message);
      throw error;
    }
  }

  /** Writers of Services choose addresses one after the other. */
  #inOrder<T>(resource: Resource, work: () => Promise<T>): Promise<T> {
    if (resource.storage !== 'services') return work();
    return this.#services.run(async () => {
      await this.#o.cache.fresh();
      return work();
    });
  }

  #identify(resource: Resource, namespace: string | undefined, object: KubeObject): void {
    const { metadata } = object;
    if (resource.facts.namespaced) {
      if (metadata.namespace && metadata.namespace !== namespace)
        throw badRequest(`the namespace of the provided object does not match the namespace sent on the request`);
      metadata.namespace = namespace ?? '';
    }
    if (metadata.resourceVersion) throw badRequest('resourceVersion should not be set on objects to be created');
    delete metadata.resourceVersion;
    delete metadata.deletionTimestamp;
    delete metadata.deletionGracePeriodSeconds;
    delete metadata['selfLink'];
    metadata.uid = this.#uuid();
    metadata.creationTimestamp = this.now();
    if (resource.hasGeneration) metadata.generation = 1;
    else delete metadata.generation;
    if (resource.hasStatus && resource.facts.resource !== 'nodes') delete object['status'];
  }

  #countGeneration(resource: Resource, object: KubeObject, old: KubeObject): void {
    if (!resource.hasGeneration) return;
    const spec = (o: KubeObject): unknown => ('spec' in o || 'spec' in old ? o['spec'] : withoutMeta(o));
    const changed = !equalJson(spec(object), spec(old));
    object.metadata.generation = (old.metadata.generation ?? 1) + (changed ? 1 : 0);
  }

  #validate(resource: Resource, object: KubeObject, old?: KubeObject): void {
    const errors = [
      ...validateMetadata(object.metadata, resource.nameRule, resource.facts.namespaced),
      ...(old ? validateMetadataUpdate(object.metadata, old.metadata) : []),
      ...validateTypes(resource.storedType, object),
      ...(KIND_RULES[object.kind]?.(object) ?? []),
      ...(old ? (UPDATE_RULES[object.kind]?.(object, old) ?? []) : []),
    ];
    if (errors.length > 0)
      throw invalidObject(
        {
          group: resource.facts.group,
          resource: resource.facts.kind,
          name: object.metadata.name || object.metadata.generateName,
        },
        errors,
      );
  }

  async #eventLease(): Promise<string> {
    const now = this.#o.clock.monotonic();
    if (!this.#lease || now - this.#lease.madeMs > LEASE_SHARED_MS) {
      this.#lease = { id: await this.#o.store.grant(EVENT_TTL_MS), madeMs: now };
    }
    return this.#lease.id;
  }

  /** Version 4, from the randomness that was given: a simulation's run is the same every time. */
  #uuid(): string {
    const draw = (): string =>
      Math.floor(this.#o.random() * 2 ** 44)
        .toString(16)
        .padStart(11, '0');
    const digits = [...draw(), ...draw(), ...draw()].slice(0, 32);
    digits[12] = '4';
    digits[16] = '89ab'[Math.floor(this.#o.random() * 4)] ?? '8';
    const text = digits.join('');
    return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join('-');
  }

  #suffix(): string {
    let out = '';
    for (let i = 0; i < 5; i++) out += SUFFIX[Math.floor(this.#o.random() * SUFFIX.length)];
    return out;
  }
}

export function subject(resource: Resource, name?: string): Subject {
  return { group: resource.facts.group, resource: resource.facts.resource, name };
}

function at(object: KubeObject, revision: number): KubeObject {
  return { ...object, metadata: { ...object.metadata, resourceVersion: String(revision) } };
}

/** What a part of the object is put into; all else stays the very same. */
function likeOld(old: KubeObject): KubeObject {
  return { ...old, metadata: { ...old.metadata } };
}

/** An update may set everything but status, where status has a sub-resource. */
function withMain(resource: Resource, old: KubeObject, wanted: KubeObject): KubeObject {
  if (!resource.hasStatus) return wanted;
  const { status: _, ...object } = wanted;
  return (old['status'] === undefined ? object : { ...object, status: cloneJson(old['status']) }) as KubeObject;
}

function withStatus(resource: Resource, old: KubeObject, wanted: KubeObject): KubeObject {
  const object = likeOld(old);
  if (wanted['status'] === undefined) delete object['status'];
  else object['status'] = wanted['status'];
  if (wanted.metadata.managedFields) object.metadata.managedFields = wanted.metadata.managedFields;
  // Node agents keep labels and annotations through status, as the kubelet does.
  if (['pods', 'nodes'].includes(resource.facts.resource)) {
    for (const field of ['labels', 'annotations'] as const)
      if (wanted.metadata[field]) object.metadata[field] = wanted.metadata[field];
  }
  return object;
}

/** A namespace's controllers let go of it one by one. */
function withFinalizers(_: Resource, old: KubeObject, wanted: KubeObject): KubeObject {
  return { ...likeOld(old), spec: wanted['spec'] ?? {} };
}

/** A pod's node and the condition that tells of it are written at one moment. */
function withBinding(_: Resource, old: KubeObject, wanted: KubeObject): KubeObject {
  return { ...likeOld(old), spec: wanted['spec'], status: wanted['status'] };
}

const PARTS = { main: withMain, status: withStatus, finalize: withFinalizers, binding: withBinding };

/** Fields the server owns come from the stored object when the client leaves them out. */
function keepIdentity(object: KubeObject, old: KubeObject): void {
  const { metadata } = object;
  for (const field of [
    'uid',
    'creationTimestamp',
    'deletionTimestamp',
    'deletionGracePeriodSeconds',
    'generation',
  ] as const) {
    if (old.metadata[field] === undefined) delete metadata[field];
    else if (metadata[field] === undefined || field === 'generation' || field === 'creationTimestamp')
      Object.assign(metadata, { [field]: old.metadata[field] });
    else if (field !== 'uid') Object.assign(metadata, { [field]: old.metadata[field] });
  }
  metadata.namespace ??= old.metadata.namespace ?? '';
  if (!old.metadata.namespace) delete metadata.namespace;
  if (old.metadata.generateName !== undefined) metadata.generateName ??= old.metadata.generateName;
  metadata.resourceVersion = old.metadata.resourceVersion ?? '';
}

function isNothingLeft(object: KubeObject): boolean {
  const { deletionTimestamp, deletionGracePeriodSeconds, finalizers } = object.metadata;
  if (deletionTimestamp === undefined || (finalizers ?? []).length > 0) return false;
  if (object.kind === 'Namespace') {
    const spec = object['spec'] as { finalizers?: string[] } | undefined;
    return (spec?.finalizers ?? []).length === 0;
  }
  return (deletionGracePeriodSeconds ?? 0) === 0;
}

function withoutMeta(object: KubeObject): unknown {
  const { metadata: _, ...rest } = object;
  return rest;
}

/** An update that changes nothing but the times of managed fields is none. */
function sameButTimes(object: KubeObject, old: KubeObject): boolean {
  const bare = (o: KubeObject): KubeObject => ({
    ...o,
    metadata: { ...o.metadata, managedFields: (o.metadata.managedFields ?? []).map(({ time: _, ...entry }) => entry) },
  });
  return equalJson(bare(object), bare(old));
}

function trackUpdateUnlessApplied(
  resource: Resource,
  old: KubeObject | undefined,
  object: KubeObject,
  context: Context,
  time: string,
): void {
  if (context.verb === 'apply') return;
  trackUpdate(resource.storedType, old, object, {
    manager: context.manager,
    subresource: context.subresource,
    hasStatus: resource.hasStatus,
    apiVersion: resource.storedType.apiVersion ?? resource.facts.apiVersion,
    time,
  });
}
