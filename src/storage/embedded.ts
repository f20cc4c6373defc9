import { unlinkSync } from 'node:fs';
import { copyFile, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#base/clock.ts';
import { messageOf } from '#base/errors.ts';
import { type Logger, logger } from '#base/log.ts';
import { writeBase } from '#storage/base-file.ts';
import { StoreLocked } from '#storage/errors.ts';
import { renameDurably, sweepTemporary, syncDirectory, temporaryName, withFile } from '#storage/files.ts';
import { LogJournal, type ValueRef } from '#storage/journal.ts';
import { LocalStore } from '#storage/local.ts';
import { lockDirectory } from '#storage/lock.ts';
import { LogFile } from '#storage/logfile.ts';
import { BASE, fileName, LOG, recover } from '#storage/recover.ts';
import type { Store } from '#storage/store.ts';

export interface EmbeddedOptions {
  clock: Clock;
  /** Live bytes (values, keys, history, a little for each entry) above which puts get STORE_FULL. Files take up to about twice that. */
  limitBytes?: number;
  /** Revisions of history to keep without anybody calling `compact`; absent: all. */
  keepRevisions?: number;
  /** Values of the last writes held in memory for watches that read them next; 8 MiB when absent. */
  keepRecentBytes?: number;
  /** A new base is written when the log since the last one is larger than that one and than this. */
  rewriteBytes?: number;
  /** The same with this bound, which is a smaller one, when nothing has been written for a second: the next start has less to read. */
  restBytes?: number;
  log?: Logger;
}

export interface EmbeddedStore extends Store {
  /** Writes everything that is durable now, history included, to one new file, while work goes on. */
  backup(path: string): Promise<{ revision: number; bytes: number }>;
  /** Resolves when a rewrite that is under way has ended. */
  idle(): Promise<void>;
}

const DEFAULT_LIMIT_BYTES = 2 * 1024 ** 3;
const DEFAULT_REWRITE_BYTES = 16 * 1024 * 1024;
const REST_MS = 1_000;

/** Opens (or makes) the store in `directory`: lock, recover, go on appending. */
export async function openEmbedded(directory: string, options: EmbeddedOptions): Promise<EmbeddedStore> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const unlock = lockDirectory(join(directory, 'LOCK'));
  try {
    await sweepTemporary(directory);
    const state = recover(directory);
    const current =
      state.logs.at(-1) ?? new LogFile(join(directory, fileName(state.nextNumber, LOG)), state.nextNumber, 'wx+', 0);
    await syncDirectory(directory);
    const { limitBytes = DEFAULT_LIMIT_BYTES, keepRecentBytes } = options;
    const journal = new LogJournal(current, state.liveBytes, {
      limitBytes,
      ...(keepRecentBytes === undefined ? {} : { keepRecentBytes }),
    });
    return new Embedded(directory, options, journal, state, unlock);
  } catch (error) {
    unlock();
    throw error;
  }
}

/** Puts a backup into a new directory, for `openEmbedded`. A directory that holds a store is refused. */
export async function restoreEmbedded(backup: string, directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const present = await readdir(directory);
  if (present.length > 0) throw new StoreLocked({ path: directory, holder: `another store (${present[0]})` });
  const temporary = temporaryName(join(directory, fileName(1, BASE)));
  await copyFile(backup, temporary);
  await withFile(temporary, 'r+', (handle) => handle.sync());
  await renameDurably(temporary, join(directory, fileName(1, BASE)));
}

class Embedded extends LocalStore<ValueRef> implements EmbeddedStore {
  readonly #directory: string;
  readonly #journal: LogJournal;
  readonly #index: ReturnType<typeof recover>['index'];
  readonly #unlock: () => void;
  readonly #log: Logger;
  readonly #rewriteBytes: number;
  readonly #restBytes: number;
  readonly #clock: Clock;
  #flushes = 0;
  #cancelRest: (() => void) | undefined;
  #older: LogFile[];
  #baseBytes: number;
  #rewriting: Promise<void> | undefined;
  #ended = false;

