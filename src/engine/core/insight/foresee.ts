import { join } from 'node:path';
import type { Containers } from '#engine/core/containers.ts';
import { WrongPhase } from '#engine/core/errors.ts';
import { withOwnIds } from '#engine/core/id-ranges.ts';
import { imageVolumes } from '#engine/core/making.ts';
import type { NodeNetworkSource } from '#engine/core/network-source.ts';
import type { NodeProcesses } from '#engine/core/node-processes.ts';
import { limits } from '#engine/core/oci-resources.ts';
import { isRunning } from '#engine/core/record.ts';
import type { OverlayRoots } from '#engine/core/roots.ts';
import type { ContainerSpec, ResourceSpec } from '#engine/core/spec.ts';
import { resolveUser } from '#engine/core/user.ts';
import type { NodeVolumeSource } from '#engine/core/volume-source.ts';
import type { ImageStore } from '#image/images.ts';
import type { SnapshotStore } from '#image/snapshots.ts';
import { planUpdate } from '#kernel/cgroup/plan.ts';
import type { Files } from '#kernel/files.ts';
import { overlayMount } from '#kernel/overlay.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { sayOp } from '#kernel/plan/print.ts';
import type { Host } from '#runtime/host.ts';

export interface ForeseeParts {
  containers: Containers;
  images: ImageStore;
  snapshots: SnapshotStore;
  roots: Pick<OverlayRoots, 'lowerOf'>;
  volumes: NodeVolumeSource;
  network: NodeNetworkSource;
  processes: Pick<NodeProcesses, 'foresee'>;
  files: Files;
  readInside: (root: string, path: string) => string | undefined;
  kernelRelease: string;
  deviceNumbers: (path: string) => { major: number; minor: number };
  dataRoot: string;
  runRoot: string;
}

/** One thing that would be done: `where` is who does it (`daemon`, or the actors of a plan: host, middle, init). */
export interface ForeseenStep {
  step: number;
  part: 'container' | 'network' | 'process' | 'limits';
  where: string;
  says: string;
  /** The wish that made it. */
  because: string;
}

export interface Foreseen {
  name: string;
  steps: ForeseenStep[];
}

type Unnumbered = Omit<ForeseenStep, 'step'>;

/**
 * What a create and a start of this container would do, step by step, and why. Nothing is made: an id and addresses are chosen as
 * they would be now, and let go again. Its image's layers are mounted for reading, as for every look into an image.
 */
export async function foreseeCreate(
  parts: ForeseeParts,
  wishedName: string | undefined,
  spec: ContainerSpec,
): Promise<Foreseen> {
  const { record: draft, image } = await parts.containers.draft(wishedName, spec);
  const record = withOwnIds(draft, () => parts.containers.list());
  const { id, name, process } = record;
  const layers = await parts.images.layersOf(await parts.images.get(image.target));
  const lower = parts.roots.lowerOf(await parts.snapshots.view(layers), spec.origin.by);
  const { mounts, volumes } = await parts.volumes.foresee([...spec.mounts, ...imageVolumes(spec, process.volumes)]);
  const wish = { ...record, exposedPorts: process.exposedPorts, ...parts.containers.sharedNetwork(record) };
  const { network, steps: plugs } = parts.network.foresee(id, wish);
  const rootfs = join(parts.runRoot, 'roots', id);
  const user = resolveUser(process.user, accounts(parts, lower), spec.process.groups);
  const config = await parts.containers.configOf(record, { rootfs, network, user, mounts });

  const own = join(parts.dataRoot, 'snapshots', '(next)');
  const { overlayOptions: options } = parts.snapshots;
  const overlay = { lower, upper: join(own, 'fs'), work: join(own, 'work'), target: rootfs, options };
  return numbered(name, [
    daemon(`record container ${name} (${id.slice(0, 12)})`, 'a crash from here on is swept'),
    ...volumes.map((volume) => daemon(`make volume ${volume}`, 'a mount names it, or the image does')),
    daemon(`make ${own} for what it writes`, `image ${spec.image}`),
    { part: 'container', where: 'host', says: sayOp(overlayMount(overlay, parts.kernelRelease)), because: 'its root' },
    ...plugs.map(({ what, because }): Unnumbered => ({ part: 'network', where: 'host', says: what, because })),
    ...ofPlan(
      'process',
      parts.processes.foresee(id, config, (host) => asItWouldBe(host, parts, rootfs, lower), record.spec.runtime),
    ),
  ]);
}

