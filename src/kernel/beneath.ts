import { constants, type Stats } from 'node:fs';
import { type FileHandle, lstat, mkdir, open, readdir, readlink, realpath, stat } from 'node:fs/promises';
import { dirname, posix } from 'node:path';
import { assert, defineError, errnoOf } from '#base/errors.ts';

// Files below a root that its own programs may be changing at the same moment. Between a look at a path and its use, a
// container can put a link in the place of a directory (CVE-2018-15664 of `docker cp`), so nothing here is named by more than
// one component: a directory is held open, and `/proc/self/fd/N/name` is openat(2) for a runtime that has none. The kernel
// never gets to follow a link; where one is to be followed, its text is read and walked, and `/` means the root.

const O_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
/** As the kernel counts (MAXSYMLINKS). */
const LINKS_MAX = 40;

export const NotBeneath = defineError(
  'PATH_NOT_BENEATH',
  (d: { path: string; why: 'not found' | 'not a directory' | 'too many links' }) => ({
    message: `${d.path}: ${{ 'not found': 'no such file or directory', 'not a directory': 'not a directory', 'too many links': 'too many levels of symbolic links' }[d.why]}`,
  }),
);

/** A directory held open: what it is called, and where it is moved, makes no difference any more. */
export class OpenDir implements AsyncDisposable {
  readonly #handle: FileHandle;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** Follows links: the path must be one that only the host's own can change. */
  static async open(path: string): Promise<OpenDir> {
    return new OpenDir(await open(path, O_DIRECTORY & ~constants.O_NOFOLLOW));
  }

  /** A directory in this one. ELOOP or ENOTDIR when it is a link or no directory. */
  async child(name: string): Promise<OpenDir> {
    return new OpenDir(await open(this.at(name), O_DIRECTORY));
  }

  /** A path for one call of this process on `name`; calls that do not follow a last link do not follow one here. */
  at(name: string): string {
    assert(name !== '' && name !== '.' && name !== '..' && !name.includes('/'), `${JSON.stringify(name)} is one name`);
    return `/proc/self/fd/${this.#handle.fd}/${name}`;
  }

  /** This directory for a call of this process. */
  get self(): string {
    return `/proc/self/fd/${this.#handle.fd}/.`;
  }

  /** The same for a plan, which another process carries out while this directory is held open. */
  outside(name = '.'): string {
    return `/proc/${process.pid}/fd/${this.#handle.fd}/${name}`;
  }

  names(): Promise<string[]> {
    return readdir(this.self);
  }

  stat(): Promise<Stats> {
    return this.#handle.stat();
  }

  /** Changes of the directory itself: owner, mode, times. */
  get handle(): FileHandle {
    return this.#handle;
  }

