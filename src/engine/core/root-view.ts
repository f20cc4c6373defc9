import { posix } from 'node:path';
import type { RootSource } from '#engine/core/parts.ts';
import { type ContainerRecord, isRunning, type MountRecord } from '#engine/core/record.ts';
import { OpenDir, type Root } from '#kernel/beneath.ts';
import { hostFiles } from '#kernel/files.ts';
import { isAlive } from '#kernel/proc/process.ts';
import { openSubpath } from '#volume/subpath.ts';
import type { Volumes } from '#volume/volumes.ts';

export interface RootViewParts {
  roots: Pick<RootSource, 'mount' | 'unmount'>;
  volumes: Pick<Volumes, 'mount' | 'unmountAll'>;
  /** `/etc/hosts` and its like, path inside → file on the host: what is mounted over the root while the container runs. */
  networkFiles(record: ContainerRecord, root: string): ReadonlyMap<string, string>;
}

/** A container's files as its own programs see them, from outside. */
export interface RootView extends Root {
  /** Why nothing may be written there; undefined when it may. */
  readonlyAt(path: string): 'root' | 'volume' | undefined;
}

/** Not the container's: the kernel's own files, many of which cannot be read, or wait for what never comes (`/proc/kmsg`). */
const KERNELS = new Set(['/proc', '/sys']);

/**
 * While it runs: the kernel's own view, through a process of it, volumes, memory and all. While it does not: its root mounted for
 * as long as `use` takes, with its volumes and binds laid over in the walk, so that nothing else has to be mounted or swept.
 */
export async function withRootView<T>(
  record: ContainerRecord,
  parts: RootViewParts,
  how: { reads: boolean },
  use: (view: RootView) => Promise<T>,
): Promise<T> {
  const running = isRunning(record.state) ? await openRunning(record) : undefined;
  if (!running) return withStopped(record, parts, how, use);
  try {
    return await use({ directory: running.self, empty: KERNELS, readonlyAt: (path) => readonlyAt(record, path) });
  } finally {
    await running.close();
  }
}

/** Held open before it is checked: a pid that is somebody else's by now shows another start time. Undefined when it has ended. */
async function openRunning({ state }: ContainerRecord): Promise<OpenDir | undefined> {
  let directory: OpenDir;
  try {
    directory = await OpenDir.open(`/proc/${state.pid}/root`);
  } catch {
    return undefined; // ended since it was looked up
  }
  if (isAlive(state.pid, BigInt(state.startTicks), hostFiles)) return directory;
  await directory.close();
  return undefined;
}

let views = 0;

async function withStopped<T>(
  record: ContainerRecord,
  { roots, volumes, networkFiles }: RootViewParts,
  how: { reads: boolean },
  use: (view: RootView) => Promise<T>,
): Promise<T> {
  const { id, spec } = record;
  const user = `${id}:view-${++views}`;
  const closing: (() => Promise<void>)[] = [];
  const directory = await roots.mount(id, { by: spec.origin.by });
  try {
    // Written in the root itself, where the next start hides it: nobody may replace the files of a network that is not there.
    const over = new Map(how.reads ? networkFiles(record, directory) : []);
    for (const mount of record.mounts) {
      const source = await sourceOf(mount, volumes, user, closing);
      if (source !== undefined) over.set(mount.target, source);
    }
    return await use({ directory, over, readonlyAt: (path) => readonlyAt(record, path) });
  } finally {
    for (const close of closing) await close();
    await volumes.unmountAll(user);
    await roots.unmount(id);
  }
}

/** Undefined for memory: there is none while nothing runs. */
async function sourceOf(
  { wish, name, source }: MountRecord,
  volumes: RootViewParts['volumes'],
  user: string,
  closing: (() => Promise<void>)[],
): Promise<string | undefined> {
  if (wish.type === 'tmpfs') return undefined;
  if (wish.type === 'bind' || name === undefined) return source;
  const data = await volumes.mount(name, user);
  if (!wish.subpath) return data;
  const found = await openSubpath(name, data, wish.subpath);
  closing.push(() => found.close());
  return found.path;
}

function readonlyAt({ mounts, spec }: ContainerRecord, path: string): 'root' | 'volume' | undefined {
  const covering = mounts
    .filter(({ target }) => path === target || path.startsWith(posix.join(target, '/')))
    .sort((a, b) => b.target.length - a.target.length)[0];
  if (covering) return covering.readonly ? 'volume' : undefined;
  return spec.security.readonlyRoot ? 'root' : undefined;
}
