import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#base/clock.ts';
import { describeChain, errnoOf, isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { KeyedSerial } from '#base/queue.ts';
import { newId, type Random } from '#base/random.ts';
import { Undo } from '#base/undo.ts';
import type { Plan, Step } from '#kernel/plan/plan.ts';
import { parseMountInfo } from '#kernel/proc/mountinfo.ts';
import { diskUsage } from '#storage/files.ts';
import { Records } from '#storage/records.ts';
import type { Store } from '#storage/store.ts';
import { BadVolumeName, VolumeDriverNotFound, VolumeInUse, VolumeMountFailed, VolumeNotFound } from '#volume/errors.ts';
import { type Content, type Filling, fillEmpty, finishFilling, isEmpty } from '#volume/fill.ts';
import { makeDirectory, makeDisk } from '#volume/make.ts';
import { type Volume, type VolumeRecord, volumeShape } from '#volume/model.ts';
import { type MountWish, parseVolumeOptions } from '#volume/options.ts';
import { planDisk, planMount, planSubpath, planUnmount, withAddress } from '#volume/plan.ts';
import { openSubpath } from '#volume/subpath.ts';

/**
 * The volumes of one node.
 *
 *     D/volumes/NAME/_data      the files, or where they are mounted
 *     D/volumes/NAME/disk       the ext4 image of a sized volume
 *     R/subpaths/CONTAINER/N    sub-paths of volumes, bound while the container runs
 *     volume/NAME               the record, in the node's store
 *
 * A record is there before its directory and goes after it. Directories without a record are left alone: they hold somebody's data.
 */
export interface VolumesOptions {
  dataRoot: string;
  runRoot: string;
  store: Store;
  runPlan(plan: Plan): Promise<unknown>;
  /** Address of a host name, for nfs and cifs. */
  lookup(host: string): Promise<string>;
  clock: Clock;
  random: Random;
  log: Logger;
}

export interface VolumeWish {
  /** Absent: a name of 64 hex digits. */
  name?: string | undefined;
  driver?: string | undefined;
  options?: Readonly<Record<string, string>>;
  labels?: Readonly<Record<string, string>>;
  /** The container it is made for, when nobody named it. */
  anonymousOf?: string;
}

/** A container's hold on a volume. */
export interface VolumeUse {
  name: string;
  container: string;
  /** It runs, or is about to. */
  active: boolean;
}

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;
const NAME_MAX_LENGTH = 255;
/** As Docker marks volumes that nobody named. */
export const ANONYMOUS_LABEL = 'com.docker.volume.anonymous';

export class Volumes {
  readonly #o: VolumesOptions;
  readonly #records: Records<VolumeRecord>;
  readonly #known = new Map<string, VolumeRecord>();
  readonly #queue = new KeyedSerial<string>('volume');
  readonly #users = new Map<string, Set<string>>();
  readonly #active = new Map<string, Set<string>>();
  readonly #mounted = new Set<string>();

  private constructor(options: VolumesOptions) {
    this.#o = options;
    this.#records = new Records(options.store, 'volume/', volumeShape);
  }

  /** Finishes what a crash left half done. `uses`: who has which volume, so that those which nobody runs with are unmounted. */
  static async open(options: VolumesOptions, uses: readonly VolumeUse[] = []): Promise<Volumes> {
    const volumes = new Volumes(options);
    await mkdir(volumes.#directory(''), { recursive: true, mode: 0o711 });
    await volumes.#sweep(uses);
    return volumes;
  }

  list(): Volume[] {
    return [...this.#known.values()].filter((r) => r.state === 'ready').map((r) => this.#show(r));
  }

  has(name: string): boolean {
    return this.#known.get(name)?.state === 'ready';
  }

  find(name: string): Volume {
    return this.#show(this.#ready(name));
  }

  /** Makes it, or finds it when it is there already, as Docker does whatever the other options say. */
  /** Where the data of a volume of this name would lie. */
  placeOf(name: string): string {
    return this.#data(name);
  }

  async create(wish: VolumeWish): Promise<{ volume: Volume; made: boolean }> {
    const name = wish.name ?? newId(this.#o.random);
    checkName(name);
    const driver = wish.driver || 'local';
    if (driver !== 'local') throw new VolumeDriverNotFound({ name, driver });
    return this.#queue.run(name, async () => {
      if (this.has(name)) return { volume: this.find(name), made: false };
      const kind = parseVolumeOptions(name, wish.options ?? {});
      const record: VolumeRecord = {
        name,
        createdAtMs: this.#o.clock.now(),
        labels: { ...wish.labels, ...(wish.name === undefined ? { [ANONYMOUS_LABEL]: '' } : {}) },
        options: { ...wish.options },
        ...(wish.anonymousOf === undefined ? {} : { anonymousOf: wish.anonymousOf }),
        state: kind.backing.kind === 'disk' ? 'making' : 'ready',
      };
      await using undo = new Undo();
      await this.#save(record);
      undo.add('volume', () => this.#destroy(record));
      await makeDirectory(this.#directory(name), kind.owner);
      if (kind.backing.kind === 'disk') {
        await makeDisk(name, join(this.#directory(name), 'disk'), kind.backing.bytes, kind.owner);
        record.state = 'ready';
        await this.#save(record);
      }
      undo.keep();
      return { volume: this.#show(record), made: true };
    });
  }

  /** Refuses while a container has it, running or not. */
  remove(name: string): Promise<void> {
    return this.#queue.run(name, async () => {
      const record = this.#ready(name);
      const users = this.usersOf(name);
      if (users.length > 0) throw new VolumeInUse({ name, users });
      await this.#destroy(record);
    });
  }

  // -- who has it

  usersOf(name: string): string[] {
    return [...(this.#users.get(name) ?? [])];
  }

  /** From now on it cannot be removed. */
  take(name: string, container: string): void {
    this.#ready(name);
    into(this.#users, name, container);
  }

  give(name: string, container: string): void {
    outOf(this.#users, name, container);
  }

  /** Volumes that were made for the container because nobody named one, and that no other has taken since. */
  anonymousOf(container: string): string[] {
    const own = [...this.#known.values()].filter((r) => r.state === 'ready' && r.anonymousOf === container);
    return own.map((r) => r.name).filter((name) => this.usersOf(name).every((user) => user === container));
  }

  // -- running

  /** Mounts what its options name, unless a container runs with it already. Answers where its files are. */
  mount(name: string, container: string): Promise<string> {
    return this.#queue.run(name, async () => {
      const record = this.#ready(name);
      into(this.#active, name, container);
      try {
        await this.#mount(record);
      } catch (error) {
        outOf(this.#active, name, container);
        throw error;
      }
      return this.#data(name);
    });
  }

  /** A directory or file inside the volume, reached without a link leading out; bound, so that nobody can change it under the mount. */
  async bindSubpath(name: string, container: string, subpath: string): Promise<string> {
    const found = await openSubpath(name, this.#data(name), subpath);
    try {
      const directory = this.#subpaths(container);
      await mkdir(directory, { recursive: true, mode: 0o711 });
      const target = join(directory, String((await readdir(directory)).length));
      await found.makeTarget(target);
      await this.#o.runPlan({ steps: planSubpath(name, found.path, target) });
      return target;
    } finally {
      await found.close();
    }
  }

  /** The container runs no more: lets go of all it had mounted, and says what that was. */
  async unmountAll(container: string): Promise<string[]> {
    await this.#dropSubpaths(container);
    const gone: string[] = [];
    for (const [name, containers] of [...this.#active]) {
      if (!containers.has(container)) continue;
      await this.#queue.run(name, async () => {
        outOf(this.#active, name, container);
        if (!this.#active.has(name)) await this.#unmount(name);
      });
      gone.push(name);
    }
    return gone;
  }

  /** Whether `fill` may find it empty. Memory is left out: what is copied into it would be gone with the unmount that follows. */
  async mayBeFilled(name: string): Promise<boolean> {
    const record = this.#ready(name);
    if (this.#mountWish(record)?.type === 'tmpfs') return false;
    if (this.#needsMount(record) && !this.#mounted.has(name)) return true;
    return isEmpty(await readdir(this.#data(name)));
  }

  /** `read` says what belongs into it, when it is empty. It comes whole or not at all, whoever looks or dies meanwhile. */
  fill(name: string, read: () => Promise<Content | undefined>): Promise<boolean> {
    return this.#queue.run(name, async () => {
      const record = this.#ready(name);
      const intent = async (filling: Filling | undefined): Promise<void> => {
        delete record.filling;
        if (filling) record.filling = filling;
        await this.#save(record);
      };
      const removeTree = (path: string): Promise<void> => this.#removeTree(name, path);
      return this.#whileMounted(record, () =>
        fillEmpty(this.#data(name), read, { random: this.#o.random, removeTree, intent }),
      );
    });
  }

  /** Bytes on disk; −1 when its files are not there to be counted. */
  async usage(name: string): Promise<number> {
    const record = this.#ready(name);
    if (this.#needsMount(record) && !this.#mounted.has(name)) return -1;
    return (await diskUsage(this.#data(name))).bytes;
  }

  // -- mounts

  async #mount(record: VolumeRecord): Promise<void> {
    const { name } = record;
    if (!this.#needsMount(record) || this.#mounted.has(name)) return;
    const target = this.#data(name);
    await this.#mountPlan(name, await this.#steps(record, target), this.#mountWish(record));
    this.#mounted.add(name);
    // mkfs makes it for fsck's use; programs that want an empty directory (databases) stumble over it.
    if (!this.#mountWish(record)) await rm(join(target, 'lost+found'), { recursive: true, force: true });
  }

  async #steps(record: VolumeRecord, target: string): Promise<Step[]> {
    const wish = this.#mountWish(record);
    if (!wish) return planDisk(record.name, join(this.#directory(record.name), 'disk'), target);
    return planMount(record.name, await withAddress(wish, this.#o.lookup), target);
  }

  async #mountPlan(name: string, steps: Step[], wish: MountWish | undefined): Promise<void> {
    try {
      await this.#o.runPlan({ steps });
    } catch (error) {
      if (!isCode(error, 'PLAN_FAILED')) throw error;
      const type = wish?.type ?? 'ext4';
      const errno = String(error.data['errno']);
      const hint = MOUNT_HINTS[errno]?.(type);
      throw new VolumeMountFailed(
        { name, type, device: wish?.device ?? 'disk', reason: REASONS[errno] ?? errno, ...(hint ? { hint } : {}) },
        { cause: error },
      );
    }
  }

  async #unmount(name: string): Promise<void> {
    if (!this.#mounted.has(name)) return;
    await this.#o.runPlan({ steps: planUnmount(name, this.#data(name)) });
    this.#mounted.delete(name);
  }

  async #whileMounted<T>(record: VolumeRecord, use: () => Promise<T>): Promise<T> {
    await this.#mount(record);
    try {
      return await use();
    } finally {
      if (!this.#active.has(record.name)) await this.#unmount(record.name);
    }
  }

  async #dropSubpaths(container: string): Promise<void> {
    const directory = this.#subpaths(container);
    if (!existsSync(directory)) return; // as with most: by this thread, which costs less than an error brought by another
    const names = await readdir(directory);
    const steps = names.flatMap((name) => planUnmount(container, join(directory, name)));
    if (steps.length > 0) await this.#o.runPlan({ steps });
    await this.#removeTree(container, directory);
  }

  // -- beginning and end

  async #destroy(record: VolumeRecord): Promise<void> {
    const { name } = record;
    record.state = 'going';
    await this.#save(record);
    await this.#unmount(name);
    await this.#removeTree(name, this.#directory(name));
    await this.#records.remove(name);
    this.#known.delete(name);
    this.#users.delete(name);
  }

  /** Never crosses a mount: what is mounted in a volume is not the volume's to delete. */
  async #removeTree(name: string, path: string): Promise<void> {
    await this.#o.runPlan({ steps: [{ op: 'removeTree', where: 'host', because: `volume ${name}`, path }] });
  }

  async #sweep(uses: readonly VolumeUse[]): Promise<void> {
    for (const use of uses) {
      into(this.#users, use.name, use.container);
      if (use.active) into(this.#active, use.name, use.container);
    }
    for (const container of (await readdir(join(this.#o.runRoot, 'subpaths')).catch(absent)) ?? [])
      await this.#dropSubpaths(container);
    for (const mount of parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'))) {
      const name = volumeAt(this.#directory(''), mount.mountPoint);
      if (name !== undefined) this.#mounted.add(name);
    }
    for (const [name, record] of await this.#records.all()) {
      this.#known.set(name, record);
      await this.#recover(record).catch((error: unknown) =>
        this.#o.log.error('a volume could not be brought in order', { name, error: describeChain(error) }),
      );
    }
    for (const name of [...this.#mounted]) if (!this.#active.has(name)) await this.#unmount(name);
  }

  async #recover(record: VolumeRecord): Promise<void> {
    if (record.state !== 'ready') return this.#destroy(record);
    await makeDirectory(this.#directory(record.name), parseVolumeOptions(record.name, record.options).owner);
    const { filling } = record;
    if (!filling) return;
    await this.#whileMounted(record, () =>
      finishFilling(this.#data(record.name), filling, { removeTree: (path) => this.#removeTree(record.name, path) }),
    );
    delete record.filling;
    await this.#save(record);
  }

  #ready(name: string): VolumeRecord {
    const record = this.#known.get(name);
    if (record?.state !== 'ready') throw new VolumeNotFound({ name });
    return record;
  }

  #mountWish(record: VolumeRecord): MountWish | undefined {
    const { backing } = parseVolumeOptions(record.name, record.options);
    return backing.kind === 'mount' ? backing.mount : undefined;
  }

  #needsMount(record: VolumeRecord): boolean {
    return parseVolumeOptions(record.name, record.options).backing.kind !== 'directory';
  }

  #show(record: VolumeRecord): Volume {
    return {
      name: record.name,
      driver: 'local',
      path: this.#data(record.name),
      createdAtMs: record.createdAtMs,
      labels: record.labels,
      options: record.options,
      anonymous: Object.hasOwn(record.labels, ANONYMOUS_LABEL),
    };
  }

  async #save(record: VolumeRecord): Promise<void> {
    await this.#records.put(record.name, record);
    this.#known.set(record.name, record);
  }

  #directory(name: string): string {
    return join(this.#o.dataRoot, 'volumes', name);
  }

  #data(name: string): string {
    return join(this.#directory(name), '_data');
  }

  #subpaths(container: string): string {
    return join(this.#o.runRoot, 'subpaths', container);
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or directory',
  ENODEV: 'no such device',
  EINVAL: 'invalid argument',
  EPERM: 'operation not permitted',
  EACCES: 'permission denied',
  ENOTDIR: 'not a directory',
};

const MOUNT_HINTS: Readonly<Record<string, (type: string) => string>> = {
  ENODEV: (type) => `this kernel has no file system ${type}: load its module, or see /proc/filesystems`,
  ENOENT: () => 'the device or directory that the options name is not there',
  EINVAL: (type) => `the file system ${type} did not take the options of o=; see dmesg`,
};

function checkName(name: string): void {
  if (name.length === 1)
    throw new BadVolumeName({
      name,
      rule: 'volume name is too short, names should be at least two alphanumeric characters',
    });
  if (!NAME.test(name) || name.length > NAME_MAX_LENGTH)
    throw new BadVolumeName({
      name,
      rule: `"${name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
    });
}

/** `…/volumes/NAME/_data` → NAME. */
function volumeAt(directory: string, mountPoint: string): string | undefined {
  if (!mountPoint.startsWith(directory)) return undefined;
  const [name, data, ...more] = mountPoint.slice(directory.length).replace(/^\//, '').split('/');
  return data === '_data' && more.length === 0 ? name : undefined;
}

function into(map: Map<string, Set<string>>, key: string, value: string): void {
  map.set(key, (map.get(key) ?? new Set()).add(value));
}

function outOf(map: Map<string, Set<string>>, key: string, value: string): void {
  const values = map.get(key);
  values?.delete(value);
  if (values?.size === 0) map.delete(key);
}

function absent(error: unknown): undefined {
  if (errnoOf(error) === 'ENOENT') return undefined;
  throw error;
}
