import { existsSync } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { Random } from '#base/random.ts';
import type { CommitParts } from '#engine/core/commit.ts';
import { ContainerFiles } from '#engine/core/container-files.ts';
import { Containers } from '#engine/core/containers.ts';
import { devicesOf } from '#engine/core/devices.ts';
import type { Events } from '#engine/core/events.ts';
import { ForeignProcesses } from '#engine/core/foreign.ts';
import { type Keepers, NodeImages } from '#engine/core/images.ts';
import { Insight } from '#engine/core/insight/insight.ts';
import { LogPacker } from '#engine/core/log-packer.ts';
import { NodeNetworkSource } from '#engine/core/network-source.ts';
import { NodeNetworks } from '#engine/core/node-networks.ts';
import { NodeProcesses } from '#engine/core/node-processes.ts';
import type { OciHost } from '#engine/core/oci.ts';
import { ShimProcesses } from '#engine/core/processes.ts';
import { isRunning } from '#engine/core/record.ts';
import { ContainerRegistry } from '#engine/core/registry.ts';
import { OverlayRoots } from '#engine/core/roots.ts';
import { OUR_RUNTIME_ALONE, type RuntimeSettings, Runtimes } from '#engine/core/runtimes.ts';
import { NodeSandboxes } from '#engine/core/sandboxes.ts';
import type { StatsParts } from '#engine/core/stats.ts';
import type { SystemFacts } from '#engine/core/system.ts';
import { NodeVolumeSource, volumeUses } from '#engine/core/volume-source.ts';
import { NodeVolumes } from '#engine/core/volumes.ts';
import type { ContentStore } from '#image/content.ts';
import type { ImageStore } from '#image/images.ts';
import type { LayerStore } from '#image/layers.ts';
import type { SnapshotStore } from '#image/snapshots.ts';
import type { Files } from '#kernel/files.ts';
import type { Plan, Step } from '#kernel/plan/plan.ts';
import type { SeccompCache } from '#kernel/seccomp/cache.ts';
import type { Networks } from '#network/networks.ts';
import type { Registries } from '#registry/registries.ts';
import type { Host } from '#runtime/host.ts';
import { Shim } from '#shim/shim.ts';
import type { Spawner } from '#shim/spawner.ts';
import type { Platform } from '#spec/image/platform.ts';
import type { Store } from '#storage/store.ts';
import { Volumes } from '#volume/volumes.ts';

/** The floors an engine stands on, open already; `app` chooses them. */
export interface Floors {
  store: Store;
  content: ContentStore;
  layers: LayerStore;
  snapshots: SnapshotStore;
  images: ImageStore;
  registries: Registries;
  networks: Networks;
  spawner: Spawner;
  /** Address of a host name, for volumes of other machines. */
  lookup: (host: string) => Promise<string>;
  seccomp: SeccompCache;
  files: Files;
  events: Events;
  clock: Clock;
  random: Random;
  log: Logger;
  /** Facts of the machine for planners. */
  host: Host;
  ociHost: OciHost;
  platform: Platform;
  keepers: Keepers;
  /** See NodeImagesOptions. */
  budgetBytes?: number;
  system: SystemFacts;
}

export interface EngineSettings {
  /** `D/containers/ID`: logs. */
  dataRoot: string;
  /** `R/shims`, `R/oci`, `R/bundles`, `R/roots`, `R/files`: all that a reboot takes. */
  runRoot: string;
  /** Parent of all cgroups, `/estiba`. */
  cgroupParent: string;
  stopGraceMs: number;
  /** As the daemon was told; for `docker info`. */
  registryMirrors: readonly string[];
  insecureRegistries: readonly string[];
  /** Absent: ours alone. */
  runtimes?: RuntimeSettings;
}

/** One node's containers with their images and networks: what the Docker API, the CRI and the node agent each put into words. */
export interface Engine {
  containers: Containers;
  sandboxes: NodeSandboxes;
  images: NodeImages;
  networks: Networks;
  /** The same, with the containers that stand in them. */
  nodeNetworks: NodeNetworks;
  roots: OverlayRoots;
  volumes: NodeVolumes;
  files: ContainerFiles;
  /** What a commit takes. */
  commits: CommitParts;
  insight: Insight;
  /** What shows present use. */
  stats: StatsParts;
  events: Events;
  settings: EngineSettings;
  runtimes: Runtimes;
  system: SystemFacts;
  /** Files of ours that a container sees: `/etc/hosts`, `/etc/resolv.conf`, `/etc/hostname`. */
  filesDir: (id: string) => string;
  logPath: (id: string) => string;
  /** Finds what an earlier daemon left: containers that run on, what a crash left half done, restart policies. */
  recover(): Promise<void>;
  /** Ends timers; containers run on. */
  close(): Promise<void>;
}

