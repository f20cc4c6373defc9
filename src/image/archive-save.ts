import type { ContentStore } from '#image/content.ts';
import { reachable } from '#image/graph.ts';
import type { Image } from '#image/images.ts';
import { entryWith } from '#image/tar/entry.ts';
import { endOfArchive, header, member, padding } from '#image/tar/writer.ts';
import { algorithmOf, type Digest, hexOf } from '#spec/image/digest.ts';
import { MEDIA } from '#spec/image/manifest.ts';
import { parseReference } from '#spec/image/reference.ts';

/**
 * `docker save`: one tar that is an OCI image layout (image-spec, image-layout.md) and, by its `manifest.json`, what older
 * engines load too. Of an index, what is here goes along, so a multi-platform image stays whole.
 */
export async function* saveImages(
  content: ContentStore,
  images: readonly { image: Image; names: readonly string[] }[],
): AsyncGenerator<Buffer> {
  yield document('oci-layout', json({ imageLayoutVersion: '1.0.0' }));
  yield document('index.json', json(indexOf(images)));
  yield document('manifest.json', json(images.map(({ image, names }) => legacyManifest(image, names))));
  yield directory('blobs');
  yield directory('blobs/sha256');
  const targets = images.map(({ image }) => image.target);
  for (const digest of [...(await reachable(content, targets))].sort()) {
    const info = await content.info(digest);
    if (!info) continue; // another platform's, or foreign
    yield header(entryWith({ path: blobPath(digest), size: info.sizeBytes }));
    yield* await content.open(digest);
    yield padding(info.sizeBytes);
  }
  yield endOfArchive();
}

function document(path: string, body: Buffer): Buffer {
  return member(entryWith({ path }), body);
}

function directory(path: string): Buffer {
  return header(entryWith({ type: 'dir', path, mode: 0o755 }));
}

function indexOf(images: readonly { image: Image; names: readonly string[] }[]): object {
  const manifests = images.flatMap(({ image, names }) => {
    const { digest, mediaType, size } = image.target;
    const bare = { mediaType, digest, size };
    // containerd and Docker read the whole name, skopeo and umoci the tag.
    const named = names.map((name) => ({
      ...bare,
      annotations: {
        'io.containerd.image.name': name,
        'org.opencontainers.image.ref.name': parseReference(name).tag ?? 'latest',
      },
    }));
    return named.length > 0 ? named : [bare];
  });
  return { schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests };
}

function legacyManifest({ platform }: Image, names: readonly string[]): object {
  return {
    Config: blobPath(platform.manifest.config.digest),
    RepoTags: names.length > 0 ? names : null,
    Layers: platform.manifest.layers.map((layer) => blobPath(layer.digest)),
  };
}

function blobPath(digest: Digest): string {
  return `blobs/${algorithmOf(digest)}/${hexOf(digest)}`;
}

function json(value: object): Buffer {
  return Buffer.from(JSON.stringify(value));
}
