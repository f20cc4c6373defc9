import { once } from 'node:events';
import { Readable } from 'node:stream';
import { createGzip } from 'node:zlib';
import { newId, type Random } from '#base/random.ts';
import type { StepCache } from '#build/cache.ts';
import { type ContentLease, type ContentStore, writeBlob } from '#image/content.ts';
import type { LayerStore } from '#image/layers.ts';
import type { Digest } from '#spec/image/digest.ts';
import { type Descriptor, layerCompression, MEDIA } from '#spec/image/manifest.ts';

/** A layer as steps hand it on: an image's own blob, or the bare tar of a layer made here. */
export interface StepLayer {
  diffId: Digest;
  blob: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>;
  made?: boolean;
}

export interface StepLayersOptions {
  content: ContentStore;
  layers: LayerStore;
  cache: StepCache;
  random: Random;
}

/** zlib's level 3 takes a third of the time of its default, and the result is 4 % larger. */
const GZIP_LEVEL = 3;

/**
 * Layers that a build makes. A step's tar is stored bare and unpacked at once, since the next step stands on it; it is compressed
 * only when an image is made of it, so stages that are thrown away never are.
 */
export class StepLayers {
  readonly #o: StepLayersOptions;
  readonly #packing = new Map<Digest, Promise<StepLayer['blob']>>();

  constructor(options: StepLayersOptions) {
    this.#o = options;
  }

  async make(tar: AsyncIterable<Buffer>, lease: ContentLease): Promise<StepLayer> {
    const { content, layers, random } = this.#o;
    const { digest, sizeBytes } = await writeBlob(content, `build/${newId(random)}`, tar);
    lease.add(digest);
    await layers.ensure({ blob: digest, compression: 'none', diffId: digest });
    return { diffId: digest, blob: { mediaType: MEDIA.ociLayer, digest, size: sizeBytes }, made: true };
  }

  /** Unpacked and ready to be mounted; made again from its blob when it was taken away. */
  async ready(stack: readonly StepLayer[]): Promise<Digest[]> {
    for (const layer of stack) {
      if (this.#o.layers.get(layer.diffId)) continue;
      const blob = await this.#present(layer);
      if (!blob) continue; // `layers.mount` says which one is not there
      const compression = layerCompression(blob.mediaType, blob.digest);
      await this.#o.layers.ensure({ blob: blob.digest, compression, diffId: layer.diffId });
    }
    return stack.map((layer) => layer.diffId);
  }

  /** Whether an image can still be made of it. */
  async isHere(stack: readonly StepLayer[]): Promise<boolean> {
    for (const layer of stack) if (!(await this.#present(layer))) return false;
    return true;
  }

  /** The blob that goes into an image: an image's own as it is, ours compressed, once. */
  packed(layer: StepLayer, lease: ContentLease): Promise<StepLayer['blob']> {
    if (!layer.made) return Promise.resolve(layer.blob);
    const running =
      this.#packing.get(layer.diffId) ?? this.#pack(layer).finally(() => this.#packing.delete(layer.diffId));
    this.#packing.set(layer.diffId, running);
    return running.then((blob) => {
      lease.add(blob.digest);
      return blob;
    });
  }

  async #pack(layer: StepLayer): Promise<StepLayer['blob']> {
    const { content, cache } = this.#o;
    const known = cache.packed(layer.diffId);
    if (known && (await content.info(known.digest))) return known;
    const source = await content.open(layer.blob.digest, { unverified: true });
    const gzip = createGzip({ level: GZIP_LEVEL });
    source.once('error', (error) => gzip.destroy(error));
    const ref = `build/pack/${layer.diffId}`;
    const { digest, sizeBytes } = await writeBlob(content, ref, Readable.from(source.pipe(gzip)));
    const blob = { mediaType: MEDIA.ociLayerGzip, digest, size: sizeBytes };
    await cache.rememberPacked(layer.diffId, blob);
    if (!source.closed) await once(source, 'close');
    // The tar can be had from the compressed one, or from nobody: two copies of it serve nothing.
    await content.remove(layer.blob.digest);
    return blob;
  }

  async #present(layer: StepLayer): Promise<StepLayer['blob'] | undefined> {
    const { content, cache } = this.#o;
    if (await content.info(layer.blob.digest)) return layer.blob;
    const packed = cache.packed(layer.diffId);
    return packed && (await content.info(packed.digest)) ? packed : undefined;
  }
}