  constructor(
    directory: string,
    options: EmbeddedOptions,
    journal: LogJournal,
    state: ReturnType<typeof recover>,
    unlock: () => void,
  ) {
    super({
      journal,
      clock: options.clock,
      index: state.index,
      leases: state.leases,
      ...(options.keepRevisions === undefined ? {} : { keepRevisions: options.keepRevisions }),
    });
    this.#directory = directory;
    this.#journal = journal;
    this.#index = state.index;
    this.#unlock = unlock;
    this.#log = options.log ?? logger('storage');
    this.#rewriteBytes = options.rewriteBytes ?? DEFAULT_REWRITE_BYTES;
    this.#restBytes = options.restBytes ?? Number.POSITIVE_INFINITY;
    this.#clock = options.clock;
    this.#older = [...(state.base ? [state.base] : []), ...state.logs.slice(0, -1)];
    this.#baseBytes = state.base?.end ?? 0;
    journal.onFlushed = () => {
      this.#flushes++;
      this.#considerRewrite();
    };
    this.#awaitRest();
  }

  async backup(path: string): Promise<{ revision: number; bytes: number }> {
    const { revision } = await this.status();
    const release = this.#journal.hold();
    try {
      const { bytes } = await writeBase(path, this.#source(revision));
      return { revision, bytes };
    } finally {
      release();
    }
  }

  async idle(): Promise<void> {
    await this.#rewriting;
  }

  override async close(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#cancelRest?.();
    await this.#rewriting;
    try {
      await super.close();
    } finally {
      for (const file of this.#older) file.close();
      this.#unlock();
    }
  }

  #source(revision: number) {
    return { index: this.#index, revision, leases: this.leases(), read: (ref: ValueRef) => this.#journal.read(ref) };
  }

  #considerRewrite(): void {
    if (this.#outgrown(this.#rewriteBytes)) this.#startRewrite();
    else this.#awaitRest();
  }

  #outgrown(leastBytes: number): boolean {
    return this.#journal.appendedBytes >= Math.max(leastBytes, this.#baseBytes);
  }

  /** One timer, that looks whether anything was written meanwhile: a write costs no timer of its own. */
  #awaitRest(): void {
    if (this.#cancelRest || this.#ended || !this.#outgrown(this.#restBytes)) return;
    const flushes = this.#flushes;
    this.#cancelRest = this.#clock.after(REST_MS, () => {
      this.#cancelRest = undefined;
      if (flushes !== this.#flushes) this.#awaitRest();
      else if (this.#outgrown(this.#restBytes)) this.#startRewrite();
    });
  }

  #startRewrite(): void {
    if (this.#rewriting || this.#ended) return;
    this.#rewriting = this.#rewrite()
      // The log goes on growing meanwhile and nothing is lost; the next attempt comes with the next flush past the bound.
      .catch((error: unknown) =>
        this.#log.warn('rewrite failed', { directory: this.#directory, error: messageOf(error) }),
      )
      .finally(() => {
        this.#rewriting = undefined;
      });
  }

  /**
   * New log first, then a base of all before it, then the old files go. A crash leaves either the old files with the new
   * log after them, or the base with left-overs before it; both read the same.
   */
  async #rewrite(): Promise<void> {
    const ended = this.#journal.current;
    const next = new LogFile(join(this.#directory, fileName(ended.number + 1, LOG)), ended.number + 1, 'wx+', 0);
    await syncDirectory(this.#directory);
    const replaced = [...this.#older, ended];
    this.#journal.rotate(next);
    this.#older = replaced;
    const source = this.#source(this.#index.revision);
    await this.#journal.synced();

    const path = join(this.#directory, fileName(ended.number, BASE));
    const { moved, bytes } = await writeBase(path, source);
    const base = new LogFile(path, ended.number, 'r', bytes);
    for (const [i, { ref, offset }] of moved.entries()) {
      ref.file = base;
      ref.offset = offset;
      if (i % 10_000 === 9_999) await new Promise((go) => setImmediate(go));
    }
    this.#older = [base];
    this.#baseBytes = bytes;
    for (const file of replaced) unlinkSync(file.path);
    this.#journal.retire(replaced);
    this.#log.debug('rewritten', { base: path, bytes });
  }
}
