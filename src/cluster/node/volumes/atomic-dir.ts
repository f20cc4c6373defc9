import {
  chmod,
  chown,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import type { Payload } from '#cluster/node/volumes/payload.ts';

/**
 * A directory whose files change all at once, as the kubelet lays it out: a reader that follows `..data` sees the old files or
 * the new ones, never a mixture. Programs watch `..data` for its change.
 *
 *     DIR/..2026_11_21_08_00_00.123   the files
 *     DIR/..data -> ..2026_…          swapped by rename(2)
 *     DIR/key -> ..data/key           made once for each first part of a path
 */
export interface FileOwner {
  uid: number;
  gid: number;
}

const DATA = '..data';

/** True when something changed. */
export async function writeAtomically(
  dir: string,
  payload: Payload,
  options: {
    owner: (file: { token?: true }) => FileOwner;
    mode: (mode: number, file: { token?: true }) => number;
    stamp: string;
  },
): Promise<boolean> {
  const current = await linkTarget(join(dir, DATA));
  if (current !== undefined && (await isSame(join(dir, current), payload))) return false;
  const fresh = `..${options.stamp}`;
  await mkdir(join(dir, fresh), { mode: 0o755 });
  for (const [path, file] of payload) {
    const target = join(dir, fresh, path);
    await mkdir(dirname(target), { recursive: true, mode: 0o755 });
    await writeFile(target, file.data);
    const { uid, gid } = options.owner(file);
    if (uid !== 0 || gid !== 0) await chown(target, uid, gid);
    await chmod(target, options.mode(file.mode, file)); // past the umask
  }
  await rm(join(dir, '..data_tmp'), { force: true });
  await symlink(fresh, join(dir, '..data_tmp'));
  await rename(join(dir, '..data_tmp'), join(dir, DATA));
  await linkNames(dir, payload);
  await removeOthers(dir, fresh);
  return true;
}

/** New names after the swap, so that no link dangles; names of files that are gone go. */
async function linkNames(dir: string, payload: Payload): Promise<void> {
  const wanted = new Set([...payload.keys()].map((path) => path.split('/')[0] ?? ''));
  const present = new Set((await readdir(dir)).filter((name) => !name.startsWith('..')));
  for (const name of wanted) if (!present.has(name)) await symlink(join(DATA, name), join(dir, name));
  for (const name of present) if (!wanted.has(name)) await rm(join(dir, name), { force: true });
}

async function removeOthers(dir: string, keep: string): Promise<void> {
  for (const name of await readdir(dir))
    if (name.startsWith('..') && name !== DATA && name !== keep)
      await rm(join(dir, name), { recursive: true, force: true });
}

async function isSame(dir: string, payload: Payload): Promise<boolean> {
  const present = await filesBelow(dir, '');
  if (present.length !== payload.size) return false;
  for (const path of present) {
    const file = payload.get(path);
    if (!file?.data.equals(await readFile(join(dir, path)))) return false;
  }
  return true;
}

async function filesBelow(root: string, path: string): Promise<string[]> {
  const found: string[] = [];
  for (const name of await readdir(join(root, path))) {
    const inner = path === '' ? name : `${path}/${name}`;
    if ((await lstat(join(root, inner))).isDirectory()) found.push(...(await filesBelow(root, inner)));
    else found.push(inner);
  }
  return found;
}

async function linkTarget(path: string): Promise<string | undefined> {
  try {
    return await readlink(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
