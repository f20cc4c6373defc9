import type { Clock } from '#base/clock.ts';
import type { Logger } from '#base/log.ts';
import type { Random } from '#base/random.ts';
import type { NodeEvent } from '#engine/core/events.ts';
import type { FoundImage, ImageSource } from '#engine/core/parts.ts';
import type { ContentStore } from '#image/content.ts';
import type { Image, ImageEvent, ImageStore } from '#image/images.ts';
import type { LayerStore } from '#image/layers.ts';
import { LayerFollower } from '#image/pulling.ts';
import type { SnapshotStore } from '#image/snapshots.ts';
import { headerCredentials } from '#registry/client/credentials.ts';
import { dockerProgress, type Progress, type ProgressSink } from '#registry/client/progress.ts';
import type { Registries } from '#registry/registries.ts';
import { type Platform, parsePlatform } from '#spec/image/platform.ts';
import { type Reference, withDefaultTag } from '#spec/image/reference.ts';

export { dockerProgress, type Image, type Progress, type ProgressSink };

export interface NodeImagesOptions {
  images: ImageStore;
  content: ContentStore;
  layers: LayerStore;
  snapshots: SnapshotStore;
  registries: Registries;
  platform: Platform;
  clock: Clock;
  random: Random;
  log: Logger;
}

export interface RegistryWish {
  /** The Engine API's `X-Registry-Auth`. */
  auth?: string | undefined;
  onProgress: ProgressSink;
  signal?: AbortSignal;
}

/** Images as the node's front ends want them: the image store and the registries behind one word. */
export class NodeImages implements ImageSource {
  readonly store: ImageStore;
  readonly #o: NodeImagesOptions;

  constructor(options: NodeImagesOptions) {
    this.#o = options;
    this.store = options.images;
  }

  async find(reference: string): Promise<FoundImage> {
    const { id, target, platform } = await this.store.get(reference);
    const { config, architecture } = platform.config;
    return { id, reference, config: config ?? {}, target: target.digest, architecture };
  }

  /** Unpacked while it loads; named only when all of it is here. */
  async pull(name: string, wish: RegistryWish & { platform?: string | undefined }): Promise<Image> {
    const { registries, content, layers, platform } = this.#o;
    const follower = new LayerFollower(content, layers);
    const { reference } = registries.resolve(name);
    const lease = content.lease(`pull of ${name}`);
    try {
      const pulled = await registries.pull(name, {
        content: follower.content,
        platform: wish.platform ? parsePlatform(wish.platform, platform) : platform,
        platformIsExact: wish.platform !== undefined && wish.platform !== '',
        onProgress: wish.onProgress,
        onImage: (manifest) => follower.begin(manifest),
        credentials: headerCredentials(wish.auth),
        ...(wish.signal ? { signal: wish.signal } : {}),
      });
      for (const digest of pulled.digests) lease.add(digest);
      const { digest, mediaType, sizeBytes } = pulled.root;
      const image = await this.store.add({ digest, mediaType, size: sizeBytes }, namesOf(reference, pulled));
      await follower.finish(image.platform.manifest, image.platform.config, name);
      return image;
    } finally {
      lease.release();
    }
  }

  /** What its files hold when unpacked; of layers that are not unpacked yet, what they take as blobs. */
  sizeOf(image: Image): number {
    const { manifest, config } = image.platform;
    return config.rootfs.diff_ids.reduce(
      (sum, diffId, i) => sum + (this.#o.layers.get(diffId)?.contentBytes ?? manifest.layers[i]?.size ?? 0),
      0,
    );
  }

  /** Ids of the image and of all that are built on it; none when there is no such image. */
  async standingOn(reference: string): Promise<ReadonlySet<string>> {
    const base = await this.store.find(reference);
    if (!base) return new Set();
    const below = base.platform.config.rootfs.diff_ids;
    const above = (await this.store.list()).filter((image) =>
      below.every((diffId, i) => image.platform.config.rootfs.diff_ids[i] === diffId),
    );
    return new Set([base.id, ...above.map((image) => image.id)]);
  }
}

/** The name that was asked for, and the digest under which the registry will give the same again. */
function namesOf(reference: Reference, pulled: { root: { digest: Reference['digest'] }; host: string }): Reference[] {
  const { registry, repository, tag } = withDefaultTag(reference);
  const tagged: Reference[] = tag === undefined ? [] : [{ registry, repository, tag }];
  // What was made here has no registry that knows its digest.
  if (pulled.host === 'bootstrap' || pulled.root.digest === undefined) return tagged;
  return [...tagged, { registry, repository, digest: pulled.root.digest }];
}

/** What happens to images, in Docker's words. An eviction is an untag and a delete that says why. */
export function imageEvent(event: ImageEvent): Omit<NodeEvent, 'atNs'> {
  const action =
    event.type === 'evict' ? (event.name ? 'untag' : 'delete') : event.type === 'add' ? 'load' : event.type;
  return {
    type: 'image',
    action,
    id: event.id,
    attributes: {
      name: event.name ?? event.id,
      ...(event.type === 'evict' ? { because: event.because } : {}),
    },
  };
}
