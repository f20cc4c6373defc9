import { Readable } from 'node:stream';
import { createGzip } from 'node:zlib';
import { newId, type Random } from '#base/random.ts';
import { layerMediaType } from '#image/archive-load.ts';
import { type ContentLease, type ContentStore, writeBlob } from '#image/content.ts';
import type { LayerInfo, LayerStore } from '#image/layers.ts';
import { type Digest, digestOf, finish, hasher } from '#spec/image/digest.ts';
import {
  type Descriptor,
  type ImageConfig,
  type ImageManifest,
  layerCompression,
  MEDIA,
} from '#spec/image/manifest.ts';

/** Images made here: a layer from a container's changes or a root file system, a configuration, a manifest. */
export interface MakeParts {
  content: ContentStore;
  layers: LayerStore;
  random: Random;
  lease: ContentLease;
}

export interface MadeLayer {
  descriptor: { mediaType: string; digest: Digest; size: number };
  diffId: Digest;
}

/** A tar as a layer: compressed (level 3: three times as fast as zlib's default, 4 % larger), stored and unpacked. */
export async function makeLayer(parts: MakeParts, tar: AsyncIterable<Buffer>): Promise<MadeLayer> {
  const hash = hasher();
  const counted = async function* (): AsyncIterable<Buffer> {
    for await (const chunk of tar) {
      hash.update(chunk);
      yield chunk;
    }
  };
  const gzip = createGzip({ level: 3 });
  const source = Readable.from(counted(), { objectMode: false });
  source.on('error', (error) => gzip.destroy(error));
  const { digest, sizeBytes } = await writeBlob(parts.content, `make/${newId(parts.random)}`, source.pipe(gzip));
  parts.lease.add(digest);
  const diffId = finish(hash);
  await parts.layers.ensure({ blob: digest, compression: 'gzip', diffId });
  return { descriptor: { mediaType: MEDIA.ociLayerGzip, digest, size: sizeBytes }, diffId };
}

/** `docker import`: a root file system's tar, packed in any way we read; its bytes are kept as they came. */
export async function importLayer(
  parts: MakeParts,
  ref: string,
  source: AsyncIterable<Uint8Array>,
): Promise<MadeLayer> {
  const { digest, sizeBytes } = await writeBlob(parts.content, ref, source);
  parts.lease.add(digest);
  const head: Buffer[] = [];
  for await (const chunk of await parts.content.open(digest, { length: 4 })) head.push(chunk);
  const mediaType = layerMediaType(Buffer.concat(head));
  const layer: LayerInfo = await parts.layers.ensure({ blob: digest, compression: layerCompression(mediaType, ref) });
  return { descriptor: { mediaType, digest, size: sizeBytes }, diffId: layer.diffId };
}

/** Writes configuration and manifest; the target for `ImageStore.add`. */
export async function makeImage(
  parts: MakeParts,
  config: ImageConfig,
  layers: readonly Pick<Descriptor, 'mediaType' | 'digest' | 'size'>[],
): Promise<{ digest: Digest; mediaType: string; size: number }> {
  const configBytes = Buffer.from(JSON.stringify(config));
  const configBlob = await writeBlob(parts.content, `make/${digestOf(configBytes)}`, [configBytes]);
  parts.lease.add(configBlob.digest);
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: { mediaType: MEDIA.ociConfig, digest: configBlob.digest, size: configBlob.sizeBytes },
    layers: layers.map(({ mediaType, digest, size }) => ({ mediaType, digest, size })),
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  const { digest, sizeBytes } = await writeBlob(parts.content, `make/${digestOf(bytes)}`, [bytes]);
  parts.lease.add(digest);
  return { digest, mediaType: MEDIA.ociManifest, size: sizeBytes };
}

/**
 * A layer on top: the base's configuration with one more diff id and line of history (`docker commit`, a build's step). Without a
 * layer, nothing was written: the line says so.
 */
export function withLayer(
  base: { manifest: ImageManifest; config: ImageConfig },
  layer: MadeLayer | undefined,
  change: { createdAtMs: number; createdBy: string; comment?: string; author?: string; run?: ImageConfig['config'] },
): { config: ImageConfig; layers: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>[] } {
  const created = new Date(change.createdAtMs).toISOString();
  const line = {
    created,
    created_by: change.createdBy,
    ...(change.comment ? { comment: change.comment } : {}),
    ...(change.author ? { author: change.author } : {}),
    ...(layer ? {} : { empty_layer: true }),
  };
  const diffIds = [...base.config.rootfs.diff_ids, ...(layer ? [layer.diffId] : [])];
  const config: ImageConfig = {
    ...base.config,
    created,
    ...(change.author ? { author: change.author } : {}),
    ...(change.run ? { config: change.run } : {}),
    rootfs: { ...base.config.rootfs, type: 'layers', diff_ids: diffIds },
    history: [...(base.config.history ?? []), line],
  };
  return { config, layers: [...base.manifest.layers, ...(layer ? [layer.descriptor] : [])] };
}
