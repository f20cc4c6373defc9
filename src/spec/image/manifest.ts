import {
  array,
  boolean,
  integer,
  type Out,
  object,
  optional,
  record,
  refine,
  type Shape,
  string,
} from '#base/shape.ts';
import { type Digest, isDigest } from '#spec/image/digest.ts';
import { ManifestInvalid, MediaTypeUnsupported } from '#spec/image/errors.ts';

/**
 * Manifests and indexes of the OCI image specification 1.1 and Docker's schema 2, which differ in their media types only.
 * Unknown fields are kept: a manifest is known by its digest, and its text is never written anew.
 */
export const MEDIA = {
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  ociLayerGzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  ociLayerZstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  ociEmpty: 'application/vnd.oci.empty.v1+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar',
  dockerLayerGzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  dockerForeignGzip: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
} as const;

/** What an Accept header of ours lists, and what `parseManifest` reads. */
export const MANIFEST_MEDIA_TYPES: readonly string[] = [
  MEDIA.ociManifest,
  MEDIA.ociIndex,
  MEDIA.dockerManifest,
  MEDIA.dockerList,
];

/** distribution-spec: a registry should take at least 4 MiB, and nobody sends more. */
export const MANIFEST_MAX_BYTES = 4 * 1024 * 1024;
/** overlayfs stacks at most 500 lower directories (OVL_MAX_STACK). */
export const LAYERS_MAX = 500;
export const INDEX_MAX_ENTRIES = 1000;
/** An index in an index in an index; deeper ones are refused. */
export const INDEX_MAX_DEPTH = 4;
const BLOB_MAX_BYTES = 2 ** 43;

const digest: Shape<Digest> = (value, path) => {
  const text = string()(value, path);
  if (!isDigest(text))
    throw new ManifestInvalid({ what: path, rule: `${JSON.stringify(text.slice(0, 160))} is not a digest` });
  return text;
};

