import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import { Compacted, FutureRevision, LeaseNotFound, ValueTooLarge } from '#storage/errors.ts';
import { checkRange, checkTxn } from '#storage/mvcc.ts';
import {
  type Compare,
  type KeyRange,
  type KeyValue,
  type Lease,
  type RangeQuery,
  type RangeResult,
  type Store,
  type StoreStatus,
  TXN_MAX_BYTES,
  type Txn,
  type TxnOp,
  type TxnOpResult,
  type TxnResult,
  type Watch,
  type WatchQuery,
} from '#storage/store.ts';
import {
  EtcdClient,
  type EtcdOptions,
  type WireKeyValue,
  type WireLease,
  type WireRange,
  type WireTxn,
} from './etcd-client.ts';
import { EtcdWatch } from './etcd-watch.ts';

/** The seam over an etcd cluster (v3 API, 3.4 or newer): every promise of the seam is one of etcd's own. */
export async function connectEtcd(options: EtcdOptions & { clock: Clock }): Promise<Store> {
  const store = new EtcdStore(new EtcdClient(options), options.clock);
  // Learns the present revision: watches "from now on" begin there.
  await store.range({ key: PROBE, countOnly: true });
  return store;
}

const PROBE = '\u0001';

class EtcdStore implements Store {
  readonly #client: EtcdClient;
  readonly #clock: Clock;
  readonly #watches = new Set<EtcdWatch>();
  /** The newest revision any answer has told of. */
  #seen = 0;
  #compacted = 0;

  constructor(client: EtcdClient, clock: Clock) {
    this.#client = client;
    this.#clock = clock;
  }

