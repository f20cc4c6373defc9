import { chmod, chown, mkdir, readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import type { Random } from '#base/random.ts';

/** On disk from before the first byte until the last name has moved. */
export interface Filling {
  staging: string;
  complete: boolean;
  /** Of the top, when it is complete. */
  top: Owner;
}

export interface FillHost {
  random: Random;
  /** Durable when it resolves; undefined: nothing is under way. */
  intent(filling: Filling | undefined): Promise<void>;
  removeTree(path: string): Promise<void>;
}

/** What goes into an empty volume. */
export interface Content {
  /** Lends the volume's top its owner and mode. */
  top: Owner;
  /** Writes the rest below a directory; absent when there is no rest. */
  copy?: (directory: string) => Promise<void>;
}

export interface Owner {
  uid: number;
  gid: number;
  mode: number;
}

/** Left in an empty file system by mkfs. */
const IGNORED = new Set(['lost+found']);

/**
 * Copies into a directory beside the files, in the same file system, then moves name after name up. Killed before the copy
 * is complete, the start-up sweep throws it away; killed after, it moves the rest: never half of it, and nothing that others
 * wrote meanwhile is touched.
 */
export async function fillEmpty(
  data: string,
  read: () => Promise<Content | undefined>,
  host: FillHost,
): Promise<boolean> {
  if (!isEmpty(await readdir(data))) return false;
  const content = await read();
  if (!content) return false;
  if (!content.copy) {
    await lend(content.top, data);
    return true;
  }
  const staging = `.estiba-fill-${Buffer.from(host.random.bytes(8)).toString('hex')}`;
  await host.intent({ staging, complete: false, top: content.top });
  const path = join(data, staging);
  try {
    await mkdir(path, { mode: 0o700 });
    await content.copy(path);
    await host.intent({ staging, complete: true, top: content.top });
  } catch (error) {
    await host.removeTree(path);
    await host.intent(undefined);
    throw error;
  }
  await moveUp(data, path, host);
  await lend(content.top, data);
  await host.intent(undefined);
  return true;
}

export function isEmpty(names: readonly string[]): boolean {
  return names.every((name) => IGNORED.has(name));
}

/** After a crash. */
export async function finishFilling(
  data: string,
  { staging, complete, top }: Filling,
  host: Pick<FillHost, 'removeTree'>,
): Promise<void> {
  const path = join(data, staging);
  if (!complete) return host.removeTree(path);
  try {
    await moveUp(data, path, host);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error; // killed after the last move: it is gone already
  }
  await lend(top, data);
}

async function moveUp(data: string, staging: string, host: Pick<FillHost, 'removeTree'>): Promise<void> {
  for (const name of await readdir(staging)) await rename(join(staging, name), join(data, name)).catch(unlessTaken);
  await host.removeTree(staging);
}

async function lend(top: Owner, data: string): Promise<void> {
  await chown(data, top.uid, top.gid);
  await chmod(data, top.mode & 0o7777);
}

/** Another container that runs with the volume made this name since we looked: it keeps what it made. */
function unlessTaken(error: unknown): void {
  const errno = errnoOf(error) ?? '';
  if (!['ENOTEMPTY', 'EEXIST', 'EISDIR', 'ENOTDIR'].includes(errno)) throw error;
}
