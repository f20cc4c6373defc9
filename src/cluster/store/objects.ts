import { isCode } from '#base/errors.ts';
import { type KeyValue, prefix, type Store, type StoreStatus, type TxnOp, type Watch } from '#storage/store.ts';
import { ValueUnreadable } from './errors.ts';
import { type Sealer, unsealed } from './seal.ts';

export type { Store, Watch } from '#storage/store.ts';

/**
 * Kubernetes objects over the store's seam. Keys are Kubernetes':
 *
 *     /registry/RESOURCE/NAMESPACE/NAME        /registry/RESOURCE/NAME for cluster-wide ones
 *
 * values are JSON without `resourceVersion`, which is the key's modRevision; it is put in on reading.
 */
export interface StoredObject {
  key: string;
  /** modRevision: the object's `metadata.resourceVersion`. */
  revision: number;
  object: KubeObject;
}

/** Any object as it is stored and served. Not to be changed by who reads it: caches and watches share it. */
export interface KubeObject {
  apiVersion: string;
  kind: string;
  metadata: KubeMetadata;
  [field: string]: unknown;
}

export interface KubeMetadata {
  name: string;
  namespace?: string;
  generateName?: string;
  uid?: string;
  resourceVersion?: string;
  generation?: number;
  creationTimestamp?: string;
  deletionTimestamp?: string;
  deletionGracePeriodSeconds?: number;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: {
    apiVersion: string;
    kind: string;
    name: string;
    uid: string;
    controller?: boolean;
    blockOwnerDeletion?: boolean;
  }[];
  finalizers?: string[];
  managedFields?: ManagedFields[];
  [field: string]: unknown;
}

export interface ManagedFields {
  manager?: string;
  operation?: string;
  apiVersion?: string;
  time?: string;
  fieldsType?: string;
  fieldsV1?: unknown;
  subresource?: string;
}

export type Changed = { type: 'put'; stored: StoredObject } | { type: 'delete'; key: string; revision: number };

export const ROOT = '/registry/';

export function keyOf(
  resource: string,
  at: { namespace?: string | undefined; name?: string | undefined } = {},
): string {
  return `${ROOT}${resource}/${at.namespace ? `${at.namespace}/` : ''}${at.name ?? ''}`;
}

export interface PageQuery {
  /** Key prefix. */
  under: string;
  /** Only keys after this one. */
  after?: string | undefined;
  limit: number;
  revision?: number | undefined;
}

export class ObjectStore {
  readonly #store: Store;
  readonly #sealer: Sealer;

  constructor(store: Store, sealer: Sealer = unsealed) {
    this.#store = store;
    this.#sealer = sealer;
  }

  /** One page in key order, as of `revision`. */
  async page(query: PageQuery): Promise<{ items: StoredObject[]; more: boolean; remaining: number; revision: number }> {
    const whole = prefix(query.under);
    const result = await this.#store.range({
      key: query.after === undefined ? whole.key : `${query.after}\u0001`,
      end: whole.end,
      limit: query.limit,
      ...(query.revision === undefined ? {} : { revision: query.revision }),
    });
    return {
      items: result.items.map((kv) => this.#read(kv)),
      more: result.more,
      remaining: result.count - result.items.length,
      revision: query.revision ?? result.revision,
    };
  }

  /** Everything, and the revision to watch from. */
  async all(): Promise<{ items: StoredObject[]; revision: number }> {
    const { items, revision } = await this.#store.range(prefix(ROOT));
    return { items: items.map((kv) => this.#read(kv)), revision };
  }

  /** The new revision, or undefined when the key exists already. */
  async create(key: string, object: KubeObject, lease?: string): Promise<number | undefined> {
    const op: TxnOp = { do: 'put', key, value: this.#write(key, object), ...(lease === undefined ? {} : { lease }) };
    const result = await this.#store.txn({ when: [{ key, target: 'mod', is: '=', to: 0 }], ops: [op] });
    return result.succeeded ? result.revision : undefined;
  }

  /** The new revision, or undefined when the object is not at `expected` any more. */
  async update(key: string, object: KubeObject, expected: number): Promise<number | undefined> {
    const value = this.#write(key, object);
    const result = await this.#store.txn({
      when: [{ key, target: 'mod', is: '=', to: expected }],
      ops: [{ do: 'put', key, value }],
    });
    return result.succeeded ? result.revision : undefined;
  }

  async delete(key: string, expected: number): Promise<number | undefined> {
    const result = await this.#store.txn({
      when: [{ key, target: 'mod', is: '=', to: expected }],
      ops: [{ do: 'delete', key }],
    });
    return result.succeeded ? result.revision : undefined;
  }

  watch(fromRevision: number): Watch {
    return this.#store.watch({ ...prefix(ROOT), fromRevision });
  }

  async *changes(watch: Watch): AsyncGenerator<{ revision: number; changes: Changed[] }> {
    for await (const batch of watch) {
      yield {
        revision: batch.revision,
        changes: batch.events.map(
          (e): Changed =>
            e.type === 'put'
              ? { type: 'put', stored: this.#read(e.kv) }
              : { type: 'delete', key: e.key, revision: e.modRevision },
        ),
      };
    }
  }

  status(): Promise<StoreStatus> {
    return this.#store.status();
  }

  /** A lease's id; objects written with it vanish `ttlMs` from now. */
  async grant(ttlMs: number): Promise<string> {
    return (await this.#store.grant(ttlMs)).id;
  }

  #write(key: string, object: KubeObject): Uint8Array {
    const { resourceVersion: _, ...metadata } = object.metadata;
    return this.#sealer.seal(key, Buffer.from(JSON.stringify({ ...object, metadata })));
  }

  #read(kv: KeyValue): StoredObject {
    let object: KubeObject;
    try {
      object = JSON.parse(Buffer.from(this.#sealer.open(kv.key, kv.value)).toString('utf8')) as KubeObject;
    } catch (error) {
      if (isCode(error, 'KUBE_VALUE_UNREADABLE')) throw error;
      throw new ValueUnreadable({ key: kv.key, why: 'it is no JSON' }, { cause: error });
    }
    object.metadata.resourceVersion = String(kv.modRevision);
    return { key: kv.key, revision: kv.modRevision, object };
  }
}
