import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import { Limiter } from '#base/queue.ts';
import type { Random } from '#base/random.ts';
import { type ContentStore, writeBlob } from '#image/content.ts';
import type { FetchedManifest, RegistryClient } from '#registry/client/client.ts';
import type { Downloader } from '#registry/client/download.ts';
import { PlatformMissing, RegistryMisbehaved } from '#registry/client/errors.ts';
import type { ProgressSink } from '#registry/client/progress.ts';
import type { Resolution } from '#registry/resolve.ts';
import type { Digest } from '#spec/image/digest.ts';
import {
  type AnyManifest,
  type Descriptor,
  type ImageManifest,
  INDEX_MAX_DEPTH,
  isForeignLayer,
  MANIFEST_MAX_BYTES,
  parseManifest,
} from '#spec/image/manifest.ts';
import { choosePlatform, formatPlatform, type Platform } from '#spec/image/platform.ts';
import { familiarReference, formatReference } from '#spec/image/reference.ts';

/** What a pull leaves in the content store, all of it verified. */
export interface Pulled {
  /** What the name means at the registry: the index or manifest. Goes into `RepoDigests`. */
  root: { digest: Digest; mediaType: string; sizeBytes: number };
  /** The image for the platform; absent when all platforms, or an artifact, were pulled. */
  image?: { manifestDigest: Digest; manifest: AnyManifest & { kind: 'image' }; platform?: Platform };
  /** Every digest that belongs to it, for leases and roots. */
  digests: Digest[];
  /** False: all of it was here before. */
  changed: boolean;
  host: string;
}

export interface PullOptions {
  content: ContentStore;
  downloader: Downloader;
  clientFor(endpoint: Resolution['endpoints'][number]): RegistryClient;
  clock: Clock;
  random: Random;
  onProgress: ProgressSink;
  signal?: AbortSignal;
  /** `all` keeps a multi-platform image whole. */
  platform: Platform | 'all';
  /** `--platform` was written by a user: the 32-bit sister is not offered instead. */
  platformIsExact?: boolean;
  /** An image's layers begin to load now: for unpacking them while they do. */
  onImage?: (manifest: ImageManifest) => void;
  /** Blobs at once. */
  parallel?: number;
}

const PARALLEL = 4;
/** Manifests of one pull, however deep and wide its indexes are. */
const MANIFESTS_MAX = 2000;

/**
 * Asks mirrors and the registry in turn. The next is asked when one cannot be reached, does not have the image or, being a
 * mirror, refuses; what the last one says is what the user hears.
 */
export async function pull(resolution: Resolution, o: PullOptions): Promise<Pulled> {
  let last: unknown;
  for (const endpoint of resolution.endpoints) {
    const client = o.clientFor(endpoint);
    try {
      return await pullFrom(client, resolution, o);
    } catch (error) {
      o.signal?.throwIfAborted();
      const mayLieElsewhere =
        isCode(error, 'REGISTRY_UNREACHABLE', 'IMAGE_NOT_FOUND') ||
        (endpoint.role === 'mirror' && !isCode(error, 'PLATFORM_MISSING'));
      if (!mayLieElsewhere) throw error;
      if (endpoint.role === 'mirror')
        o.onProgress({ at: 'note', text: `mirror ${endpoint.host}: ${(error as Error).message}` });
      last = error;
    }
  }
  throw last;
}

