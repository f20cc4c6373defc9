import { isCode, messageOf } from '#base/errors.ts';
import { array, integer, object, optional, record, refine, type Shape, string } from '#base/shape.ts';
import { refuse } from '#registry/server/errors.ts';
import { type Digest, isDigest } from '#spec/image/digest.ts';

/**
 * What the server has to know of a manifest: its type, what must be there before it is taken, and what it refers to. It
 * stores and serves the bytes as they came; artifacts of unknown types are as welcome as images.
 */
export interface ManifestFacts {
  mediaType: string;
  /** Blobs that must be linked in the repository: config and layers. */
  blobs: Digest[];
  /** Manifests that must be in the repository: the children of an index. */
  manifests: Digest[];
  subject?: Digest;
  artifactType?: string;
}

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
/** Schema 1 is signed, has no config and was dropped by Docker 20.10's push: refused with a clear word. */
const SCHEMA_1 = /^application\/vnd\.docker\.distribution\.manifest\.v1\+(json|prettyjws)$/;

/** References of one manifest; each costs a look-up, and no image comes near. */
const REFERENCES_MAX = 4096;
const MEDIA_TYPE: Shape<string> = string({ maxLength: 255, match: /^[\x21-\x7e]*$/, says: 'is not a media type' });

const Descriptor = object({
  mediaType: optional(MEDIA_TYPE),
  digest: refine(string(), (d) => (isDigest(d) ? undefined : 'is not a sha256 or sha512 digest')),
  size: integer({ min: 0 }),
  urls: optional(array(string())),
  annotations: optional(record(string())),
});

const Manifest = object({
  schemaVersion: optional(integer()),
  mediaType: optional(MEDIA_TYPE),
  artifactType: optional(MEDIA_TYPE),
  config: optional(Descriptor),
  layers: optional(array(Descriptor, { max: REFERENCES_MAX })),
  /** OCI 1.1 release candidates' artifact manifest; ORAS still pushes it. */
  blobs: optional(array(Descriptor, { max: REFERENCES_MAX })),
  manifests: optional(array(Descriptor, { max: REFERENCES_MAX })),
  subject: optional(Descriptor),
  annotations: optional(record(string())),
});

/** Refuses with MANIFEST_INVALID. `contentType` is the request's, without parameters, or ''. */
export function readManifest(bytes: Buffer, contentType: string): ManifestFacts {
  const parsed = decode(bytes);
  if (SCHEMA_1.test(contentType)) {
    refuse(
      'MANIFEST_INVALID',
      'Docker schema 1 manifests are not taken; push with a client of this decade (schema 2 or OCI)',
    );
  }
  if (parsed.mediaType && contentType && contentType !== parsed.mediaType) {
    refuse('MANIFEST_INVALID', `Content-Type is ${contentType}, the manifest's mediaType ${parsed.mediaType}`);
  }
  const mediaType = parsed.mediaType || contentType || (parsed.manifests ? OCI_INDEX : OCI_MANIFEST);
  if ((mediaType === OCI_MANIFEST || mediaType === DOCKER_MANIFEST) && !(parsed.config && parsed.layers)) {
    refuse('MANIFEST_INVALID', 'an image manifest needs config and layers');
  }
  if ((mediaType === OCI_INDEX || mediaType === DOCKER_LIST) && !parsed.manifests) {
    refuse('MANIFEST_INVALID', 'an index needs manifests');
  }
  // Foreign layers are fetched from their own place (image-spec, "Non-Distributable Layers"): they need not be here.
  const layers = [...(parsed.layers ?? []), ...(parsed.blobs ?? [])].filter((d) => !isForeign(d));
  const artifactType = parsed.artifactType || (parsed.manifests ? undefined : parsed.config?.mediaType);
  return {
    mediaType,
    blobs: [...(parsed.config ? [parsed.config] : []), ...layers].map((d) => d.digest as Digest),
    manifests: (parsed.manifests ?? []).map((d) => d.digest as Digest),
    ...(parsed.subject ? { subject: parsed.subject.digest as Digest } : {}),
    ...(artifactType ? { artifactType } : {}),
  };
}

/** Annotations of a manifest that was taken before, for referrer lists. */
export function annotationsOf(bytes: Buffer): Record<string, string> | undefined {
  return decode(bytes).annotations;
}

/** Children of an index with their platforms, for clients that do not understand an index. */
export function childrenOf(
  bytes: Buffer,
): { digest: Digest; mediaType?: string; os?: string; architecture?: string }[] {
  const Child = object({
    digest: string(),
    mediaType: optional(string()),
    platform: optional(object({ os: optional(string()), architecture: optional(string()) })),
  });
  const { manifests = [] } = object({ manifests: optional(array(Child)) })(JSON.parse(bytes.toString('utf8')), '$');
  return manifests.map(({ digest, mediaType, platform }) => ({
    digest: digest as Digest,
    ...(mediaType === undefined ? {} : { mediaType }),
    ...platform,
  }));
}

function isForeign(layer: { mediaType?: string; urls?: string[] }): boolean {
  return /nondistributable|\.foreign\./.test(layer.mediaType ?? '') || (layer.urls?.length ?? 0) > 0;
}

function decode(bytes: Buffer): ReturnType<typeof Manifest> {
  try {
    return Manifest(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)), '$');
  } catch (error) {
    if (isCode(error, 'INVALID_VALUE')) refuse('MANIFEST_INVALID', error.message);
    return refuse('MANIFEST_INVALID', `not JSON: ${messageOf(error)}`);
  }
}
