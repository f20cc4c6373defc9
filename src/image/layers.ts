import { mkdir, readdir, readFile, rename, rm, statfs, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import type { Clock } from '#base/clock.ts';
import { errnoOf } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { Serial } from '#base/queue.ts';
import { BlobNotFound, LayerDamaged, LayerNotFound } from '#image/errors.ts';
import { Arrival } from '#image/layer/arrival.ts';
import { Checksums } from '#image/layer/checksums.ts';
import { USER_OPAQUE_XATTR } from '#image/layer/directory-sink.ts';
import { erofsDriver, type LayerDriver } from '#image/layer/driver.ts';
import type { SurveyJob } from '#image/layer/mounted.ts';
import type { Unpacker } from '#image/layer/pool.ts';
import { type LayerRecord, layerRecord } from '#image/layer/record.ts';
import { OPAQUE_XATTR } from '#image/layer/tree.ts';
import { type UnpackJob, unpackLayer } from '#image/layer/unpack.ts';
import { LeaseTable } from '#image/leases.ts';
import type { Survey } from '#image/survey.ts';
import { DEFAULT_LIMITS } from '#image/tar/entry.ts';
import { opaqueDirectories } from '#image/xattrs.ts';
import type { Op, Plan, Step } from '#kernel/plan/plan.ts';
import { type Digest, parseDigest } from '#spec/image/digest.ts';
import type { Compression } from '#spec/image/manifest.ts';
import { renameDurably, sweepTemporary, temporaryName } from '#storage/files.ts';
import { Records } from '#storage/records.ts';
import type { Store } from '#storage/store.ts';

/**
 * Unpacked layers, each by its diff id and each once, whatever images share it:
 *
 *     D/layers/<name>.erofs     the layer; <name> is a short number, so that mount options stay short
 *     D/layers/<name>.dir/fs    the same by the directory driver (`layer/driver.ts`), which needs no mount
 *     D/layers/.tmp-…           one being written; swept at start
 *     R/layers/<name>           where it is mounted, from its first use to its removal or the next boot
 *     R/layers.boot             the boot in which R was first used
 *
 * A file without a record, or a record without its file, is the trace of a crash or of the other driver, and goes at start.
 */
export interface LayerInfo {
  diffId: Digest;
  name: string;
  /** The blob it was made from. */
  blob: Digest;
  /** What it takes on disk, and what its files hold. */
  imageBytes: number;
  contentBytes: number;
  inodes: number;
}

export interface LayerStoreOptions {
  dataRoot: string;
  runRoot: string;
  store: Store;
  /** The store's own from now on: it has no threads before its first work, and closes with the store. */
  unpacker: Unpacker;
  /** How layers lie on disk; `erofsDriver` when absent, `chooseDriver` finds the one that works here. */
  driver?: LayerDriver;
  /** Carries mounts out; the daemon's spawner, or a process of its own. */
  runPlan(plan: Plan): Promise<unknown>;
  /** Where a blob lies, if it is there. */
  blobPath(digest: Digest): Promise<{ path: string; sizeBytes: number } | undefined>;
  clock: Clock;
  log: Logger;
}

export interface UnpackRequest {
  blob: Digest;
  compression: Compression;
  /** Undefined while nobody has told (the configuration is still on its way): computed, and for the caller to compare. */
  diffId?: Digest;
  /** The blob while it arrives; absent: it is in the content store. */
  arrival?: Arrival;
}

const MNT_DETACH = 2;
const HOLD_MS = 600_000;
/** Errors name the blob they found something in; a tar that is being written has no digest yet. */
const NO_BLOB = parseDigest(`sha256:${'0'.repeat(64)}`);

export class LayerStore {
  readonly #options: LayerStoreOptions;
  readonly #driver: LayerDriver;
  readonly #records: Records<LayerRecord>;
  readonly #known = new Map<Digest, LayerRecord>();
  readonly #underWay = new Map<Digest, Promise<LayerInfo>>();
  readonly #mounting = new Serial('layer mounts');
  readonly #mounted = new Set<string>();
  readonly #checksums: Checksums;
  readonly #heldUntilMs = new Map<Digest, number>();
  /** Layers that somebody reads who is no container. */
  readonly #readers = new LeaseTable();
  #nextName = 1;

  private constructor(options: LayerStoreOptions) {
    this.#options = options;
    this.#driver = options.driver ?? erofsDriver;
    this.#records = new Records(options.store, 'image/layers/', layerRecord);
    const { clock, log } = options;
    const [driver, records] = [this.#driver, this.#records];
    const file = (name: string): string => this.#file(name);
    const known = (diffId: Digest): LayerRecord | undefined => this.#known.get(diffId);
    this.#checksums = new Checksums({ driver, records, file, known, clock, log });
  }

  static async open(options: LayerStoreOptions): Promise<LayerStore> {
    const layers = new LayerStore(options);
    await mkdir(join(options.dataRoot, 'layers'), { recursive: true, mode: 0o700 });
    await mkdir(join(options.runRoot, 'layers'), { recursive: true, mode: 0o700 });
    await sweepTemporary(join(options.runRoot, 'layers'));
    await layers.#sweep(await sinceBoot(options.runRoot));
    return layers;
  }

  get(diffId: Digest): LayerInfo | undefined {
    const record = this.#known.get(diffId);
    return record && infoOf(diffId, record);
  }

  list(): LayerInfo[] {
    return [...this.#known].map(([diffId, record]) => infoOf(diffId, record));
  }

  /** Unpacks the layer unless it is there; two who ask at once share the work. Nothing is left of a failure. */
  ensure(request: UnpackRequest): Promise<LayerInfo> {
    const present = request.diffId && this.get(request.diffId);
    if (present) return Promise.resolve(present);
    const running = this.#underWay.get(request.blob);
    if (running && !request.arrival) return running;
    const work = this.#unpack(request).finally(() => {
      if (this.#underWay.get(request.blob) === work) this.#underWay.delete(request.blob);
      // Not while others are unpacked: the first answer comes sooner that way.
      if (this.#underWay.size === 0) this.#checksums.soon();
    });
    this.#underWay.set(request.blob, work);
    return work;
  }

  /** A bare tar of our own, unpacked while it is written; its digest is known when it has ended. */
  async unpackTar(arrival: Arrival): Promise<LayerInfo> {
    const unpacked = await this.#unpack({ blob: undefined, compression: 'none', arrival });
    if (this.#underWay.size === 0) this.#checksums.soon();
    return unpacked;
  }

  /**
   * A small bare tar that is in memory, unpacked in this thread: a file of it and another thread's turn would take longer. The layer
   * is on disk for good with its checksum, a moment later; a power cut before that takes it, as it takes any layer without one.
   */
  async addTar(diffId: Digest, tar: Buffer): Promise<LayerInfo> {
    const present = this.get(diffId);
    if (present) return present;
    const name = (this.#nextName++).toString(36);
    const target = temporaryName(this.#file(name));
    const { form, ownership } = this.#driver;
    try {
      const job: UnpackJob = {
        blob: diffId,
        verifyBlob: false,
        compression: 'none',
        diffId,
        target,
        unsynced: true,
        form,
        ownership,
      };
      const { imageBytes, contentBytes, inodes, left } = await unpackLayer(job, Readable.from([tar]));
      await this.#driver.complete(left, `layer ${diffId}`, this.#options.runPlan);
      this.#checksums.leaveUnsynced(name);
      return await this.#keep(diffId, { name, blob: diffId, imageBytes, contentBytes, inodes }, target);
    } catch (error) {
      await rm(target, { recursive: true, force: true });
      throw error;
    } finally {
      if (this.#underWay.size === 0) this.#checksums.soon();
    }
  }

  /** Mounts the layers, lowest first as an image lists them, and answers overlayfs' order: the uppermost first. */
  async mount(diffIds: readonly Digest[]): Promise<string[]> {
    const records = diffIds.map((diffId) => {
      const record = this.#known.get(diffId);
      if (!record) throw new LayerNotFound({ diffId });
      return record;
    });
    // One after the other, so that two containers that start at once do not mount a layer twice.
    await this.#mounting.run(() => this.#mountMissing(diffIds));
    return records.map((record) => this.#directory(record.name)).reverse();
  }

  /** What lies where in these layers, lowest first; read in a thread. They stay until it is done. */
  async survey(diffIds: readonly Digest[], top: number, signal?: AbortSignal): Promise<Survey> {
    const lease = this.#readers.take('survey');
    for (const diffId of diffIds) lease.add(diffId);
    try {
      const roots = (await this.mount(diffIds)).reverse();
      const { runRoot, runPlan, unpacker } = this.#options;
      const layers: SurveyJob['layers'] = [];
      for (const root of roots)
        layers.push({ root, opaque: await opaqueDirectories(root, runPlan, join(runRoot, 'layers', 'xattrs')) });
      return await unpacker.survey({ layers, top }, signal);
    } finally {
      lease.release();
    }
  }

  /** What overlayfs has to be told besides its directories: outside of the host's namespace it sees `user.` attributes alone. */
  get overlayOptions(): readonly string[] {
    return this.#driver.ownership === 'keep' ? [] : ['userxattr'];
  }

  /** The attribute by which overlayfs marks a directory that hides those below it. */
  get opaqueXattr(): string {
    return this.#driver.ownership === 'keep' ? OPAQUE_XATTR : USER_OPAQUE_XATTR;
  }

  /** True while it is read, and for a while after it was unpacked: the image that it belongs to is about to be named. */
  isHeld(diffId: Digest): boolean {
    if (this.#readers.isHeld(diffId)) return true;
    const untilMs = this.#heldUntilMs.get(diffId) ?? 0;
    if (untilMs > this.#options.clock.monotonic()) return true;
    this.#heldUntilMs.delete(diffId);
    return false;
  }

  /** The image is named: from here on that is what keeps its layers. */
  release(diffIds: Iterable<Digest>): void {
    for (const diffId of diffIds) this.#heldUntilMs.delete(diffId);
  }

  /** The caller knows that nobody uses it. */
  async remove(diffId: Digest): Promise<void> {
    const record = this.#known.get(diffId);
    if (!record) return;
    await this.#unmount(record.name);
    this.#known.delete(diffId);
    await this.#records.remove(diffId);
    await rm(this.#file(record.name), { recursive: true, force: true });
  }

  /** Waits for checksums that are still being computed. */
  async idle(): Promise<void> {
    await this.#checksums.finish();
  }

  /** What is still being unpacked is given up; what is unpacked gets its checksum. */
  async close(): Promise<void> {
    await this.#options.unpacker.close();
    await this.idle();
  }

  /** Takes all layers out of the mount table: for the end of a test or an uninstall, not for a daemon that will be back. */
  async unmountAll(): Promise<void> {
    for (const name of [...this.#mounted]) await this.#unmount(name);
  }

  /** Without a blob's digest it is a bare tar, whose own digest is that of its blob too. */
  async #unpack(request: Omit<UnpackRequest, 'blob'> & { blob: Digest | undefined }): Promise<LayerInfo> {
    const { blob: named, compression, diffId: expected, arrival } = request;
    const blob = named ?? NO_BLOB;
    const source = arrival ?? (await this.#stored(blob));
    const name = (this.#nextName++).toString(36);
    const target = temporaryName(this.#file(name));
    const { form, ownership } = this.#driver;
    const verifyBlob = arrival === undefined;
    try {
      // A bomb is told by its own header, before it takes the last of the disk.
      const { bavail, bsize } = await statfs(dirname(target));
      const limits = { ...DEFAULT_LIMITS, contentBytes: Math.min(DEFAULT_LIMITS.contentBytes, bavail * bsize) };
      const job: UnpackJob = { blob, verifyBlob, compression, diffId: expected, target, form, ownership, limits };
      const { diffId, imageBytes, contentBytes, inodes, left } = await this.#options.unpacker.unpack(job, source);
      await source.whole(); // only now it is sure that these were the right bytes
      await this.#driver.complete(left, `layer ${diffId}`, this.#options.runPlan);
      const record: LayerRecord = { name, blob: named ?? diffId, imageBytes, contentBytes, inodes };
      return await this.#keep(diffId, record, target);
    } catch (error) {
      await rm(target, { recursive: true, force: true });
      // When the transfer failed, that is the reason, whatever the unpacker stumbled over.
      throw source.failure ?? error;
    }
  }

  async #keep(diffId: Digest, record: LayerRecord, target: string): Promise<LayerInfo> {
    const present = this.get(diffId);
    if (present) {
      this.#checksums.forget(record.name);
      // Another blob (zstd beside gzip, or the same under way twice) held the same layer and was faster.
      await rm(target, { recursive: true, force: true });
      return present;
    }
    this.#known.set(diffId, record);
    this.#heldUntilMs.set(diffId, this.#options.clock.monotonic() + HOLD_MS);
    try {
      if (this.#checksums.isUnsynced(record.name)) {
        await rename(target, this.#file(record.name));
        await this.#records.note(diffId, record); // a kill of this process finds it again; a power cut takes both
      } else {
        await renameDurably(target, this.#file(record.name));
        await this.#records.put(diffId, record);
      }
    } catch (error) {
      this.#known.delete(diffId);
      throw error;
    }
    this.#checksums.add(diffId, record);
    this.#options.log.debug('unpacked', { diffId, name: record.name, imageBytes: record.imageBytes });
    return infoOf(diffId, record);
  }

  async #stored(blob: Digest): Promise<Arrival> {
    const found = await this.#options.blobPath(blob);
    if (!found) throw new BlobNotFound({ digest: blob });
    return Arrival.whole(found.path, found.sizeBytes);
  }

  /** All that are missing in one plan: a process that carries out a plan costs as much as four mounts. */
  async #mountMissing(diffIds: readonly Digest[]): Promise<void> {
    const steps: Step[] = [];
    const names: string[] = [];
    for (const diffId of new Set(diffIds)) {
      const record = this.#known.get(diffId);
      if (!record) throw new LayerNotFound({ diffId });
      if (this.#mounted.has(record.name)) continue;
      await this.#check(diffId, record);
      const target = this.#mountPoint(record.name);
      const mount = this.#driver.mount(this.#file(record.name), target);
      if (!mount) {
        this.#mounted.add(record.name); // checked: it is used as it lies there
        continue;
      }
      await mkdir(target, { recursive: true, mode: 0o700 });
      names.push(record.name);
      const undo: Op[] = [{ op: 'umount', target, flags: MNT_DETACH }];
      steps.push({ ...mount, where: 'host', because: `layer ${diffId}`, undo });
    }
    if (steps.length === 0) return;
    await this.#options.runPlan({ steps });
    for (const name of names) this.#mounted.add(name);
  }

  async #unmount(name: string): Promise<void> {
    if (this.#mounted.delete(name) && this.#driver.form === 'erofs') await this.#unmountPoint(name);
    await rm(this.#mountPoint(name), { recursive: true, force: true });
  }

  async #unmountPoint(name: string): Promise<void> {
    const target = this.#mountPoint(name);
    const step: Step = { op: 'umount', where: 'host', because: `layer ${name} goes`, target, flags: MNT_DETACH };
    await this.#options.runPlan({ steps: [step] });
  }

  async #check(diffId: Digest, record: LayerRecord): Promise<void> {
    // Without a checksum yet, this process wrote it a moment ago, or the last one crashed then: computed anew at start.
    if (record.checksum === undefined) return;
    const path = this.#file(record.name);
    if ((await this.#driver.checksum(path)) === record.checksum) return;
    await this.remove(diffId);
    throw new LayerDamaged({ diffId, path });
  }

  // -- start

  /** `sameBoot`: an earlier daemon of this boot was killed at worst, and what it wrote is as it wrote it. */
  async #sweep(sameBoot: boolean): Promise<void> {
    const directory = join(this.#options.dataRoot, 'layers');
    await sweepTemporary(directory);
    const files = new Set((await readdir(directory)).filter((n) => /\.(?:erofs|dir)$/.test(n)));
    for (const [id, record] of await this.#records.all()) {
      const file = this.#driver.entry(record.name);
      const isWhole = files.has(file) && (await this.#driver.looksWhole(join(directory, file), record.imageBytes));
      // Unpacked, but no checksum was recorded before the power went: whether all of it reached the disk as written is not known.
      if (isWhole && (record.checksum !== undefined || sameBoot)) {
        this.#known.set(parseDigest(id), record);
        if (record.checksum === undefined) {
          this.#checksums.add(parseDigest(id), record);
          this.#checksums.leaveUnsynced(record.name); // what `addTar` left unsynced looks like what was: a checksum must not vouch for either unread
        }
        files.delete(file);
      } else await this.#records.remove(id);
    }
    if (this.#checksums.pending) this.#checksums.soon();
    for (const file of files) await rm(join(directory, file), { recursive: true, force: true });
    await this.#adoptMounts();
    const numbers = [...this.#known.values()].map((r) => Number.parseInt(r.name, 36));
    this.#nextName = Math.max(0, ...numbers) + 1;
  }

  /** Mounts of an earlier daemon are taken over; those whose layer is gone are removed. */
  async #adoptMounts(): Promise<void> {
    const known = new Set([...this.#known.values()].map((r) => r.name));
    for (const name of mountsBelow(
      join(this.#options.runRoot, 'layers'),
      await readFile('/proc/self/mountinfo', 'utf8'),
    )) {
      if (known.has(name) && this.#driver.form === 'erofs') this.#mounted.add(name);
      else await this.#unmountPoint(name);
    }
  }

  #file(name: string): string {
    return join(this.#options.dataRoot, 'layers', this.#driver.entry(name));
  }

  #directory(name: string): string {
    return this.#driver.directory(this.#file(name), this.#mountPoint(name));
  }

  #mountPoint(name: string): string {
    return join(this.#options.runRoot, 'layers', name);
  }
}

/** Whether a daemon of this run root has run since the host was booted. Leaves the mark for the next one. */
async function sinceBoot(runRoot: string): Promise<boolean> {
  const mark = join(runRoot, 'layers.boot');
  const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
  const seen = await readFile(mark, 'utf8').catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (seen !== boot) await writeFile(mark, boot, { mode: 0o600 });
  return seen === boot;
}

function infoOf(diffId: Digest, { name, blob, imageBytes, contentBytes, inodes }: LayerRecord): LayerInfo {
  return { diffId, name, blob: parseDigest(blob), imageBytes, contentBytes, inodes };
}

/** Names of mount points directly below a directory; mountinfo writes blanks as `\040` (proc(5)). */
export function mountsBelow(directory: string, mountinfo: string): string[] {
  const names: string[] = [];
  for (const line of mountinfo.split('\n')) {
    const point = line
      .split(' ')[4]
      ?.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
    if (point?.startsWith(`${directory}/`) && !point.slice(directory.length + 1).includes('/'))
      names.push(point.slice(directory.length + 1));
  }
  return names;
}
