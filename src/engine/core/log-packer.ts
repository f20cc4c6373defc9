import { lstatSync, renameSync, rmSync, unlinkSync } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import type { Clock } from '#base/clock.ts';
import { describeChain, isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { Events } from '#engine/core/events.ts';
import { type LogPlaces, logFilesOf, logNames, openLog, packsLogs } from '#engine/core/log-files.ts';
import { type ContainerRecord, isRunning } from '#engine/core/record.ts';

export interface LogPackerOptions {
  /** Of the node's containers. */
  records: { list(): ContainerRecord[]; get(id: string): ContainerRecord | undefined };
  logPath(id: string): string;
  /** Undefined when it has ended. */
  shim(id: string): Promise<PackingShim | undefined>;
  /** Where one file is packed at a time; on the file system of the logs, since it is renamed to them. */
  scratch: string;
  events: Pick<Events, 'subscribe'>;
  clock: Clock;
  log: Logger;
}

export interface PackingShim {
  takePackedLog(inode: bigint, packed: string): Promise<boolean>;
  close(): void;
}

/** How soon after its turn a file is packed. */
const LOOK_MS = 10_000;
/** Read and packed at once: few turns of the event loop a file. */
const CHUNK_BYTES = 256 * 1024;
/** As dockerd's, which only the owner's group reads. */
const MODE = 0o640;

/**
 * Packs turned log files of containers that want it (`compress`), in the background, one at a time. The shim turns them and needs nobody for
 * it; here somebody comes by while such containers run, when they end, and at the daemon's start for what was turned meanwhile.
 *
 *     scratch ◀─ gzip ─ path.1        another thread's work; then fsync
 *     shim (or, when that has ended, we): rename scratch ─▶ path.1.gz, unlink path.1
 *
 * Killed at any point it leaves the plain file, which counts as long as it is there, or the packed one.
 */
export class LogPacker {
  readonly #o: LogPackerOptions;
  /** Of containers that do not run. */
  readonly #ended = new Set<string>();
  /** It failed there: not again before the next end or start. */
  readonly #givenUp = new Set<string>();
  readonly #stop = new AbortController();
  #unsubscribe: () => void = () => undefined;
  #cancel: (() => void) | undefined;
  #looking: Promise<void> = Promise.resolve();

  constructor(options: LogPackerOptions) {
    this.#o = options;
  }

  async begin(): Promise<void> {
    await rm(this.#o.scratch, { force: true });
    for (const record of this.#o.records.list()) if (packsLogs(record.spec.logging)) this.#ended.add(record.id);
    this.#unsubscribe = this.#o.events.subscribe(({ type, action, id }) => {
      if (type !== 'container' || (action !== 'start' && action !== 'die')) return;
      const record = this.#o.records.get(id);
      if (!record || !packsLogs(record.spec.logging)) return;
      this.#givenUp.delete(id);
      if (action === 'die') this.#ended.add(id);
      this.#arm();
    });
    this.#arm();
  }

  /** What is being packed is left as it was. */
  async close(): Promise<void> {
    this.#unsubscribe();
    this.#stop.abort();
    this.#cancel?.();
    await this.#looking;
  }

  #due(): ContainerRecord[] {
    return this.#o.records
      .list()
      .filter(({ id, state, spec }) => packsLogs(spec.logging) && (isRunning(state) || this.#ended.has(id)))
      .filter(({ id }) => !this.#givenUp.has(id));
  }

  #arm(): void {
    if (this.#cancel || this.#stop.signal.aborted || this.#due().length === 0) return;
    this.#cancel = this.#o.clock.after(LOOK_MS, () => {
      this.#looking = this.look().finally(() => {
        this.#cancel = undefined;
        this.#arm();
      });
    });
  }

  /** Packs what there is to pack now. */
  async look(): Promise<void> {
    const due = this.#due();
    this.#ended.clear();
    for (const record of due) {
      try {
        await this.#packAll(record.id, { path: this.#o.logPath(record.id), maxFiles: logFilesOf(record.spec.logging) });
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        if (!this.#o.records.get(record.id)) continue; // removed meanwhile, and its logs with it
        this.#givenUp.add(record.id);
        const { name: container } = record;
        this.#o.log.warn('turned log files stay unpacked', { container, error: describeChain(error) });
      }
    }
  }

  async #packAll(id: string, { path, maxFiles }: LogPlaces): Promise<void> {
    // From the youngest: those behind it fall away sooner.
    const plain = (await logNames({ path, maxFiles })).reverse().filter(({ packed, slot }) => !packed && slot > 0);
    for (const turned of plain) {
      const log = await openLog(turned.path, false);
      if (!log) continue; // turned since: the next look finds it
      await using plain = log.handle; // until the end, so that no other file can be given its inode
      const inode = await this.#pack(plain);
      await this.#hand(id, inode, { path, maxFiles });
    }
  }

  /** Leaves it at `scratch`, safe on disk; answers the inode of what was packed. */
  async #pack(plain: FileHandle): Promise<bigint> {
    await using packed = await open(this.#o.scratch, 'w', MODE);
    const { signal } = this.#stop;
    await pipeline(
      plain.createReadStream({ autoClose: false, highWaterMark: CHUNK_BYTES }),
      createGzip({ chunkSize: CHUNK_BYTES }),
      async (chunks: AsyncIterable<Buffer>) => {
        for await (const chunk of chunks) await packed.writeFile(chunk); // each behind the one before
      },
      { signal },
    );
    const { ino, mtime } = await plain.stat({ bigint: true });
    await packed.utimes(mtime, mtime); // when its last line was written
    await packed.sync();
    return ino;
  }

  /** Into the place of the plain one, by whoever turns files now. */
  async #hand(id: string, inode: bigint, places: LogPlaces): Promise<void> {
    const { scratch } = this.#o;
    if (await this.#byShim(id, inode)) return;
    // Its shim has ended, and no other begins within these three calls; of one that is removed the files go by themselves.
    if (this.#o.records.get(id) && !this.#runs(id) && putPacked(inode, scratch, places)) return;
    await rm(scratch, { force: true });
  }

  /** False: it has ended, or the file has fallen away. */
  async #byShim(id: string, inode: bigint): Promise<boolean> {
    const shim = await this.#o.shim(id);
    try {
      return (await shim?.takePackedLog(inode, this.#o.scratch)) ?? false;
    } catch (error) {
      if (isCode(error, 'CONNECTION_LOST') && !this.#runs(id)) return false;
      throw error;
    } finally {
      shim?.close();
    }
  }

  #runs(id: string): boolean {
    const record = this.#o.records.get(id);
    return record !== undefined && isRunning(record.state);
  }
}

/** As the shim does it (native/log.c); in one go, so that nothing of this process comes between. */
export function putPacked(inode: bigint, packed: string, { path, maxFiles }: LogPlaces): boolean {
  for (let i = 1; i < maxFiles; i++) {
    const plain = `${path}.${i}`;
    if (lstatSync(plain, { bigint: true, throwIfNoEntry: false })?.ino !== inode) continue;
    renameSync(packed, `${plain}.gz`);
    unlinkSync(plain);
    return true;
  }
  rmSync(packed, { force: true });
  return false;
}
