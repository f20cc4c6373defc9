import type { Stats } from 'node:fs';
import { readdir } from 'node:fs/promises';
import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import type { Random } from '#base/random.ts';
import { hidesBottomAlone, isMountPoint } from '#engine/core/changes.ts';
import type { Containers } from '#engine/core/containers.ts';
import { type ContainerRecord, isRunning } from '#engine/core/record.ts';
import type { HealthSpec } from '#engine/core/spec.ts';
import type { ContentStore } from '#image/content.ts';
import { tarOf } from '#image/diff.ts';
import type { Image, ImageStore } from '#image/images.ts';
import type { LayerStore } from '#image/layers.ts';
import { type MadeLayer, makeImage, makeLayer, withLayer } from '#image/make.ts';
import type { SnapshotStore } from '#image/snapshots.ts';
import { readXattrs } from '#image/xattrs.ts';
import { type Seen, walkDirectory } from '#kernel/beneath.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import type { RunConfig } from '#spec/image/manifest.ts';
import { parseReference, withDefaultTag } from '#spec/image/reference.ts';

export interface CommitParts {
  containers: Containers;
  images: ImageStore;
  content: ContentStore;
  layers: LayerStore;
  snapshots: SnapshotStore;
  runPlan: (plan: Plan) => Promise<unknown>;
  clock: Clock;
  random: Random;
}

export interface CommitWish {
  /** `repo[:tag]`; absent leaves the image without a name. */
  name: string | undefined;
  comment: string;
  author: string;
  /** Stops a running container's programs while its files are read. */
  pause: boolean;
  /** From the container's own settings to the image's. */
  change: (config: RunConfig) => RunConfig;
}

/** An image of what a container has become. */
export async function commit(parts: CommitParts, wish: string, how: CommitWish): Promise<Image> {
  const { containers, images, content } = parts;
  const record = containers.find(wish);
  const names = how.name === undefined ? [] : [withDefaultTag(parseReference(how.name))];
  const base = await images.get(record.image.id);
  const own = containerConfig(record, base.platform.config.config ?? {});
  const run = how.change(own); // before anything is made: a line that cannot be read leaves nothing
  const lease = content.lease(`commit of ${record.id}`);
  try {
    const layer = await whilePaused(containers, record, how.pause, () => changesLayer(parts, record.id, lease));
    const made = withLayer(base.platform, layer, {
      createdAtMs: parts.clock.now(),
      createdBy: record.process.argv.join(' '),
      ...(how.comment ? { comment: how.comment } : {}),
      ...(how.author ? { author: how.author } : {}),
      run,
    });
    const config = { ...made.config, container: record.id, container_config: own };
    const target = await makeImage({ ...parts, lease }, config, made.layers);
    const image = await images.add(target, names);
    containers.tell(record, 'commit', { comment: how.comment, imageID: image.id, imageRef: how.name ?? '' });
    return image;
  } finally {
    lease.release();
  }
}

async function whilePaused<T>(
  containers: Containers,
  { id, state }: ContainerRecord,
  pause: boolean,
  use: () => Promise<T>,
): Promise<T> {
  const paused = pause && isRunning(state) && state.phase !== 'paused' && (await unlessEnded(containers.pause(id)));
  try {
    return await use();
  } finally {
    if (paused) await unlessEnded(containers.unpause(id));
  }
}

/** A container that has ended meanwhile changes its files no more. */
async function unlessEnded(change: Promise<void>): Promise<boolean> {
  try {
    await change;
    return true;
  } catch (error) {
    if (isCode(error, 'WRONG_PHASE')) return false;
    throw error;
  }
}

/** Undefined when nothing was written: the image has a line of history more, and no layer. */
async function changesLayer(
  parts: CommitParts,
  id: string,
  lease: Parameters<typeof makeLayer>[0]['lease'],
): Promise<MadeLayer | undefined> {
  const { upper, lower, opaqueXattr, ids } = await parts.snapshots.rootfs(id);
  const changed = withoutMountPoints(upper, lower);
  const first = await changed.next();
  if (first.done) return undefined;
  const all = (async function* (): AsyncGenerator<Seen> {
    yield first.value;
    yield* changed;
  })();
  const xattrs = await readXattrs(upper, parts.runPlan);
  return makeLayer({ ...parts, lease }, tarOf(all, xattrs, { whiteouts: opaqueXattr, ids }));
}

/** The upper directory as a layer of Docker's has it: without its own top, and without what the runtime made to mount on. */
async function* withoutMountPoints(upper: string, lower: readonly string[]): AsyncGenerator<Seen> {
  for await (const seen of walkDirectory(upper)) {
    const path = `/${seen.path}`;
    if (seen.path === '' || (await hidesBottomAlone(path, seen.stat, lower))) continue;
    if (!isMountPoint(path, seen.stat, await isEmpty(seen))) yield seen;
  }
}