const mediaType = string({
  match: /^[A-Za-z0-9][\w!#$&^.+-]{0,126}\/[A-Za-z0-9][\w!#$&^.+-]{0,126}$/,
  says: 'is not a media type',
});
const annotations = optional(record(string()));

const platform = object(
  {
    os: string(),
    architecture: string(),
    variant: optional(string()),
    'os.version': optional(string()),
    'os.features': optional(array(string())),
  },
  { unknown: 'drop' },
);

const descriptorFields = {
  mediaType,
  digest,
  size: integer({ min: 0, max: BLOB_MAX_BYTES }),
  urls: optional(array(string(), { max: 100 })),
  annotations,
  data: optional(string({ maxLength: MANIFEST_MAX_BYTES })),
  artifactType: optional(string()),
  platform: optional(platform),
};
export const descriptorShape = object(descriptorFields, { unknown: 'keep' });
export type Descriptor = Out<typeof descriptorShape>;

const manifestShape = object(
  {
    schemaVersion: refine(integer(), (v) => (v === 2 ? undefined : 'is not schema version 2')),
    mediaType: optional(string()),
    artifactType: optional(string()),
    config: descriptorShape,
    layers: array(descriptorShape, { max: LAYERS_MAX }),
    subject: optional(descriptorShape),
    annotations,
  },
  { unknown: 'keep' },
);
export type ImageManifest = Out<typeof manifestShape>;

const indexShape = object(
  {
    schemaVersion: refine(integer(), (v) => (v === 2 ? undefined : 'is not schema version 2')),
    mediaType: optional(string()),
    artifactType: optional(string()),
    manifests: array(descriptorShape, { max: INDEX_MAX_ENTRIES }),
    subject: optional(descriptorShape),
    annotations,
  },
  { unknown: 'keep' },
);
export type ImageIndex = Out<typeof indexShape>;

export type AnyManifest =
  | { kind: 'image'; mediaType: string; manifest: ImageManifest }
  | { kind: 'index'; mediaType: string; index: ImageIndex };

/**
 * Parses the bytes of a manifest or an index. `mediaType` is what the registry or a descriptor said; without it the
 * document must say itself. `what` names it in errors.
 */
export function parseManifest(bytes: Uint8Array, mediaType: string | undefined, what: string): AnyManifest {
  if (bytes.length > MANIFEST_MAX_BYTES)
    throw new ManifestInvalid({ what, rule: `is larger than ${MANIFEST_MAX_BYTES} bytes` });
  const json = parseJsonObject(bytes, what);
  const type = checkMediaType(json, mediaType, what);
  switch (type) {
    case MEDIA.ociManifest:
    case MEDIA.dockerManifest:
      return { kind: 'image', mediaType: type, manifest: manifestShape(json, what) };
    case MEDIA.ociIndex:
    case MEDIA.dockerList:
      return { kind: 'index', mediaType: type, index: indexShape(json, what) };
    default:
      throw new MediaTypeUnsupported({ what, mediaType: type });
  }
}

/** One document must not be readable as two things (CVE-2021-41190): fields and media types have to agree. */
function checkMediaType(json: Record<string, unknown>, told: string | undefined, what: string): string {
  const own = json['mediaType'];
  if (own !== undefined && typeof own !== 'string')
    throw new ManifestInvalid({ what, rule: 'its mediaType is not a string' });
  if ('manifests' in json && ('layers' in json || 'config' in json)) {
    throw new ManifestInvalid({ what, rule: 'it has the fields of a manifest and of an index at once' });
  }
  const bare = told?.split(';')[0]?.trim();
  const known =
    bare !== undefined && bare !== '' && bare !== 'application/json' && bare !== 'text/plain' ? bare : undefined;
  if (own !== undefined && known !== undefined && own !== known) {
    throw new ManifestInvalid({ what, rule: `it says it is ${own}, but was sent as ${known}` });
  }
  return (
    own ?? known ?? ('manifests' in json ? MEDIA.ociIndex : 'layers' in json ? MEDIA.ociManifest : 'application/json')
  );
}

/** Image configuration: OCI's config.md and Docker's extensions. */
const runConfig = object(
  {
    User: optional(string()),
    ExposedPorts: optional(record(object({}, { unknown: 'keep' }))),
    Env: optional(array(string())),
    Entrypoint: optional(array(string())),
    Cmd: optional(array(string())),
    Volumes: optional(record(object({}, { unknown: 'keep' }))),
    WorkingDir: optional(string()),
    Labels: optional(record(string())),
    StopSignal: optional(string()),
    StopTimeout: optional(integer()),
    ArgsEscaped: optional(boolean()),
    OnBuild: optional(array(string())),
    Shell: optional(array(string())),
    Healthcheck: optional(
      object(
        {
          Test: optional(array(string())),
          Interval: optional(integer()),
          Timeout: optional(integer()),
          StartPeriod: optional(integer()),
          StartInterval: optional(integer()),
          Retries: optional(integer()),
        },
        { unknown: 'keep' },
      ),
    ),
  },
  { unknown: 'keep' },
);
export type RunConfig = Out<typeof runConfig>;

const configShape = object(
  {
    created: optional(string()),
    author: optional(string()),
    architecture: string(),
    os: string(),
    variant: optional(string()),
    'os.version': optional(string()),
    'os.features': optional(array(string())),
    config: optional(runConfig),
    // Docker's, of images committed from a container: its id, and its own settings before the commit changed them.
    container: optional(string()),
    container_config: optional(runConfig),
    rootfs: object({ type: string(), diff_ids: array(digest, { max: LAYERS_MAX }) }, { unknown: 'keep' }),
    history: optional(
      array(
        object(
          {
            created: optional(string()),
            author: optional(string()),
            created_by: optional(string()),
            comment: optional(string()),
            empty_layer: optional(boolean()),
          },
          { unknown: 'keep' },
        ),
        { max: 10_000 },
      ),
    ),
  },
  { unknown: 'keep' },
);
export type ImageConfig = Out<typeof configShape>;

export function parseImageConfig(bytes: Uint8Array, what: string): ImageConfig {
  if (bytes.length > MANIFEST_MAX_BYTES)
    throw new ManifestInvalid({ what, rule: `is larger than ${MANIFEST_MAX_BYTES} bytes` });
  return configShape(parseJsonObject(bytes, what), what);
}

/** How a layer's bytes are packed, by its media type. */
export type Compression = 'none' | 'gzip' | 'zstd';

export function layerCompression(type: string, what: string): Compression {
  const foreignOci = type.replace('.layer.nondistributable.', '.layer.');
  switch (foreignOci) {
    case MEDIA.ociLayer:
    case MEDIA.dockerLayer:
      return 'none';
    case MEDIA.ociLayerGzip:
    case MEDIA.dockerLayerGzip:
    case MEDIA.dockerForeignGzip:
      return 'gzip';
    case MEDIA.ociLayerZstd:
    case `${MEDIA.dockerLayer}.zstd`:
      return 'zstd';
    default:
      throw new MediaTypeUnsupported({ what, mediaType: type });
  }
}

/** Layers that a registry need not hold: they are fetched from their `urls` and are not pushed by default. */
export function isForeignLayer(type: string): boolean {
  return type.includes('.layer.nondistributable.') || type === MEDIA.dockerForeignGzip;
}

function parseJsonObject(bytes: Uint8Array, what: string): Record<string, unknown> {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new ManifestInvalid({ what, rule: 'is not JSON in UTF-8' }, { cause });
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new ManifestInvalid({ what, rule: 'is not a JSON object' });
  }
  return json as Record<string, unknown>;
}
