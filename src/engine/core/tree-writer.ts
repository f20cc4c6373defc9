import { constants } from 'node:fs';
import { copyFile, type FileHandle, lchown, link, lstat, lutimes, mkdir, open, symlink } from 'node:fs/promises';
import { dirname, posix } from 'node:path';
import { assert, defineError, errnoOf, isCode } from '#base/errors.ts';
import type { TarEntry } from '#image/tar/entry.ts';
import { OpenDir, openBeneath, type Root, withPlace } from '#kernel/beneath.ts';
import { type IdMapping, toHostId } from '#kernel/idmap.ts';
import type { Op, Plan, Step } from '#kernel/plan/plan.ts';

export const CannotReplace = defineError(
  'INVALID_ARGUMENT',
  (d: { path: string; there: 'directory' | 'non-directory'; come: 'directory' | 'non-directory' }) => ({
    message: `cannot overwrite ${d.there} "${d.path}" with ${d.come}`,
  }),
);

export const IdNotMapped = defineError('INVALID_ARGUMENT', (d: { id: number; path: string }) => ({
  message: `${d.path} belongs to id ${d.id}, which the container's user namespace does not have`,
}));

/** Of a root in a user namespace: what lies on its own device belongs to ids as they are outside; what is mounted from elsewhere does not. */
export interface RootIds {
  map: readonly IdMapping[];
  device: number;
}

export interface TreeWriterOptions {
  /** Links in the tree that is written into lead nowhere but below it. */
  root: Root;
  /** Where the archive's own root goes. */
  base: string;
  runPlan: (plan: Plan) => Promise<unknown>;
  /** Whose all of it is, instead of who the archive says. */
  owner?: { uid: number; gid: number };
  ids?: RootIds;
  /** A directory is not replaced by something else, nor something else by a directory. */
  keepKinds?: boolean;
}

interface WrittenFile {
  entry: TarEntry;
  handle: FileHandle;
  directory: OpenDir;
  written: number;
}

const O_CREATE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
/** Of directories that the archive has files in, and does not name. */
const IMPLIED_MODE = 0o755;
/** Each holds a file open. */
const CLOSING_MOST = 32;
const FILE_KIND = { fifo: 0o010000, char: 0o020000, block: 0o060000 } as const;

/**
 * Writes the members of an archive below a root that a container may be changing at the same time. Each goes into a directory held
 * open, under one name; what is there under that name is removed, never written through.
 */
export class TreeWriter {
  readonly #o: TreeWriterOptions;
  /** Where the last member went: the next one most often goes there too. */
  #at: { archivePath: string; directory: OpenDir; path: string } | undefined;
  #file: WrittenFile | undefined;
  /** Files whose owner, mode and times are being set while the next one is written; the first failure is thrown by who comes next. */
  readonly #closing = new Set<Promise<void>>();
  #failure: unknown;
  /** Set when all is written: each file that is made in a directory changes its times. */
  readonly #directoryTimes: { path: string; mtimeSec: number }[] = [];

  constructor(options: TreeWriterOptions) {
    this.#o = options;
  }

