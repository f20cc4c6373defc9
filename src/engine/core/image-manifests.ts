import { isCode } from '#base/errors.ts';
import type { ContentStore } from '#image/content.ts';
import { readManifest } from '#image/graph.ts';
import type { LayerStore } from '#image/layers.ts';
import type { Digest } from '#spec/image/digest.ts';
import {
  type Descriptor,
  type ImageManifest,
  INDEX_MAX_DEPTH,
  MANIFEST_MAX_BYTES,
  parseImageConfig,
} from '#spec/image/manifest.ts';
import type { Platform } from '#spec/image/platform.ts';

/** One manifest below an image's target, here or not (Engine API, `ImageManifestSummary`). */
export interface ManifestFacts {
  descriptor: Descriptor;
  /** Configuration and layers are all here. */
  isWhole: boolean;
  /** Of its blobs, those that are here. */
  contentBytes: number;
  kind: 'image' | 'attestation' | 'unknown';
  /** Of `image`. */
  platform?: Platform;
  /** What containers call the image of it; undefined while its configuration is not here. */
  imageId?: Digest;
  unpackedBytes: number;
  /** Of `attestation`: the manifest it tells of. */
  attests?: string;
}

interface Floors {
  content: ContentStore;
  layers: Pick<LayerStore, 'get'>;
}

/** In the order of the index; of a single manifest itself. */
export async function manifestsBelow(target: Descriptor, floors: Floors, depth = 0): Promise<ManifestFacts[]> {
  const parsed = (await floors.content.info(target.digest)) && (await readManifest(floors.content, target));
  if (!parsed) return [absent(target)];
  if (parsed.kind === 'image') return [await factsOf(target, parsed.manifest, floors)];
  if (depth >= INDEX_MAX_DEPTH) return [];
  const below: ManifestFacts[] = [];
  for (const entry of parsed.index.manifests) below.push(...(await manifestsBelow(entry, floors, depth + 1)));
  return below;
}

function absent(descriptor: Descriptor): ManifestFacts {
  const { platform } = descriptor;
  return {
    descriptor,
    isWhole: false,
    contentBytes: 0,
    unpackedBytes: 0,
    ...kindOf(descriptor),
    ...(platform ? { platform } : {}),
  };
}

async function factsOf(
  descriptor: Descriptor,
  manifest: ImageManifest,
  { content, layers }: Floors,
): Promise<ManifestFacts> {
  const blobs = [manifest.config, ...manifest.layers];
  const present = await Promise.all(blobs.map(({ digest }) => content.info(digest)));
  const contentBytes = present.reduce((sum, info) => sum + (info?.sizeBytes ?? 0), descriptor.size);
  const common = { descriptor, isWhole: present.every(Boolean), contentBytes, ...kindOf(descriptor) };
  const config = present[0] && common.kind === 'image' ? await configOf(content, manifest.config.digest) : undefined;
  if (!config) return { ...absent(descriptor), ...common };
  const { os, architecture, variant, rootfs } = config;
  return {
    ...common,
    platform: descriptor.platform ?? { os, architecture, ...(variant ? { variant } : {}) },
    imageId: manifest.config.digest,
    unpackedBytes: rootfs.diff_ids.reduce((sum, diffId) => sum + (layers.get(diffId)?.contentBytes ?? 0), 0),
  };
}

/** BuildKit's attestations stand in an index as images for unknown/unknown, marked by annotations. */
function kindOf({ annotations, platform }: Descriptor): Pick<ManifestFacts, 'kind' | 'attests'> {
  const attests = annotations?.['vnd.docker.reference.digest'];
  if (annotations?.['vnd.docker.reference.type'] === 'attestation-manifest' && attests !== undefined)
    return { kind: 'attestation', attests };
  return { kind: platform?.os === 'unknown' ? 'unknown' : 'image' };
}

async function configOf(
  content: ContentStore,
  digest: Digest,
): Promise<ReturnType<typeof parseImageConfig> | undefined> {
  try {
    return parseImageConfig(await content.read(digest, MANIFEST_MAX_BYTES), digest);
  } catch (error) {
    if (isCode(error, 'MANIFEST_INVALID', 'INVALID_VALUE', 'BLOB_TOO_LARGE')) return undefined; // an artifact's, and no image
    throw error;
  }
}