async function pullFrom(client: RegistryClient, { reference }: Resolution, o: PullOptions): Promise<Pulled> {
  const { repository } = reference;
  const name = familiarReference(reference);
  const walk = new Walk(client, repository, o);
  // A lease from the first byte: the collector must not take what has just arrived.
  const lease = o.content.lease(`pull of ${formatReference(reference)}`);
  try {
    const root = await walk.manifest(reference.digest ?? reference.tag ?? 'latest', undefined);
    o.onProgress({ at: 'manifest', reference: name, digest: root.digest });
    const images = o.platform === 'all' ? await walk.everything(root, 0) : [await walk.choose(root, 0, o.platform)];
    for (const digest of walk.digests) lease.add(digest);
    await fetchBlobs(client, repository, images, walk, lease, o);
    await walk.keepManifests();
    const sizeBytes = root.bytes.byteLength;
    o.onProgress({ at: 'end', reference: name, digest: root.digest, changed: walk.changed, sizeBytes });
    const [only] = images;
    return {
      root: { digest: root.digest, mediaType: root.parsed.mediaType, sizeBytes },
      ...(o.platform !== 'all' && only
        ? {
            image: {
              manifestDigest: only.digest,
              manifest: only.parsed,
              ...(only.platform ? { platform: only.platform } : {}),
            },
          }
        : {}),
      digests: [...walk.digests],
      changed: walk.changed,
      host: client.host,
    };
  } finally {
    lease.release();
  }
}

interface Node extends FetchedManifest {
  parsed: AnyManifest;
  platform?: Platform;
}
type ImageNode = Node & { parsed: AnyManifest & { kind: 'image' } };

/** The tree of manifests below a name, with a bound on its depth and size. */
class Walk {
  readonly #client: RegistryClient;
  readonly #repository: string;
  readonly #o: PullOptions;
  /** Kept in the store at the end, children first: a manifest that is there is whole. */
  readonly #nodes: Node[] = [];
  readonly digests = new Set<Digest>();
  changed = false;

  constructor(client: RegistryClient, repository: string, o: PullOptions) {
    this.#client = client;
    this.#repository = repository;
    this.#o = o;
  }