async function isEmpty({ stat, access }: { stat: Stats; access: string }): Promise<boolean> {
  return stat.isDirectory() && (await readdir(access)).length === 0;
}

/** What `docker inspect` shows as Config, and what a commit starts from. */
export function containerConfig(record: ContainerRecord, image: RunConfig): RunConfig {
  const { spec, process } = record;
  const entrypoint = spec.process.entrypoint ?? image.Entrypoint;
  const args = spec.process.args ?? (spec.process.entrypoint === undefined ? image.Cmd : undefined);
  // Not PATH and TERM that every container is given.
  const said = new Set([...(image.Env ?? []), ...spec.process.env].map(nameOf));
  const anonymous = spec.mounts.flatMap((m) => (m.type === 'volume' && m.name === '' ? [m.target] : []));
  const volumes = [...new Set([...process.volumes, ...anonymous])];
  // Of the container alone: image-spec leaves them out, Docker writes them.
  const ofContainer = {
    Hostname: record.hostname,
    Domainname: spec.domainname ?? '',
    AttachStdin: false,
    AttachStdout: true,
    AttachStderr: true,
    Tty: spec.process.tty,
    OpenStdin: spec.process.stdin,
    StdinOnce: spec.process.stdinOnce,
    Image: record.image.reference,
  };
  return {
    ...ofContainer,
    User: process.user,
    ...(process.exposedPorts.length > 0 ? { ExposedPorts: keys(process.exposedPorts) } : {}),
    Env: process.env.filter((entry) => said.has(nameOf(entry))),
    ...(args ? { Cmd: args } : {}),
    ...(volumes.length > 0 ? { Volumes: keys(volumes) } : {}),
    WorkingDir: process.cwd === '/' ? (image.WorkingDir ?? '') : process.cwd,
    ...(entrypoint ? { Entrypoint: entrypoint } : {}),
    Labels: process.labels,
    ...(spec.stop.signal || image.StopSignal ? { StopSignal: process.stopSignal } : {}),
    ...healthcheckOf(spec.health, image),
    ...shellOf(spec.process.shell ?? image.Shell),
  };
}

/** What the container was told of its health check over the image's; what was not told stays out. */
function healthcheckOf(own: HealthSpec | undefined, image: RunConfig): Pick<RunConfig, 'Healthcheck'> {
  if (!own) return image.Healthcheck ? { Healthcheck: image.Healthcheck } : {};
  const wishes = {
    Interval: own.intervalNs,
    Timeout: own.timeoutNs,
    StartPeriod: own.startPeriodNs,
    StartInterval: own.startIntervalNs,
    Retries: own.retries,
  };
  const said = Object.fromEntries(Object.entries(wishes).filter(([, value]) => value > 0));
  return { Healthcheck: { ...image.Healthcheck, ...said, ...(own.test.length > 0 ? { Test: own.test } : {}) } };
}

function shellOf(shell: string[] | undefined): Pick<RunConfig, 'Shell'> {
  return shell ? { Shell: shell } : {};
}

/** Docker's rules for a commit: what was asked for, filled up from the container. */
export function mergeConfig(over: RunConfig, under: RunConfig): RunConfig {
  const env = [...(over.Env ?? [])];
  const has = (entry: string): boolean => env.some((e) => nameOf(e) === nameOf(entry));
  for (const entry of under.Env ?? []) if (!has(entry)) env.push(entry);
  const commands = over.Entrypoint
    ? { Entrypoint: over.Entrypoint, ...(over.Cmd ? { Cmd: over.Cmd } : {}) }
    : {
        ...(under.Entrypoint ? { Entrypoint: under.Entrypoint } : {}),
        ...((over.Cmd ?? under.Cmd) ? { Cmd: over.Cmd ?? under.Cmd } : {}),
      };
  const { Entrypoint: _, Cmd: __, ...rest } = under;
  return {
    ...rest,
    ...over,
    ...commands,
    Env: env,
    ExposedPorts: { ...under.ExposedPorts, ...over.ExposedPorts },
    Volumes: { ...under.Volumes, ...over.Volumes },
    Labels: { ...under.Labels, ...over.Labels },
  };
}

function nameOf(entry: string): string {
  return entry.split('=', 1)[0] ?? '';
}

function keys(names: readonly string[]): Record<string, Record<string, never>> {
  return Object.fromEntries(names.map((name) => [name, {}]));
}
