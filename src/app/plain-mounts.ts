import { mkdir, stat } from 'node:fs/promises';
import { errnoOf } from '#base/errors.ts';
import { fail } from '#base/shape.ts';
import type { VolumeSource } from '#engine/core/parts.ts';
import type { MountRecord } from '#engine/core/record.ts';
import type { MountSpec } from '#engine/core/spec.ts';
import type { OciMount } from '#spec/oci/config.ts';

/** Binds and tmpfs mounts, which need nothing of the node: what an engine without volumes has. */
export const plainMounts: VolumeSource = {
  resolve: async (_id, mounts) => {
    const records: MountRecord[] = [];
    for (const mount of mounts)
      if (!(mount.type === 'volume' && mount.name === '')) records.push(await recordOf(mount));
    return records;
  },
  populate: async () => undefined,
  attach: async (_id, record) => ociMount(record.wish),
  detach: async () => undefined,
  release: async () => undefined,
};

async function recordOf(wish: MountSpec): Promise<MountRecord> {
  if (wish.type === 'volume') return fail('$.HostConfig.Mounts', wish.name, 'is a volume: this engine has none');
  if (wish.type === 'bind') await checkSource(wish);
  return {
    type: wish.type,
    source: wish.type === 'bind' ? wish.source : '',
    target: wish.target,
    readonly: wish.readonly !== false,
    propagation: wish.type === 'bind' ? (wish.propagation ?? 'rprivate') : '',
    mode: '',
    wish,
  };
}

async function checkSource(wish: MountSpec & { type: 'bind' }): Promise<void> {
  try {
    await stat(wish.source);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    if (!wish.createSource) fail('$.HostConfig.Mounts', wish.source, 'does not exist: bind source path does not exist');
    await mkdir(wish.source, { recursive: true });
  }
}

function ociMount(wish: MountSpec): OciMount {
  const readonly = wish.readonly === false ? 'rw' : wish.readonly === 'top' ? 'ro' : 'rro';
  if (wish.type === 'tmpfs')
    return {
      destination: wish.target,
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['noexec', 'nosuid', 'nodev', ...wish.options, ...(wish.readonly === false ? [] : ['ro'])],
    };
  const source = wish.type === 'bind' ? wish.source : '';
  const propagation = (wish.type === 'bind' && wish.propagation) || 'rprivate';
  return { destination: wish.target, type: 'bind', source, options: ['rbind', readonly, propagation] };
}
