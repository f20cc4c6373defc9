import { existsSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { availableParallelism, release } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openBuilder } from '#app/build.ts';
import { connectEdge, retireOldEdge } from '#app/edge-door.ts';
import { VERSION } from '#app/version.ts';
import { systemClock } from '#base/clock.ts';
import { describeChain, errnoOf } from '#base/errors.ts';
import { type Logger, logger } from '#base/log.ts';
import { newId, type Random, systemRandom } from '#base/random.ts';
import { Undo } from '#base/undo.ts';
import type { Builder } from '#build/builder.ts';
import { blockDeviceNumbers } from '#engine/core/devices.ts';
import { type Engine, type Floors, openEngine } from '#engine/core/engine.ts';
import { Events } from '#engine/core/events.ts';
import { imageEvent, type Keepers } from '#engine/core/images.ts';
import type { RuntimeSettings } from '#engine/core/runtimes.ts';
import { readSystem } from '#engine/core/system.ts';
import { DiskContentStore } from '#image/content-disk.ts';
import { ImageStore } from '#image/images.ts';
import { chooseDriver, type LayerDriver, privilegeOf } from '#image/layer/driver.ts';
import { WorkerPool } from '#image/layer/pool.ts';
import { LayerStore } from '#image/layers.ts';
import { SnapshotStore } from '#image/snapshots.ts';
import { hierarchyOf } from '#kernel/cgroup/layout.ts';
import { hostFiles } from '#kernel/files.ts';
import { capabilityNames } from '#kernel/linux/names.ts';
import { findNetHand, type NetHand, spawnNetHand } from '#kernel/netlink/hand.ts';
import { findExecutor } from '#kernel/plan/execute.ts';
import { SeccompCache } from '#kernel/seccomp/cache.ts';
import { EdgeClient } from '#network/edge-wire.ts';
import { Networks } from '#network/networks.ts';
import { bootstrapper } from '#registry/bootstrap.ts';
import { dockerConfigCredentials } from '#registry/client/credentials.ts';
import { Registries } from '#registry/registries.ts';
import { parseTable, type ResolutionTable, withDockerFlags } from '#registry/resolve.ts';
import { registryRoots } from '#registry/server/gc.ts';
import { Repositories } from '#registry/server/repositories.ts';
import type { Host } from '#runtime/host.ts';
import { readHost } from '#runtime/host-linux.ts';
import { Spawner, spawnerSocket } from '#shim/spawner.ts';
import { hostPlatform, type Platform } from '#spec/image/platform.ts';
import { type EmbeddedStore, openEmbedded } from '#storage/embedded.ts';
import { lockDirectory } from '#storage/lock.ts';
import { get, put } from '#storage/store.ts';

export interface NodeOptions {
  /** Names the nftables table, the default bridge (`NAME0`), links and the parent of all cgroups (`/NAME`). */
  name: string;
  dataRoot: string;
  runRoot: string;
  registryMirrors: readonly string[];
  insecureRegistries: readonly string[];
  /** Gateway and subnet of the default bridge. */
  bip?: string;
  mtuBytes: number;
  /** Make `debian` and `busybox` here when no registry can be reached. */
  bootstrap: boolean;
  /** Above it images that no container uses go, the least recently used first; `evict` events say which and why. */
  imageBudgetBytes?: number;
  stopGraceMs: number;
  /** OCI runtimes beside ours; absent: none. */
  runtimes?: RuntimeSettings;
}

/** One node's floors and the engine on them, as this process holds them. */
export interface Node {
  engine: Engine;
  builder: Builder;
  store: EmbeddedStore;
  content: DiskContentStore;
  registries: Registries;
  platform: Platform;
  /** What this node's registry is called, from when it is served. */
  ownAuthorities: string[];
  options: NodeOptions;
  /** Facts of the machine for planners, and what carries plans out. */
  host: Host;
  runPlan: Spawner['run'];
  /** Containers, names and published ports go on; another daemon finds them. */
  close(): Promise<void>;
}

/** Of the node's own records: nobody watches them, nor reads them as they were. Each start reads what is kept. */
const KEEP_REVISIONS = 100;
const STORE_REST_BYTES = 512 * 1024;
/** As many containers as may start at once without waiting for the kernel to make a namespace. */
const NAMESPACES_AHEAD = 4;
const LAYER_THREADS_MOST = 4;

/** From locks to a recovered engine; what is open is closed again when a later step fails. */
export async function openNode(options: NodeOptions): Promise<Node> {
  const log = logger('engine');
  const undo = undoTold(log);
  try {
    return await openFloors(options, undo, log);
  } catch (error) {
    await undo.unwind();
    throw error;
  }
}

function undoTold(log: Logger): Undo {
  return new Undo((what, error) => log.error(`${what} did not close`, { error: describeChain(error) }));
}

