import { accessSync, constants, existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { errnoOf } from '#base/errors.ts';

/**
 * Looking at /proc, /sys and cgroups. What is not there, or has just gone, is undefined: both are answers here, since the
 * kernel takes these files away whenever a process or cgroup ends. Synchronous: the kernel answers from memory, and a
 * trip through the thread pool costs ten times as much as the read.
 */
export interface Files {
  read(path: string): string | undefined;
  /** Names in a directory. */
  list(path: string): string[] | undefined;
  exists(path: string): boolean;
  readlink(path: string): string | undefined;
  /** May this process make something in the directory? */
  writable(path: string): boolean;
}

// ENODEV: the cgroup of an open file was removed. ESRCH: so was the process. EOPNOTSUPP, EINVAL: switched off in this kernel.
const ABSENT = new Set(['ENOENT', 'ENODEV', 'ENOTDIR', 'ESRCH', 'EOPNOTSUPP', 'EINVAL']);

export const hostFiles: Files = {
  read: (path) => unlessAbsent(() => readFileSync(path, 'utf8')),
  list: (path) => unlessAbsent(() => readdirSync(path)),
  exists: existsSync,
  readlink: (path) => unlessAbsent(() => readlinkSync(path)),
  writable: (path) => {
    try {
      accessSync(path, constants.W_OK);
      return true;
    } catch {
      return false; // whatever the reason, the answer is no
    }
  },
};

function unlessAbsent<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (ABSENT.has(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}

/** A tree in memory for tests: path → text. Directories are what the paths imply; `dir/` alone makes an empty one. */
export function treeFiles(tree: Readonly<Record<string, string>>): Files {
  const paths = Object.keys(tree);
  const list = (path: string): string[] | undefined => {
    const below = paths.filter((p) => p.startsWith(`${path}/`)).map((p) => p.slice(path.length + 1));
    return below.length === 0
      ? undefined
      : [...new Set(below.map((p) => p.split('/')[0] ?? ''))].filter((n) => n !== '');
  };
  return {
    read: (path) => tree[path],
    list,
    exists: (path) => path in tree || list(path) !== undefined,
    readlink: (path) => tree[path],
    writable: (path) => list(path) !== undefined,
  };
}
