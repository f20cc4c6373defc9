import { dockerTime } from '#engine/api/docker/time.ts';
import { compareVersions } from '#engine/api/version.ts';
import type { Image, ManifestFacts, NodeImages } from '#engine/core/images.ts';
import type {
  ImageHistoryResponseItem,
  ImageInspect,
  ImageManifestSummary,
  ImageSummary,
  ImageConfig as InspectConfig,
  OCIDescriptor,
} from '#spec/docker/types.gen.ts';
import type { Descriptor } from '#spec/image/manifest.ts';

const NO_NAME = '<none>:<none>';
const NO_DIGEST = '<none>@<none>';

/** One line of `docker images`. Docker's clients before 1.43 want a name for what has none. */
export function imageSummary(
  image: Image,
  facts: {
    sizeBytes: number;
    sharedBytes?: number;
    containers?: number;
    manifests?: readonly ImageManifestSummary[];
    version: string;
  },
): ImageSummary {
  const { config } = image.platform.config;
  const dangling = image.repoTags.length === 0 && compareVersions(facts.version, '1.43') < 0;
  return {
    Id: image.id,
    ParentId: '',
    RepoTags: dangling ? [NO_NAME] : image.repoTags,
    RepoDigests: dangling && image.repoDigests.length === 0 ? [NO_DIGEST] : image.repoDigests,
    Created: createdSeconds(image),
    Size: facts.sizeBytes,
    // Gone since API 1.44; the clients before print it.
    ...(compareVersions(facts.version, '1.44') < 0 ? { VirtualSize: facts.sizeBytes } : {}),
    SharedSize: facts.sharedBytes ?? -1,
    Labels: config?.Labels ?? null,
    Containers: facts.containers ?? -1,
    ...(compareVersions(facts.version, '1.48') < 0 ? {} : { Descriptor: descriptorOf(image.target) }),
    ...(facts.manifests ? { Manifests: [...facts.manifests] } : {}),
  };
}

/** One entry of `Manifests`. `usersOf`: the containers of an image. */
export function manifestSummary(facts: ManifestFacts, usersOf: (imageId: string) => string[]): ImageManifestSummary {
  const { descriptor, isWhole, contentBytes, kind, platform, imageId, unpackedBytes, attests } = facts;
  return {
    ID: descriptor.digest,
    Descriptor: descriptorOf(descriptor),
    Available: isWhole,
    Size: { Content: contentBytes, Total: contentBytes + unpackedBytes },
    Kind: kind,
    ...(kind === 'image' && platform
      ? {
          ImageData: {
            Platform: platform,
            Containers: imageId === undefined ? [] : usersOf(imageId),
            Size: { Unpacked: unpackedBytes },
          },
        }
      : {}),
    ...(attests === undefined ? {} : { AttestationData: { For: attests } }),
  };
}

export function imageInspect(
  image: Image,
  images: NodeImages,
  version: string,
  facts: { parent: string; manifests?: readonly ImageManifestSummary[] },
): ImageInspect {
  const { config } = image.platform;
  const size = images.sizeOf(image);
  const run = config.config ?? {};
  const before = (limit: string): boolean => compareVersions(version, limit) < 0;
  return {
    Id: image.id,
    RepoTags: image.repoTags,
    RepoDigests: image.repoDigests,
    Parent: facts.parent,
    Comment: config.history?.at(-1)?.comment ?? '',
    Created: config.created ?? (before('1.44') ? dockerTime(0) : ''),
    ...(before('1.45') ? { Container: config.container ?? '', ContainerConfig: config.container_config ?? null } : {}),
    DockerVersion: '',
    Author: config.author ?? '',
    Config: inspectConfig(run),
    Architecture: config.architecture,
    ...(config.variant ? { Variant: config.variant } : {}),
    Os: config.os,
    Size: size,
    ...(before('1.44') ? { VirtualSize: size } : {}),
    GraphDriver: { Name: 'overlay2', Data: {} },
    RootFS: { Type: 'layers', Layers: config.rootfs.diff_ids },
    Metadata: { LastTagTime: dockerTime(image.createdAtMs) },
    ...(before('1.48') ? {} : { Descriptor: descriptorOf(image.target) }),
    ...(facts.manifests ? { Manifests: [...facts.manifests] } : {}),
  };
}

function inspectConfig(run: NonNullable<Image['platform']['config']['config']>): InspectConfig {
  return {
    ...run,
    User: run.User ?? '',
    Env: run.Env ?? null,
    Cmd: run.Cmd ?? null,
    Entrypoint: run.Entrypoint ?? null,
    WorkingDir: run.WorkingDir ?? '',
    Volumes: run.Volumes ?? null,
    Labels: run.Labels ?? null,
    OnBuild: run.OnBuild ?? null,
  } as InspectConfig;
}

/** `docker history`, the uppermost line first. A line's image is known only where it is this one. */
export function imageHistory(image: Image, images: NodeImages): ImageHistoryResponseItem[] {
  return images
    .history(image)
    .reverse()
    .map((line, i) => ({
      Id: i === 0 ? image.id : '<missing>',
      Created: line.created === undefined ? 0 : Math.floor(Date.parse(line.created) / 1000),
      CreatedBy: line.createdBy,
      Tags: i === 0 && image.repoTags.length > 0 ? image.repoTags : null,
      Size: line.layer?.contentBytes ?? 0,
      Comment: line.comment,
    }));
}

function descriptorOf({ mediaType, digest, size, platform, annotations }: Descriptor): OCIDescriptor {
  return { mediaType, digest, size, ...(platform ? { platform } : {}), ...(annotations ? { annotations } : {}) };
}

function createdSeconds(image: Image): number {
  const ms = Date.parse(image.platform.config.created ?? '');
  return Math.floor((Number.isNaN(ms) ? image.createdAtMs : ms) / 1000);
}
