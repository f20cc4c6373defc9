import { stat } from 'node:fs/promises';
import { posix } from 'node:path';
import { idsOf } from '#engine/core/id-ranges.ts';
import type { RootSource } from '#engine/core/parts.ts';
import { type ContainerRecord, isRunning, type MountRecord } from '#engine/core/record.ts';
import type { RootIds } from '#engine/core/tree-writer.ts';
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
  ids?: RootIds;
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
    const view = { directory: running.self, empty: KERNELS, readonlyAt: (path: string) => readonlyAt(record, path) };
    const ids = await rootIds(record, running.self);
    if (!ids) return await use(view);
    // Through its own mounts nothing could be written: the kernel makes no file for an id that a mount's map does not have (EOVERFLOW).
    return await withSources(record, parts, (over) => use({ ...view, over, ids }));
  } finally {
    await running.close();
  }
}

async function rootIds({ spec }: ContainerRecord, directory: string): Promise<RootIds | undefined> {
  const map = idsOf(spec);
  return map && { map, device: (await stat(directory)).dev };
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

async function withStopped<T>(
  record: ContainerRecord,
  parts: RootViewParts,
  how: { reads: boolean },
  use: (view: RootView) => Promise<T>,
): Promise<T> {
  const { id, spec } = record;
  const directory = await parts.roots.mount(id, { by: spec.origin.by });
  try {
    // Written in the root itself, where the next start hides it: nobody may replace the files of a network that is not there.
    const files = how.reads ? parts.networkFiles(record, directory) : [];
    const ids = await rootIds(record, directory);
    return await withSources(record, parts, (sources) => {
      const over = new Map([...files, ...sources]);
      return use({ directory, over, readonlyAt: (path) => readonlyAt(record, path), ...(ids ? { ids } : {}) });
    });
  } finally {
    await parts.roots.unmount(id);
  }
}

let views = 0;

/** Where what is mounted over the root comes from, by path inside. */
async function withSources<T>(
  { id, mounts }: ContainerRecord,
  { volumes }: RootViewParts,
  use: (over: Map<string, string>) => Promise<T>,
): Promise<T> {
  const user = `${id}:view-${++views}`;
  const closing: (() => Promise<void>)[] = [];
  try {
    const over = new Map<string, string>();
    for (const mount of mounts) {
      const source = await sourceOf(mount, volumes, user, closing);
      if (source !== undefined) over.set(mount.target, source);
    }
    return await use(over);
  } finally {
    for (const close of closing) await close();
    await volumes.unmountAll(user);
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
