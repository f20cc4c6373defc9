import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import { integer, object, string } from '#base/shape.ts';
import type { ContentStore } from '#image/content.ts';
import { ImageAmbiguous, ImageInUse, NoSuchImage } from '#image/errors.ts';
import { imageFor, type PlatformImage, targetFor } from '#image/graph.ts';
import type { LayerStore } from '#image/layers.ts';
import { LayerFollower } from '#image/pulling.ts';
import type { SnapshotStore } from '#image/snapshots.ts';
import { type Digest, isDigest, parseDigest } from '#spec/image/digest.ts';
import type { Descriptor } from '#spec/image/manifest.ts';
import type { Platform } from '#spec/image/platform.ts';
import {
  familiarName,
  familiarReference,
  formatReference,
  nameOf,
  parseReference,
  type Reference,
  withDefaultTag,
} from '#spec/image/reference.ts';
import { Records } from '#storage/records.ts';
import type { Store, TxnOp } from '#storage/store.ts';

/**
 * Images by name. A name points to a *target*, the manifest or index as it was pulled or made, kept whole; what an API calls
 * an image is the target seen from this host's platform, and its id is the digest of that platform's configuration.
 *
 *     image/names/docker.io/library/web:1          → target digest
 *     image/names/docker.io/library/web@sha256:…   → target digest   (RepoDigests)
 *     image/targets/sha256:…                       → media type, size, times; without any name it is dangling
 */
export interface Image {
  id: Digest;
  target: Descriptor;
  platform: PlatformImage;
  /** `web:1`, as Docker writes them. */
  repoTags: string[];
  /** `web@sha256:…`. */
  repoDigests: string[];
  createdAtMs: number;
  usedAtMs: number;
  /** Blobs of this platform as they are stored (compressed). */
  blobBytes: number;
}

export type ImageEvent =
  | { type: 'tag' | 'untag' | 'delete' | 'add'; id: Digest; name?: string }
  | { type: 'evict'; id: Digest; name?: string; because: string };

export interface ImageStoreOptions {
  store: Store;
  content: ContentStore;
  layers: LayerStore;
  snapshots: SnapshotStore;
  clock: Clock;
  platform: Platform;
  publish(event: ImageEvent): void;
  /** The image that the container of this snapshot was made from; undefined: not known, or no container's. */
  imageOf?(snapshot: string): string | undefined;
}

const nameShape = object({ target: string() });
const targetShape = object({
  mediaType: string(),
  size: integer({ min: 0 }),
  createdAtMs: integer(),
  usedAtMs: integer(),
});
type TargetRecord = ReturnType<typeof targetShape>;

const NAMES = 'image/names/';
const TARGETS = 'image/targets/';
const USE_EVERY_MS = 3_600_000;

export class ImageStore {
  readonly #o: ImageStoreOptions;
  readonly #targetRecords: Records<TargetRecord>;
  readonly #names = new Map<string, Digest>();
  readonly #targets = new Map<Digest, TargetRecord>();
  /** What manifests and configurations said, verified when they were read; one for each target. */
  readonly #views = new Map<Digest, PlatformImage>();

  private constructor(options: ImageStoreOptions) {
    this.#o = options;
    this.#targetRecords = new Records(options.store, TARGETS, targetShape);
  }

