import type { ContentStore } from '#image/content.ts';
import { dropAdopted } from '#registry/server/adopt.ts';
import { readManifest } from '#registry/server/manifest.ts';
import type { Repositories } from '#registry/server/repositories.ts';
import type { Services } from '#registry/server/services.ts';
import type { Digest } from '#spec/image/digest.ts';

/**
 * Garbage collection while serving, in two floors. The repositories' links are swept here: a blob that no manifest of its
 * repository names, and that was linked longer than `graceMs` ago, is unlinked, and so is what was adopted from the node and is
 * not there any more. Bytes are swept by the content store's
 * collector, which also knows the images of the node; `registryRoots` tells it what the registry still needs.
 *
 * The grace is what makes it safe beside a push, which links blobs first and names them in a manifest last. Links and
 * manifests of one repository change under one lock, so the collector never sees half of a push of a manifest.
 */
export async function collectLinks(
  s: Services,
  rule: { graceMs: number },
): Promise<{ unlinked: number; repositories: number }> {
  const result = { unlinked: 0, repositories: 0 };
  for await (const repository of allRepositories(s.repositories)) {
    const unlinked = await s.repositories.exclusively(repository, async () => {
      await dropAdopted(repository, s);
      const old = await unusedBlobs(repository, s, s.clock.now() - rule.graceMs);
      for (const digest of old) await s.repositories.unlinkBlob(repository, digest);
      if (await s.repositories.removeIfEmpty(repository)) result.repositories++;
      return old.length;
    });
    result.unlinked += unlinked;
  }
  s.log.debug('collected', result);
  return result;
}

/** Every digest that a repository links or names: not to be removed from the content store. */
export async function registryRoots(repositories: Repositories): Promise<Set<Digest>> {
  const roots = new Set<Digest>();
  for await (const repository of allRepositories(repositories)) {
    for (const { digest } of await repositories.blobs(repository)) roots.add(digest);
    for (const { digest } of await repositories.manifests(repository)) roots.add(digest);
  }
  return roots;
}

/**
 * Removes the bytes that nothing needs, for a registry that stands alone. Blobs younger than `graceMs` stay: they may be
 * about to be linked.
 */
export async function collectBytes(
  content: ContentStore,
  roots: ReadonlySet<Digest>,
  rule: { olderThanMs: number },
): Promise<{ removed: number; bytes: number }> {
  const result = { removed: 0, bytes: 0 };
  for await (const { digest, sizeBytes, usedAtMs } of content.list()) {
    if (roots.has(digest) || usedAtMs > rule.olderThanMs || !(await content.remove(digest))) continue;
    result.removed++;
    result.bytes += sizeBytes;
  }
  return result;
}

async function unusedBlobs(repository: string, s: Services, linkedBeforeMs: number): Promise<Digest[]> {
  const used = new Set<Digest>();
  for (const { digest, mediaType } of await s.repositories.manifests(repository)) {
    const facts = readManifest(await s.content.read(digest, s.limits.manifestMaxBytes), mediaType);
    for (const blob of facts.blobs) used.add(blob);
  }
  const links = await s.repositories.blobs(repository);
  return links.filter((l) => !used.has(l.digest) && l.link.linkedAtMs <= linkedBeforeMs).map((l) => l.digest);
}

async function* allRepositories(repositories: Repositories): AsyncIterable<string> {
  for (let last = ''; ; ) {
    const page = await repositories.list(last, 500);
    yield* page.items;
    last = page.items.at(-1) ?? '';
    if (!page.more) return;
  }
}
