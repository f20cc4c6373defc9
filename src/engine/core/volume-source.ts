import { mkdir, stat } from 'node:fs/promises';
import { errnoOf } from '#base/errors.ts';
import { BadMount } from '#engine/core/errors.ts';
import { idMapFor } from '#engine/core/owner-map.ts';
import type { VolumeSource, WithRoot } from '#engine/core/parts.ts';
import { type ContainerRecord, isRunning, type MountRecord } from '#engine/core/record.ts';
import type { MountSpec, ReadonlyMode } from '#engine/core/spec.ts';
import { imageContent, type TreeTools } from '#engine/core/volume-content.ts';
import type { NodeVolumes } from '#engine/core/volumes.ts';
import type { IdMapping } from '#kernel/idmap.ts';
import type { OciMount } from '#spec/oci/config.ts';
import type { Volumes, VolumeUse } from '#volume/volumes.ts';

type VolumeMount = MountSpec & { type: 'volume' };
type BindMount = MountSpec & { type: 'bind' };

/** A container's mounts in the volume layer's words, and its answers in the container's record. */
export class NodeVolumeSource implements VolumeSource {
  readonly #volumes: Volumes;
  readonly #node: NodeVolumes;
  readonly #tools: TreeTools;

  constructor(options: { volumes: Volumes; node: NodeVolumes; tools: TreeTools }) {
    this.#volumes = options.volumes;
    this.#node = options.node;
    this.#tools = options.tools;
  }

  async resolve(id: string, mounts: readonly MountSpec[]): Promise<MountRecord[]> {
    const records: MountRecord[] = [];
    try {
      for (const wish of mounts) records.push(await this.#resolve(id, wish));
      return records;
    } catch (error) {
      await this.release(id, records, { removeAnonymous: true });
      throw error;
    }
  }

  async populate(
    _id: string,
    mounts: readonly MountRecord[],
    withRoot: WithRoot,
    ids?: readonly IdMapping[],
  ): Promise<void> {
    const empty: { name: string; target: string }[] = [];
    for (const { wish, name, target } of mounts) {
      if (wish.type !== 'volume' || name === undefined || wish.noCopy || wish.subpath) continue;
      if (await this.#volumes.mayBeFilled(name)) empty.push({ name, target });
    }
    if (empty.length === 0) return;
    await withRoot(async (rootfs) => {
      for (const { name, target } of empty)
        await this.#volumes.fill(name, () => imageContent(rootfs, target, this.#tools, ids));
    });
  }

  async attach(id: string, record: MountRecord): Promise<OciMount> {
    const { wish } = record;
    switch (wish.type) {
      case 'tmpfs':
        return tmpfsMount(wish);
      case 'bind':
        if (wish.createSource) await makeUnlessThere(wish.source);
        return bindMount(record.propagation, wish);
      case 'volume':
        return this.#volume(id, record, wish);
    }
  }

  /** What `resolve` and `attach` would give, with nothing made: the mounts, and the volumes that a create would make. */
  async foresee(wishes: readonly MountSpec[]): Promise<{ mounts: OciMount[]; volumes: string[] }> {
    const mounts: OciMount[] = [];
    const volumes: string[] = [];
    for (const wish of wishes) {
      if (wish.type === 'tmpfs') mounts.push(tmpfsMount(wish));
      else if (wish.type === 'bind') {
        if (!wish.createSource) await checkSource(wish.source);
        mounts.push(await bindMount(wish.propagation ?? 'rprivate', wish));
      } else {
        const name = wish.name || `of its own for ${wish.target}`;
        if (!this.#volumes.has(wish.name)) volumes.push(name);
        mounts.push(volumeMount(this.#volumes.placeOf(wish.name || 'next'), wish));
      }
    }
    return { mounts, volumes };
  }

  async detach(id: string): Promise<void> {
    for (const name of await this.#volumes.unmountAll(id))
      this.#node.tell(name, 'unmount', { container: id, driver: 'local' });
  }

  async release(id: string, mounts: readonly MountRecord[], wish: { removeAnonymous: boolean }): Promise<void> {
    await this.#volumes.unmountAll(id);
    const own = this.#volumes.anonymousOf(id);
    for (const { name } of mounts) if (name !== undefined) this.#volumes.give(name, id);
    if (!wish.removeAnonymous) return;
    for (const name of own) {
      this.#volumes.give(name, id); // taken by a create that died before its mounts were on record
      await this.#node.remove(name, { force: true });
    }
  }

  async #resolve(id: string, wish: MountSpec): Promise<MountRecord> {
    const { target } = wish;
    const common = { target, readonly: wish.readonly !== false, wish };
    if (wish.type === 'tmpfs') return { ...common, type: 'tmpfs', source: '', propagation: '', mode: '' };
    if (wish.type === 'bind') {
      if (!wish.createSource) await checkSource(wish.source);
      const propagation = wish.propagation ?? 'rprivate';
      return { ...common, type: 'bind', source: wish.source, propagation, mode: '' };
    }
    const {
      name,
      driver,
      path: source,
    } = await this.#node.create({
      ...(wish.name === '' ? { anonymousOf: id } : { name: wish.name }),
      labels: wish.labels,
      ...(wish.driver ? { driver: wish.driver.name, options: wish.driver.options } : {}),
    });
    this.#volumes.take(name, id);
    // Docker's word for "may be relabelled", which it has for volumes that somebody named.
    const mode = wish.name === '' ? '' : 'z';
    return { ...common, type: 'volume', name, driver, source, propagation: '', mode };
  }

  async #volume(id: string, record: MountRecord, wish: VolumeMount): Promise<OciMount> {
    const name = record.name ?? wish.name;
    const path = await this.#volumes.mount(name, id);
    const source = wish.subpath ? await this.#volumes.bindSubpath(name, id, wish.subpath) : path;
    this.#node.tell(name, 'mount', {
      container: id,
      destination: wish.target,
      driver: 'local',
      propagation: '',
      'read/write': String(!record.readonly),
    });
    return { ...volumeMount(source, wish), ...(await idMapFor(wish.owner, source)) };
  }
}

