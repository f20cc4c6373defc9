import { defineError } from '#base/errors.ts';
import type { ContainerRecord } from '#engine/core/record.ts';
import type { ContainerSpec, IdMap } from '#engine/core/spec.ts';
import type { IdMapping } from '#kernel/idmap.ts';

/**
 * Where the ids of containers with a user namespace lie on the host: 4094 ranges of 65536, above those that systemd-nspawn takes
 * (0x00080000 to 0x6fffffff), away from /etc/subuid's (from 100000), and below systemd's foreign ids (0x7ffe0000).
 */
export const ID_RANGE_SIZE = 0x1_0000;
const FIRST = 0x7000_0000;
const END = 0x7ffe_0000;

export const NoFreeIds = defineError('ID_RANGE_TAKEN', (_: Record<never, never>) => ({
  message: 'all ranges of ids for containers with a user namespace are in use',
  hint: 'remove containers that were made with --userns private',
}));

export const IdsTaken = defineError('ID_RANGE_TAKEN', (d: { first: number; count: number; by: string }) => ({
  message: `ids ${d.first} to ${d.first + d.count - 1} overlap with those of container ${d.by}`,
  hint: '--userns private alone chooses a range that is free',
}));

type Holder = Pick<ContainerRecord, 'name' | 'spec'>;

/**
 * The record with a range of its own, the lowest that no container has: from its creation to its removal, since its files lie on disk
 * with these ids. One that the wish names is checked. Throws ID_RANGE_TAKEN.
 */
export function withOwnIds<T extends Holder>(record: T, others: () => readonly Holder[]): T {
  const { spec } = record;
  const { user } = spec.namespaces;
  if (user.kind === 'host') return record;
  const held = others().flatMap(({ name, spec: { namespaces } }) =>
    namespaces.user.kind === 'private' ? namespaces.user.mappings.map((map) => ({ name, ...map })) : [],
  );
  const holderOf = ({ hostId, size }: IdMap) =>
    held.find((h) => hostId < h.hostId + h.size && h.hostId < hostId + size);
  for (const map of user.mappings) {
    const by = holderOf(map);
    if (by) throw new IdsTaken({ first: map.hostId, count: map.size, by: by.name });
  }
  if (user.mappings.length > 0) return record;
  for (let hostId = FIRST; hostId < END; hostId += ID_RANGE_SIZE) {
    const map = { containerId: 0, hostId, size: ID_RANGE_SIZE };
    if (holderOf(map)) continue;
    const namespaces = { ...spec.namespaces, user: { ...user, mappings: [map] } };
    return { ...record, spec: { ...spec, namespaces } };
  }
  throw new NoFreeIds({});
}

/** A container's map in the kernel's words; undefined: its ids are the host's. */
export function idsOf({ namespaces: { user } }: Pick<ContainerSpec, 'namespaces'>): IdMapping[] | undefined {
  if (user.kind === 'host') return undefined;
  return user.mappings.map(({ containerId, hostId, size }) => ({ containerID: containerId, hostID: hostId, size }));
}