/** The host with the container's root mounted, and with the files and volumes that are made before it. */
function asItWouldBe(host: Host, { dataRoot, runRoot }: ForeseeParts, rootfs: string, lower: readonly string[]): Host {
  const firstOf = <T>(root: string, find: (root: string) => T | undefined): T | undefined => {
    if (root !== rootfs) return find(root);
    for (const layer of lower) {
      const found = find(layer);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  const ours = (path: string): ReturnType<Host['look']> => {
    if (path.startsWith(`${join(runRoot, 'files')}/`)) return { kind: 'file', mode: 0o644 };
    return path.startsWith(`${dataRoot}/`) || path.startsWith(`${runRoot}/`)
      ? { kind: 'directory', mode: 0o755 }
      : undefined;
  };
  return {
    ...host,
    look: (path) => host.look(path) ?? ours(path),
    lookInside: (root, path) => firstOf(root, (at) => host.lookInside(at, path)),
    readInside: (root, path) => firstOf(root, (at) => host.readInside(at, path)),
    // A new mount is shared where the one that it stands in is.
    mountOf: (path) => (path === rootfs ? { ...host.mountOf(path), point: rootfs } : host.mountOf(path)),
  };
}

/** What an update of a container would do; of one that does not run only the record changes. */
export function foreseeUpdate(
  { containers, files, deviceNumbers }: Pick<ForeseeParts, 'containers' | 'files' | 'deviceNumbers'>,
  wish: string,
  change: { resources: Partial<ResourceSpec>; restart?: object },
): Foreseen {
  const record = containers.find(wish);
  if (record.state.phase === 'removing')
    throw new WrongPhase({ message: `container ${record.name} is being removed: nothing of it can change` });
  const hasLimits = Object.keys(change.resources).length > 0;
  const resources = limits({ ...record.spec.resources, ...change.resources }, deviceNumbers);
  const { runtime } = record.spec;
  const because = 'the limits of this update';
  const changes = hasLimits && isRunning(record.state);
  const steps =
    changes && runtime === undefined
      ? planUpdate(containers.running(record.id).cgroups, resources, files, because)
      : [];
  const what = [...(hasLimits ? ['limits'] : []), ...(change.restart ? ['restart policy'] : [])];
  return numbered(record.name, [
    ...ofPlan('limits', { steps }),
    ...(changes && runtime !== undefined
      ? [{ part: 'limits', where: 'host', says: `${runtime} update --resources … ${record.id}`, because } as const]
      : []),
    daemon(
      `record the new ${what.join(' and ') || 'settings'}`,
      'kernel first: a record never says what does not hold',
    ),
  ]);
}

function daemon(says: string, because: string): Unnumbered {
  return { part: 'container', where: 'daemon', says, because };
}

function ofPlan(part: ForeseenStep['part'], { steps }: Plan): Unnumbered[] {
  return steps.map((step) => ({ part, where: step.where, says: sayOp(step), because: step.because }));
}

function numbered(name: string, steps: Unnumbered[]): Foreseen {
  return { name, steps: steps.map((step, i) => ({ step: i + 1, ...step })) };
}

/** As the image has them: what the uppermost layer says counts. */
function accounts({ readInside }: ForeseeParts, lower: readonly string[]): { passwd: string; group: string } {
  const read = (path: string): string => {
    for (const layer of lower) {
      const text = readInside(layer, path);
      if (text !== undefined) return text;
    }
    return '';
  };
  return { passwd: read('/etc/passwd'), group: read('/etc/group') };
}
