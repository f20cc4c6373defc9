import { isCode } from '#base/errors.ts';
import type { ContentStore } from '#image/content.ts';
import { PlatformNotHere } from '#image/errors.ts';
import type { Digest } from '#spec/image/digest.ts';
import {
  type AnyManifest,
  type Descriptor,
  type ImageConfig,
  type ImageManifest,
  INDEX_MAX_DEPTH,
  MANIFEST_MAX_BYTES,
  parseImageConfig,
  parseManifest,
} from '#spec/image/manifest.ts';
import { choosePlatform, formatPlatform, type Platform, samePlatform } from '#spec/image/platform.ts';

/** Manifests point to blobs: what is read and followed here. */

export async function readManifest(
  content: ContentStore,
  target: Pick<Descriptor, 'digest' | 'mediaType'>,
): Promise<AnyManifest> {
  const bytes = await content.read(target.digest, MANIFEST_MAX_BYTES);
  return parseManifest(bytes, target.mediaType, target.digest);
}

export interface PlatformImage {
  manifestDigest: Digest;
  mediaType: string;
  manifest: ImageManifest;
  config: ImageConfig;
}

/** The image for a platform below a manifest or index; of an index only what is here counts. */
export async function imageFor(
  content: ContentStore,
  target: Descriptor,
  platform: Platform,
  depth = 0,
): Promise<PlatformImage> {
  const parsed = await readManifest(content, target);
  if (parsed.kind === 'image') {
    const { manifest } = parsed;
    const config = parseImageConfig(
      await content.read(manifest.config.digest, MANIFEST_MAX_BYTES),
      manifest.config.digest,
    );
    return { manifestDigest: target.digest, mediaType: parsed.mediaType, manifest, config };
  }
  const here: Descriptor[] = [];
  for (const entry of parsed.index.manifests) if (await content.info(entry.digest)) here.push(entry);
  // Pulled for another platform on purpose, it is shown (and refused when it is run) rather than hidden.
  const chosen = choosePlatform(here, platform) ?? here.find((entry) => entry.platform?.os !== 'unknown');
  if (!chosen || depth >= INDEX_MAX_DEPTH)
    throw new PlatformNotHere({ reference: target.digest, platform: formatPlatform(platform) });
  return imageFor(content, chosen, platform, depth + 1);
}

/** The same for exactly this platform, as a target of its own. IMAGE_PLATFORM_NOT_HERE when there is another one at best. */
export async function targetFor(
  content: ContentStore,
  target: Descriptor,
  platform: Platform,
): Promise<{ target: Descriptor; platform: PlatformImage }> {
  const found = await imageFor(content, target, platform);
  const { os, architecture, variant } = found.config;
  const info = await content.info(found.manifestDigest);
  if (!info || !samePlatform({ os, architecture, ...(variant ? { variant } : {}) }, platform))
    throw new PlatformNotHere({ reference: target.digest, platform: formatPlatform(platform) });
  const { manifestDigest: digest, mediaType } = found;
  return { target: { digest, mediaType, size: info.sizeBytes }, platform: found };
}

/** Every digest that is reached from the roots, whether it is here or not; foreign and absent parts are simply not followed. */
export async function reachable(
  content: ContentStore,
  roots: Iterable<Pick<Descriptor, 'digest' | 'mediaType'>>,
): Promise<Set<Digest>> {
  const seen = new Set<Digest>();
  const pending = [...roots];
  for (let next = pending.pop(); next; next = pending.pop()) {
    if (seen.has(next.digest)) continue;
    seen.add(next.digest);
    pending.push(...(await childrenOf(content, next)));
  }
  return seen;
}

async function childrenOf(
  content: ContentStore,
  target: Pick<Descriptor, 'digest' | 'mediaType'>,
): Promise<Descriptor[]> {
  const info = await content.info(target.digest);
  if (!info || info.sizeBytes > MANIFEST_MAX_BYTES || !/manifest|index/.test(target.mediaType)) return [];
  try {
    const parsed = await readManifest(content, target);
    return parsed.kind === 'image' ? [parsed.manifest.config, ...parsed.manifest.layers] : parsed.index.manifests;
  } catch (error) {
    // A damaged manifest holds nothing any more; it has been set aside, and whoever uses the image hears of it.
    if (isCode(error, 'BLOB_DAMAGED', 'BLOB_NOT_FOUND')) return [];
    throw error;
  }
}
