import { newId, type Random } from '#base/random.ts';
import { array, object, optional, string } from '#base/shape.ts';
import { type ContentLease, type ContentStore, type Ingest, writeBlob } from '#image/content.ts';
import { ArchiveInvalid } from '#image/errors.ts';
import { imageFor } from '#image/graph.ts';
import type { TarEntry } from '#image/tar/entry.ts';
import { TarReader } from '#image/tar/reader.ts';
import { type Digest, digestOf } from '#spec/image/digest.ts';
import { type Descriptor, MANIFEST_MAX_BYTES, MEDIA, parseImageConfig, parseManifest } from '#spec/image/manifest.ts';
import type { Platform } from '#spec/image/platform.ts';
import { parseReference, type Reference, withDefaultTag } from '#spec/image/reference.ts';

/** An image that an archive brought: what to add to the image store under which names. */
export interface Loaded {
  target: Pick<Descriptor, 'digest' | 'mediaType' | 'size'>;
  names: Reference[];
}

/**
 * `docker load`: Docker archives of all ages and OCI layouts, as one tar (not compressed). Every member becomes a blob
 * first; then the documents say what is what. Leased until the caller has named the images.
 */
export async function loadImages(
  content: ContentStore,
  source: AsyncIterable<Uint8Array>,
  lease: ContentLease,
  platform: Platform,
  random: Random,
): Promise<Loaded[]> {
  const members = await readMembers(content, source, lease, newId(random));
  const isLayout = members.has('index.json') && members.has('oci-layout');
  const loaded = isLayout ? await fromLayout(content, members) : await fromDocker(content, members, lease);
  // Whole and readable, or not loaded: an archive that lacks a blob of ours is refused here, not when it is run.
  for (const { target } of loaded) await checkWhole(content, target, platform);
  return loaded;
}

interface Member {
  digest: Digest;
  sizeBytes: number;
}

const MEMBERS_MAX = 20_000;

/** Members as blobs, by path; links lead to what they name (old Docker archives link equal layers). */
async function readMembers(
  content: ContentStore,
  source: AsyncIterable<Uint8Array>,
  lease: ContentLease,
  transfer: string,
): Promise<Map<string, Member>> {
  const members = new Map<string, Member>();
  const links: [path: string, target: string][] = [];
  const pending: { entry: TarEntry; chunks: Buffer[]; ended: boolean }[] = [];
  const reader = new TarReader('image archive', {
    entry: (entry) => pending.push({ entry, chunks: [], ended: false }),
    data: (chunk) => pending.at(-1)?.chunks.push(chunk),
    end: () => {
      const last = pending.at(-1);
      if (last) last.ended = true;
    },
  });
  let open: { entry: TarEntry; ingest: Ingest } | undefined;
  const drain = async (): Promise<void> => {
    for (const { entry, chunks, ended } of pending.splice(0)) {
      if (entry.type === 'symlink' || entry.type === 'hardlink') links.push([entry.path, linkTarget(entry)]);
      if (entry.type !== 'file') continue;
      if (members.size + links.length > MEMBERS_MAX)
        throw new ArchiveInvalid({ rule: `it has more than ${MEMBERS_MAX} members` });
      open ??= { entry, ingest: await content.ingest(`load/${transfer}/${members.size}`) };
      for (const chunk of chunks) await open.ingest.append(Buffer.from(chunk));
      if (!ended) {
        pending.unshift({ entry, chunks: [], ended: false });
        break;
      }
      const { ingest } = open;
      open = undefined;
      const blob = await ingest.commit();
      lease.add(blob.digest);
      members.set(entry.path, blob);
    }
  };
  try {
    for await (const chunk of source) {
      reader.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
      await drain();
    }
    reader.finish();
    await drain();
  } finally {
    await open?.ingest.abort();
  }
  for (const [path, target] of links) {
    const found = members.get(target);
    if (found) members.set(path, found);
  }
  return members;
}

