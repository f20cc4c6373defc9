import { readManifest } from '#registry/server/manifest.ts';
import type { ManifestRecord } from '#registry/server/repositories.ts';
import { holding, type Services } from '#registry/server/services.ts';
import type { Digest } from '#spec/image/digest.ts';
import { INDEX_MAX_DEPTH } from '#spec/image/manifest.ts';

/**
 * What the node has under a name of ours is in the registry too: its bytes lie in the content store already, so they are
 * linked when first asked for, and the links go when the node has no such image any more.
 */

/** What a tag means now: the node's image of that name, else what was pushed. */
export async function currentOf(
  repository: string,
  tag: string,
  host: string | undefined,
  s: Services,
): Promise<Digest | undefined> {
  const root = await s.names.find(repository, tag, host);
  const known = await s.repositories.tag(repository, tag);
  if (known?.digest === root) return root;
  if (root === undefined) return known?.adopted ? undefined : known?.digest;
  await holding(s, root, `registry adopts ${repository}:${tag}`, () =>
    s.repositories.exclusively(repository, () => link(repository, root, [tag], 0, s)),
  );
  return root;
}

/** Children first, as in a push. What is not here is left out: of an index, the platforms that are not; the depth is that of a sane one. */
async function link(
  repository: string,
  digest: Digest,
  tags: readonly string[],
  depth: number,
  s: Services,
): Promise<void> {
  const info = await s.content.info(digest);
  if (!info || depth > INDEX_MAX_DEPTH) return;
  const facts = readManifest(await s.content.read(digest, s.limits.manifestMaxBytes), '');
  for (const child of facts.manifests) await link(repository, child, [], depth + 1, s);
  for (const blob of facts.blobs) {
    const sizeBytes = (await s.content.info(blob))?.sizeBytes;
    if (sizeBytes !== undefined) await s.repositories.linkBlob(repository, blob, sizeBytes);
  }
  const { mediaType, subject, artifactType } = facts;
  const present = await s.repositories.manifest(repository, digest);
  const wasPushed = present !== undefined && !present.adopted;
  await s.repositories.putManifest(
    repository,
    {
      digest,
      mediaType,
      sizeBytes: info.sizeBytes,
      ...(subject ? { subject } : {}),
      ...(artifactType ? { artifactType } : {}),
      ...(wasPushed ? {} : { adopted: true }),
    },
    tags,
    { adopted: true },
  );
}

/** Unlinks what was adopted and is the node's no more; call it while nobody else changes the repository. */
export async function dropAdopted(repository: string, s: Services): Promise<void> {
  const manifests = new Map((await s.repositories.manifests(repository)).map((m) => [m.digest, m]));
  const kept = new Set<Digest>();
  for await (const { tag, digest, adopted } of s.repositories.allTags(repository)) {
    if (adopted && (await s.names.find(repository, tag)) !== digest) await s.repositories.deleteTag(repository, tag);
    else await keep(digest, manifests, kept, s);
  }
  for (const record of manifests.values()) if (!record.adopted) await keep(record.digest, manifests, kept, s);
  for (const { digest } of manifests.values())
    if (!kept.has(digest)) await s.repositories.deleteManifest(repository, digest);
}

/** With all manifests below it. */
async function keep(
  digest: Digest,
  manifests: ReadonlyMap<Digest, ManifestRecord>,
  kept: Set<Digest>,
  s: Services,
): Promise<void> {
  const record = manifests.get(digest);
  if (!record || kept.has(digest)) return;
  kept.add(digest);
  const facts = readManifest(await s.content.read(digest, s.limits.manifestMaxBytes), record.mediaType);
  for (const child of facts.manifests) await keep(child, manifests, kept, s);
}