  static async open(options: ImageStoreOptions): Promise<ImageStore> {
    const images = new ImageStore(options);
    const names = new Records(options.store, NAMES, nameShape);
    for (const [digest, record] of await images.#targetRecords.all()) images.#targets.set(parseDigest(digest), record);
    for (const [name, { target }] of await names.all()) images.#names.set(name, parseDigest(target));
    return images;
  }

  /** Gives the names to the target, in one step; whoever had them before keeps its other names, or dangles. */
  async add(target: Pick<Descriptor, 'digest' | 'mediaType' | 'size'>, names: readonly Reference[]): Promise<Image> {
    const nowMs = this.#o.clock.now();
    const known = this.#targets.get(target.digest);
    const record = known ?? { mediaType: target.mediaType, size: target.size, createdAtMs: nowMs, usedAtMs: nowMs };
    const keys = names.map(formatReference);
    const ops: TxnOp[] = [
      put(TARGETS + target.digest, record),
      ...keys.map((key) => put(NAMES + key, { target: target.digest })),
    ];
    await this.#o.store.txn({ ops });
    this.#targets.set(target.digest, record);
    this.#views.delete(target.digest); // another platform of the same index may have come
    for (const key of keys) this.#names.set(key, target.digest);
    const image = await this.#image(target.digest);
    this.#o.layers.release(image.platform.config.rootfs.diff_ids);
    if (!known) this.#o.publish({ type: 'add', id: image.id });
    for (const name of names)
      if (name.tag !== undefined) this.#o.publish({ type: 'tag', id: image.id, name: familiarReference(name) });
    return image;
  }

  /** By name, id or the beginning of an id; NO_SUCH_IMAGE, IMAGE_AMBIGUOUS. */
  async get(text: string): Promise<Image> {
    const target = await this.#resolve(text);
    if (!target) throw new NoSuchImage({ reference: text });
    return this.#image(target);
  }

  async find(text: string): Promise<Image | undefined> {
    const target = await this.#resolve(text);
    return target && this.#image(target);
  }

  /** Of an image of several platforms the part for that one, under the same names; IMAGE_PLATFORM_NOT_HERE. */
  async forPlatform(image: Image, wanted: Platform): Promise<Image> {
    const { target, platform } = await targetFor(this.#o.content, image.target, wanted);
    return { ...image, id: platform.manifest.config.digest, target, platform, blobBytes: blobBytesOf(platform) };
  }

  /** What this very name points to; nothing is read from disk. */
  targetOf(name: Reference): Digest | undefined {
    return this.#names.get(formatReference(name));
  }

  /** Every name and what it points to; nothing is read from disk. */
  *names(): Generator<[name: Reference, target: Digest]> {
    for (const [name, target] of this.#names) yield [parseReference(name), target];
  }

  async list(): Promise<Image[]> {
    const images = await Promise.all([...this.#targets.keys()].map((digest) => this.#image(digest).catch(unreadable)));
    return images.filter((image) => image !== undefined);
  }

  tag(text: string, name: Reference): Promise<Image> {
    return this.get(text).then((image) => this.add(image.target, [withDefaultTag(name)]));
  }

  /**
   * `docker rmi`: a name takes that name away; with the last one, or by id, the image goes. Refused while a container
   * uses it, unless only a name goes or `force` is set (layers that a container stands on stay in any case).
   */
  async remove(text: string, wish: { force?: boolean } = {}): Promise<{ untagged: string[]; deleted: Digest[] }> {
    const image = await this.get(text);
    const named = this.#nameOf(text);
    const tags = this.#namesOf(image.target.digest).filter((n) => !n.includes('@'));
    if (named !== undefined && tags.length > (named.includes('@') ? 0 : 1)) return this.#untag(image, [named], false);
    if (named === undefined && tags.length > 1 && !wish.force) {
      throw new ImageInUse({ reference: text, by: `${tags.length} names; it must be forced` });
    }
    const user = await this.#userOf(image);
    if (user !== undefined && !wish.force) throw new ImageInUse({ reference: text, by: `container ${user}` });
    return this.#untag(image, this.#namesOf(image.target.digest), true);
  }

  /** Takes a tag away; see `retire` for what is left then. */
  async untag(name: Reference): Promise<void> {
    const target = this.targetOf(name);
    if (target === undefined) return;
    await this.#untag(await this.#image(target), [formatReference(name)], false);
    await this.retire(target, name);
  }

  /**
   * After its tag went elsewhere: without any other tag in that repository the image loses its digest there as well, and
   * with its last name it goes, unless a container uses it.
   */
  async retire(target: Digest, within: Reference): Promise<void> {
    if (!this.#targets.has(target)) return;
    const names = this.#namesOf(target).map((name) => parseReference(name));
    if (names.some((name) => name.tag !== undefined && nameOf(name) === nameOf(within))) return;
    const gone = names.filter((name) => nameOf(name) === nameOf(within));
    const image = await this.#image(target);
    const isLast = gone.length === names.length && (await this.#userOf(image)) === undefined;
    await this.#untag(image, gone.map(formatReference), isLast);
  }

  /** Images without a name and, with `all`, every image that no container uses. `keep` can spare some. */
  async prune(wish: { all?: boolean; keep?: (image: Image) => boolean } = {}): Promise<Digest[]> {
    const gone: Digest[] = [];
    for (const image of await this.list()) {
      const wanted = wish.all ? true : image.repoTags.length === 0 && image.repoDigests.length === 0;
      if (!wanted || (await this.#userOf(image)) !== undefined || wish.keep?.(image)) continue;
      gone.push(...(await this.#untag(image, this.#namesOf(image.target.digest), true)).deleted);
    }
    return gone;
  }

  /** Its layers unpacked, lowest first, for `snapshots.prepare`; what a bit flip or a crash took is made again from the blobs. */
  async layersOf(image: Image): Promise<Digest[]> {
    await this.#touch(image.target.digest);
    const follower = new LayerFollower(this.#o.content, this.#o.layers);
    const layers = await follower.finish(image.platform.manifest, image.platform.config, image.target.digest);
    const diffIds = layers.map((layer) => layer.diffId);
    this.#o.layers.release(diffIds);
    return diffIds;
  }

  /** Roots for garbage collection. */
  targets(): Pick<Descriptor, 'digest' | 'mediaType'>[] {
    return [...this.#targets].map(([digest, { mediaType }]) => ({ digest, mediaType }));
  }

  /** Takes an image away for the sake of the disk budget, and says so. */
  async evict(image: Image, because: string): Promise<void> {
    await this.#untag(image, this.#namesOf(image.target.digest), true, because);
  }

  /** The container whose file system stands on this image's uppermost layer, if any, and was not made from another one that has it. */
  async #userOf(image: Image): Promise<string | undefined> {
    await this.#o.snapshots.settled(); // one that is being removed uses nothing any more
    const top = image.platform.config.rootfs.diff_ids.at(-1);
    const users = top === undefined ? [] : this.#o.snapshots.usersOf(top);
    if (users.length === 0) return undefined;
    const others = new Set<string>((await this.list()).map(({ id }) => id).filter((id) => id !== image.id));
    // One that is not listed may be another platform of this very image.
    return users.find((user) => !others.has(this.#o.imageOf?.(user) ?? ''));
  }

  async #untag(
    image: Image,
    names: string[],
    withTarget: boolean,
    because?: string,
  ): Promise<{ untagged: string[]; deleted: Digest[] }> {
    const { digest } = image.target;
    const ops: TxnOp[] = names.map((name) => ({ do: 'delete', key: NAMES + name }));
    if (withTarget) ops.push({ do: 'delete', key: TARGETS + digest });
    await this.#o.store.txn({ ops });
    for (const name of names) this.#names.delete(name);
    if (withTarget) {
      this.#targets.delete(digest);
      this.#views.delete(digest);
    }
    const untagged = names.map((name) => familiarReference(parseReference(name)));
    const { id } = image;
    const tell = (type: 'untag' | 'delete', name?: string): void => {
      const named = name === undefined ? {} : { name };
      this.#o.publish(because === undefined ? { type, id, ...named } : { type: 'evict', id, because, ...named });
    };
    for (const name of untagged) tell('untag', name);
    if (withTarget) tell('delete');
    return { untagged, deleted: withTarget ? [id] : [] };
  }

  async #image(digest: Digest): Promise<Image> {
    const record = this.#targets.get(digest);
    if (!record) throw new NoSuchImage({ reference: digest });
    const target = { digest, mediaType: record.mediaType, size: record.size };
    const platform = this.#views.get(digest) ?? (await imageFor(this.#o.content, target, this.#o.platform));
    this.#views.set(digest, platform);
    const names = this.#namesOf(digest).map((name) => parseReference(name));
    return {
      id: platform.manifest.config.digest,
      target,
      platform,
      repoTags: names.filter((n) => n.tag !== undefined).map(familiarReference),
      repoDigests: names.filter((n) => n.tag === undefined).map((n) => `${familiarName(n)}@${n.digest}`),
      createdAtMs: record.createdAtMs,
      usedAtMs: record.usedAtMs,
      blobBytes: blobBytesOf(platform),
    };
  }

  #namesOf(target: Digest): string[] {
    return [...this.#names].filter(([, digest]) => digest === target).map(([name]) => name);
  }

  /** The stored name that the text says exactly, if it says one. */
  #nameOf(text: string): string | undefined {
    try {
      const name = formatReference(withDefaultTag(parseReference(text)));
      return this.#names.has(name) ? name : undefined;
    } catch {
      return undefined; // an id
    }
  }

  /** Whole ids first, then names, then beginnings of ids: as dockerd looks them up. */
  async #resolve(text: string): Promise<Digest | undefined> {
    if (isDigest(text) && this.#targets.has(text)) return text;
    const named = this.#nameOf(text);
    if (named !== undefined && !isDigest(text)) return this.#names.get(named);
    const byDigest = this.#byTargetDigest(text);
    if (byDigest) return byDigest;
    const hex = /^(?:sha256:)?([a-f0-9]{1,64})$/.exec(text)?.[1];
    if (hex === undefined) return undefined;
    const matches = (await this.list()).filter((image) => image.id.startsWith(`sha256:${hex}`));
    const ids = new Set(matches.map((image) => image.id));
    if (ids.size > 1) throw new ImageAmbiguous({ prefix: hex, count: ids.size });
    return matches[0]?.target.digest;
  }

  /** `web:1@sha256:…` and `web@sha256:…` mean the digest, whatever the tag says now. */
  #byTargetDigest(text: string): Digest | undefined {
    const digest = text.slice(text.indexOf('@') + 1);
    return text.includes('@') && isDigest(digest) && this.#targets.has(digest) ? digest : undefined;
  }

  async #touch(digest: Digest): Promise<void> {
    const record = this.#targets.get(digest);
    const nowMs = this.#o.clock.now();
    if (!record || nowMs - record.usedAtMs < USE_EVERY_MS) return;
    record.usedAtMs = nowMs;
    await this.#targetRecords.put(digest, record);
  }
}

function blobBytesOf({ manifest }: PlatformImage): number {
  return [manifest.config, ...manifest.layers].reduce((sum, blob) => sum + blob.size, 0);
}

/** One damaged image does not hide the others; asked for by name it says what is wrong. */
function unreadable(error: unknown): undefined {
  if (!isCode(error, 'BLOB_DAMAGED', 'BLOB_NOT_FOUND', 'MANIFEST_INVALID', 'IMAGE_PLATFORM_NOT_HERE', 'NO_SUCH_IMAGE'))
    throw error;
  return undefined;
}

function put(key: string, value: object): TxnOp {
  return { do: 'put', key, value: Buffer.from(JSON.stringify(value)) };
}