function linkTarget(entry: TarEntry): string {
  if (entry.type === 'hardlink') return entry.linkTarget;
  const parts = entry.path.split('/').slice(0, -1);
  for (const part of entry.linkTarget.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return parts.join('/');
}

// -- OCI layouts

async function fromLayout(content: ContentStore, members: ReadonlyMap<string, Member>): Promise<Loaded[]> {
  const parsed = parseManifest(await document(content, members, 'index.json'), MEDIA.ociIndex, 'index.json');
  if (parsed.kind !== 'index') throw new ArchiveInvalid({ rule: 'its index.json is no index' });
  const byTarget = new Map<Digest, Loaded>();
  for (const entry of parsed.index.manifests) {
    const loaded = byTarget.get(entry.digest) ?? { target: entry, names: [] };
    byTarget.set(entry.digest, loaded);
    const name = nameOf(entry.annotations ?? {});
    if (name) loaded.names.push(name);
  }
  return [...byTarget.values()];
}

/** The whole name as containerd and Docker write it; a tag alone names nothing. */
function nameOf(annotations: Record<string, string>): Reference | undefined {
  const whole = annotations['io.containerd.image.name'];
  const ref = annotations['org.opencontainers.image.ref.name'];
  if (whole !== undefined) return withDefaultTag(parseReference(whole));
  return ref !== undefined && /[/:]/.test(ref) ? withDefaultTag(parseReference(ref)) : undefined;
}

// -- Docker archives: manifest.json names a configuration and layers by path

const dockerManifest = array(
  object({
    Config: string({ nonEmpty: true }),
    RepoTags: optional(array(string())),
    Layers: array(string(), { max: 500 }),
  }),
  { max: 1000 },
);

async function fromDocker(
  content: ContentStore,
  members: ReadonlyMap<string, Member>,
  lease: ContentLease,
): Promise<Loaded[]> {
  const text = await document(content, members, 'manifest.json');
  const loaded: Loaded[] = [];
  for (const { Config, RepoTags, Layers } of dockerManifest(parseJson(text), '$')) {
    const config = memberAt(members, Config);
    const layers = await Promise.all(Layers.map((path) => layerDescriptor(content, memberAt(members, path))));
    const parsed = parseImageConfig(await content.read(config.digest, MANIFEST_MAX_BYTES), Config);
    if (parsed.rootfs.diff_ids.length !== layers.length) {
      throw new ArchiveInvalid({
        rule: `${Config} tells of ${parsed.rootfs.diff_ids.length} layers, manifest.json of ${layers.length}`,
      });
    }
    const manifest = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MEDIA.ociManifest,
        config: { mediaType: MEDIA.ociConfig, digest: config.digest, size: config.sizeBytes },
        layers,
      }),
    );
    const { digest, sizeBytes } = await writeBlob(content, `load/manifest/${digestOf(manifest)}`, [manifest]);
    lease.add(digest);
    const names = (RepoTags ?? []).map((tag) => withDefaultTag(parseReference(tag)));
    loaded.push({ target: { mediaType: MEDIA.ociManifest, digest, size: sizeBytes }, names });
  }
  return loaded;
}

async function layerDescriptor(
  content: ContentStore,
  { digest, sizeBytes }: Member,
): Promise<{ mediaType: string; digest: Digest; size: number }> {
  const head: Buffer[] = [];
  for await (const chunk of await content.open(digest, { length: 4 })) head.push(chunk);
  return { mediaType: layerMediaType(Buffer.concat(head)), digest, size: sizeBytes };
}

/** Old archives hold plain tars; newer ones whatever the blob was. Told by their first bytes (RFC 1952, RFC 8878). */
export function layerMediaType(head: Buffer): string {
  if (head[0] === 0x1f && head[1] === 0x8b) return MEDIA.ociLayerGzip;
  if (head.length >= 4 && head.readUInt32LE(0) === 0xfd2fb528) return MEDIA.ociLayerZstd;
  return MEDIA.ociLayer;
}

function memberAt(members: ReadonlyMap<string, Member>, path: string): Member {
  const found = members.get(path.replace(/^\.\//, ''));
  if (!found) throw new ArchiveInvalid({ rule: `${JSON.stringify(path.slice(0, 200))} is missing` });
  return found;
}

async function document(content: ContentStore, members: ReadonlyMap<string, Member>, path: string): Promise<Buffer> {
  return content.read(memberAt(members, path).digest, MANIFEST_MAX_BYTES);
}

function parseJson(text: Buffer): unknown {
  try {
    return JSON.parse(text.toString());
  } catch (cause) {
    throw new ArchiveInvalid({ rule: 'its manifest.json is not JSON' }, { cause });
  }
}

async function checkWhole(content: ContentStore, target: Loaded['target'], platform: Platform): Promise<void> {
  const { manifest } = await imageFor(content, target, platform);
  for (const layer of manifest.layers) {
    if (!(await content.info(layer.digest))) throw new ArchiveInvalid({ rule: `layer ${layer.digest} is missing` });
  }
}
