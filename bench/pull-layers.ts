import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import { DiskContentStore } from '#image/content-disk.ts';
import { WorkerPool } from '#image/layer/pool.ts';
import { LayerStore } from '#image/layers.ts';
import { LayerFollower } from '#image/pulling.ts';
import { SnapshotStore } from '#image/snapshots.ts';
import { runPlan } from '#kernel/plan/execute.ts';
import { anonymous } from '#registry/client/credentials.ts';
import { Registries } from '#registry/registries.ts';
import { MANIFEST_MAX_BYTES, parseImageConfig } from '#spec/image/manifest.ts';
import { hostPlatform } from '#spec/image/platform.ts';
import { openEmbedded } from '#storage/embedded.ts';

// One cold pull, ready to run, and a push: `pull-layers.mjs REFERENCE EMPTY_REGISTRY ROUNDS WORKER_SCRIPT`. Started by
// bench/pull-layers.mjs, which makes the image and bundles this. Prints one line of JSON a round.

const [, , reference = '', empty = '', rounds = '3', workerScript = ''] = process.argv;
const threads = Number(process.env['THREADS'] ?? 2);

for (let round = 0; round < Number(rounds); round++) console.log(JSON.stringify(await coldPull(round)));

async function coldPull(round: number): Promise<object> {
  const root = await mkdtemp(join(tmpdir(), 'estiba-image-bench-'));
  const [dataRoot, runRoot] = [join(root, 'data'), join(root, 'run')];
  await mkdir(dataRoot);
  const store = await openEmbedded(join(dataRoot, 'state'), { clock: systemClock });
  const content = await DiskContentStore.open(join(dataRoot, 'blobs'), systemClock);
  const unpacker = new WorkerPool(workerScript, threads);
  const log = logger('image', silentSink);
  const layers = await LayerStore.open({
    dataRoot,
    runRoot,
    store,
    unpacker,
    runPlan,
    blobPath: async (digest) => {
      const info = await content.info(digest);
      return info && { path: content.pathOf(digest), sizeBytes: info.sizeBytes };
    },
    clock: systemClock,
    log,
  });
  const snapshots = await SnapshotStore.open({ dataRoot, store, layers, runPlan });
  const host = reference.split('/')[0] ?? '';
  const table = { insecure: [host, empty] };
  const registries = new Registries({
    content,
    table,
    clock: systemClock,
    random: systemRandom,
    log,
    credentials: anonymous,
    env: {},
  });

  const loop = monitorEventLoopDelay({ resolution: 1 });
  loop.enable();
  const turns = watchTurns();
  const cpu = process.cpuUsage();
  const started = performance.now();
  const follower = new LayerFollower(content, layers);
  const pulled = await registries.pull(reference, {
    platform: hostPlatform(process.arch),
    onProgress: () => undefined,
    content: follower.content,
    onImage: (manifest) => follower.begin(manifest),
  });
  const pulledMs = performance.now() - started;
  if (!pulled.image) throw new Error('no image');
  const { manifest } = pulled.image.manifest;
  const config = parseImageConfig(await content.read(manifest.config.digest, MANIFEST_MAX_BYTES), 'config');
  const unpacked = await follower.finish(manifest, config, reference);
  await snapshots.prepare(
    'bench',
    unpacked.map((layer) => layer.diffId),
  );
  const readyMs = performance.now() - started;
  loop.disable();
  const { loopRunMs, loopStoodMs } = turns.stop();
  const used = process.cpuUsage(cpu);

  const again = performance.now();
  await registries.pull(reference, { platform: hostPlatform(process.arch), onProgress: () => undefined });
  const presentMs = performance.now() - again;

  const pushing = performance.now();
  await registries.push(`${empty}/estiba/image${round}:1`, pulled.root.digest, { onProgress: () => undefined });
  const pushMs = performance.now() - pushing;

  await layers.close();
  await layers.unmountAll();
  await registries.close();
  await store.close();
  await rm(root, { recursive: true });
  return {
    readyMs: Math.round(readyMs),
    pulledMs: Math.round(pulledMs),
    presentMs: Math.round(presentMs),
    pushMs: Math.round(pushMs),
    cpuMs: Math.round((used.user + used.system) / 1000),
    loopMaxMs: Math.round(loop.max / 1e5) / 10,
    loopP99Ms: Math.round(loop.percentile(99) / 1e5) / 10,
    loopRunMs,
    loopStoodMs,
  };
}

/**
 * How long turns of the event loop were: `loopRunMs`, the most CPU time that one took, and `loopStoodMs`, the most that one
 * stood otherwise than in the kernel's run queue. What a busy machine makes a turn wait for a core is not ours to shorten.
 */
function watchTurns(): { stop(): { loopRunMs: number; loopStoodMs: number } } {
  const schedstat = (): [run: number, queued: number] => {
    const [run = 0, queued = 0] = readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ');
    return [Number(run) / 1e6, Number(queued) / 1e6];
  };
  let [run, queued] = schedstat();
  let at = performance.now();
  let [mostRun, mostStood] = [0, 0];
  const timer = setInterval(() => {
    const [nowRun, nowQueued] = schedstat();
    mostRun = Math.max(mostRun, nowRun - run);
    mostStood = Math.max(mostStood, performance.now() - at - (nowQueued - queued));
    [run, queued, at] = [nowRun, nowQueued, performance.now()];
  }, 1);
  return {
    stop: () => {
      clearInterval(timer);
      return { loopRunMs: Math.round(mostRun * 10) / 10, loopStoodMs: Math.round(mostStood * 10) / 10 };
    },
  };
}
