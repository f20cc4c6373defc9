import type { ContentStore, Ingest } from '#image/content.ts';
import { DigestMismatch } from '#image/errors.ts';
import { Arrival } from '#image/layer/arrival.ts';
import type { LayerInfo, LayerStore } from '#image/layers.ts';
import type { Digest } from '#spec/image/digest.ts';
import { ManifestInvalid } from '#spec/image/errors.ts';
import { type Descriptor, type ImageConfig, type ImageManifest, layerCompression } from '#spec/image/manifest.ts';

/**
 * Unpacks layers while they load. Whoever pulls writes into `content` and says `begin` when it knows the manifest; each
 * transfer of a layer is then followed by an unpacker that reads the growing file:
 *
 *     download ──▶ ingest (file grows, hashed) ──▶ commit
 *                     ╰─▶ worker: inflate ─▶ hash ─▶ tar ─▶ image file ──▶ kept once the blob is committed
 *
 * `finish` then has little left to do: it compares the diff ids with the configuration, and unpacks what was in the
 * store before.
 */
export class LayerFollower {
  readonly content: ContentStore;
  readonly #layers: LayerStore;
  readonly #wanted = new Map<Digest, Descriptor>();
  readonly #work = new Map<Digest, Promise<LayerInfo | undefined>>();

  constructor(content: ContentStore, layers: LayerStore) {
    this.#layers = layers;
    this.content = followed(content, (ingest, digest) => this.#follow(ingest, digest));
  }

  begin(manifest: ImageManifest): void {
    for (const layer of manifest.layers) this.#wanted.set(layer.digest, layer);
  }

  /** Every layer unpacked, lowest first. DIGEST_MISMATCH when one is not what the configuration says. */
  async finish(manifest: ImageManifest, config: ImageConfig, what: string): Promise<LayerInfo[]> {
    const diffIds = config.rootfs.diff_ids;
    if (diffIds.length !== manifest.layers.length) {
      const rule = `${manifest.layers.length} layers, but its configuration tells of ${diffIds.length}`;
      throw new ManifestInvalid({ what, rule });
    }
    return Promise.all(manifest.layers.map((layer, i) => this.#finishOne(layer, diffIds[i] as Digest)));
  }

  async #finishOne(layer: Descriptor, diffId: Digest): Promise<LayerInfo> {
    const followed = await this.#work.get(layer.digest);
    if (!followed) {
      const compression = layerCompression(layer.mediaType, layer.digest);
      return this.#layers.ensure({ blob: layer.digest, compression, diffId });
    }
    if (followed.diffId !== diffId) {
      throw new DigestMismatch({ what: `layer ${layer.digest} unpacked`, expected: diffId, actual: followed.diffId });
    }
    return followed;
  }

  #follow(ingest: Ingest, digest: Digest): Arrival | undefined {
    const layer = this.#wanted.get(digest);
    if (!layer || ingest.path === undefined) return undefined;
    const arrival = new Arrival(ingest.path, layer.size);
    arrival.advance(ingest.readableBytes);
    const compression = layerCompression(layer.mediaType, digest);
    // A failure here may be the transfer's, which is tried again; `finish` unpacks from the store then, or fails for good.
    const work = this.#layers.ensure({ blob: digest, compression, arrival }).catch(() => undefined);
    this.#work.set(digest, work);
    return arrival;
  }
}

/** The same store, with an eye on transfers named after a digest (`download/sha256:…`). */
function followed(
  content: ContentStore,
  follow: (ingest: Ingest, digest: Digest) => Arrival | undefined,
): ContentStore {
  return {
    info: (digest) => content.info(digest),
    open: (digest, part) => content.open(digest, part),
    read: (digest, maxBytes) => content.read(digest, maxBytes),
    put: (bytes) => content.put(bytes),
    verify: (digest) => content.verify(digest),
    ingests: () => content.ingests(),
    lease: (because) => content.lease(because),
    remove: (digest) => content.remove(digest),
    list: () => content.list(),
    async ingest(ref, options) {
      const ingest = await content.ingest(ref, options);
      const digest = /sha\d+:[a-f0-9]+$/.exec(ref)?.[0] as Digest | undefined;
      const arrival = digest && follow(ingest, digest);
      return arrival ? reporting(ingest, arrival) : ingest;
    },
  };
}

function reporting(ingest: Ingest, arrival: Arrival): Ingest {
  const interrupted = (): void => arrival.fail(new Error(`transfer ${ingest.ref} ended early`));
  return {
    ref: ingest.ref,
    path: ingest.path,
    get readableBytes() {
      return ingest.readableBytes;
    },
    get offset() {
      return ingest.offset;
    },
    async append(chunk) {
      await ingest.append(chunk);
      arrival.advance(ingest.readableBytes);
    },
    async commit(expected, sizeBytes) {
      try {
        const info = await ingest.commit(expected, sizeBytes);
        arrival.advance(info.sizeBytes);
        arrival.finish();
        return info;
      } catch (error) {
        arrival.fail(error);
        throw error;
      }
    },
    async close() {
      interrupted();
      await ingest.close();
    },
    async abort() {
      interrupted();
      await ingest.abort();
    },
  };
}
