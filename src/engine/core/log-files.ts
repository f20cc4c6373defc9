import { type FileHandle, open, readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { errnoOf } from '#base/errors.ts';
import { LogUnreadable } from '#engine/core/errors.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';

//   path          the shim appends to it
//   path.1        turned: the shim renames, 1 is the youngest
//   path.2.gz     packed since (log-packer.ts); while it comes, path.2 stands beside it and counts
//
// The shim may turn at any moment of a reader's: files are opened from the youngest on, for then one that moves is met a second time
// (and known by its inode) and never missed.

/** A container's log on disk. */
export interface LogPlaces {
  path: string;
  /** The one that is written and those that were turned. */
  maxFiles: number;
}

export interface OpenLog {
  handle: FileHandle;
  path: string;
  ino: number;
  packed: boolean;
}

const PACKED = '.gz';
/** What is unpacked at once. */
const CHUNK_BYTES = 256 * 1024;

const MAX_FILES = 5;
/** As Go's strconv.ParseBool takes it. */
const TRUE = /^(1|t|T|TRUE|true|True)$/;
const FALSE = /^(0|f|F|FALSE|false|False)$/;

export function isLogFlag(value: string): boolean {
  return TRUE.test(value) || FALSE.test(value);
}

/** How many files a log has at most. */
export function logFilesOf({ options }: ContainerSpec['logging']): number {
  return Number(options['max-file'] ?? MAX_FILES);
}

/** As in dockerd: `local` packs turned files unless told otherwise, the others when told. */
export function wantsPacked({ driver, options }: ContainerSpec['logging']): boolean {
  return driver !== 'none' && TRUE.test(options['compress'] ?? String(driver === 'local'));
}

export function packsLogs(logging: ContainerSpec['logging']): boolean {
  return wantsPacked(logging) && logFilesOf(logging) > 1; // else nothing that was turned is kept
}

export interface LogName {
  path: string;
  /** 0 is the one that is written, 1 the youngest that was turned. */
  slot: number;
  packed: boolean;
}

/** A log's files, oldest first; both names of one that is being packed. */
export async function logNames({ path, maxFiles }: LogPlaces): Promise<LogName[]> {
  const own = basename(path);
  const names = await readdir(dirname(path)).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  });
  return names
    .flatMap((name): LogName[] => {
      if (name === own) return [{ path, slot: 0, packed: false }];
      const turned = name.startsWith(own) ? /^\.([1-9]\d{0,3})(\.gz)?$/.exec(name.slice(own.length)) : null;
      return turned
        ? [{ path: join(dirname(path), name), slot: Number(turned[1]), packed: turned[2] !== undefined }]
        : [];
    })
    .filter(({ slot }) => slot < maxFiles)
    .sort((a, b) => b.slot - a.slot);
}

/** All that is there, oldest first; the caller closes them. */
export async function openLogs({ path, maxFiles }: LogPlaces): Promise<OpenLog[]> {
  const slots = [...new Set((await logNames({ path, maxFiles })).map(({ slot }) => slot))]
    .reverse()
    .filter((n) => n > 0);
  const next = (slots.at(-1) ?? 0) + 1; // meanwhile the last may have moved up
  const names = [path, ...[...slots, ...(next < maxFiles ? [next] : [])].map((n) => `${path}.${n}`)];
  const logs: OpenLog[] = [];
  for (const name of names) {
    const log = (await openLog(name, false)) ?? (name === path ? undefined : await openLog(`${name}${PACKED}`, true));
    if (!log) continue;
    if (logs.some(({ ino }) => ino === log.ino)) await log.handle.close();
    else logs.push(log);
  }
  return logs.reverse();
}

/** Undefined: it is not there, or no longer. */
export async function openLog(path: string, packed: boolean): Promise<OpenLog | undefined> {
  try {
    const handle = await open(path, 'r');
    return { handle, path, packed, ino: (await handle.stat()).ino };
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** What a packed file holds, piece by piece. Throws LogUnreadable where it is damaged. */
export async function unpack({ handle, path }: OpenLog, take: (bytes: Buffer) => Promise<void> | void): Promise<void> {
  let taking: unknown;
  try {
    await pipeline(
      handle.createReadStream({ start: 0, autoClose: false }),
      createGunzip({ chunkSize: CHUNK_BYTES }),
      async (chunks: AsyncIterable<Buffer>) => {
        for await (const chunk of chunks) {
          try {
            await take(chunk);
          } catch (error) {
            taking = error;
            throw error;
          }
        }
      },
    );
  } catch (error) {
    throw error === taking ? error : new LogUnreadable({ path }, { cause: error });
  }
}
