import { randomBytes } from 'node:crypto';
import { type FileHandle, lstat, open, readdir, rename, rm } from 'node:fs/promises';
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

export async function sweepTemporary(directory: string): Promise<void> {
  const names = await readdir(directory).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  });
  for (const name of names) {
    if (name.startsWith(TEMPORARY)) await rm(join(directory, name), { force: true, recursive: true });
  }
}

/** Bytes on disk and inodes of a tree, hard links counted once; what goes meanwhile is not counted. */
export async function diskUsage(root: string): Promise<{ bytes: number; inodes: number }> {
  const seen = new Set<string>();
  let bytes = 0;
  const pending = [root];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    const stat = await lstat(path).catch(gone);
    if (!stat || seen.has(`${stat.dev}:${stat.ino}`)) continue;
    seen.add(`${stat.dev}:${stat.ino}`);
    bytes += stat.blocks * 512;
    if (!stat.isDirectory()) continue;
    for (const name of (await readdir(path).catch(gone)) ?? []) pending.push(join(path, name));
  }
  return { bytes, inodes: seen.size };
}

function gone(error: unknown): undefined {
  const errno = errnoOf(error);
  if (errno !== 'ENOENT' && errno !== 'ENOTDIR') throw error;
  return undefined;
}

export async function withFile<T>(path: string, flags: string, use: (handle: FileHandle) => Promise<T>): Promise<T> {
  const handle = await open(path, flags);
  try {
    return await use(handle);
  } finally {
    await handle.close();
  }
}