  async range(query: RangeQuery): Promise<RangeResult> {
    checkRange(query);
    const request = rangeRequest(query, query.revision);
    const answer = await this.#client.read<WireRange>('KV', 'Range', request).catch((error: unknown) => {
      throw this.#withRevision(error, query.revision ?? 0);
    });
    return { ...rangeResult(answer, query), revision: this.#saw(answer.header?.revision) };
  }

  async txn(txn: Txn): Promise<TxnResult> {
    checkTxn(txn);
    checkSize(txn);
    const ops = (list: readonly TxnOp[]): object[] => list.map(wireOp);
    const answer = await this.#client
      .call<WireTxn>('KV', 'Txn', {
        compare: (txn.when ?? []).map(wireCompare),
        success: ops(txn.ops),
        failure: ops(txn.otherwise ?? []),
      })
      .catch((error: unknown) => {
        throw this.#withLease(error, txn);
      });
    const succeeded = answer.succeeded ?? false;
    const done = succeeded ? txn.ops : (txn.otherwise ?? []);
    const responses = answer.responses ?? [];
    return {
      succeeded,
      revision: this.#saw(answer.header?.revision),
      results: done.map((op, i) => opResult(op, responses[i] ?? {})),
    };
  }

  watch(query: WatchQuery): Watch {
    checkRange(query);
    const watch = new EtcdWatch({
      client: this.#client,
      clock: this.#clock,
      query: { ...query, fromRevision: query.fromRevision ?? this.#seen + 1 },
      range: wireRange(query),
      show: keyValue,
      current: async () => (await this.range({ key: PROBE, countOnly: true })).revision,
      ended: (w) => this.#watches.delete(w),
    });
    this.#watches.add(watch);
    return watch;
  }

  async compact(revision: number): Promise<void> {
    await this.#client.call('KV', 'Compact', { revision }).catch((error: unknown) => {
      throw this.#withRevision(error, revision);
    });
    this.#compacted = Math.max(this.#compacted, revision);
  }

  async status(): Promise<StoreStatus> {
    const { revision } = await this.range({ key: PROBE, countOnly: true });
    const size = await this.#client.read<{ dbSizeInUse?: string; dbSizeQuota?: string }>('Maintenance', 'Status', {});
    return {
      revision,
      compactedRevision: this.#compacted,
      usedBytes: Number(size.dbSizeInUse ?? 0),
      // Members before 3.6 do not tell their quota; 2 GiB is its default.
      limitBytes: Number(size.dbSizeQuota ?? 0) || 2 * 1024 ** 3,
    };
  }

  async grant(ttlMs: number): Promise<Lease> {
    const answer = await this.#client.call<WireLease>('Lease', 'LeaseGrant', { TTL: Math.ceil(ttlMs / 1000), ID: 0 });
    return { id: answer.ID ?? '0', ttlMs: Number(answer.TTL ?? 0) * 1000 };
  }

  keepAlive(lease: string): Promise<Lease> {
    return new Promise((done, fail) => {
      const call = this.#client.stream('Lease', 'LeaseKeepAlive');
      call.on('data', (answer: WireLease) => {
        call.end();
        const ttl = Number(answer.TTL ?? 0);
        if (ttl > 0) done({ id: lease, ttlMs: ttl * 1000 });
        else fail(new LeaseNotFound({ lease }));
      });
      call.on('error', (error) =>
        fail(this.#client.refusal(error as Parameters<EtcdClient['refusal']>[0], 'LeaseKeepAlive')),
      );
      call.write({ ID: lease });
    });
  }

  async revoke(lease: string): Promise<void> {
    await this.#client.call('Lease', 'LeaseRevoke', { ID: lease }).catch((error: unknown) => {
      throw isCode(error, 'STORE_LEASE_NOT_FOUND') ? new LeaseNotFound({ lease }, { cause: error }) : error;
    });
  }

  async close(): Promise<void> {
    for (const watch of this.#watches) watch.cancel();
    this.#client.close();
  }

  #saw(revision: string | undefined): number {
    const now = Number(revision ?? 0);
    if (now > this.#seen) this.#seen = now;
    return now;
  }

  #withRevision(error: unknown, asked: number): unknown {
    if (isCode(error, 'STORE_COMPACTED')) return new Compacted({ asked, compacted: this.#compacted }, { cause: error });
    if (isCode(error, 'STORE_FUTURE_REVISION'))
      return new FutureRevision({ asked, current: this.#seen }, { cause: error });
    return error;
  }

  #withLease(error: unknown, txn: Txn): unknown {
    if (!isCode(error, 'STORE_LEASE_NOT_FOUND')) return error;
    const put = [...txn.ops, ...(txn.otherwise ?? [])].find((op) => op.do === 'put' && op.lease !== undefined);
    return new LeaseNotFound({ lease: put?.do === 'put' ? (put.lease ?? '') : '' }, { cause: error });
  }
}

/** etcd counts the whole request; refusing here keeps the connection from carrying what will not be taken. */
function checkSize(txn: Txn): void {
  let bytes = 0;
  for (const op of [...txn.ops, ...(txn.otherwise ?? [])])
    if (op.do === 'put') bytes += op.key.length + op.value.length;
  if (bytes > TXN_MAX_BYTES) throw new ValueTooLarge({ bytes, limitBytes: TXN_MAX_BYTES });
}

function wireRange({ key, end }: KeyRange): { key: Buffer; range_end?: Buffer } {
  if (end === undefined) return { key: Buffer.from(key) };
  // A single NUL stands for "to the last key".
  return { key: Buffer.from(key), range_end: Buffer.from(end === '' ? '\0' : end) };
}

function rangeRequest(query: Omit<RangeQuery, 'revision'>, revision?: number): object {
  return {
    ...wireRange(query),
    limit: query.limit ?? 0,
    ...(revision === undefined ? {} : { revision }),
    keys_only: query.keysOnly ?? false,
    count_only: query.countOnly ?? false,
  };
}

function rangeResult(
  answer: WireRange,
  query: { countOnly?: boolean },
): { items: KeyValue[]; count: number; more: boolean } {
  const items = (answer.kvs ?? []).map(keyValue);
  return { items, count: Number(answer.count ?? 0), more: query.countOnly ? false : (answer.more ?? false) };
}

const EMPTY = new Uint8Array(0);

function keyValue(kv: WireKeyValue): KeyValue {
  const lease = kv.lease ?? '0';
  return {
    key: (kv.key ?? EMPTY).toString(),
    value: kv.value ?? EMPTY,
    createRevision: Number(kv.create_revision ?? 0),
    modRevision: Number(kv.mod_revision ?? 0),
    version: Number(kv.version ?? 0),
    ...(lease === '0' ? {} : { lease }),
  };
}

function wireOp(op: TxnOp): object {
  switch (op.do) {
    case 'put':
      return {
        request_put: {
          key: Buffer.from(op.key),
          value: Buffer.from(op.value),
          lease: op.lease ?? '0',
          prev_kv: op.prevKv ?? false,
        },
      };
    case 'delete':
      return { request_delete_range: { ...wireRange(op), prev_kv: op.prevKv ?? false } };
    case 'range':
      return { request_range: rangeRequest(op) };
  }
}

function opResult(op: TxnOp, answer: NonNullable<WireTxn['responses']>[number]): TxnOpResult {
  switch (op.do) {
    case 'put': {
      const prev = answer.response_put?.prev_kv;
      return { do: 'put', ...(prev ? { prev: keyValue(prev) } : {}) };
    }
    case 'delete': {
      const { deleted = '0', prev_kvs = [] } = answer.response_delete_range ?? {};
      return { do: 'delete', deleted: Number(deleted), prev: prev_kvs.map(keyValue) };
    }
    case 'range':
      return { do: 'range', ...rangeResult(answer.response_range ?? {}, op) };
  }
}

// enum CompareResult and CompareTarget
const RESULTS = { '=': 0, '>': 1, '<': 2, '!=': 3 } as const;

function wireCompare(compare: Compare): object {
  const common = { result: RESULTS[compare.is], key: Buffer.from(compare.key) };
  switch (compare.target) {
    case 'version':
      return { ...common, target: 0, version: compare.to };
    case 'create':
      return { ...common, target: 1, create_revision: compare.to };
    case 'mod':
      return { ...common, target: 2, mod_revision: compare.to };
    case 'value':
      return { ...common, target: 3, value: Buffer.from(compare.to) };
    case 'lease':
      return { ...common, target: 4, lease: compare.to ?? '0' };
  }
}
