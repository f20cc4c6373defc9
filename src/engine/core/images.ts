import { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { newId, type Random } from '#base/random.ts';
import { fail, object, optional, string } from '#base/shape.ts';
import type { NodeEvent } from '#engine/core/events.ts';
import { type ManifestFacts, manifestsBelow } from '#engine/core/image-manifests.ts';
import type { FoundImage, ImageSource } from '#engine/core/parts.ts';
import { loadImages } from '#image/archive-load.ts';
import { saveImages } from '#image/archive-save.ts';
import type { ContentStore } from '#image/content.ts';
import { NoSuchImage } from '#image/errors.ts';
import { type Explanation, explanationOf, type HistoryLine, historyOf } from '#image/explain.ts';
import { collect } from '#image/gc.ts';
import { targetFor } from '#image/graph.ts';
import type { Image, ImageEvent, ImageStore } from '#image/images.ts';
import type { LayerStore } from '#image/layers.ts';
import { importLayer, makeImage } from '#image/make.ts';
import { LayerFollower } from '#image/pulling.ts';
import type { SnapshotStore } from '#image/snapshots.ts';
import { headerCredentials } from '#registry/client/credentials.ts';
import type { RemoteImage } from '#registry/client/inspect.ts';
import { dockerProgress, type Progress, type ProgressSink } from '#registry/client/progress.ts';
import type { Registries } from '#registry/registries.ts';
import type { Digest } from '#spec/image/digest.ts';
import type { ImageConfig, RunConfig } from '#spec/image/manifest.ts';
import { normalize, type Platform, parsePlatform } from '#spec/image/platform.ts';
import { familiarReference, nameOf, parseReference, type Reference, withDefaultTag } from '#spec/image/reference.ts';

export { dockerProgress, type Image, type ManifestFacts, type Progress, type ProgressSink };

export interface NodeImagesOptions {
  images: ImageStore;
  content: ContentStore;
  layers: LayerStore;
  snapshots: SnapshotStore;
  registries: Registries;
  platform: Platform;
  clock: Clock;
  random: Random;
  log: Logger;
  keepers: Keepers;
  /** Disk that blobs and layers may take before unused images go (`image/gc.ts`). */
  budgetBytes?: number;
}

/** Who keeps blobs and layers beside images and containers: the registry, the build cache. They add themselves. */
export interface Keepers {
  blobs: (() => Promise<Iterable<Digest>>)[];
  layers: (() => Iterable<Digest>)[];
}

/** What was used since then stays when blobs are collected: somebody may be about to name it. */
const COLLECT_GRACE_MS = 0;

export interface RegistryWish {
  /** The Engine API's `X-Registry-Auth`. */
  auth?: string | undefined;
  onProgress: ProgressSink;
  signal?: AbortSignal;
}

/** Images as the node's front ends want them: the image store and the registries behind one word. */
export class NodeImages implements ImageSource {
  readonly store: ImageStore;
  readonly #o: NodeImagesOptions;

  constructor(options: NodeImagesOptions) {
    this.#o = options;
    this.store = options.images;
  }

  async find(reference: string, wanted?: string): Promise<FoundImage> {
    const { id, target, platform } = await this.get(reference, wanted ? this.parsePlatform(wanted) : undefined);
    const { config, architecture } = platform.config;
    return { id, reference, config: config ?? {}, target: target.digest, architecture };
  }

  /** Unpacked while it loads; named only when all of it is here. */
  async pull(name: string, wish: RegistryWish & { platform?: string | undefined }): Promise<Image> {
    const { registries, content, layers, platform } = this.#o;
    const follower = new LayerFollower(content, layers);
    const { reference } = registries.resolve(name);
    const lease = content.lease(`pull of ${name}`);
    try {
      const pulled = await registries.pull(name, {
        content: follower.content,
        platform: wish.platform ? parsePlatform(wish.platform, platform) : platform,
        platformIsExact: wish.platform !== undefined && wish.platform !== '',
        onProgress: wish.onProgress,
        onImage: (manifest) => follower.begin(manifest),
        credentials: headerCredentials(wish.auth),
        ...(wish.signal ? { signal: wish.signal } : {}),
      });
      for (const digest of pulled.digests) lease.add(digest);
      const { digest, mediaType, sizeBytes } = pulled.root;
      const image = await this.store.add({ digest, mediaType, size: sizeBytes }, namesOf(reference, pulled));
      await follower.finish(image.platform.manifest, image.platform.config, name);
      return image;
    } finally {
      lease.release();
    }
  }

  /** What `docker pull -a` brings: every tag of the repository, or the one to fail with where no registry tells. */
  async tagsToPull(name: string, auth: string | undefined, signal: AbortSignal): Promise<string[]> {
    try {
      const tags = await this.#o.registries.tags(name, headerCredentials(auth), signal);
      return tags.map((tag) => `${name}:${tag}`);
    } catch (error) {
      if (!isCode(error, 'REGISTRY_UNREACHABLE')) throw error;
      return [name];
    }
  }

  /** Every name of that repository that an image has here, as `docker push -a` sends them; NO_SUCH_IMAGE when none has. */
  tagsToPush(name: string): string[] {
    const repository = nameOf(parseReference(name));
    const names = [...this.store.names()].filter(([name]) => name.tag !== undefined && nameOf(name) === repository);
    if (names.length === 0) throw new NoSuchImage({ reference: name });
    return names.map(([name]) => familiarReference(name)).sort();
  }

  /** By name or id; with a platform the part of it for that one. */
  async get(name: string, platform?: Platform): Promise<Image> {
    const image = await this.store.get(name);
    return platform === undefined ? image : this.store.forPlatform(image, platform);
  }

  /** Every platform of it and what of that is here. */
  manifests(image: Image): Promise<ManifestFacts[]> {
    return manifestsBelow(image.target, this.#o);
  }

  /** As a client writes it: `linux/arm64`, or the JSON of its fields, which Docker's clients send since API 1.46. */
  parsePlatform(text: string): Platform {
    return text.startsWith('{')
      ? normalize(platformShape(parseJson(text), 'platform'))
      : parsePlatform(text, this.#o.platform);
  }

  /** `name` as it is called here; it goes to the registry that it names. */
  async push(name: string, wish: RegistryWish & { platform?: Platform | undefined }): Promise<void> {
    const { registries } = this.#o;
    const image = await this.get(name, wish.platform);
    const reference = parseReference(name);
    const { digest } = await registries.push(reference, image.target.digest, {
      onProgress: wish.onProgress,
      credentials: headerCredentials(wish.auth),
      mountFrom: await this.#repositoriesAt(reference.registry),
      ...(wish.signal ? { signal: wish.signal } : {}),
    });
    // From here on that registry gives the same image by this digest.
    const { registry, repository } = reference;
    if (wish.platform === undefined) await this.store.add(image.target, [{ registry, repository, digest }]);
  }

  /** Where in that registry blobs are already, as far as this node pulled or pushed them: they need not be sent again. */
  async #repositoriesAt(registry: string): Promise<(digest: Digest) => readonly string[]> {
    const holders = new Map<Digest, string[]>();
    for (const { repoDigests, platform } of await this.store.list())
      for (const name of repoDigests.map((text) => parseReference(text)).filter((one) => one.registry === registry))
        for (const { digest } of [platform.manifest.config, ...platform.manifest.layers])
          holders.set(digest, [...(holders.get(digest) ?? []), name.repository]);
    return (digest) => holders.get(digest) ?? [];
  }

  /** An image of one layer from the tar of a root file system, packed or not. */
  async import(
    source: AsyncIterable<Uint8Array>,
    wish: { name: string | undefined; comment: string; platform: string | undefined; config: RunConfig },
  ): Promise<Image> {
    const { content, layers, random, platform, clock } = this.#o;
    const { os, architecture, variant } = wish.platform ? parsePlatform(wish.platform, platform) : platform;
    const lease = content.lease('import');
    const parts = { content, layers, random, lease };
    try {
      const layer = await importLayer(parts, `import/${newId(random)}`, source);
      const created = new Date(clock.now()).toISOString();
      const config: ImageConfig = {
        created,
        os,
        architecture,
        ...(variant ? { variant } : {}),
        config: wish.config,
        rootfs: { type: 'layers', diff_ids: [layer.diffId] },
        history: [{ created, comment: wish.comment || 'Imported from -' }],
      };
      const target = await makeImage(parts, config, [layer.descriptor]);
      const names = wish.name === undefined ? [] : [withDefaultTag(parseReference(wish.name))];
      return await this.store.add(target, names);
    } finally {
      lease.release();
    }
  }

  /** `docker load`, packed or not. Unpacked at once, so that the first start is as quick as the second. */
  async load(source: AsyncIterable<Uint8Array>, only?: Platform): Promise<{ image: Image; names: string[] }[]> {
    const { content, platform, random } = this.#o;
    const lease = content.lease('load');
    try {
      const images: { image: Image; names: string[] }[] = [];
      for (const { target, names } of await loadImages(content, unpacked(source), lease, platform, random)) {
        const wanted = only === undefined ? target : (await targetFor(content, target, only)).target;
        const image = await this.store.add(wanted, names);
        await this.store.layersOf(image);
        images.push({ image, names: names.map(familiarReference) });
      }
      return images;
    } finally {
      lease.release();
    }
  }

  /** `docker save` of names or ids. All are looked up before the first byte. */
  async save(names: readonly string[], platform?: Platform): Promise<AsyncIterable<Buffer>> {
    const byTarget = new Map<string, { image: Image; names: string[] }>();
    for (const name of names) {
      const image = await this.get(name, platform);
      const entry = byTarget.get(image.target.digest) ?? { image, names: [] };
      byTarget.set(image.target.digest, entry);
      entry.names.push(...namesSaid(name, image));
    }
    return saveImages(this.#o.content, [...byTarget.values()]);
  }

  history(image: Image): HistoryLine[] {
    const { manifest, config } = image.platform;
    return historyOf(config, manifest.layers, (diffId) => this.#o.layers.get(diffId));
  }

  /** What each instruction added and what is wasted; `top` of the biggest are named. Unpacks what is not unpacked yet. */
  async explain(name: string, top: number, signal?: AbortSignal): Promise<Explanation> {
    const image = await this.store.get(name);
    const survey = await this.#o.layers.survey(await this.store.layersOf(image), top, signal);
    return explanationOf(image, this.history(image), survey);
  }

  /** Another name for an image. */
  tag(name: string, newName: string): Promise<Image> {
    return this.store.tag(name, withoutDigest(newName));
  }

  remove(name: string, wish: { force: boolean }): Promise<{ untagged: string[]; deleted: string[] }> {
    return this.store.remove(name, wish);
  }

  /** Of the images that no container uses those that are wanted, and then what only they needed. */
  async prune(
    wanted: (image: Image) => boolean,
  ): Promise<{ untagged: string[]; deleted: string[]; freedBytes: number }> {
    const before = await this.store.list();
    const deleted = await this.store.prune({ all: true, keep: (image) => !wanted(image) });
    const untagged = before.filter(({ id }) => deleted.includes(id)).flatMap(({ repoTags }) => repoTags);
    return { untagged, deleted, freedBytes: await this.collect() };
  }

  /** REFERENCE_INVALID, REFERENCE_DENIED: what can be said of a name before any registry is asked. */
  check(name: string): void {
    this.#o.registries.resolve(name);
  }

  /** Blobs and layers that nothing needs any more. */
  async collect(): Promise<number> {
    const { keepers } = this.#o;
    const wish = { ...this.#o, roots: keepers.blobs, layerRoots: keepers.layers, graceMs: COLLECT_GRACE_MS };
    return (await collect(wish)).freedBytes;
  }

  /** What a registry says of a name, without pulling it. */
  inspectRemote(name: string, auth: string | undefined, signal?: AbortSignal): Promise<RemoteImage> {
    return this.#o.registries.inspect(name, headerCredentials(auth), signal);
  }

  /** See Registries. */
  search(term: string, auth: string | undefined, signal?: AbortSignal): Promise<string[] | undefined> {
    return this.#o.registries.search(term, headerCredentials(auth), signal);
  }

  async login(registry: string, auth: string): Promise<void> {
    await this.#o.registries.login(registry, headerCredentials(auth));
  }

  /** Bytes that all layers take on disk, each once. */
  layerBytes(): number {
    return this.#o.layers.list().reduce((sum, layer) => sum + layer.contentBytes, 0);
  }

  /** Bytes of its layers that another image stands on as well. */
  async sharedBytes(image: Image): Promise<number> {
    const others = (await this.store.list()).filter((other) => other.target.digest !== image.target.digest);
    const shared = new Set(others.flatMap((other) => other.platform.config.rootfs.diff_ids));
    return image.platform.config.rootfs.diff_ids
      .filter((diffId) => shared.has(diffId))
      .reduce((sum, diffId) => sum + (this.#o.layers.get(diffId)?.contentBytes ?? 0), 0);
  }

  /** What its files hold when unpacked; of layers that are not unpacked yet, what they take as blobs. */
  sizeOf(image: Image): number {
    const { manifest, config } = image.platform;
    return config.rootfs.diff_ids.reduce(
      (sum, diffId, i) => sum + (this.#o.layers.get(diffId)?.contentBytes ?? manifest.layers[i]?.size ?? 0),
      0,
    );
  }

  /**
   * What an image that was committed here stands on: the one whose layers and history are the longest beginning of its own. Others
   * have none, as in Docker: where a pulled image was made, nobody here knows.
   */
  async parentOf(image: Image): Promise<string> {
    const { config } = image.platform;
    if (config.container === undefined) return '';
    const begins = (other: Image): boolean => {
      const { rootfs, history = [] } = other.platform.config;
      return (
        history.length < (config.history?.length ?? 0) &&
        rootfs.diff_ids.every((diffId, i) => diffId === config.rootfs.diff_ids[i]) &&
        history.every((line, i) => JSON.stringify(line) === JSON.stringify(config.history?.[i]))
      );
    };
    const lineCount = (other: Image): number => other.platform.config.history?.length ?? 0;
    const below = (await this.store.list()).filter(begins).sort((a, b) => lineCount(b) - lineCount(a));
    return below[0]?.id ?? '';
  }

  /** Ids of the image and of all that are built on it; none when there is no such image. */
  async standingOn(reference: string): Promise<ReadonlySet<string>> {
    const base = await this.store.find(reference);
    if (!base) return new Set();
    const below = base.platform.config.rootfs.diff_ids;
    const above = (await this.store.list()).filter((image) =>
      below.every((diffId, i) => image.platform.config.rootfs.diff_ids[i] === diffId),
    );
    return new Set([base.id, ...above.map((image) => image.id)]);
  }
}

const platformShape = object(
  { os: string({ nonEmpty: true }), architecture: string({ nonEmpty: true }), variant: optional(string()) },
  { unknown: 'drop' },
);

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text; // the shape says what is wrong with it
  }
}

/** The name that was asked for, and the digest under which the registry will give the same again. */
function namesOf(reference: Reference, pulled: { root: { digest: Reference['digest'] }; host: string }): Reference[] {
  const { registry, repository, tag } = withDefaultTag(reference);
  const tagged: Reference[] = tag === undefined ? [] : [{ registry, repository, tag }];
  // What was made here has no registry that knows its digest.
  if (pulled.host === 'bootstrap' || pulled.root.digest === undefined) return tagged;
  return [...tagged, { registry, repository, digest: pulled.root.digest }];
}

function withoutDigest(name: string): Reference {
  const reference = parseReference(name);
  if (reference.digest !== undefined) return fail('query tag', name, 'is a digest: an image is tagged by a name');
  return reference;
}

/** The tag that was said, or all tags of an image that was named by its id. */
function namesSaid(text: string, image: Image): string[] {
  if (image.id.startsWith(text) || image.id.startsWith(`sha256:${text}`)) return [];
  const said = familiarReference(withDefaultTag(parseReference(text)));
  return image.repoTags.includes(said) ? [said] : [];
}

/** Gunzips an archive that is packed (RFC 1952's first bytes); Docker's clients send either. */
async function* unpacked(source: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]();
  const first = await iterator.next();
  if (first.done) return;
  const whole = (async function* (): AsyncGenerator<Uint8Array> {
    yield first.value;
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value;
  })();
  if (first.value[0] !== 0x1f || first.value[1] !== 0x8b) return yield* whole;
  const gunzip = createGunzip();
  const packed = Readable.from(whole, { objectMode: false });
  packed.on('error', (error) => gunzip.destroy(error));
  yield* packed.pipe(gunzip);
}

/** What happens to images, in Docker's words. An eviction is an untag and a delete that says why. */
export function imageEvent(event: ImageEvent): Omit<NodeEvent, 'atNs'> {
  const action =
    event.type === 'evict' ? (event.name ? 'untag' : 'delete') : event.type === 'add' ? 'create' : event.type;
  return {
    type: 'image',
    action,
    id: event.id,
    attributes: {
      name: event.name ?? event.id,
      ...(event.type === 'evict' ? { because: event.because } : {}),
    },
  };
}