/** What a start of the daemon tells the volumes: who has which, and who runs with it. */
export function volumeUses(records: readonly ContainerRecord[]): VolumeUse[] {
  return records.flatMap(({ id, state, mounts }) =>
    mounts.flatMap(({ name }) => (name === undefined ? [] : [{ name, container: id, active: isRunning(state) }])),
  );
}

/** Docker's defaults; what was asked for comes later and wins. */
function tmpfsOptions(wish: MountSpec & { type: 'tmpfs' }): string[] {
  return ['noexec', 'nosuid', 'nodev', 'rprivate', ...wish.options, ...(wish.readonly ? ['ro'] : [])];
}

function readonlyOptions(mode: ReadonlyMode, recursive: boolean): string[] {
  if (mode === false) return [];
  return mode === 'top' || !recursive ? ['ro'] : ['ro', 'rro'];
}

async function checkSource(source: string): Promise<void> {
  try {
    await stat(source);
  } catch (cause) {
    throw new BadMount({ type: 'bind', rule: `bind source path does not exist: ${source}` }, { cause });
  }
}

/** What is there may be a file as well: `--volume ./site.conf:/etc/site.conf`. */
async function makeUnlessThere(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o755 });
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
  }
}

function tmpfsMount(wish: MountSpec & { type: 'tmpfs' }): OciMount {
  return { destination: wish.target, type: 'tmpfs', source: 'tmpfs', options: tmpfsOptions(wish) };
}

async function bindMount(propagation: string, wish: BindMount): Promise<OciMount> {
  return {
    destination: wish.target,
    type: 'bind',
    source: wish.source,
    options: [wish.recursive ? 'rbind' : 'bind', propagation, ...readonlyOptions(wish.readonly, wish.recursive)],
    ...(await idMapFor(wish.owner, wish.source)),
  };
}

function volumeMount(source: string, wish: VolumeMount): OciMount {
  const options = ['rbind', 'rprivate', ...readonlyOptions(wish.readonly, true)];
  return { destination: wish.target, type: 'bind', source, options };
}
