import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { NodeOptions } from '#app/node.ts';
import { logger } from '#base/log.ts';
import { Builder } from '#build/builder.ts';
import type { ImageWish } from '#build/node.ts';
import { devicesOf } from '#engine/core/devices.ts';
import type { Engine, Floors } from '#engine/core/engine.ts';
import type { Image, ProgressSink } from '#engine/core/images.ts';
import { NodeNetworkSource } from '#engine/core/network-source.ts';
import { ShimProcesses } from '#engine/core/processes.ts';
import { Overlays } from '#image/overlays.ts';
import { readXattrs } from '#image/xattrs.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { entryFor } from '#registry/client/credentials.ts';
import { parsePlatform, samePlatform } from '#spec/image/platform.ts';
import { parseReference } from '#spec/image/reference.ts';

/** The builder on a node's floors: its commands run as the engine's containers do, and are swept with their orphans. */
export async function openBuilder(floors: Floors, engine: Engine, options: NodeOptions): Promise<Builder> {
  const { dataRoot, runRoot } = options;
  const { spawner, snapshots, networks, seccomp, files, clock, host, ociHost } = floors;
  const runPlan = (plan: Plan): Promise<unknown> => spawner.run(plan);
  const overlays = await Overlays.open({
    directory: join(runRoot, 'build-roots'),
    snapshots,
    runPlan,
    kernelRelease: ociHost.kernelRelease,
  });
  return Builder.open({
    ...floors,
    overlays,
    sandbox: {
      intents: join(runRoot, 'build-sandboxes'),
      network: new NodeNetworkSource({ networks, filesDir: join(runRoot, 'files'), runPlan }),
      processes: new ShimProcesses({
        spawner,
        shims: join(runRoot, 'shims'),
        root: join(runRoot, 'oci'),
        host: () => host,
        files,
        seccomp,
        clock,
      }),
      host: ociHost,
      cgroupParent: engine.settings.cgroupParent,
      devices: devicesOf,
    },
    image: (reference, wish) => findOrPull(floors, engine, reference, wish),
    readXattrs: (directory) => readXattrs(directory, runPlan, runRoot),
    runDirectory: join(runRoot, 'build'),
    dataDirectory: join(dataRoot, 'build'),
    budgetBytes: options.imageBudgetBytes,
    log: logger('build'),
    parallel: Math.max(2, availableParallelism()),
  });
}

/** Unpacked as well: the next step stands on it. */
async function findOrPull(
  { platform: here }: Floors,
  { images }: Engine,
  reference: string,
  { platform, always, auth, note, signal }: ImageWish,
): Promise<Image> {
  const wanted = parsePlatform(platform, here);
  const present = always ? undefined : await images.store.find(reference);
  if (present && samePlatform(platformOf(present), wanted)) {
    await images.store.layersOf(present);
    return present;
  }
  note(`Pulling ${reference}`);
  const onProgress: ProgressSink = (event) => {
    if (event.at === 'note') note(event.text);
  };
  const credentials = credentialsOf(auth, parseReference(reference).registry);
  return images.pull(reference, {
    ...(samePlatform(wanted, here) ? {} : { platform }),
    ...(credentials ? { auth: credentials } : {}),
    onProgress,
    signal,
  });
}

function platformOf({ platform: { config } }: Image): { os: string; architecture: string; variant?: string } {
  return { os: config.os, architecture: config.architecture, ...(config.variant ? { variant: config.variant } : {}) };
}

/** As `X-Registry-Auth` has them. */
function credentialsOf(auth: ImageWish['auth'], registry: string): string | undefined {
  const found = entryFor(registry, auth);
  return found && Buffer.from(JSON.stringify(found)).toString('base64url');
}
