import { randomBytes } from 'node:crypto';
import { type FileHandle, open, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf } from '#base/errors.ts';

/**
 * Files that are there whole or not at all, and stay after a power cut: write to a temporary name, sync, rename, sync the
 * directory. Temporary names start with `.tmp-`; `sweepTemporary` removes those that a crash left.
 */
const TEMPORARY = '.tmp-';

export async function writeFileAtomic(
  path: string,
  data: string | Uint8Array,
  options: { mode?: number } = {},
): Promise<void> {
  const temporary = temporaryName(path);
  const handle = await open(temporary, 'wx', options.mode ?? 0o600);
  try {
    await handle.writeFile(data);
    await handle.sync();
    await handle.close();
    await renameDurably(temporary, path);
  } catch (error) {
    await handle.close().catch(() => undefined); // may be closed already; the first error is the one that counts
    await rm(temporary, { force: true });
    throw error;
  }
}

export function temporaryName(path: string): string {
  return join(dirname(path), `${TEMPORARY}${randomBytes(8).toString('hex')}`);
}

/** Rename whose effect is on disk when it returns. The file's own bytes have to be synced before. */
export async function renameDurably(from: string, to: string): Promise<void> {
  await rename(from, to);
  await syncDirectory(dirname(to));
  if (dirname(from) !== dirname(to)) await syncDirectory(dirname(from));
}

/** Makes creations, renames and removals in the directory last. */
export async function syncDirectory(path: string): Promise<void> {
  await withFile(path, 'r', (handle) => handle.sync());
}

export async function removeDurably(path: string): Promise<void> {
  await rm(path, { force: true });
  await syncDirectory(dirname(path));
}

export async function sweepTemporary(directory: string): Promise<void> {
  const names = await readdir(directory).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  });
  for (const name of names) {
    if (name.startsWith(TEMPORARY)) await rm(join(directory, name), { force: true, recursive: true });
  }
}

export async function withFile<T>(path: string, flags: string, use: (handle: FileHandle) => Promise<T>): Promise<T> {
  const handle = await open(path, flags);
  try {
    return await use(handle);
  } finally {
    await handle.close();
  }
}
