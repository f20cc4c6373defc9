import type { Readable } from 'node:stream';
import { inPieces, type PathStat, packPath, statPath, unpackInto } from '#engine/core/archive.ts';
import { type Changed, withoutMountPoints } from '#engine/core/changes.ts';
import type { Containers } from '#engine/core/containers.ts';
import { idsOf } from '#engine/core/id-ranges.ts';
import { type RootViewParts, withRootView } from '#engine/core/root-view.ts';
import { type TreeTools, xattrsOf } from '#engine/core/volume-content.ts';
import { tarOf } from '#image/diff.ts';
import type { SnapshotStore } from '#image/snapshots.ts';
import { type Seen, walkDirectory } from '#kernel/beneath.ts';

export interface ContainerFilesOptions extends RootViewParts {
  containers: Containers;
  snapshots: Pick<SnapshotStore, 'changes' | 'rootfs'>;
  tools: TreeTools;
}

/** Waits for whoever reads slowly; rejects when he is gone. */
export type Write = (chunk: Buffer) => Promise<void>;

/** Files of containers, running or not, in and out: `docker cp`, export and diff. */
export class ContainerFiles {
  readonly #o: ContainerFilesOptions;

  constructor(options: ContainerFilesOptions) {
    this.#o = options;
  }

  /** NO_SUCH_CONTAINER before an answer begins. */
  check(wish: string): void {
    this.#o.containers.find(wish);
  }

  stat(wish: string, path: string): Promise<PathStat> {
    const record = this.#o.containers.find(wish);
    return withRootView(record, this.#o, { reads: true }, (view) => statPath(view, path, wish));
  }

  /** The path and what is below it, as a tar. */
  async read(wish: string, path: string, write: Write): Promise<void> {
    const { containers, tools } = this.#o;
    const record = containers.find(wish);
    await withRootView(record, this.#o, { reads: true }, (view) => packPath(view, path, wish, tools, write));
    containers.tell(record, 'archive-path');
  }

  /** A tar, packed or not, into a directory. `asUser`: all of it belongs to the container's user. */
  async write(wish: string, body: Readable, how: { path: string; asUser: boolean; keepKinds: boolean }): Promise<void> {
    const { containers, tools } = this.#o;
    const record = containers.find(wish);
    const { path, keepKinds } = how;
    await withRootView(record, this.#o, { reads: false }, async (view) => {
      const owner = how.asUser ? await containers.user(record) : undefined;
      await unpackInto(view, { path, keepKinds, ...(owner ? { owner } : {}) }, wish, body, tools);
    });
    containers.tell(record, 'extract-to-dir');
  }

  /** The root file system, without what is mounted in it. */
  async export(wish: string, write: Write): Promise<void> {
    const { containers, roots, tools } = this.#o;
    const record = containers.find(wish);
    const directory = await roots.mount(record.id, { by: record.spec.origin.by });
    try {
      const xattrs = await xattrsOf({ directory }, '/', tools);
      const archive = tarOf(below(directory), xattrs, { whiteouts: false, ids: idsOf(record.spec) });
      for await (const chunk of inPieces(archive)) await write(chunk);
    } finally {
      await roots.unmount(record.id);
    }
    containers.tell(record, 'export');
  }

  /** What it wrote, removed or replaced. */
  async changes(wish: string): Promise<Changed[]> {
    const { containers, snapshots } = this.#o;
    const { id } = containers.find(wish);
    const found: Changed[] = [];
    for await (const { path, kind } of snapshots.changes(id)) found.push({ path: `/${path}`, kind });
    const { upper, lower, ids } = await snapshots.rootfs(id);
    return withoutMountPoints(found, upper, lower, ids);
  }
}

/** As Docker's export: what is in the root, not the root itself. */
async function* below(directory: string): AsyncGenerator<Seen> {
  for await (const seen of walkDirectory(directory)) if (seen.path !== '') yield seen;
}
