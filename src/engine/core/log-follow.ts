import { watch } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { errnoOf } from '#base/errors.ts';
import { type LogFormat, type LogLine, type LogPlace, type LogWish, readFrom } from '#engine/core/log-reader.ts';
import { type ContainerRecord, isRunning } from '#engine/core/record.ts';

export interface LogSource {
  path: string;
  maxFiles: number;
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
  let offset =
    file && from ? await offsetIn(file, source, from, (old) => readFrom(old, from.offset, format, wish, put)) : 0;
  const bell = new Bell(source.path, signal);
  try {
    while (file && !signal.aborted) {
      const record = source.record();
      const over = !record || (!isRunning(record.state) && record.state.phase !== 'restarting');
      offset = await readFrom(file, offset, format, wish, put);
      const renewed = await turned(source.path, file);
      if (renewed) {
        await readFrom(file, offset, format, wish, put);
        await file.close();
        file = renewed;
        offset = 0;
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

/** The file may have been turned since it was read: then what was added to it before comes first. */
async function offsetIn(
  file: FileHandle,
  { path }: LogSource,
  from: LogPlace,
  finish: (old: FileHandle) => Promise<unknown>,
): Promise<number> {
  if ((await file.stat()).ino === from.ino) return from.offset;
  const old = await open(`${path}.1`, 'r').catch(absent);
  try {
    if (old && (await old.stat()).ino === from.ino) await finish(old);
  } finally {
    await old?.close();
  }
  return 0;
}

function absent(error: unknown): undefined {
  if (errnoOf(error) !== 'ENOENT') throw error;
  return undefined;
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
