import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rmdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { defineError, isCode } from '#base/errors.ts';
import { KeyedSerial } from '#base/queue.ts';
import { mappedLayers, planLayersGone } from '#engine/core/mapped-layers.ts';
import type { FoundImage, RootSource, RootWish } from '#engine/core/parts.ts';
import { type Bottoms, bottomOf, openBottoms } from '#engine/core/root-bottom.ts';
import type { Origin } from '#engine/core/spec.ts';
import type { ImageStore } from '#image/images.ts';
import type { Rootfs, SnapshotStore } from '#image/snapshots.ts';
import type { IdMapping } from '#kernel/idmap.ts';
import { overlayMount } from '#kernel/overlay.ts';
import { MKDIR_MAY_EXIST } from '#kernel/plan/ops.ts';
import type { Plan, Step } from '#kernel/plan/plan.ts';
import { parseMountInfo } from '#kernel/proc/mountinfo.ts';
import { kernelAtLeast } from '#kernel/seccomp/docker.ts';
import { LAYERS_MAX } from '#spec/image/manifest.ts';
import type { TxnOp } from '#storage/store.ts';

export interface OverlayRootsOptions {
  images: ImageStore;
  snapshots: SnapshotStore;
  runPlan(plan: Plan): Promise<unknown>;
  /** `R/roots`: one mount point a container, by id. */
  dir: string;
  /** `D/bottoms`: the lowest layer of each (`root-bottom.ts`). */
  bottoms: string;
  kernelRelease: string;
  /** A small file below a root, links resolved inside it; undefined when there is none. */
  readInside(root: string, path: string): string | undefined;
}

const MNT_DETACH = 2;
const LAYERS = '.layers';
const OTHERS_ENTER = 0o001;

export const NoMappedLayers = defineError('INVALID_ARGUMENT', (d: { kernelRelease: string }) => ({
  message: `a user namespace of its own needs Linux 5.19, whose overlays stand on layers with mapped ids; this is ${d.kernelRelease}`,
  hint: 'leave --userns private away',
}));

export const NotReachable = defineError('NOT_REACHABLE', (d: { dir: string }) => ({
  message: `${d.dir} lets no other user pass, so the root of a user namespace cannot reach its files`,
  hint: `chmod o+x ${d.dir}, or give the daemon another --run-root`,
}));
/** MS_NOSUID, MS_NODEV, MS_NOEXEC (mount(2)). */
const SHM_FLAGS = 2n | 4n | 8n;

/**
 * Root file systems as overlays: the image's layers below, a directory of the container's own on top, and under all of them what
 * every root has.
 *
 *     R/roots/ID        where it is mounted, from its first user to its last
 *     R/roots/ID.layers its layers, one directory each, with the ids of its user namespace, while the root is being mounted
 *     R/roots/ID.shm    /dev/shm of a container with a shareable IPC namespace, while it runs
 *
 * A run, an archive that is read and a volume that is filled each use the mount for a while; it goes with the last of them.
 */
export class OverlayRoots implements RootSource {
  readonly #o: OverlayRootsOptions;
  readonly #uses = new Map<string, number>();
  readonly #serial = new KeyedSerial<string>('root');
  readonly #bottoms: Bottoms;

  private constructor(options: OverlayRootsOptions, bottoms: Bottoms) {
    this.#o = options;
    this.#bottoms = bottoms;
  }

  /** Mounts of an earlier daemon are taken over, one user each: the run that goes on, or `sweep` finds that none does. */
  static async open(options: OverlayRootsOptions): Promise<OverlayRoots> {
    await mkdir(options.dir, { recursive: true, mode: 0o711 });
    const mounts = parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8')).map(({ mountPoint }) => mountPoint);
    const mounted = mounts.filter((point) => dirname(point) === options.dir && !point.endsWith('.shm'));
    const bottoms = await openBottoms(options.bottoms, { mayBeInUse: mounted.length > 0 });
    const roots = new OverlayRoots(options, bottoms);
    for (const point of mounted) roots.#uses.set(basename(point), 1);
    await roots.#sweepLayers(mounts);
    return roots;
  }