  close(): Promise<void> {
    return this.#handle.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** A root as its programs see it. */
export interface Root {
  directory: string;
  /** Where something is mounted over it, path inside → path on the host, when the kernel does not show it so already. */
  over?: ReadonlyMap<string, string>;
  /** Directories that a walk shows as empty. */
  empty?: ReadonlySet<string>;
}

/** Where a path leads. The last name may be missing; the directory that it would be in is there. */
export interface Place {
  /** Inside the root, without links: `/etc/passwd`. */
  path: string;
  /** Undefined: not there. Of a link itself, unless it was to be followed. */
  stat: Stats | undefined;
  /** For one call on it. */
  access: string;
  /** Undefined for the root, and for what is mounted over a path: those have no parent to change them in. */
  parent: { directory: OpenDir; name: string } | undefined;
}

/** Walks `path` below the root for as long as `use` takes. `follow`: a link in the last place is followed too. */
export async function withPlace<T>(
  root: Root,
  path: string,
  how: { follow: boolean },
  use: (place: Place) => Promise<T>,
): Promise<T> {
  const walk = new Walk(root);
  try {
    return await use(await walk.to(path, how.follow));
  } finally {
    await walk.close();
  }
}

/**
 * A directory below the root, with its path free of links; the caller closes it. `make`: what is missing of it is made, with that
 * mode; `made` is told of each.
 */
export async function openBeneath(
  root: Root,
  path: string,
  how: { make?: number; made?: (directory: OpenDir) => Promise<void> } = {},
): Promise<{ directory: OpenDir; path: string }> {
  const walk = new Walk(root, how);
  try {
    const { path: found } = await walk.to(`${path}/.`, true);
    return { directory: walk.release(), path: found };
  } finally {
    await walk.close();
  }
}

/** Directories from the root to where we stand, each held open: `..` is the one before, whatever was moved meanwhile. */
class Walk {
  readonly #root: Root;
  readonly #how: { make?: number; made?: (directory: OpenDir) => Promise<void> };
  #stack: { name: string; directory: OpenDir }[] = [];

  constructor(root: Root, how: { make?: number; made?: (directory: OpenDir) => Promise<void> } = {}) {
    this.#root = root;
    this.#how = how;
  }

  async to(path: string, follow: boolean): Promise<Place> {
    this.#stack = [{ name: '', directory: await OpenDir.open(this.#root.directory) }];
    const todo = path.split('/');
    for (let links = 0; ; ) {
      const name = todo.shift();
      if (name === undefined) return this.#here();
      if (name === '' || name === '.') continue;
      if (name === '..') {
        if (this.#stack.length > 1) await this.#stack.pop()?.directory.close();
        continue;
      }
      let place = await this.#look(name);
      const missing = !place.stat && this.#how.make !== undefined;
      if (missing) {
        await mkdir(place.access, { mode: this.#how.make }).catch(unlessThere);
        place = await this.#look(name);
      }
      const last = todo.every((rest) => rest === '');
      if (place.stat?.isSymbolicLink() && (!last || follow || todo.length > 0)) {
        if (++links > LINKS_MAX) throw new NotBeneath({ path, why: 'too many links' });
        const target = await readlink(place.access);
        if (target.startsWith('/')) await this.#reset();
        todo.unshift(...target.split('/'));
      } else if (last && !(todo.length > 0 && place.stat?.isDirectory())) {
        if (todo.length > 0 && place.stat) throw new NotBeneath({ path, why: 'not a directory' }); // `file/`
        return place;
      } else {
        await this.#enter(name, place, path);
        if (missing) await this.#how.made?.(this.#top().directory);
      }
    }
  }

  /** Where the walk stands, no longer the walk's to close. */
  release(): OpenDir {
    const top = this.#stack.pop();
    assert(top, 'a walk stands somewhere');
    return top.directory;
  }

  async close(): Promise<void> {
    for (const { directory } of this.#stack) await directory.close();
    this.#stack = [];
  }

  async #look(name: string): Promise<Place> {
    const { directory } = this.#top();
    const path = posix.join('/', ...this.#stack.map((d) => d.name), name);
    const mounted = this.#root.over?.get(path);
    if (mounted !== undefined)
      return { path, access: await realpath(mounted), stat: await stat(mounted), parent: undefined };
    const access = directory.at(name);
    return { path, access, stat: await lstat(access).catch(absent), parent: { directory, name } };
  }

  async #enter(name: string, place: Place, wanted: string): Promise<void> {
    if (!place.stat) throw new NotBeneath({ path: wanted, why: 'not found' });
    if (!place.stat.isDirectory()) throw new NotBeneath({ path: wanted, why: 'not a directory' });
    try {
      const directory = place.parent ? await this.#top().directory.child(name) : await OpenDir.open(place.access);
      this.#stack.push({ name, directory });
    } catch (error) {
      // Changed since we looked: a link or a file now, or gone.
      const errno = errnoOf(error);
      if (errno === 'ENOENT') throw new NotBeneath({ path: wanted, why: 'not found' }, { cause: error });
      if (errno === 'ELOOP' || errno === 'ENOTDIR')
        throw new NotBeneath({ path: wanted, why: 'not a directory' }, { cause: error });
      throw error;
    }
  }

  async #here(): Promise<Place> {
    const { directory } = this.#top();
    const path = posix.join('/', ...this.#stack.map((d) => d.name));
    return { path, access: directory.self, stat: await directory.stat(), parent: undefined };
  }

  async #reset(): Promise<void> {
    while (this.#stack.length > 1) await this.#stack.pop()?.directory.close();
  }

  #top(): { name: string; directory: OpenDir } {
    const top = this.#stack.at(-1);
    assert(top, 'a walk stands somewhere');
    return top;
  }
}

/** One file of a tree. What can be said of it holds until the next one is asked for. */
export interface Seen {
  /** Relative to the top, without a slash in front; '' is the top itself. */
  path: string;
  stat: Stats;
  /** For one call on it. */
  access: string;
}

/** Every file of a tree, parents first, names in order, links not followed; what goes meanwhile is left out. */
export async function* walkTree(root: Root, top: Place): AsyncGenerator<Seen> {
  if (!top.stat) return;
  yield { path: '', stat: top.stat, access: top.access };
  if (top.stat.isDirectory() && !root.empty?.has(top.path)) {
    const directory = top.parent ? await top.parent.directory.child(top.parent.name) : await OpenDir.open(top.access);
    yield* walkBelow(root, directory, top.path, '');
  }
}

/** The same for a directory by its path on the host, which nobody hostile can change. */
export async function* walkDirectory(directory: string): AsyncGenerator<Seen> {
  const top = { path: '/', access: directory, stat: await lstat(directory), parent: undefined };
  yield* walkTree({ directory }, top);
}

async function* walkBelow(root: Root, directory: OpenDir, inside: string, path: string): AsyncGenerator<Seen> {
  try {
    const mounted = [...(root.over?.keys() ?? [])].filter((target) => dirname(target) === inside);
    const names = new Set([...(await directory.names()), ...mounted.map((target) => posix.basename(target))]);
    for (const name of [...names].sort()) {
      const here = posix.join(inside, name);
      const over = root.over?.get(here);
      const access = over === undefined ? directory.at(name) : await realpath(over);
      const found = await lstat(access).catch(absent);
      if (!found) continue;
      const relative = path === '' ? name : `${path}/${name}`;
      yield { path: relative, stat: found, access };
      if (!found.isDirectory() || root.empty?.has(here)) continue;
      const child = await (over === undefined ? directory.child(name) : OpenDir.open(access)).catch(changed);
      if (child) yield* walkBelow(root, child, here, relative);
    }
  } finally {
    await directory.close();
  }
}

/** Whatever is there now and can be opened; for who looks himself what it is. */
export function openAny(access: string): Promise<FileHandle | undefined> {
  return open(access, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(changed);
}

/** The file's bytes, if it is still an ordinary file: a link is not followed, a FIFO does not block. */
export async function openFile(access: string): Promise<FileHandle | undefined> {
  const handle = await openAny(access);
  if (!handle) return undefined;
  if ((await handle.stat()).isFile()) return handle;
  await handle.close();
  return undefined;
}

function unlessThere(error: unknown): void {
  if (errnoOf(error) !== 'EEXIST') throw error;
}

function absent(error: unknown): undefined {
  if (errnoOf(error) === 'ENOENT') return undefined;
  throw error;
}

function changed(error: unknown): undefined {
  const errno = errnoOf(error);
  // ENXIO: a FIFO nobody writes to, or a socket.
  if (errno === 'ENOENT' || errno === 'ELOOP' || errno === 'ENOTDIR' || errno === 'ENXIO') return undefined;
  throw error;
}