async function openFloors(options: NodeOptions, undo: Undo, log: Logger): Promise<Node> {
  const { dataRoot, runRoot, name } = options;
  const [clock, random] = [systemClock, systemRandom];
  await mkdir(dataRoot, { recursive: true, mode: 0o711 });
  await mkdir(runRoot, { recursive: true, mode: 0o711 });
  const unlock = lockDirectory(join(runRoot, 'daemon.lock'));
  undo.add('lock', unlock);

  // All at once: they wait for the kernel, and for each other only where they say so.
  const opensStore = undo.acquire('store', openStore(dataRoot), (opened) => opened.close());
  const startsSpawner = undo.acquire('spawner', Spawner.start(spawnerSocket(runRoot)), (started) => started.close());
  // Held by nobody, but an end that comes early waits until its trial mount is gone.
  const triesLayers = startsSpawner.then((started) => layerDriver(dataRoot, started));
  const choosesDriver = undo.acquire('trial of the layer store', triesLayers, () => undefined);
  const opensContent = DiskContentStore.open(join(dataRoot, 'blobs'), clock);
  undo.acquire('blobs', opensContent, () => undefined);
  const hand = startNetHand(logger('network'));
  undo.add('estiba-net', hand.close);
  const opensNetworks = opensStore.then((opened) => openNetworks(options, opened, hand, logger('network')));
  undo.acquire('networks', opensNetworks, (opened) => opened.close());
  const [store, spawner, driver, content] = await Promise.all([opensStore, startsSpawner, choosesDriver, opensContent]);
  const runPlan: Spawner['run'] = (plan) => spawner.run(plan);

  const layers = await LayerStore.open({
    driver,
    dataRoot,
    runRoot,
    store,
    unpacker: new WorkerPool(layerWorker(), Math.min(availableParallelism(), LAYER_THREADS_MOST)),
    runPlan,
    blobPath: async (digest) => {
      const info = await content.info(digest);
      return info && { path: content.pathOf(digest), sizeBytes: info.sizeBytes };
    },
    clock,
    log: logger('image'),
  });
  undo.add('layers', () => layers.close());
  const snapshots = await SnapshotStore.open({ dataRoot, store, layers, runPlan });
  const events = new Events(() => BigInt(Math.floor(clock.now() * 1e6)));
  const platform = hostPlatform(process.arch);
  const publish = (event: Parameters<typeof imageEvent>[0]): void => events.publish(imageEvent(event));
  let imageOf = (_container: string): string | undefined => undefined; // until the containers are known
  const images = await ImageStore.open({
    ...{ store, content, layers, snapshots, clock, platform, publish },
    imageOf: (container) => imageOf(container),
  });
  const ownAuthorities: string[] = [];
  const registries = new Registries({
    content,
    table: withDockerFlags(await resolutionTable(dataRoot), options),
    clock,
    random,
    log: logger('registry'),
    credentials: dockerConfigCredentials(join(process.env['HOME'] ?? '/root', '.docker/config.json')),
    env: process.env,
    version: VERSION.version,
    ownAuthorities: () => ownAuthorities,
    ...(options.bootstrap ? { bootstrap: bootstrapper({ content, clock, platform }) } : {}),
  });
  undo.add('registries', () => registries.close());

  const net = await opensNetworks;
  const host = readHost({ uid: 0, gid: 0 });
  // Bytes that were pushed to the registry are its own, whether it is served this time or not.
  const repositories = new Repositories(store, clock);
  const keepers: Keepers = { blobs: [() => registryRoots(repositories)], layers: [] };
  const floors: Floors = {
    store,
    content,
    layers,
    snapshots,
    images,
    registries,
    networks: net.networks,
    lookup: async (host) => (await (await import('node:dns/promises')).lookup(host)).address,
    spawner,
    seccomp: new SeccompCache({ native: host.arch }),
    files: hostFiles,
    events,
    clock,
    random,
    log,
    host,
    ociHost: {
      nodeArch: process.arch,
      kernelRelease: release(),
      bounding: capabilityNames(host.capabilities),
      cgroupVersion: hierarchyOf(host.cgroups, 'memory')?.version ?? 2,
      deviceNumbers: blockDeviceNumbers,
      initBinary: findExecutor(),
    },
    platform,
    keepers,
    ...(options.imageBudgetBytes === undefined ? {} : { budgetBytes: options.imageBudgetBytes }),
    system: readSystem({ ...VERSION, id: await nodeId(store, random) }, host.cgroups),
  };
  const engine = await openEngine(floors, { ...options, cgroupParent: `/${name}` });
  undo.add('engine', () => engine.close());
  imageOf = (container) => engine.containers.get(container)?.image.id;
  await engine.recover();
  if (options.imageBudgetBytes !== undefined) undo.add('image budget', keepBudget(engine, logger('image')));
  const builder = await openBuilder(floors, engine, options);
  undo.add('builder', () => builder.close());
  keepers.blobs.push(async () => builder.node.cache.roots());
  keepers.layers.push(() => builder.node.cache.layerRoots());
  return {
    engine,
    builder,
    store,
    content,
    registries,
    platform,
    ownAuthorities,
    options,
    host,
    runPlan,
    close: () => undo.unwind(),
  };
}

