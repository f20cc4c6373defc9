import type { Clock } from '#base/clock.ts';
import { newId, type Random } from '#base/random.ts';
import { Undo } from '#base/undo.ts';
import { BadSignal } from '#engine/core/errors.ts';
import { idsOf, withOwnIds } from '#engine/core/id-ranges.ts';
import { applyImage } from '#engine/core/image-defaults.ts';
import { inventName } from '#engine/core/names.ts';
import type { FoundImage, NodeParts } from '#engine/core/parts.ts';
import { type ContainerRecord, FRESH_STATE } from '#engine/core/record.ts';
import type { ContainerRegistry } from '#engine/core/registry.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';
import { signalNumber } from '#kernel/linux/names.ts';
import type { Step } from '#kernel/plan/plan.ts';

export interface Makings {
  parts: NodeParts;
  registry: ContainerRegistry;
  /** What removes all that was logged, with what a log stands in: when the container goes. */
  logLeavings: (id: string) => Step[];
}

/** The container that a create would make, of which nothing exists yet. */
export async function draftContainer(
  { parts, registry, random, clock }: Pick<Makings, 'parts' | 'registry'> & { random: Random; clock: Clock },
  wishedName: string | undefined,
  spec: ContainerSpec,
): Promise<{ record: ContainerRecord; image: FoundImage }> {
  const image = await parts.images.find(spec.image, spec.platform);
  const process = applyImage(spec, image.config);
  signalOf(process.stopSignal);
  const id = newId(random);
  const name = wishedName?.replace(/^\//, '') ?? inventName(random, (taken) => registry.isTaken(taken));
  const record: ContainerRecord = {
    id,
    name,
    createdAtMs: clock.now(),
    spec,
    process,
    image: { id: image.id, reference: spec.image },
    hostname: spec.hostname ?? id.slice(0, 12),
    state: { ...FRESH_STATE },
    mounts: [],
    endpoints: {},
    ports: [],
  };
  registry.checkName(name);
  return { record, image };
}

/** What a container holds from its creation to its removal: record, addresses, volumes, the layer of its own. */
export async function makeContainer(
  { parts, registry }: Makings,
  draft: ContainerRecord,
  image: FoundImage,
): Promise<ContainerRecord> {
  await using undo = new Undo();
  const record = withOwnIds(draft, () => registry.holders()); // nothing is awaited until `add` has it
  const { id, spec, process } = record;
  const ids = idsOf(spec);
  const wishes = [...spec.mounts, ...imageVolumes(spec, process.volumes)];
  // From an intent a crash is swept. Without volumes nothing is there before the record that stays.
  await registry.add(record, { written: wishes.length > 0 });
  undo.add('record', () => registry.forget(id));
  const endpoints = await parts.network.reserve(id, spec);
  const mounts = await parts.volumes.resolve(id, wishes);
  undo.add('volumes', () => parts.volumes.release(id, mounts, { removeAnonymous: true }));
  const root = await parts.roots.prepare(id, image, ids);
  undo.add('root', () => parts.roots.remove(id));
  await parts.volumes.populate(id, mounts, (use) => withRoot(parts, record, use), ids);
  const created = await registry.saveState({ ...record, endpoints, mounts }, { phase: 'created' }, root);
  undo.keep();
  return created;
}

/**
 * The same taken back; it does not run any more. Nothing that lasts is destroyed before it is forgotten for good: a removal that
 * a crash forgets has not happened, and what one leaves of a forgotten container goes at the next start. Answered when it is
 * forgotten; `clearContainer` is to follow.
 */
export async function unmakeContainer(
  { parts, registry }: Makings,
  record: ContainerRecord,
  removeAnonymous: boolean,
): Promise<void> {
  const { id } = record;
  // Volumes of its own go with their data before it does: that takes an intent, which lasts.
  if (removeAnonymous && record.mounts.some(({ type }) => type === 'volume'))
    await registry.saveState(record, { phase: 'removing' });
  await parts.processes.end(id);
  const [retired] = await Promise.all([
    parts.roots.retire(id),
    parts.network.detach(id),
    parts.volumes.release(id, record.mounts, { removeAnonymous }),
  ]);
  await registry.forget(id, retired);
}

/**
 * What is left of a container that nobody knows any more, its data first of all: nobody waits for the disk to have freed that.
 * `turn`: what its last run held is gone, and there is time. Whoever asks for a layer below it meanwhile waits for that.
 */
export async function clearContainer({ parts, logLeavings }: Makings, id: string, turn: Promise<void>): Promise<void> {
  await Promise.all([
    turn.then(() => parts.processes.remove(id)),
    parts.roots.remove(id, turn, [...parts.network.leavings(id), ...logLeavings(id)]),
  ]);
}

async function withRoot<T>(
  { roots }: NodeParts,
  { id, spec }: ContainerRecord,
  use: (rootfs: string) => Promise<T>,
): Promise<T> {
  const rootfs = await roots.mount(id, { by: spec.origin.by });
  try {
    return await use(rootfs);
  } finally {
    await roots.unmount(id);
  }
}

/** Volumes of the image where nothing is mounted. */
export function imageVolumes(spec: ContainerSpec, volumes: readonly string[]): ContainerSpec['mounts'] {
  const free = volumes.filter((target) => !spec.mounts.some((m) => m.target === target));
  return free.map((target) => ({ type: 'volume', name: '', target, readonly: false, noCopy: false, labels: {} }));
}

/** Others may be about to remove that, or to use it: volumes, memory, the cgroup around its own. All else start finds by itself. */
export function sharesWhatItHolds({ mounts, spec }: ContainerRecord): boolean {
  return mounts.length > 0 || spec.namespaces.ipc.kind === 'shareable' || spec.resources.cgroupParent !== undefined;
}

/** Throws BAD_SIGNAL. */
export function signalOf(text: string): number {
  try {
    return signalNumber(text);
  } catch (error) {
    throw new BadSignal({ signal: text }, { cause: error });
  }
}
