import type { Clock } from '#base/clock.ts';
import { defineError, isCode } from '#base/errors.ts';
import { Limiter } from '#base/queue.ts';
import type { Random } from '#base/random.ts';
import type { ContentStore } from '#image/content.ts';
import type { RegistryClient } from '#registry/client/client.ts';
import { ImageNotFound } from '#registry/client/errors.ts';
import type { ProgressSink } from '#registry/client/progress.ts';
import { uploadBlob } from '#registry/client/upload.ts';
import type { Resolution } from '#registry/resolve.ts';
import type { Digest } from '#spec/image/digest.ts';
import {
  type AnyManifest,
  type Descriptor,
  INDEX_MAX_DEPTH,
  isForeignLayer,
  MANIFEST_MAX_BYTES,
  MEDIA,
  parseManifest,
} from '#spec/image/manifest.ts';
import { familiarReference } from '#spec/image/reference.ts';

export interface PushOptions {
  content: ContentStore;
  clientFor(endpoint: Resolution['endpoints'][number]): RegistryClient;
  clock: Clock;
  random: Random;
  onProgress: ProgressSink;
  signal?: AbortSignal;
  mountFrom?: (digest: Digest) => readonly string[];
  chunkBytes?: number;
  parallel?: number;
  /** The registry is this node's own: asked for the name, it links what the node has under it, and nothing need be sent. */
  isOwn?: boolean;
}

export const ImageIncomplete = defineError('IMAGE_INCOMPLETE', (d: { what: string; missing: Digest }) => ({
  message: `${d.what} is not whole here: ${d.missing} is missing`,
  hint: 'pull all its platforms first, or push the image of one platform',
}));

const PARALLEL = 4;

/** Sends what a name stands for, an image or an index with all below it: blobs, then manifests from the leaves to the root. */
export async function push(
  resolution: Resolution,
  root: Digest,
  o: PushOptions,
): Promise<{ digest: Digest; sizeBytes: number }> {
  const { reference } = resolution;
  const endpoint = resolution.endpoints.find((e) => e.role === 'registry');
  if (!endpoint)
    throw new ImageNotFound({ host: reference.registry, what: 'a registry to push to (the table names mirrors only)' });
  const client = o.clientFor(endpoint);
  const name = familiarReference(reference);
  const lease = o.content.lease(`push of ${name}`);
  try {
    o.onProgress({ at: 'manifest', reference: name });
    const nodes = await collect(root, undefined, name, 0, o, lease);
    if (o.isOwn && reference.tag !== undefined) await adopt(client, reference.repository, reference.tag, o);
    await sendBlobs(client, reference.repository, nodes, o);
    // Children first: a registry takes no index whose images it does not have.
    const own = nodes.at(-1);
    for (const node of nodes) {
      const target = node === own ? (reference.tag ?? node.digest) : node.digest;
      const { subjectKnown } = await client.putManifest(
        reference.repository,
        target,
        { bytes: node.bytes, mediaType: node.parsed.mediaType },
        o.signal,
      );
      const subject = subjectOf(node.parsed);
      if (subject && !subjectKnown)
        await addToFallbackTag(client, reference.repository, subject.digest, node, o.signal);
    }
    const sizeBytes = own?.bytes.byteLength ?? 0;
    o.onProgress({ at: 'end', reference: name, digest: root, changed: true, sizeBytes });
    return { digest: root, sizeBytes };
  } finally {
    lease.release();
  }
}

async function adopt(client: RegistryClient, repository: string, tag: string, o: PushOptions): Promise<void> {
  try {
    await client.headManifest(repository, tag, o.signal);
  } catch (error) {
    // Not there, or not for this account to read: then the push sends everything, and says what it may not.
    if (!isCode(error, 'IMAGE_NOT_FOUND', 'REGISTRY_UNAUTHORIZED')) throw error;
  }
}

interface Node {
  digest: Digest;
  bytes: Buffer;
  parsed: AnyManifest;
}

