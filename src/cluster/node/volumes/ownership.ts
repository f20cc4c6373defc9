import { chmod, lchown, lstat, mkdir, readdir, realpath, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import { BadContainerConfig } from '#cluster/node/errors.ts';

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

/**
 * A path below a volume, made when it is not there. A link in it must not lead out of the volume: its contents are the pods'
 * (CVE-2017-1002101, CVE-2021-25741).
 */
export async function subPath(volume: string, path: string): Promise<string> {
  if (path.startsWith('/') || path.split('/').includes('..'))
    throw new BadContainerConfig({ message: `subPath ${JSON.stringify(path)} must be relative and without ".."` });
  const root = await realpath(volume);
  const wanted = join(root, path);
  const existing = await deepest(wanted);
  if (existing !== root && !existing.startsWith(`${root}/`))
    throw new BadContainerConfig({ message: `failed to prepare subPath: ${path} leads out of its volume` });
  try {
    await mkdir(wanted, { recursive: true, mode: 0o755 });
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error; // a file is mounted as a file
  }
  const real = await realpath(wanted);
  if (real !== root && !real.startsWith(`${root}/`))
    throw new BadContainerConfig({ message: `failed to prepare subPath: ${path} leads out of its volume` });
  return real;
}

/** The real path of the longest part that exists. */
async function deepest(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    return deepest(dirname(path));
  }
}
