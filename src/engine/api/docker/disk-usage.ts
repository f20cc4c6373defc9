import { imageSummary } from '#engine/api/docker/image-json.ts';
import { containerSummary } from '#engine/api/docker/list.ts';
import { volumeJson } from '#engine/api/docker/volumes.ts';
import { compareVersions } from '#engine/api/version.ts';
import type { Engine } from '#engine/core/engine.ts';
import type { ContainerSummary, ImageSummary, Volume } from '#spec/docker/types.gen.ts';

/** Where the disk went (`docker system df`): reading it walks what containers and volumes wrote. */
export async function diskUsage(
  engine: Engine,
  wish: { types: readonly string[]; version: string; nowMs: number },
): Promise<object> {
  const wanted = (type: string): boolean => wish.types.length === 0 || wish.types.includes(type);
  const [images, containers, volumes] = await Promise.all([
    wanted('image') ? imagesUsage(engine, wish.version) : [],
    wanted('container') ? containersUsage(engine, wish.nowMs) : [],
    wanted('volume') ? volumesUsage(engine) : [],
  ]);
  return {
    LayersSize: engine.images.layerBytes(),
    Images: images,
    Containers: containers,
    Volumes: volumes,
    // What a build keeps are ordinary blobs and layers: they are counted there.
    BuildCache: [],
    ...(compareVersions(wish.version, '1.42') < 0 ? { BuilderSize: 0 } : {}),
  };
}

async function imagesUsage({ images, containers }: Engine, version: string): Promise<ImageSummary[]> {
  const records = containers.list();
  return Promise.all(
    (await images.store.list()).map(async (image) =>
      imageSummary(image, {
        sizeBytes: images.sizeOf(image),
        sharedBytes: await images.sharedBytes(image),
        containers: records.filter((r) => r.image.id === image.id).length,
        version,
      }),
    ),
  );
}

function containersUsage(engine: Engine, nowMs: number): Promise<ContainerSummary[]> {
  const { containers } = engine;
  return Promise.all(
    containers
      .list()
      .map(async (r) => ({ ...containerSummary(r, nowMs), ...sizesJson(await containerSizes(engine, r)) })),
  );
}

async function volumesUsage({ volumes }: Engine): Promise<Volume[]> {
  return Promise.all(
    volumes.list().map(async (volume) => ({
      ...volumeJson(volume),
      UsageData: { Size: await volumes.usage(volume.name), RefCount: volumes.usersOf(volume.name).length },
    })),
  );
}

/** What a container wrote, and all that it sees. */
export async function containerSizes(
  { roots, images }: Engine,
  { id, image: { id: imageId } }: { id: string; image: { id: string } },
): Promise<{ rw: number; root: number }> {
  const { bytes } = await roots.usage(id);
  const image = await images.store.find(imageId);
  return { rw: bytes, root: bytes + (image ? images.sizeOf(image) : 0) };
}

export function sizesJson({ rw, root }: { rw: number; root: number }): { SizeRw: number; SizeRootFs: number } {
  return { SizeRw: rw, SizeRootFs: root };
}