/** The tree below `digest`, leaves first, each once; everything is there or nothing is sent. */
async function collect(
  digest: Digest,
  mediaType: string | undefined,
  what: string,
  depth: number,
  o: PushOptions,
  lease: { add(digest: Digest): void },
): Promise<Node[]> {
  lease.add(digest);
  if (!(await o.content.info(digest))) throw new ImageIncomplete({ what, missing: digest });
  const bytes = await o.content.read(digest, MANIFEST_MAX_BYTES);
  const parsed = parseManifest(bytes, mediaType, `${what}@${digest}`);
  const node: Node = { digest, bytes, parsed };
  if (parsed.kind === 'image') {
    for (const d of [parsed.manifest.config, ...parsed.manifest.layers]) {
      lease.add(d.digest);
      if (!isForeignLayer(d.mediaType) && !(await o.content.info(d.digest)))
        throw new ImageIncomplete({ what, missing: d.digest });
    }
    return [node];
  }
  if (depth >= INDEX_MAX_DEPTH) throw new RangeError(`${what}: indexes are nested deeper than ${INDEX_MAX_DEPTH}`);
  const below: Node[] = [];
  for (const child of parsed.index.manifests) {
    if (below.some((n) => n.digest === child.digest)) continue;
    below.push(...(await collect(child.digest, child.mediaType, what, depth + 1, o, lease)));
  }
  return [...new Map([...below, node].map((n) => [n.digest, n])).values()];
}

async function sendBlobs(
  client: RegistryClient,
  repository: string,
  nodes: readonly Node[],
  o: PushOptions,
): Promise<void> {
  const blobs = new Map<Digest, Descriptor>();
  for (const { parsed } of nodes) {
    if (parsed.kind !== 'image') continue;
    for (const d of [...parsed.manifest.layers, parsed.manifest.config]) blobs.set(d.digest, d);
  }
  const stop = new AbortController();
  const signal = o.signal ? AbortSignal.any([o.signal, stop.signal]) : stop.signal;
  const limiter = new Limiter(o.parallel ?? PARALLEL);
  const send = (d: Descriptor): Promise<void> =>
    limiter.run(async () => {
      signal.throwIfAborted();
      // Foreign layers are not ours to spread: who pulls the image fetches them where they are.
      if (isForeignLayer(d.mediaType)) return o.onProgress({ at: 'layer', digest: d.digest, state: 'foreign' });
      await uploadBlob(client, repository, d.digest, d.size, { ...o, signal });
    });
  for (const d of blobs.values()) o.onProgress({ at: 'layer', digest: d.digest, state: 'waiting' });
  const results = await Promise.allSettled(
    [...blobs.values()].map((d) =>
      send(d).catch((error: unknown) => {
        stop.abort(error);
        throw error;
      }),
    ),
  );
  if (results.some((r) => r.status === 'rejected')) throw stop.signal.reason;
}

function subjectOf(parsed: AnyManifest): Descriptor | undefined {
  return parsed.kind === 'image' ? parsed.manifest.subject : parsed.index.subject;
}

/** What a registry without referrers wants of its clients (distribution spec, "Pushing Manifests with Subject"). */
async function addToFallbackTag(
  client: RegistryClient,
  repository: string,
  subject: Digest,
  node: Node,
  signal: AbortSignal | undefined,
): Promise<void> {
  const tag = subject.replace(':', '-').slice(0, subject.indexOf(':') + 1 + 64);
  const present = await client.manifest(repository, tag, signal).catch((error: unknown) => {
    if (isCode(error, 'IMAGE_NOT_FOUND')) return undefined;
    throw error;
  });
  const known = present && parseManifest(present.bytes, present.mediaType, tag);
  const manifests = known?.kind === 'index' ? known.index.manifests : [];
  if (manifests.some((d) => d.digest === node.digest)) return;
  const index = { schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests: [...manifests, referrerOf(node)] };
  const bytes = Buffer.from(JSON.stringify(index));
  await client.putManifest(repository, tag, { bytes, mediaType: MEDIA.ociIndex }, signal);
}

function referrerOf({ digest, bytes, parsed }: Node): object {
  const own = parsed.kind === 'image' ? parsed.manifest : parsed.index;
  const artifactType = own.artifactType || (parsed.kind === 'image' ? parsed.manifest.config.mediaType : undefined);
  return {
    mediaType: parsed.mediaType,
    digest,
    size: bytes.byteLength,
    ...(artifactType ? { artifactType } : {}),
    ...(own.annotations ? { annotations: own.annotations } : {}),
  };
}