const BUDGET_EVERY_MS = 60_000;

function keepBudget(engine: Engine, log: Logger): () => void {
  const timer = setInterval(
    () =>
      void engine.images.collect().catch((error) => log.error('collection failed', { error: describeChain(error) })),
    BUDGET_EVERY_MS,
  );
  return () => clearInterval(timer);
}

function openStore(dataRoot: string): Promise<EmbeddedStore> {
  return openEmbedded(join(dataRoot, 'store'), {
    clock: systemClock,
    keepRevisions: KEEP_REVISIONS,
    keepRecentBytes: 0, // who reads them has them in memory
    restBytes: STORE_REST_BYTES,
    log: logger('storage'),
  });
}

async function layerDriver(dataRoot: string, spawner: Spawner): Promise<LayerDriver> {
  const privilege = privilegeOf(process.geteuid?.() ?? 0, await readFile('/proc/self/uid_map', 'utf8'));
  const runPlan: Spawner['run'] = (plan) => spawner.run(plan);
  return chooseDriver({ scratch: dataRoot, privilege, runPlan, log: logger('image') });
}

interface NetHandOfNode {
  kernel: NetHand;
  /** From now on its end is no accident. */
  mayEnd(): void;
  close(): void;
}

/** Before the store is open: a process takes a while to start, and networks ask it at once. */
function startNetHand(log: Logger): NetHandOfNode {
  let needed = true;
  const mayEnd = (): void => {
    needed = false;
  };
  const kernel = spawnNetHand(findNetHand(), () => {
    if (!needed) return;
    log.error('estiba-net ended: without it no container gets a network; the daemon stops, to be started again');
    process.exit(1);
  });
  const close = (): void => {
    mayEnd();
    kernel.close();
  };
  return { kernel, mayEnd, close };
}

async function openNetworks(
  { name, runRoot, bip, mtuBytes }: NodeOptions,
  store: EmbeddedStore,
  hand: NetHandOfNode,
  log: Logger,
): Promise<{ networks: Networks; close(): Promise<void> }> {
  await using undo = undoTold(log);
  await retireOldEdge(runRoot);
  const edge = new EdgeClient(
    (start) => connectEdge(runRoot, start ? edgeCommand(runRoot) : undefined),
    (error) => log.error('the edge process could not be told what it serves', { error: describeChain(error) }),
  );
  undo.add('edge', () => edge.close());
  const networks = await Networks.open({
    daemon: name,
    kernel: hand.kernel,
    store,
    edge,
    clock: systemClock,
    random: systemRandom,
    log,
    netnsDir: join(runRoot, 'netns'),
    ipv6: existsSync('/proc/sys/net/ipv6'),
    poolSize: NAMESPACES_AHEAD,
    mtuBytes,
    ...(bip === undefined ? {} : { bip }),
  });
  undo.keep();
  return {
    networks,
    close: async () => {
      hand.mayEnd();
      await networks.close();
      await edge.close();
    },
  };
}

/** What this node is called for good, in every answer that names it. */
async function nodeId(store: EmbeddedStore, random: Random): Promise<string> {
  const known = await get(store, NODE_ID);
  if (known) return Buffer.from(known.value).toString();
  const id = newId(random);
  await put(store, NODE_ID, Buffer.from(id));
  return id;
}

const NODE_ID = 'node/id';

/** This program's own way to say `estiba edge`, which outlives it: with nothing open that this one was started with. */
export function edgeCommand(runRoot: string): [string, ...string[]] {
  return [
    findExecutor(),
    'closed',
    process.execPath,
    join(distribution(), 'cli.run.cjs'),
    'edge',
    '--run-root',
    runRoot,
  ];
}

function layerWorker(): string {
  return join(distribution(), 'layer-worker.cjs');
}

/** Where the bundles lie: the daemon is one of them. */
function distribution(): string {
  return dirname(fileURLToPath(import.meta.url));
}

/** `D/registries.yaml`, when somebody has written one. */
async function resolutionTable(dataRoot: string): Promise<ResolutionTable> {
  const path = join(dataRoot, 'registries.yaml');
  try {
    return await parseTable(await readFile(path, 'utf8'), path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return {};
    throw error;
  }
}
