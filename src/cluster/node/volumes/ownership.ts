import { chmod, lchown, lstat, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** Everything in the volume gets the group, and the group may what the owner may; new files inherit it (fsGroup). */
export async function giveToGroup(path: string, gid: number, policy: 'Always' | 'OnRootMismatch'): Promise<void> {
  const root = await stat(path);
  if (policy === 'OnRootMismatch' && root.gid === gid && (root.mode & 0o2060) === 0o2060) return;
  await walk(path, gid);
}

async function walk(path: string, gid: number): Promise<void> {
  const info = await lstat(path);
  await lchown(path, info.uid, gid);
  if (info.isSymbolicLink()) return;
  await chmod(path, (info.mode & 0o7777) | (info.isDirectory() ? 0o2770 : 0o660));
  if (info.isDirectory()) for (const name of await readdir(path)) await walk(join(path, name), gid);
}