  async prepare(id: string, { target }: FoundImage, ids?: readonly IdMapping[]): Promise<TxnOp[]> {
    const { images, snapshots } = this.#o;
    if (ids) await checkMappable(this.#o);
    const layers = await images.layersOf(await images.get(target));
    return snapshots.begin(id, layers, { ids });
  }

  mount(id: string, wish: RootWish): Promise<string> {
    return this.#serial.run(id, async () => {
      const uses = this.#uses.get(id) ?? 0;
      if (uses === 0) await this.#mount(id, wish);
      this.#uses.set(id, uses + 1);
      return this.#point(id);
    });
  }

  unmount(id: string): Promise<void> {
    return this.#serial.run(id, async () => {
      const uses = this.#uses.get(id) ?? 0;
      if (uses > 1) this.#uses.set(id, uses - 1);
      else await this.#unmount(id);
    });
  }

  async retire(id: string): Promise<TxnOp[]> {
    return this.#o.snapshots.retire(id);
  }

  /** Behind whatever uses the root is still being put to. */
  remove(id: string, turn: Promise<void> = Promise.resolve(), beside: readonly Step[] = []): Promise<void> {
    return this.#o.snapshots.remove(id, beside, async () => {
      await turn;
      await this.#serial.run(id, () => this.#unmount(id));
    });
  }

  shareMemory(id: string, bytes: number): Promise<void> {
    return this.#serial.run(id, async () => {
      const target = this.memoryOf(id);
      await mkdir(target, { recursive: true, mode: 0o711 });
      const because = `/dev/shm of container ${id}, for those that join its IPC namespace`;
      const data = `mode=1777,size=${bytes}`;
      await this.#o.runPlan({
        steps: [{ op: 'mount', where: 'host', because, source: 'shm', target, type: 'tmpfs', flags: SHM_FLAGS, data }],
      });
    });
  }

  /** Absent is fine: most containers share none, and nobody writes down which did. */
  unshareMemory(id: string): Promise<void> {
    return this.#serial.run(id, async () => {
      const target = this.memoryOf(id);
      if (!existsSync(target)) return;
      const because = `/dev/shm of container ${id} goes`;
      if (isMounted(target))
        await this.#o.runPlan({ steps: [{ op: 'umount', where: 'host', because, target, flags: MNT_DETACH }] });
      await rmdir(target);
    });
  }

  memoryOf(id: string): string {
    return join(this.#o.dir, `${id}.shm`);
  }

  async readFile(id: string, path: string): Promise<string> {
    return this.#o.readInside(this.#point(id), path) ?? '';
  }

  /** After a crash: what is mounted and used by nobody goes. */
  async sweep(isUsed: (id: string) => boolean): Promise<void> {
    for (const id of [...this.#uses.keys()]) if (!isUsed(id)) await this.unmount(id);
  }

  /** Directories of an overlay, for `docker inspect`; undefined while it is made, and when it goes. */
  async describe(id: string, by: Origin['by']): Promise<(Rootfs & { merged: string }) | undefined> {
    try {
      const { rootfs } = await this.#o.snapshots.toMount(id);
      return { ...rootfs, lower: this.lowerOf(rootfs.lower, by), merged: this.#point(id) };
    } catch (error) {
      if (isCode(error, 'SNAPSHOT_NOT_FOUND')) return undefined;
      throw error;
    }
  }

  /** What the container wrote. */
  usage(id: string): Promise<{ bytes: number; inodes: number }> {
    return this.#o.snapshots.usage(id);
  }

  /** An image's layers, with what every root of that origin has under them, unless they are as many as the kernel stacks. */
  lowerOf(layers: readonly string[], by: Origin['by']): string[] {
    return layers.length < LAYERS_MAX ? [...layers, bottomOf(this.#bottoms, by)] : [...layers];
  }

  async #mount(id: string, { by, volatile = false }: RootWish): Promise<void> {
    const { rootfs, missing } = await this.#o.snapshots.toMount(id);
    const { upper, work, ids } = rootfs;
    const layers = this.lowerOf(rootfs.lower, by);
    // Linux 5.10. An unmount syncs the whole file system below otherwise, with all that others have written there.
    const options = [
      ...rootfs.options,
      ...(volatile && kernelAtLeast(this.#o.kernelRelease, '5.10') ? ['volatile'] : []),
    ];
    const target = this.#point(id);
    const common = { where: 'host', because: `root of container ${id}` } as const;
    const mapped = ids && mappedLayers(layers, ids, `${target}${LAYERS}`, common.because);
    const lower = mapped?.lower ?? layers;
    await this.#o.runPlan({
      steps: [
        ...missing,
        { op: 'mkdir', ...common, path: target, mode: 0o711, flags: MKDIR_MAY_EXIST },
        ...(mapped?.before ?? []),
        { ...overlayMount({ lower, upper, work, target, options }, this.#o.kernelRelease), ...common },
        ...(mapped?.after ?? []),
      ],
    });
  }

  async #unmount(id: string): Promise<void> {
    const target = this.#point(id);
    const common = { where: 'host', because: `root of container ${id} goes` } as const;
    if (!this.#uses.has(id) && !existsSync(target)) return;
    const work = this.#o.snapshots.workOf(id);
    await this.#o.runPlan({
      steps: [
        ...(this.#uses.has(id) ? [{ op: 'umount' as const, ...common, target, flags: MNT_DETACH }] : []),
        // The mark of a volatile mount: overlayfs refuses the directories while it is there, lest a crash went unnoticed.
        ...(work === undefined ? [] : [{ op: 'removeTree' as const, ...common, path: join(work, 'work/incompat') }]),
        { op: 'rmdir', ...common, path: target }, // the whole tree is never removed here: should it be mounted against all we know, nothing is lost
      ],
    });
    this.#uses.delete(id);
  }

  /** What mounts of roots that a crash cut off left. */
  async #sweepLayers(mounted: readonly string[]): Promise<void> {
    const left = (await readdir(this.#o.dir)).filter((name) => name.endsWith(LAYERS));
    const steps = left.flatMap((name) => {
      const dir = join(this.#o.dir, name);
      const points = mounted.filter((point) => dirname(point) === dir);
      return planLayersGone(dir, points, 'left by a daemon that was killed');
    });
    if (steps.length > 0) await this.#o.runPlan({ steps });
  }

  #point(id: string): string {
    return join(this.#o.dir, id);
  }
}

function isMounted(path: string): boolean {
  return parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8')).some((mount) => mount.mountPoint === path);
}

/** Root of a user namespace is an ordinary user on the way to its root. Throws NOT_REACHABLE, INVALID_ARGUMENT. */
async function checkMappable({ dir, kernelRelease }: OverlayRootsOptions): Promise<void> {
  if (!kernelAtLeast(kernelRelease, '5.19')) throw new NoMappedLayers({ kernelRelease });
  for (let at = dir; at !== dirname(at); at = dirname(at))
    if (((await stat(at)).mode & OTHERS_ENTER) === 0) throw new NotReachable({ dir: at });
}
