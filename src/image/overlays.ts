import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { tarOf } from '#image/diff.ts';
import { mountsBelow } from '#image/layers.ts';
import type { SnapshotStore } from '#image/snapshots.ts';
import { walkDirectory } from '#kernel/beneath.ts';
import { overlayMount } from '#kernel/overlay.ts';
import type { Plan } from '#kernel/plan/plan.ts';
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
  readonly #mounted = new Set<string>();
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

  /** What is written goes into the snapshot. */
  async mount(snapshot: string): Promise<string> {
    const { lower, upper, work } = await this.#o.snapshots.rootfs(snapshot);
    return this.#mount(`snapshot ${snapshot}`, { lower, upper, work });
  }

  /** The layers, lowest first, to be read. A single one needs no overlay: its own mount is answered, and not ours to undo. */
  async view(layers: readonly Digest[]): Promise<string> {
    const lower = await this.#o.snapshots.view(layers);
    const [only] = lower;
    return lower.length === 1 && only !== undefined ? only : this.#mount(`${layers.length} layers`, { lower });
  }

  /** A second call, or one for a layer's own mount, does nothing. */
  async unmount(path: string): Promise<void> {
    if (!this.#mounted.delete(path)) return;
    await this.#unmount(path);
  }

  async unmountAll(): Promise<void> {
    for (const path of [...this.#mounted]) await this.unmount(path);
  }

  async #mount(because: string, parts: { lower: string[]; upper?: string; work?: string }): Promise<string> {
    const target = join(this.#o.directory, (this.#next++).toString(36));
    await mkdir(target, { mode: 0o700 });
    const { kernelRelease, runPlan } = this.#o;
    await runPlan({ steps: [{ ...overlayMount({ ...parts, target }, kernelRelease), where: 'host', because }] });
    this.#mounted.add(target);
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
