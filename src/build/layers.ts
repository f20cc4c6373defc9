import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { newId, type Random } from '#base/random.ts';
import type { StepCache } from '#build/cache.ts';
import { BLOB_MAX_BYTES, type ContentLease, type ContentStore, writeBlob } from '#image/content.ts';
import { Arrival } from '#image/layer/arrival.ts';
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
const PIECE_BYTES = 1024 * 1024;
const PIECES_AT_ONCE = 4;
const SMALL_BYTES = 1024 * 1024;

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

  /** Stored and unpacked at once: whoever unpacks reads along while the tar is written. */
  async make(tar: AsyncIterable<Buffer>, lease: ContentLease): Promise<StepLayer> {
    const { content, layers, random } = this.#o;
    const ingest = await content.ingest(`build/${newId(random)}`);
    const arrival = ingest.path === undefined ? undefined : new Arrival(ingest.path, BLOB_MAX_BYTES);
    let unpacking: Promise<unknown> | undefined;
    try {
      for await (const chunk of tar) {
        await ingest.append(chunk);
        arrival?.advance(ingest.readableBytes);
        // A small one is there before a thread would have begun.
        if (arrival && ingest.offset > SMALL_BYTES) unpacking ??= layers.unpackTar(arrival);
        unpacking?.catch(() => undefined); // awaited below
      }
      const { digest, sizeBytes } = await ingest.commit();
      lease.add(digest);
      arrival?.advance(sizeBytes);
      arrival?.finish();
      // What went wrong beside the writing (its file is named anew when it is whole) goes right after it.
      await unpacking?.catch(() => undefined);
      await layers.ensure({ blob: digest, compression: 'none', diffId: digest });
      return { diffId: digest, blob: { mediaType: MEDIA.ociLayer, digest, size: sizeBytes }, made: true };
    } catch (error) {
      arrival?.fail(error);
      await unpacking?.catch(() => undefined); // fails for the reason that is thrown below
      await ingest.abort();
      throw error;
    }
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
    const { digest, sizeBytes } = await writeBlob(content, `build/pack/${layer.diffId}`, gzipped(source));
    const blob = { mediaType: MEDIA.ociLayerGzip, digest, size: sizeBytes };
    await cache.rememberPacked(layer.diffId, blob);
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

/**
 * In pieces, several at once in the thread pool, each a gzip member of its own: readers take them as one file (RFC 1952, 2.2). The
 * same bytes give the same bytes, however many threads there are.
 */
async function* gzipped(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const pending: Promise<Buffer>[] = [];
  const pack = (piece: Buffer): void => {
    const packed = promisify(gzip)(piece, { level: GZIP_LEVEL });
    packed.catch(() => undefined); // awaited in its turn
    pending.push(packed);
  };
  for await (const piece of pieces(source)) {
    pack(piece);
    if (pending.length >= PIECES_AT_ONCE) yield await (pending.shift() as Promise<Buffer>);
  }
  for (const packed of pending) yield await packed;
}

async function* pieces(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let held: Buffer[] = [];
  let size = 0;
  for await (const chunk of source) {
    let rest = chunk;
    while (size + rest.length >= PIECE_BYTES) {
      const take = PIECE_BYTES - size;
      yield Buffer.concat([...held, rest.subarray(0, take)]);
      rest = rest.subarray(take);
      held = [];
      size = 0;
    }
    if (rest.length > 0) held.push(rest);
    size += rest.length;
  }
  if (size > 0) yield Buffer.concat(held);
}
