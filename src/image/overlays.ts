import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { tarOf } from '#image/diff.ts';
import { mountsBelow } from '#image/layers.ts';
import type { SnapshotStore } from '#image/snapshots.ts';
import { walkDirectory } from '#kernel/beneath.ts';
import { type Overlay, overlayMount } from '#kernel/overlay.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { kernelAtLeast } from '#kernel/seccomp/docker.ts';
import type { Digest } from '#spec/image/digest.ts';

const MNT_DETACH = 2;

export interface OverlaysOptions {
  /** Mount points lie below it; ours alone. */
  directory: string;
  snapshots: SnapshotStore;
  runPlan(plan: Plan): Promise<unknown>;
  kernelRelease: string;
}

/**
 * Snapshots and stacks of layers as mounted directories:
 *
 *     DIRECTORY/<n>    an overlay of ours; all that a crash left are unmounted at the next start
 */
export class Overlays {
  readonly #o: OverlaysOptions;
  /** With the work directory of those that are written to. */
  readonly #mounted = new Map<string, string | undefined>();
  #next = 1;

  private constructor(options: OverlaysOptions) {
    this.#o = options;
  }

  static async open(options: OverlaysOptions): Promise<Overlays> {
    const overlays = new Overlays(options);
    await mkdir(options.directory, { recursive: true, mode: 0o700 });
    for (const name of mountsBelow(options.directory, await readFile('/proc/self/mountinfo', 'utf8')))
      await overlays.#unmount(join(options.directory, name));
    return overlays;
  }

  /**
   * What is written goes into the snapshot, and nothing waits for the disk: fsync does nothing ("volatile", since Linux 5.10).
   * A package manager syncs each file, and a snapshot of this kind counts only once a layer was made of it, which is synced.
   */
  async mount(snapshot: string): Promise<string> {
    const { lower, upper, work, options } = await this.#o.snapshots.rootfs(snapshot);
    const volatile = kernelAtLeast(this.#o.kernelRelease, '5.10') ? ['volatile'] : [];
    return this.#mount(`snapshot ${snapshot}`, { lower, upper, work, options: [...options, ...volatile] });
  }

  /** The layers, lowest first, to be read. A single one needs no overlay: its own mount is answered, and not ours to undo. */
  async view(layers: readonly Digest[]): Promise<string> {
    const lower = await this.#o.snapshots.view(layers);
    const [only] = lower;
    if (lower.length === 1 && only !== undefined) return only;
    return this.#mount(`${layers.length} layers`, { lower, options: this.#o.snapshots.overlayOptions });
  }

  /** A second call, or one for a layer's own mount, does nothing. */
  async unmount(path: string): Promise<void> {
    if (!this.#mounted.has(path)) return;
    const work = this.#mounted.get(path);
    this.#mounted.delete(path);
    await this.#unmount(path);
    // The mark of a volatile mount: overlayfs refuses the directories while it is there, lest a crash went unnoticed.
    if (work !== undefined) await rm(join(work, 'work/incompat'), { recursive: true, force: true });
  }

  async unmountAll(): Promise<void> {
    for (const path of [...this.#mounted.keys()]) await this.unmount(path);
  }

  async #mount(because: string, parts: Omit<Overlay, 'target'>): Promise<string> {
    const target = join(this.#o.directory, (this.#next++).toString(36));
    await mkdir(target, { mode: 0o700 });
    const { kernelRelease, runPlan } = this.#o;
    await runPlan({ steps: [{ ...overlayMount({ ...parts, target }, kernelRelease), where: 'host', because }] });
    this.#mounted.set(target, parts.work);
    return target;
  }

  async #unmount(target: string): Promise<void> {
    const { runPlan } = this.#o;
    await runPlan({ steps: [{ op: 'umount', where: 'host', because: 'no longer used', target, flags: MNT_DETACH }] });
    await rm(target, { recursive: true, force: true });
  }
}

/** A mounted root as a tar of its files. */
export function treeTar(
  root: string,
  xattrs: ReadonlyMap<string, ReadonlyMap<string, Uint8Array>>,
): AsyncGenerator<Buffer> {
  return tarOf(walkDirectory(root), xattrs, { whiteouts: false });
}
