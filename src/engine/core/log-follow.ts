import { watch } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { errnoOf } from '#base/errors.ts';
import { type LogPlaces, openLogs } from '#engine/core/log-files.ts';
import {
  type LogFormat,
  type LogLine,
  type LogPlace,
  type LogWish,
  linesTo,
  readBytes,
  readPacked,
} from '#engine/core/log-reader.ts';
import { type ContainerRecord, isRunning } from '#engine/core/record.ts';

export interface LogSource extends LogPlaces {
  record: () => ContainerRecord | undefined;
  now: () => number;
}

/**
 * New lines as they come, from where `readLogs` ended (without it, from the beginning), until the container ends or the client leaves. The kernel tells of writes (inotify); a slow look
 * beside it catches the turn of a file, and the end of the container.
 */
export async function followLogs(
  source: LogSource,
  format: LogFormat,
  wish: LogWish,
  put: (lines: LogLine[]) => Promise<void>,
  signal: AbortSignal,
  from?: LogPlace,
): Promise<void> {
  let file = await openOrWait(source.path, signal);
  const take = linesTo(format, wish, put);
  let offset = file && from ? await offsetIn(file, source, from, take) : 0;
  const bell = new Bell(source.path, signal);
  try {
    while (file && !signal.aborted) {
      const record = source.record();
      const over = !record || (!isRunning(record.state) && record.state.phase !== 'restarting');
      offset = await readBytes(file, offset, take);
      const renewed = await turned(source.path, file);
      if (renewed) {
        const old = file;
        file = renewed;
        try {
          const end = { ino: (await old.stat()).ino, offset: await readBytes(old, offset, take) };
          offset = await offsetIn(file, source, end, take);
        } finally {
          await old.close();
        }
        bell.watchAgain();
        continue;
      }
      if (over || (wish.until && wish.until.getTime() < source.now())) return;
      await bell.rings();
    }
  } finally {
    bell.close();
    await file?.close();
  }
}

/**
 * Where to go on in `file`. It may be another than the one that was read: then comes first what was added to that before its turn, and what
 * stands in those between, where a program has filled some meanwhile. One that has been packed is known by its place.
 */
async function offsetIn(
  file: FileHandle,
  source: LogSource,
  from: LogPlace,
  take: (bytes: Buffer) => Promise<void>,
): Promise<number> {
  const { ino } = await file.stat();
  if (ino === from.ino) return from.offset;
  const logs = await openLogs(source);
  try {
    const end = logs.findIndex((log) => log.ino === ino);
    const older = logs.slice(0, Math.max(0, end));
    const known = older.findIndex((log) => log.ino === from.ino);
    const [read, ...between] = older.slice(known >= 0 ? known : -1);
    if (read?.packed) await readPacked(read, { bytes: from.offset }, take);
    else if (read && known >= 0) await readBytes(read.handle, from.offset, take);
    for (const log of between) await (log.packed ? readPacked(log, {}, take) : readBytes(log.handle, 0, take));
  } finally {
    for (const { handle } of logs) await handle.close();
  }
  return 0;
}

async function openOrWait(path: string, signal: AbortSignal): Promise<Awaited<ReturnType<typeof open>> | undefined> {
  while (!signal.aborted) {
    try {
      return await open(path, 'r');
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      await new Promise((done) => setTimeout(done, LOOK_MS));
    }
  }
  return undefined;
}

/** The file of that name when it is another than the one we read. */
async function turned(
  path: string,
  file: Awaited<ReturnType<typeof open>>,
): Promise<Awaited<ReturnType<typeof open>> | undefined> {
  let other: Awaited<ReturnType<typeof open>>;
  try {
    other = await open(path, 'r');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined; // between the turn and the new file
    throw error;
  }
  if ((await other.stat()).ino !== (await file.stat()).ino) return other;
  await other.close();
  return undefined;
}

const LOOK_MS = 200;

/** Rings when the file changes, and now and then by itself. */
class Bell {
  readonly #path: string;
  #watcher: ReturnType<typeof watch> | undefined;
  #ring: () => void = () => undefined;
  #pending = false;

  constructor(path: string, signal: AbortSignal) {
    this.#path = path;
    signal.addEventListener('abort', () => this.#strike());
    this.watchAgain();
  }

  watchAgain(): void {
    this.#watcher?.close();
    try {
      this.#watcher = watch(this.#path, { persistent: false }, () => this.#strike());
      this.#watcher.on('error', () => this.#watcher?.close());
    } catch {
      this.#watcher = undefined; // inotify's watches are used up: the slow look is enough
    }
  }

  rings(): Promise<void> {
    if (this.#pending) {
      this.#pending = false;
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#strike(), LOOK_MS);
      this.#ring = () => {
        clearTimeout(timer);
        this.#ring = () => undefined;
        this.#pending = false;
        resolve();
      };
    });
  }

  close(): void {
    this.#watcher?.close();
  }

  #strike(): void {
    this.#pending = true;
    this.#ring();
  }
}
