/**
 * The store's seam: a small ordered map with history, in the words of etcd's v3 API (KV, Watch and Lease services), so that
 * one code runs on the embedded driver and on an etcd cluster. What is promised:
 *
 *  - Every transaction that changes something makes one new revision; revisions grow by one. A new store is at revision 1,
 *    as etcd's is.
 *  - A transaction is atomic: it happens whole or not at all, and nobody sees half of it.
 *  - When a call returns, what it wrote or read is durable. A read never shows what a power cut could take back.
 *  - `range` at a revision sees the keys as they were then, until that revision is compacted.
 *  - A watch delivers every change after its start, once, in order, revisions whole.
 */
export interface Store {
  /** Keys of a range in ascending order. Without `revision`, as of now. Refuses STORE_COMPACTED, STORE_FUTURE_REVISION. */
  range(query: RangeQuery): Promise<RangeResult>;

  /** Compares, then does `ops` or `otherwise`, at one revision. Refuses STORE_FULL, STORE_VALUE_TOO_LARGE, STORE_LEASE_NOT_FOUND. */
  txn(txn: Txn): Promise<TxnResult>;

  /**
   * Changes from `fromRevision` on (default: those after now). Iterating throws STORE_COMPACTED when the history asked for
   * is gone; a reader that is slow holds no memory of its own, it only may find itself compacted.
   */
  watch(query: WatchQuery): Watch;

  /** Forgets history: afterwards `revision` is the oldest that can be read, and watches start after it. */
  compact(revision: number): Promise<void>;

  /** The last durable revision and the bytes held; costs no work. */
  status(): Promise<StoreStatus>;

  /** A lease that lives `ttlMs` from its last `keepAlive`; then the keys put with it are deleted. Drivers may round the TTL up to whole seconds. */
  grant(ttlMs: number): Promise<Lease>;
  keepAlive(lease: LeaseId): Promise<Lease>;
  /** Deletes the lease and its keys at one revision; LEASE_NOT_FOUND if it is gone. */
  revoke(lease: LeaseId): Promise<void>;

  /** Ends watches (their iteration finishes), writes what is pending. Later calls get STORE_CLOSED. */
  close(): Promise<void>;
}

/** Code units 0x01…0xD7FF only, 1 to 1 024 of them: then the order of JavaScript strings is that of UTF-8 bytes, which is etcd's. */
export type Key = string;
export const KEY_MAX_LENGTH = 1024;
/** Sum of keys and values of one transaction; etcd's default request limit is the same. */
export const TXN_MAX_BYTES = 1_572_864;
export const TXN_MAX_OPS = 1024;

/** A positive integer as a decimal string, since etcd's are 64 bits wide. */
export type LeaseId = string;

export interface KeyValue {
  key: Key;
  value: Uint8Array;
  /** Revision that made the key, counted anew after a delete. */
  createRevision: number;
  modRevision: number;
  /** Puts since it was made, from 1. */
  version: number;
  lease?: LeaseId;
}

/** `key` alone is that key; with `end`, all keys from `key` (included) to `end` (excluded); `end: ''` means to the last. See `prefix()`. */
export interface KeyRange {
  key: Key;
  end?: Key;
}

export interface RangeQuery extends KeyRange {
  /** 0 or absent: no limit. */
  limit?: number;
  revision?: number;
  keysOnly?: boolean;
  countOnly?: boolean;
}

export interface RangeResult {
  items: KeyValue[];
  /** All keys in the range at that revision, however many are listed. */
  count: number;
  more: boolean;
  /** The store's revision when the answer was made (not the one asked for). */
  revision: number;
}

export type Compare = { key: Key } & (
  | { target: 'mod' | 'create' | 'version'; is: '=' | '!=' | '<' | '>'; to: number } // absent key: 0
  | { target: 'value'; is: '=' | '!='; to: Uint8Array } // an absent key compares false, either way
  | { target: 'lease'; is: '=' | '!='; to: LeaseId | undefined }
);

export type TxnOp =
  | { do: 'put'; key: Key; value: Uint8Array; lease?: LeaseId; prevKv?: boolean }
  | ({ do: 'delete'; prevKv?: boolean } & KeyRange)
  | ({ do: 'range' } & Omit<RangeQuery, 'revision'>);

export interface Txn {
  /**
   * Answered before it is durable. A kill of this process loses nothing; a power cut may take it back, and then all that came
   * after it. It is durable once a later transaction without this word is answered, and within moments by itself. A driver
   * without the notion makes it durable at once.
   */
  lazy?: boolean;
  when?: readonly Compare[];
  /** Done when every comparison holds. A key may be put at most once in a transaction, and not be put and deleted. */
  ops: readonly TxnOp[];
  otherwise?: readonly TxnOp[];
}

export type TxnOpResult =
  | { do: 'put'; prev?: KeyValue }
  | { do: 'delete'; deleted: number; prev: KeyValue[] }
  | { do: 'range'; items: KeyValue[]; count: number; more: boolean };

export interface TxnResult {
  succeeded: boolean;
  /** The revision this transaction made; when it changed nothing, the store's present one. */
  revision: number;
  results: TxnOpResult[];
}

export interface WatchQuery extends KeyRange {
  fromRevision?: number;
  prevKv?: boolean;
}

export type WatchEvent =
  | { type: 'put'; kv: KeyValue; prev?: KeyValue }
  | { type: 'delete'; key: Key; modRevision: number; prev?: KeyValue };

/** Events of one or more whole revisions, in order; `revision` is the last the watch has seen all of. */
export interface WatchBatch {
  revision: number;
  events: WatchEvent[];
}

export interface Watch extends AsyncIterable<WatchBatch> {
  /** Ends the iteration; may be called twice. */
  cancel(): void;
  /**
   * The store's present revision, once every event up to it has been handed to the reader (or passed the range by): for
   * bookmarks. Rejects when the watch has ended.
   */
  progress(): Promise<number>;
}

export interface Lease {
  id: LeaseId;
  ttlMs: number;
}

export interface StoreStatus {
  revision: number;
  compactedRevision: number;
  usedBytes: number;
  limitBytes: number;
}

/** The range of all keys that begin with `start`. */
export function prefix(start: string): { key: Key; end: Key } {
  for (let i = start.length - 1; i >= 0; i--) {
    const unit = start.charCodeAt(i);
    if (unit < 0xd7ff) return { key: start, end: start.slice(0, i) + String.fromCharCode(unit + 1) };
  }
  return { key: start === '' ? '\u0001' : start, end: '' };
}

export async function get(store: Store, key: Key): Promise<KeyValue | undefined> {
  const { items } = await store.range({ key });
  return items[0];
}

export function put(store: Store, key: Key, value: Uint8Array, lease?: LeaseId): Promise<TxnResult> {
  return store.txn({ ops: [{ do: 'put', key, value, ...(lease === undefined ? {} : { lease }) }] });
}

/** Writes only if the key is as it was when read: `modRevision` 0 means it must not exist. False: somebody else was first. */
export async function compareAndPut(store: Store, key: Key, modRevision: number, value: Uint8Array): Promise<boolean> {
  const result = await store.txn({
    when: [{ key, target: 'mod', is: '=', to: modRevision }],
    ops: [{ do: 'put', key, value }],
  });
  return result.succeeded;
}

export async function remove(store: Store, range: KeyRange): Promise<number> {
  const { results } = await store.txn({ ops: [{ do: 'delete', ...range }] });
  return results[0]?.do === 'delete' ? results[0].deleted : 0;
}