  /** Makes what is not an ordinary file; of one, its bytes follow with `data` and `endFile`. */
  async begin(entry: TarEntry): Promise<void> {
    assert(!this.#file, 'the last file has ended');
    this.#check();
    const name = posix.basename(entry.path);
    const { directory, path } = await this.#parent(entry.path);
    if (entry.path === '') return this.#finishDirectory(entry, path, directory);
    const mounted = this.#o.root.over?.get(posix.join(path, name));
    if (mounted !== undefined) return this.#intoMount(entry, posix.join(path, name), mounted);
    if (await this.#make(entry, directory, name, path)) return;
    const kept = await this.#clear(entry, directory, name);
    await this.#make(entry, directory, name, path, kept);
  }

  /** False: something has that name. `kept`: it is a directory, and stays. */
  async #make(entry: TarEntry, directory: OpenDir, name: string, path: string, kept = false): Promise<boolean> {
    try {
      switch (entry.type) {
        case 'dir':
          if (!kept) await mkdir(directory.at(name), { mode: 0o700 });
          break;
        case 'file': {
          const handle = await open(directory.at(name), O_CREATE, 0o600);
          this.#file = { entry, handle, directory, written: 0 };
          return true;
        }
        case 'symlink':
          await symlink(entry.linkTarget, directory.at(name));
          break;
        case 'hardlink':
          await this.#link(entry, directory, name);
          return true;
        default:
          await this.#node(entry, directory, name);
      }
    } catch (error) {
      if (errnoOf(error) === 'EEXIST' || (isCode(error, 'PLAN_FAILED') && error.data['errno'] === 'EEXIST'))
        return false;
      throw error;
    }
    if (entry.type === 'dir') {
      await using child = await directory.child(name);
      await this.#finishDirectory(entry, posix.join(path, name), child);
    } else await this.#finishOther(entry, directory, name);
    return true;
  }

  async data(chunk: Buffer, offset: number): Promise<void> {
    assert(this.#file, 'bytes come inside a file');
    for (let done = 0; done < chunk.length; ) {
      const { bytesWritten } = await this.#file.handle.write(chunk, done, chunk.length - done, offset + done);
      done += bytesWritten;
    }
    this.#file.written = offset + chunk.length;
  }

  /** The bytes of another file instead, as fast as the kernel can. */
  async copyFrom(source: FileHandle): Promise<void> {
    assert(this.#file, 'bytes come inside a file');
    const here = `/proc/self/fd/${this.#file.handle.fd}`;
    await copyFile(`/proc/self/fd/${source.fd}`, here);
    this.#file.written = (await this.#file.handle.stat()).size;
  }

  async endFile(): Promise<void> {
    const file = this.#file;
    if (!file) return;
    this.#file = undefined;
    // By name, in a directory that may be closed soon: not left for later.
    if (file.entry.xattrs) await this.#completed(file);
    else await this.#later(this.#completed(file));
  }

  async #completed({ entry, handle, directory, written }: WrittenFile): Promise<void> {
    try {
      if (written !== entry.size) await handle.truncate(entry.size); // a hole at the end, or a copy that was cut short
      await handle.chown(...(await this.#owner(entry, directory)));
      await handle.chmod(entry.mode); // after chown(2), which takes set-id bits away
      if (entry.xattrs) await this.#attributes(entry, directory.outside(posix.basename(entry.path)));
      await handle.utimes(entry.mtimeSec, entry.mtimeSec);
    } finally {
      await handle.close();
    }
  }

  async #later(work: Promise<void>): Promise<void> {
    const tracked = work
      .catch((error: unknown) => {
        this.#failure ??= error;
      })
      .finally(() => this.#closing.delete(tracked));
    this.#closing.add(tracked);
    if (this.#closing.size >= CLOSING_MOST) await Promise.race(this.#closing);
  }

  async #settle(): Promise<void> {
    await Promise.all(this.#closing);
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** After the last member. */
  async finish(): Promise<void> {
    await this.#settle();
    this.#check();
    for (const { path, mtimeSec } of this.#directoryTimes.reverse()) {
      const opened = await openBeneath(this.#o.root, path).catch(gone);
      if (!opened) continue;
      try {
        await opened.directory.handle.utimes(mtimeSec, mtimeSec);
      } finally {
        await opened.directory.close();
      }
    }
  }

  /** In any case, also after a failure. */
  async close(): Promise<void> {
    await this.#file?.handle.close();
    this.#file = undefined;
    await this.#settle();
    await this.#leave();
  }

  async #parent(archivePath: string): Promise<{ directory: OpenDir; path: string }> {
    const parent = archivePath === '' ? '' : dirname(archivePath);
    if (this.#at?.archivePath === parent) return this.#at;
    await this.#leave();
    const made = async (directory: OpenDir): Promise<void> => {
      if (this.#o.ids)
        await directory.handle.chown(...(await this.#owner({ path: parent, uid: 0, gid: 0 }, directory)));
    };
    const opened = await openBeneath(this.#o.root, posix.join(this.#o.base, parent), { make: IMPLIED_MODE, made });
    this.#at = { archivePath: parent, ...opened };
    return this.#at;
  }

  async #leave(): Promise<void> {
    const at = this.#at;
    this.#at = undefined;
    await at?.directory.close();
  }

  /** True when a directory is there and one comes: it stays, with what is in it. All else that is there goes. */
  async #clear(entry: TarEntry, directory: OpenDir, name: string): Promise<boolean> {
    const there = await lstat(directory.at(name)).catch(gone);
    if (!there) return false;
    const [was, comes] = [there.isDirectory(), entry.type === 'dir'];
    if (was && comes) return true;
    if (this.#o.keepKinds && was !== comes) {
      const word = (isDirectory: boolean) => (isDirectory ? 'directory' : 'non-directory');
      throw new CannotReplace({ path: entry.path, there: word(was), come: word(comes) });
    }
    await this.#run({ op: 'removeTree', path: directory.outside(name) });
    return false;
  }

  /** Something is mounted where the member goes: a directory is written into; a file that is mounted stays. */
  async #intoMount(entry: TarEntry, path: string, source: string): Promise<void> {
    if (entry.type !== 'dir') throw new CannotReplace({ path, there: 'directory', come: 'non-directory' });
    await using directory = await OpenDir.open(source);
    await this.#finishDirectory(entry, path, directory);
  }

  async #finishDirectory(entry: TarEntry, path: string, directory: OpenDir): Promise<void> {
    if (entry.type !== 'dir') throw new CannotReplace({ path, there: 'directory', come: 'non-directory' });
    await directory.handle.chown(...(await this.#owner(entry, directory)));
    await directory.handle.chmod(entry.mode);
    await this.#attributes(entry, directory.outside());
    this.#directoryTimes.push({ path, mtimeSec: entry.mtimeSec });
  }

  async #finishOther(entry: TarEntry, directory: OpenDir, name: string): Promise<void> {
    await lchown(directory.at(name), ...(await this.#owner(entry, directory)));
    await this.#attributes(entry, directory.outside(name));
    await lutimes(directory.at(name), entry.mtimeSec, entry.mtimeSec);
  }

  async #link(entry: TarEntry, directory: OpenDir, name: string): Promise<void> {
    const target = posix.join(this.#o.base, entry.linkTarget);
    await withPlace(this.#o.root, target, { follow: false }, ({ access }) => link(access, directory.at(name)));
  }

  async #node(entry: TarEntry, directory: OpenDir, name: string): Promise<void> {
    const kind = FILE_KIND[entry.type as keyof typeof FILE_KIND];
    const device = entry.type === 'fifo' ? 0n : deviceOf(entry.deviceMajor, entry.deviceMinor);
    await this.#run({ op: 'mknod', path: directory.outside(name), mode: kind | entry.mode, device });
  }

  async #attributes(entry: TarEntry, path: string): Promise<void> {
    if (!entry.xattrs) return;
    const steps = [...entry.xattrs].map(
      ([name, value]): Step => ({ op: 'setXattr', where: 'host', because: 'archive', path, name, value }),
    );
    await this.#o.runPlan({ steps });
  }

  async #run(op: Op<'removeTree' | 'mknod'>): Promise<void> {
    await this.#o.runPlan({ steps: [{ ...op, where: 'host', because: 'archive' }] });
  }

  /** What the file is given, uid and gid, which lies in that directory or is it. */
  async #owner(entry: Pick<TarEntry, 'path' | 'uid' | 'gid'>, directory: OpenDir): Promise<[number, number]> {
    const { uid, gid } = this.#o.owner ?? entry;
    const { ids } = this.#o;
    if (!ids || (await directory.stat()).dev !== ids.device) return [uid, gid];
    const outside = (id: number): number => {
      const found = toHostId(ids.map, id);
      if (found === undefined) throw new IdNotMapped({ id, path: entry.path });
      return found;
    };
    return [outside(uid), outside(gid)];
  }
}

/** makedev(3). */
function deviceOf(major: number, minor: number): bigint {
  const [high, low] = [BigInt(major), BigInt(minor)];
  return ((high & 0xfffn) << 8n) | (low & 0xffn) | ((low & 0xf_ff00n) << 12n);
}

function gone(error: unknown): undefined {
  const errno = errnoOf(error);
  if (errno === 'ENOENT' || errno === 'ENOTDIR') return undefined;
  throw error;
}
