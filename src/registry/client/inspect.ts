import type { RegistryClient } from '#registry/client/client.ts';
import type { Digest } from '#spec/image/digest.ts';
import { MANIFEST_MAX_BYTES, parseImageConfig, parseManifest } from '#spec/image/manifest.ts';
import type { Platform } from '#spec/image/platform.ts';
import { familiarReference, type Reference } from '#spec/image/reference.ts';

/** What a registry says of a name: the document it stands for, and the platforms one can have of it. */
export interface RemoteImage {
  digest: Digest;
  mediaType: string;
  sizeBytes: number;
  platforms: Platform[];
}

/** Reads the manifest and, of an image of one platform, its configuration; nothing is kept. */
export async function inspectRemote(
  client: RegistryClient,
  reference: Reference,
  signal?: AbortSignal,
): Promise<RemoteImage> {
  const { repository, tag = 'latest' } = reference;
  const { bytes, digest, mediaType } = await client.manifest(repository, reference.digest ?? tag, signal);
  const parsed = parseManifest(bytes, mediaType, familiarReference(reference));
  const common = { digest, mediaType: parsed.mediaType, sizeBytes: bytes.byteLength };
  if (parsed.kind === 'index')
    return {
      ...common,
      // BuildKit's attestations stand in an index as images for unknown/unknown.
      platforms: parsed.index.manifests.flatMap(({ platform }) =>
        platform === undefined || platform.os === 'unknown' ? [] : [platform],
      ),
    };
  const { config } = parsed.manifest;
  const text = await smallBlob(client, repository, config.digest, signal);
  const { os, architecture, variant } = parseImageConfig(text, config.digest);
  return { ...common, platforms: [{ os, architecture, ...(variant ? { variant } : {}) }] };
}

async function smallBlob(
  client: RegistryClient,
  repository: string,
  digest: Digest,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const { body } = await client.blobSource(repository, digest).open(0, signal);
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > MANIFEST_MAX_BYTES) break; // what is cut off does not parse
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
