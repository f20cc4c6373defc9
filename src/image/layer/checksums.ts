import { dirname } from 'node:path';
import type { Clock } from '#base/clock.ts';
import { describeChain, errnoOf } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { LayerDriver } from '#image/layer/driver.ts';
import type { LayerRecord } from '#image/layer/record.ts';
import type { Digest } from '#spec/image/digest.ts';
import { syncDirectory } from '#storage/files.ts';
import type { Records } from '#storage/records.ts';

/** After the last layer of a pull. */
const DELAY_MS = 500;

export interface ChecksumsOptions {
  driver: LayerDriver;
  records: Records<LayerRecord>;
  /** Where a layer lies; all in one directory. */
  file: (name: string) => string;
  /** Undefined: it was removed. */
  known: (diffId: Digest) => LayerRecord | undefined;
  clock: Clock;
  log: Logger;
}

/**
 * Sums layers up when nobody unpacks any more, so that a changed byte is found before the layer is mounted again. One without a checksum
 * does not outlive a power cut; so this is also what makes durable what was written unsynced:
 *
 *     unpacked ─▶ added ─▶ (unsynced: synced, with its directory) ─▶ read and summed up ─▶ recorded
 */
export class Checksums {
  readonly #o: ChecksumsOptions;
  readonly #unchecked = new Map<Digest, LayerRecord>();
  /** Names of those that are not synced, nor is their record. */
  readonly #unsynced = new Set<string>();
  #running: Promise<void> | undefined;
  #cancel: (() => void) | undefined;

  constructor(options: ChecksumsOptions) {
    this.#o = options;
  }

  /** It is recorded, and to be summed up at the next `soon`. */
  add(diffId: Digest, record: LayerRecord): void {
    this.#unchecked.set(diffId, record);
  }

  /** Some are to be summed up. */
  get pending(): boolean {
    return this.#unchecked.size > 0;
  }

  /** Its file was written, or may have been, without a sync. */
  leaveUnsynced(name: string): void {
    this.#unsynced.add(name);
  }

  isUnsynced(name: string): boolean {
    return this.#unsynced.has(name);
  }

  /** Its file is gone. */
  forget(name: string): void {
    this.#unsynced.delete(name);
  }

  soon(): void {
    this.#cancel?.();
    this.#cancel = this.#o.clock.after(DELAY_MS, () => this.#begin());
  }

  /** Now, and waits for it. */
  async finish(): Promise<void> {
    this.#begin();
    await this.#running;
  }

  #begin(): void {
    this.#cancel?.();
    // What failed is tried again with the next layer, and a start without checksum unpacks anew.
    const failed = (error: unknown): void =>
      this.#o.log.error('layers could not be made durable', { error: describeChain(error) });
    this.#running ??= this.#sumUpAll()
      .catch(failed)
      .finally(() => {
        this.#running = undefined;
      });
  }

  async #sumUpAll(): Promise<void> {
    const { driver, records, file, known, log } = this.#o;
    const writes: Promise<void>[] = [];
    for (let next = first(this.#unchecked); next; next = first(this.#unchecked)) {
      const [diffId, record] = next;
      this.#unchecked.delete(diffId);
      const failed = (error: unknown): void => {
        if (known(diffId)) log.warn('no checksum for layer', { diffId, error: describeChain(error) });
      };
      try {
        if (this.#unsynced.has(record.name)) await this.#syncAll();
        const checksum = await driver.checksum(file(record.name));
        if (known(diffId) !== record) continue; // removed meanwhile
        record.checksum = checksum;
        writes.push(records.put(diffId, record).catch(failed)); // the next is summed up while this one is written
      } catch (error) {
        failed(error);
      }
    }
    await Promise.all(writes);
  }

  /** Layers that are not synced yet, together: the file system writes its journal once for all that ask at the same time. */
  async #syncAll(): Promise<void> {
    const files = [...this.#unsynced].map((name) => ({ name, path: this.#o.file(name) }));
    const [one] = files;
    if (!one) return;
    const gone = (error: unknown): void => {
      if (errnoOf(error) !== 'ENOENT') throw error; // the layer was removed meanwhile
    };
    await Promise.all(files.map(({ path }) => this.#o.driver.sync(path).catch(gone)));
    await syncDirectory(dirname(one.path));
    for (const { name } of files) this.#unsynced.delete(name);
  }
}

function first<K, V>(map: ReadonlyMap<K, V>): [K, V] | undefined {
  return map.entries().next().value;
}
