import { stat } from 'node:fs/promises';
import { idsOf } from '#engine/core/id-ranges.ts';
import type { ContainerRecord } from '#engine/core/record.ts';
import type { OwnerWish } from '#engine/core/spec.ts';
import { composeIdMaps, type IdMapping } from '#kernel/idmap.ts';
import type { OciMount } from '#spec/oci/config.ts';

/** (uid_t) −1 is no id. */
const IDS = 0xffff_ffff;

/**
 * The ownership that people ask of bind mounts: files of whoever owns the source show inside as the wished user's, and what that user
 * makes belongs to the source's owner outside. The two ids change places; all others are themselves, so that nothing becomes
 * unreadable (an id without a mapping is 65534, and a write as such a user is EOVERFLOW).
 */
export function swapIds(outside: number, inside: number): IdMapping[] {
  if (outside === inside) return [{ containerID: 0, hostID: 0, size: IDS }];
  const [low, high] = outside < inside ? [outside, inside] : [inside, outside];
  const line = (containerID: number, hostID: number, size: number): IdMapping[] =>
    size > 0 ? [{ containerID, hostID, size }] : [];
  return [
    ...line(0, 0, low),
    ...line(low, high, 1),
    ...line(low + 1, low + 1, high - low - 1),
    ...line(high, low, 1),
    ...line(high + 1, high + 1, IDS - high - 1),
  ];
}

/** `uidMappings` and `gidMappings` of a bind mount (config.md, "Mounts"); nothing when nobody asked. */
export async function idMapFor(
  owner: OwnerWish | undefined,
  source: string,
): Promise<{ uidMappings?: IdMapping[]; gidMappings?: IdMapping[] }> {
  if (!owner) return {};
  const { uid, gid } = await stat(source);
  if ((owner.uid ?? uid) === uid && (owner.gid ?? gid) === gid) return {};
  return { uidMappings: swapIds(uid, owner.uid ?? uid), gidMappings: swapIds(gid, owner.gid ?? gid) };
}

/**
 * In a user namespace volumes show their files as an image would, whichever range of ids the container has, so that others can share
 * them; host directories are the host's, and their files nobody's inside, unless an owner was wished.
 */
export function withOwners(mounts: readonly OciMount[], { spec, mounts: records }: ContainerRecord): OciMount[] {
  const ids = idsOf(spec);
  if (!ids) return [...mounts];
  return mounts.map((mount) => {
    const isVolume = records.some(({ target, type }) => target === mount.destination && type === 'volume');
    if (!mount.uidMappings && !isVolume) return mount;
    const over = (map: readonly IdMapping[] | undefined) => (map ? composeIdMaps(map, ids) : ids);
    return { ...mount, uidMappings: over(mount.uidMappings), gidMappings: over(mount.gidMappings) };
  });
}