  /** By tag from the registry; by digest from the store if it is there. */
  async manifest(reference: string | Digest, told: Descriptor | undefined): Promise<Node> {
    if (this.#nodes.length >= MANIFESTS_MAX)
      throw this.#misbehaved(reference, `more than ${MANIFESTS_MAX} manifests below one name`);
    const fetched = (await this.#fromStore(reference, told)) ?? (await this.#fromRegistry(reference, told));
    const parsed = parseManifest(
      fetched.bytes,
      fetched.mediaType || told?.mediaType,
      `${this.#repository}@${fetched.digest}`,
    );
    const node: Node = { ...fetched, parsed, ...(told?.platform ? { platform: told.platform } : {}) };
    this.#nodes.push(node);
    this.digests.add(node.digest);
    return node;
  }

  async choose(node: Node, depth: number, platform: Platform): Promise<ImageNode> {
    if (node.parsed.kind === 'image') return node as ImageNode;
    const { manifests } = node.parsed.index;
    const entry =
      choosePlatform(manifests, platform, { exact: this.#o.platformIsExact ?? false }) ?? onlyUnnamed(manifests);
    if (!entry) {
      const offered = manifests.flatMap((m) =>
        m.platform && m.platform.os !== 'unknown' ? [formatPlatform(m.platform)] : [],
      );
      throw new PlatformMissing({
        what: `${this.#repository}@${node.digest}`,
        wanted: formatPlatform(platform),
        offered,
      });
    }
    return this.choose(await this.#child(entry, depth), depth + 1, platform);
  }

  async everything(node: Node, depth: number): Promise<ImageNode[]> {
    if (node.parsed.kind === 'image') return [node as ImageNode];
    const images: ImageNode[] = [];
    for (const entry of node.parsed.index.manifests) {
      if (this.digests.has(entry.digest)) continue;
      images.push(...(await this.everything(await this.#child(entry, depth), depth + 1)));
    }
    return images;
  }

  async keepManifests(): Promise<void> {
    for (const { digest, bytes } of [...this.#nodes].reverse()) {
      if (await this.#o.content.info(digest)) continue;
      this.changed = true;
      await writeBlob(this.#o.content, `manifest/${digest}`, [bytes], { digest });
    }
  }

  async #child(entry: Descriptor, depth: number): Promise<Node> {
    if (depth >= INDEX_MAX_DEPTH)
      throw this.#misbehaved(entry.digest, `indexes are nested deeper than ${INDEX_MAX_DEPTH}`);
    return this.manifest(entry.digest, entry);
  }

  async #fromStore(reference: string, told: Descriptor | undefined): Promise<FetchedManifest | undefined> {
    const { content, signal } = this.#o;
    // A tag is asked for with HEAD first: what is here already need not be sent, and Docker Hub does not count it as a pull.
    const head = told
      ? { digest: told.digest, mediaType: told.mediaType }
      : await this.#client.headManifest(this.#repository, reference, signal);
    if (!head || !(await content.info(head.digest))) return undefined;
    return { ...head, bytes: await content.read(head.digest, MANIFEST_MAX_BYTES) };
  }

  async #fromRegistry(reference: string, told: Descriptor | undefined): Promise<FetchedManifest> {
    const fetched = await this.#client.manifest(this.#repository, reference, this.#o.signal);
    if (told && fetched.bytes.byteLength !== told.size) {
      throw this.#misbehaved(
        reference,
        `the manifest has ${fetched.bytes.byteLength} bytes, its index says ${told.size}`,
      );
    }
    return fetched;
  }

  #misbehaved(reference: string, why: string): Error {
    return new RegistryMisbehaved({ host: this.#client.host, request: `manifest ${reference}`, why });
  }
}

/** An index with one entry that names no platform can mean only that one (umoci writes such). */
function onlyUnnamed(manifests: readonly Descriptor[]): Descriptor | undefined {
  const [only, ...others] = manifests;
  return others.length === 0 && only?.platform === undefined ? only : undefined;
}

async function fetchBlobs(
  client: RegistryClient,
  repository: string,
  images: readonly ImageNode[],
  walk: Walk,
  lease: { add(digest: Digest): void },
  o: PullOptions,
): Promise<void> {
  const limiter = new Limiter(o.parallel ?? PARALLEL);
  const stop = new AbortController();
  const signal = o.signal ? AbortSignal.any([o.signal, stop.signal]) : stop.signal;
  const fetch = (descriptor: Descriptor, what: string, from?: URL): Promise<void> => {
    const { digest, size } = descriptor;
    walk.digests.add(digest);
    lease.add(digest);
    return limiter.run(async () => {
      signal.throwIfAborted();
      const source = from ? client.foreignSource(from, digest) : client.blobSource(repository, digest);
      if (await o.downloader.fetch(source, { digest, size, what }, { ...o, signal })) walk.changed = true;
    });
  };
  const work = images.flatMap(({ parsed }) => {
    const { config, layers } = parsed.manifest;
    o.onImage?.(parsed.manifest);
    for (const layer of layers) o.onProgress({ at: 'layer', digest: layer.digest, state: 'waiting' });
    return [
      fetch(config, 'configuration'),
      ...layers.map((layer) =>
        isForeignLayer(layer.mediaType) && layer.urls?.length ? fetchForeign(layer, fetch) : fetch(layer, 'layer'),
      ),
    ];
  });
  // The first failure stops the rest; all must have let go of their transfers before anybody tries again.
  const results = await Promise.allSettled(
    work.map((w) =>
      w.catch((error) => {
        stop.abort(error);
        throw error;
      }),
    ),
  );
  const failed = results.find((r) => r.status === 'rejected');
  if (failed) throw stop.signal.aborted ? stop.signal.reason : failed.reason;
}

/** Foreign layers are looked for in the registry first: private registries often keep them all the same. */
async function fetchForeign(
  layer: Descriptor,
  fetch: (d: Descriptor, what: string, from?: URL) => Promise<void>,
): Promise<void> {
  const places = [
    undefined,
    ...(layer.urls ?? []).filter((text) => /^https?:/.test(text) && URL.canParse(text)).map((text) => new URL(text)),
  ];
  for (const [i, place] of places.entries()) {
    try {
      return await fetch(layer, 'foreign layer', place);
    } catch (error) {
      if (i === places.length - 1 || !isCode(error, 'IMAGE_NOT_FOUND', 'REGISTRY_UNREACHABLE', 'REGISTRY_UNAUTHORIZED'))
        throw error;
    }
  }
}
