import { KeyedSerial } from '#base/queue.ts';
import { AmbiguousId, BadName, NameTaken, NoSuchContainer } from '#engine/core/errors.ts';
import type { ContainerRecord, ContainerState } from '#engine/core/record.ts';
import { prefix, type Store, type TxnOp } from '#storage/store.ts';

const PREFIX = 'containers/';
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;
const NAME_MAX_LENGTH = 255;

/**
 * All containers the node knows: the store holds them, memory finds them. A record is written before it is seen. What a request
 * is answered by is durable then; steps on the way are written lazily, before it in the same log, so that a power cut leaves
 * either none of them or the first few.
 */
export class ContainerRegistry {
  readonly #store: Store;
  readonly #byId = new Map<string, ContainerRecord>();
  readonly #byName = new Map<string, string>();
  /** Being written for the first time. */
  readonly #adding = new Set<ContainerRecord>();
  /** One write of a record after the other: memory has what the disk has. */
  readonly #line = new KeyedSerial<string>('record');

  private constructor(store: Store) {
    this.#store = store;
  }

  static async open(store: Store): Promise<ContainerRegistry> {
    const registry = new ContainerRegistry(store);
    const { items } = await store.range(prefix(PREFIX));
    for (const item of items)
      registry.#remember(JSON.parse(Buffer.from(item.value).toString('utf8')) as ContainerRecord);
    return registry;
  }

  list(): ContainerRecord[] {
    return [...this.#byId.values()];
  }

  /** Also those whose first write is under way: what they hold is nobody else's. */
  holders(): ContainerRecord[] {
    return [...this.#byId.values(), ...this.#adding];
  }

  /** By full id, by name with or without slash, or by a beginning of the id that only one has. */
  find(wish: string): ContainerRecord {
    const name = wish.replace(/^\//, '');
    const exact = this.#byId.get(wish) ?? this.#byId.get(this.#byName.get(name) ?? '');
    if (exact) return exact;
    if (wish === '' || !/^[0-9a-f]+$/.test(wish)) throw new NoSuchContainer({ name: wish });
    const found = this.list().filter((record) => record.id.startsWith(wish));
    if (found.length > 1) throw new AmbiguousId({ prefix: wish, ids: found.map((r) => r.id) });
    if (!found[0]) throw new NoSuchContainer({ name: wish });
    return found[0];
  }

  get(id: string): ContainerRecord | undefined {
    return this.#byId.get(id);
  }

  isTaken(name: string): boolean {
    return this.#byName.has(name);
  }

  checkName(name: string): void {
    if (!NAME.test(name) || name.length > NAME_MAX_LENGTH) throw new BadName({ name });
    const holder = this.#byName.get(name);
    if (holder !== undefined) throw new NameTaken({ name, holder });
  }

  /**
   * The name is taken from here on, before the first write is done: two requests cannot both have it. Written lazily, since what is
   * made by this record is swept without it as well, after a power cut; or not at all, where nothing is made before it is saved.
   */
  async add(record: ContainerRecord, { written }: { written: boolean }): Promise<void> {
    this.checkName(record.name);
    this.#byName.set(record.name, record.id);
    this.#adding.add(record);
    try {
      if (written) await this.#write(record, { lazy: true });
    } catch (error) {
      this.#byName.delete(record.name);
      throw error;
    } finally {
      this.#adding.delete(record);
    }
    this.#remember(record);
  }

  /** `beside`: what else is written then, or not at all. */
  save(record: ContainerRecord, beside: readonly TxnOp[] = []): Promise<void> {
    return this.#line.run(record.id, async () => {
      await this.#write(record, { beside });
      this.#remember(record);
    });
  }

  /**
   * Part of the state, joined with the rest as it was last written: for who does not hold the container's line (a kill, a probe), and
   * for who has waited since he looked. A whole record from before would take back what the other wrote meanwhile.
   */
  amendState(id: string, change: Partial<ContainerState>, how: { lazy?: boolean } = {}): Promise<void> {
    return this.#line.run(id, async () => {
      const record = this.#byId.get(id);
      if (!record) return; // it has gone, and its state with it
      const amended = { ...record, state: { ...record.state, ...change } };
      await this.#write(amended, how);
      this.#remember(amended);
    });
  }

  /** The record with another state; answers what is on disk now. `beside`: see `save`. */
  async saveState(
    record: ContainerRecord,
    change: Partial<ContainerState>,
    beside: readonly TxnOp[] = [],
  ): Promise<ContainerRecord> {
    const changed = { ...record, state: { ...record.state, ...change } };
    await this.save(changed, beside);
    return changed;
  }

  /** The same, lazily: a kill of this daemon does not lose it; a power cut may, and takes what the record speaks of along. */
  async noteState(record: ContainerRecord, change: Partial<ContainerState>): Promise<ContainerRecord> {
    const changed = { ...record, state: { ...record.state, ...change } };
    return this.#line.run(record.id, async () => {
      await this.#write(changed, { lazy: true });
      this.#remember(changed);
      return changed;
    });
  }

  /** All that was noted is durable. */
  async settled(): Promise<void> {
    await this.#store.txn({ ops: [] });
  }

  async rename(record: ContainerRecord, name: string): Promise<ContainerRecord> {
    this.checkName(name);
    this.#byName.set(name, record.id);
    const renamed = { ...record, name };
    try {
      await this.save(renamed);
    } catch (error) {
      this.#byName.delete(name);
      throw error;
    }
    this.#byName.delete(record.name);
    return renamed;
  }

  /** `beside`: what else is written then, or not at all. */
  forget(id: string, beside: readonly TxnOp[] = []): Promise<void> {
    return this.#line.run(id, async () => {
      await this.#store.txn({ ops: [{ do: 'delete', key: PREFIX + id }, ...beside] });
      const record = this.#byId.get(id);
      this.#byId.delete(id);
      if (record && this.#byName.get(record.name) === id) this.#byName.delete(record.name);
    });
  }

  #remember(record: ContainerRecord): void {
    this.#byId.set(record.id, record);
    this.#byName.set(record.name, record.id);
  }

  async #write(record: ContainerRecord, how: { lazy?: boolean; beside?: readonly TxnOp[] } = {}): Promise<void> {
    const put: TxnOp = { do: 'put', key: PREFIX + record.id, value: Buffer.from(JSON.stringify(record)) };
    await this.#store.txn({ ops: [put, ...(how.beside ?? [])], lazy: how.lazy ?? false });
  }
}
