import { isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { ContentStore } from '#image/content.ts';
import { imageFor } from '#image/graph.ts';
import type { ImageStore } from '#image/images.ts';
import type { ImageNames } from '#registry/server/services.ts';
import type { Digest } from '#spec/image/digest.ts';
import { type Descriptor, MEDIA } from '#spec/image/manifest.ts';
import type { Platform } from '#spec/image/platform.ts';
import { DEFAULT_REGISTRY, type Reference } from '#spec/image/reference.ts';

/**
 * One set of images behind the registry and the engine:
 *
 *     push localhost:5000/web:1   ──▶ the node has an image localhost:5000/web:1, from the same blobs
 *     build -t localhost:5000/web:1, build -t web:1   ──▶ GET /v2/web/manifests/1 answers with it
 *
 * The registry is known by several names (`authorities`, say localhost:5000 and 127.0.0.1:5000). A pushed image gets the one
 * its client used, if it is one of ours: the `Host` header is the client's word, and must not name images of docker.io.
 */
export interface NodeNamesOptions {
  images: ImageStore;
  content: ContentStore;
  platform: Platform;
  /** `host:port`, the preferred one first; known once the registry listens. */
  authorities(): readonly string[];
  log: Logger;
}

export function nodeImageNames(o: NodeNamesOptions): ImageNames {
  const named = (repository: string, tag: string): Reference[] =>
    o.authorities().map((registry) => ({ registry, repository, tag }));
  return {
    async tagged(repository, tag, manifest, host) {
      const target = await runnable(manifest, o);
      if (!target) return this.untagged(repository, tag);
      const { digest } = target;
      const [registry] = preferring(host, o.authorities());
      if (registry === undefined) return;
      // What another of our names said before would be old news beside this push.
      const moved = named(repository, tag).flatMap((name) => {
        const old = o.images.targetOf(name);
        return old === undefined ? [] : [{ name, old }];
      });
      const hosts = new Set([registry, ...moved.map(({ name }) => name.registry)]);
      const names = [...hosts].flatMap((host) => [
        { registry: host, repository, tag },
        { registry: host, repository, digest },
      ]);
      await o.images.add(target, names);
      for (const { name, old } of moved) if (old !== digest) await o.images.retire(old, name);
    },

    async untagged(repository, tag) {
      for (const name of named(repository, tag)) await o.images.untag(name);
    },

    async find(repository, tag, host) {
      for (const registry of preferring(host, o.authorities())) {
        const own = o.images.targetOf({ registry, repository, tag });
        if (own !== undefined) return own;
      }
      return builtHere(repository, tag, o.images);
    },

    *list() {
      const ours = new Set(o.authorities());
      for (const [{ registry, repository, tag }] of o.images.names()) {
        if (tag === undefined) continue;
        if (ours.has(registry)) yield { repository, tag };
        else if (registry === DEFAULT_REGISTRY && builtHere(repository, tag, o.images) !== undefined)
          yield { repository: repository.replace(/^library\//, ''), tag };
      }
    },
  };
}

/** What `docker build -t web:1` made has no registry in its name; what was pulled from docker.io is not ours to offer. */
function builtHere(repository: string, tag: string, images: ImageStore): Digest | undefined {
  const full = repository.includes('/') ? repository : `library/${repository}`;
  const name = { registry: DEFAULT_REGISTRY, repository: full, tag };
  const target = images.targetOf(name);
  if (target === undefined) return undefined;
  const cameFromThere = images.targetOf({ registry: DEFAULT_REGISTRY, repository: full, digest: target }) !== undefined;
  return cameFromThere ? undefined : target;
}

const NOT_AN_IMAGE = [
  'MANIFEST_INVALID',
  'INVALID_VALUE',
  'MEDIA_TYPE_UNSUPPORTED',
  'IMAGE_PLATFORM_NOT_HERE',
  'BLOB_NOT_FOUND',
  'BLOB_TOO_LARGE',
];

/** The descriptor, if this node could show it as an image: not of an artifact, a signature or an image whose blobs are not here. */
async function runnable(
  { digest, mediaType }: { digest: Digest; mediaType: string },
  o: NodeNamesOptions,
): Promise<Descriptor | undefined> {
  const info = await o.content.info(digest);
  if (!info) return undefined;
  try {
    const target = { digest, mediaType, size: info.sizeBytes };
    const { manifest } = await imageFor(o.content, target, o.platform);
    return manifest.config.mediaType === MEDIA.ociConfig || manifest.config.mediaType === MEDIA.dockerConfig
      ? target
      : undefined;
  } catch (error) {
    if (!isCode(error, ...NOT_AN_IMAGE)) throw error;
    o.log.debug('pushed, but no image for this node', { digest, why: error.message });
    return undefined;
  }
}

function preferring(host: string | undefined, authorities: readonly string[]): string[] {
  const asked = host?.toLowerCase();
  return [...authorities].sort((a, b) => Number(b === asked) - Number(a === asked));
}

/**
 * What clients may call a registry that listens at `host:port`, the preferred name first. `others` are the machine's
 * further names and addresses, which count where it listens on all of them.
 */
export function registryAuthorities(host: string, port: number, others: readonly string[] = []): string[] {
  const everywhere = host === '0.0.0.0' || host === '::';
  const loopback = everywhere || host === 'localhost' || host === '::1' || host.startsWith('127.');
  const own = everywhere ? others : [host];
  const names = [...(loopback ? ['localhost', '127.0.0.1', '::1'] : []), ...own];
  return [...new Set(names)].map((name) => `${name.includes(':') ? `[${name}]` : name.toLowerCase()}:${port}`);
}
