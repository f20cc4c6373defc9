import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
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
 *
 * Synchronous: DIR is on a tmpfs and holds a megabyte at most; through the thread pool each of these two dozen calls would cost
 * more in switches than in work.
 */
export interface FileOwner {
  uid: number;
  gid: number;
}

export interface AtomicOptions {
  owner: (file: { token?: true }) => FileOwner;
  mode: (mode: number, file: { token?: true }) => number;
  /** Names the new files' directory; never the same twice. */
  stamp: string;
}

const DATA = '..data';

/** True when something changed. */
export function writeAtomically(dir: string, payload: Payload, options: AtomicOptions): boolean {
  const current = linkTarget(join(dir, DATA));
  if (current !== undefined && isSame(join(dir, current), payload)) return false;
  const fresh = `..${options.stamp}`;
  mkdirSync(join(dir, fresh), { mode: 0o755 });
  for (const [path, file] of payload) {
    const target = join(dir, fresh, path);
    if (path.includes('/')) mkdirSync(dirname(target), { recursive: true, mode: 0o755 });
    writeFileSync(target, file.data);
    const { uid, gid } = options.owner(file);
    if (uid !== 0 || gid !== 0) chownSync(target, uid, gid);
    chmodSync(target, options.mode(file.mode, file)); // past the umask
  }
  rmSync(join(dir, '..data_tmp'), { force: true });
  symlinkSync(fresh, join(dir, '..data_tmp'));
  renameSync(join(dir, '..data_tmp'), join(dir, DATA));
  linkNames(dir, payload);
  removeOthers(dir, fresh);
  return true;
}

/** New names after the swap, so that no link dangles; names of files that are gone go. */
function linkNames(dir: string, payload: Payload): void {
  const wanted = new Set([...payload.keys()].map((path) => path.split('/')[0] ?? ''));
  // Directories are mount points of other volumes inside this one.
  const links = readdirSync(dir, { withFileTypes: true }).filter((entry) => entry.isSymbolicLink());
  const present = new Set(links.map((entry) => entry.name).filter((name) => !name.startsWith('..')));
  for (const name of wanted) if (!present.has(name)) symlinkSync(join(DATA, name), join(dir, name));
  for (const name of present) if (!wanted.has(name)) rmSync(join(dir, name), { force: true });
}

function removeOthers(dir: string, keep: string): void {
  for (const name of readdirSync(dir))
    if (name.startsWith('..') && name !== DATA && name !== keep)
      rmSync(join(dir, name), { recursive: true, force: true });
}

function isSame(dir: string, payload: Payload): boolean {
  const present = filesBelow(dir, '');
  return (
    present.length === payload.size &&
    present.every((path) => payload.get(path)?.data.equals(readFileSync(join(dir, path))) === true)
  );
}

function filesBelow(root: string, path: string): string[] {
  return readdirSync(join(root, path)).flatMap((name) => {
    const inner = path === '' ? name : `${path}/${name}`;
    return lstatSync(join(root, inner)).isDirectory() ? filesBelow(root, inner) : [inner];
  });
}

function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
