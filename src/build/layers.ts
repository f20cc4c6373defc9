import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { newId, type Random } from '#base/random.ts';
import type { Background } from '#build/background.ts';
import type { StepCache } from '#build/cache.ts';
import { peek } from '#build/context/unpack.ts';
import { BLOB_MAX_BYTES, type ContentLease, type ContentStore, writeBlob } from '#image/content.ts';
import { Arrival } from '#image/layer/arrival.ts';
import type { LayerStore } from '#image/layers.ts';
import { type Digest, digestOf } from '#spec/image/digest.ts';
import { type Descriptor, layerCompression, MEDIA } from '#spec/image/manifest.ts';

/** A layer as steps hand it on: an image's own blob, or the bare tar of a layer made here, whether or not that is kept. */
export interface StepLayer {
  diffId: Digest;
  blob: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>;
  made?: boolean;
}

/** The blob that goes into an image: known first, and there for good when `stored` resolves. */
export interface PackedLayer {
  blob: StepLayer['blob'];
  stored: Promise<void>;
}

export interface StepLayersOptions {
  content: ContentStore;
  layers: LayerStore;
  cache: StepCache;
  background: Background;
  random: Random;
}

/** zlib's level 3 takes a third of the time of its default, and the result is 4 % larger. */
const GZIP_LEVEL = 3;
const PIECE_BYTES = 1024 * 1024;
const PIECES_AT_ONCE = 4;
const SMALL_BYTES = PIECE_BYTES;

/**
 * Layers that a build makes. Each is unpacked at once, since the next step stands on it; what is left goes on beside that step:
 *
 *     small   the tar is only ever in memory, and is packed and stored as it goes into an image
 *     large   the tar is stored bare, and packed when an image is made of it: stages that are thrown away never are
 */
export class StepLayers {
  readonly #o: StepLayersOptions;
  /** Until they are stored. */
  readonly #packing = new Map<Digest, Promise<PackedLayer>>();

  constructor(options: StepLayersOptions) {
    this.#o = options;
  }

  async make(tar: AsyncIterable<Buffer>, lease: ContentLease): Promise<StepLayer> {
    const { head, whole } = await peek(tar, SMALL_BYTES + 1);
    return head.length <= SMALL_BYTES ? this.#makeSmall(head, lease) : this.#makeLarge(whole, lease);
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

  /** An image's own blob as it is, ours compressed, once. */
  async packed(layer: StepLayer, lease: ContentLease): Promise<PackedLayer> {
    if (!layer.made) return { blob: layer.blob, stored: Promise.resolve() };
    const packed = await this.#once(layer.diffId, () => this.#packStored(layer));
    lease.add(packed.blob.digest);
    return packed;
  }

  /** Resolves when a power cut no longer takes what was made here. */
  async stored(stack: readonly StepLayer[]): Promise<void> {
    for (const { diffId } of stack) await (await this.#packing.get(diffId))?.stored;
  }

  async #makeSmall(tar: Buffer, lease: ContentLease): Promise<StepLayer> {
    const diffId = digestOf(tar);
    const packing = this.#once(diffId, () => this.#packSmall(diffId, tar, lease));
    packing.catch(() => undefined); // told by `packed`, and by `background`
    await this.#o.layers.addTar(diffId, tar);
    return { diffId, blob: { mediaType: MEDIA.ociLayer, digest: diffId, size: tar.length }, made: true };
  }

  /** Whoever unpacks reads along while the tar is written. */
  async #makeLarge(tar: AsyncIterable<Uint8Array>, lease: ContentLease): Promise<StepLayer> {
    const { content, layers, random } = this.#o;
    const ingest = await content.ingest(`build/${newId(random)}`);
    const arrival = ingest.path === undefined ? undefined : new Arrival(ingest.path, BLOB_MAX_BYTES);
    const unpacking = arrival && layers.unpackTar(arrival);
    unpacking?.catch(() => undefined); // awaited below
    try {
      for await (const chunk of tar) {
        await ingest.append(chunk);
        arrival?.advance(ingest.readableBytes);
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

  /** Two that ask for the same layer share the work, until it is stored. */
  #once(diffId: Digest, pack: () => Promise<PackedLayer>): Promise<PackedLayer> {
    const running = this.#packing.get(diffId);
    if (running) return running;
    const packing = pack();
    this.#packing.set(diffId, packing);
    const end = packing.then(({ stored }) => stored).finally(() => this.#packing.delete(diffId));
    this.#o.background.add('a layer that was made', end);
    return packing;
  }

  async #packSmall(diffId: Digest, tar: Buffer, lease: ContentLease): Promise<PackedLayer> {
    const known = await this.#known(diffId);
    if (known) return known;
    const bytes = await promisify(gzip)(tar, { level: GZIP_LEVEL });
    const blob = { mediaType: MEDIA.ociLayerGzip, digest: digestOf(bytes), size: bytes.length };
    lease.add(blob.digest);
    const { content, cache } = this.#o;
    return { blob, stored: content.put(bytes).then(() => cache.rememberPacked(diffId, blob)) };
  }

  async #packStored({ diffId, blob: bare }: StepLayer): Promise<PackedLayer> {
    const known = await this.#known(diffId);
    if (known) return known;
    const { content, cache } = this.#o;
    const source = await content.open(bare.digest, { unverified: true });
    const { digest, sizeBytes } = await writeBlob(content, `build/pack/${diffId}`, gzipped(source));
    const blob = { mediaType: MEDIA.ociLayerGzip, digest, size: sizeBytes };
    await cache.rememberPacked(diffId, blob);
    // The tar can be had from the compressed one, or from nobody: two copies of it serve nothing.
    await content.remove(bare.digest);
    return { blob, stored: Promise.resolve() };
  }

  async #known(diffId: Digest): Promise<PackedLayer | undefined> {
    const blob = this.#o.cache.packed(diffId);
    return blob && (await this.#o.content.info(blob.digest)) ? { blob, stored: Promise.resolve() } : undefined;
  }

  /** Of a layer that is just being stored by another build, what it will be. */
  async #present(layer: StepLayer): Promise<StepLayer['blob'] | undefined> {
    const { content } = this.#o;
    if (await content.info(layer.blob.digest)) return layer.blob;
    await this.#packing.get(layer.diffId)?.then(({ stored }) => stored);
    return (await this.#known(layer.diffId))?.blob;
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