export async function openEngine(floors: Floors, settings: EngineSettings): Promise<Engine> {
  const { dataRoot, runRoot } = settings;
  const logPath = (id: string): string => join(dataRoot, 'containers', id, `${id}-json.log`);
  const filesDir = join(runRoot, 'files');
  const logsDir = join(dataRoot, 'containers');
  const logLeavings = (id: string): Step[] => {
    const because = `logs of container ${id} go with it`;
    return [{ op: 'removeTree', where: 'host', because, path: join(logsDir, id) }];
  };
  await mkdir(logsDir, { recursive: true, mode: 0o711 });
  await mkdir(filesDir, { recursive: true, mode: 0o711 });
  const emptyFile = join(runRoot, 'empty');
  await writeFile(emptyFile, '', { mode: 0o644 });
  const roots = await OverlayRoots.open({
    images: floors.images,
    snapshots: floors.snapshots,
    runPlan: (plan) => floors.spawner.run(plan),
    dir: join(runRoot, 'roots'),
    bottoms: join(dataRoot, 'bottoms'),
    kernelRelease: floors.ociHost.kernelRelease,
    readInside: floors.host.readInside,
  });
  const registry = await ContainerRegistry.open(floors.store);
  const runPlan = (plan: Plan): Promise<unknown> => floors.spawner.run(plan);
  const volumes = await Volumes.open({ ...floors, dataRoot, runRoot, runPlan }, volumeUses(registry.list()));
  const nodeVolumes = new NodeVolumes(volumes, floors.events);
  const tools = { runPlan, scratch: runRoot };
  const volumeSource = new NodeVolumeSource({ volumes, node: nodeVolumes, tools });
  const images = new NodeImages(floors);
  const shimOptions = {
    spawner: floors.spawner,
    shims: join(runRoot, 'shims'),
    host: () => floors.host,
    files: floors.files,
    clock: floors.clock,
  };
  const runtimes = new Runtimes(settings.runtimes ?? OUR_RUNTIME_ALONE);
  runtimes.find(runtimes.fallback); // asked for by name it must be there
  const processes = new NodeProcesses(
    new ShimProcesses({ ...shimOptions, root: join(runRoot, 'oci'), seccomp: floors.seccomp }),
    new ForeignProcesses({ ...shimOptions, runRoot, runtimes, log: floors.log }),
    runtimes,
  );
  const sandboxes = await NodeSandboxes.open({
    dir: join(runRoot, 'sandboxes'),
    networks: floors.networks,
    run: (plan) => floors.spawner.run(plan),
    initBinary: floors.ociHost.initBinary,
    random: floors.random,
    log: floors.log,
  });
  const network = new NodeNetworkSource({
    runPlan,
    networks: floors.networks,
    filesDir,
    tell: (action, id, container) => {
      const { name, driver } = floors.networks.find(id);
      floors.events.publish({ type: 'network', action, id, attributes: { container, name, type: driver } });
    },
  });
  const containers = new Containers({
    parts: {
      images,
      roots,
      volumes: volumeSource,
      network,
      processes,
      sandboxes,
    },
    registry,
    events: floors.events,
    clock: floors.clock,
    random: floors.random,
    log: floors.log,
    host: floors.ociHost,
    settings: {
      cgroupParent: settings.cgroupParent,
      logPath,
      logLeavings,
      stopGraceMs: settings.stopGraceMs,
      runtimes,
      execs: join(runRoot, 'execs'),
      devices: devicesOf,
    },
  });
  const packer = new LogPacker({
    ...floors,
    records: containers,
    logPath,
    shim: (id) => livingShim(join(shimOptions.shims, id)),
    scratch: join(dataRoot, 'packing.gz'),
  });
  return {
    containers,
    sandboxes,
    images,
    networks: floors.networks,
    nodeNetworks: new NodeNetworks({ networks: floors.networks, source: network, containers, events: floors.events }),
    roots,
    volumes: nodeVolumes,
    files: new ContainerFiles({
      containers,
      roots,
      volumes,
      snapshots: floors.snapshots,
      tools,
      // As Docker has it: where a container that never started will have its own, the image's or empty ones.
      networkFiles: ({ id, spec: { namespaces } }, root) => {
        const own = namespaces.network.kind === 'private' || namespaces.network.kind === 'host';
        const files = (own ? network.filesOf(id) : []).flatMap(({ path, source }): [string, string][] => {
          if (existsSync(source)) return [[path, source]];
          return floors.host.readInside(root, path) === undefined ? [[path, emptyFile]] : [];
        });
        return new Map(files);
      },
    }),
    commits: { ...floors, containers, runPlan },
    insight: new Insight({
      ...floors,
      ...settings,
      containers,
      sandboxes,
      volumes: nodeVolumes,
      host: floors.ociHost,
      cgroups: floors.host.cgroups,
      logPath,
      runPlan,
      planOf: (id) => processes.plan(id),
      foresee: {
        ...settings,
        ...floors.ociHost,
        containers,
        images: floors.images,
        snapshots: floors.snapshots,
        roots,
        volumes: volumeSource,
        network,
        processes,
        files: floors.files,
        readInside: floors.host.readInside,
      },
    }),
    stats: { containers, files: floors.files, clock: floors.clock },
    events: floors.events,
    settings,
    runtimes,
    system: floors.system,
    filesDir: (id) => join(filesDir, id),
    logPath,
    recover: async () => {
      await containers.recover();
      const running = new Set(
        containers
          .list()
          .filter((r) => isRunning(r.state))
          .map((r) => r.id),
      );
      await roots.sweep((id) => running.has(id));
      // Of a container that was forgotten just before a crash.
      const [logs, files] = await Promise.all([readdir(logsDir), readdir(filesDir)]);
      const forgotten = (ids: string[]): string[] => ids.filter((id) => !registry.get(id));
      const steps = [
        ...forgotten(logs).flatMap(logLeavings),
        ...forgotten(files).flatMap((id) => network.leavings(id)),
      ];
      if (steps.length > 0) await floors.spawner.run({ steps });
      await packer.begin();
    },
    close: async () => {
      await packer.close();
      await containers.close();
    },
  };
}

async function livingShim(dir: string): Promise<Shim | undefined> {
  try {
    return await Shim.connect(dir);
  } catch (error) {
    if (isCode(error, 'SHIM_VANISHED', 'STATE_UNREADABLE')) return undefined;
    throw error;
  }
}
