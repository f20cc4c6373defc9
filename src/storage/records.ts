import { messageOf } from '#base/errors.ts';
import type { Shape } from '#base/shape.ts';
import { RecordInvalid } from '#storage/errors.ts';
import { get, type KeyValue, prefix, put, remove, type Store, type TxnOp } from '#storage/store.ts';

/** JSON records below one prefix of the node's store. */
export class Records<T> {
  readonly #store: Store;
  readonly #prefix: string;
  readonly #shape: Shape<T>;

  constructor(store: Store, keyPrefix: string, shape: Shape<T>) {
    this.#store = store;
    this.#prefix = keyPrefix;
    this.#shape = shape;
  }

  async get(id: string): Promise<T | undefined> {
    const kv = await get(this.#store, this.#prefix + id);
    return kv && this.#parse(kv);
  }

  async all(): Promise<[id: string, record: T][]> {
    const { items } = await this.#store.range(prefix(this.#prefix));
    return items.map((kv) => [kv.key.slice(this.#prefix.length), this.#parse(kv)]);
  }

  async put(id: string, record: T): Promise<void> {
    await put(this.#store, this.#prefix + id, bytesOf(record));
  }

  async remove(id: string): Promise<void> {
    await remove(this.#store, { key: this.#prefix + id });
  }

  /** `put`, and `remove` without a record, for what a power cut may take back: see `lazy` in store.ts. */
  async note(id: string, record: T | undefined): Promise<void> {
    await this.#store.txn({ ops: [this.op(id, record)], lazy: true });
  }

  /** The change alone, for a transaction with others. */
  op(id: string, record: T | undefined): TxnOp {
    const key = this.#prefix + id;
    return record === undefined ? { do: 'delete', key } : { do: 'put', key, value: bytesOf(record) };
  }

  #parse(kv: KeyValue): T {
    try {
      return this.#shape(JSON.parse(Buffer.from(kv.value).toString()), kv.key);
    } catch (cause) {
      throw new RecordInvalid({ key: `${kv.key}: ${messageOf(cause)}` }, { cause });
    }
  }
}

function bytesOf(record: unknown): Buffer {
  return Buffer.from(JSON.stringify(record));
}
