import { defineError } from '#base/errors.ts';

/** One line of /proc/PID/uid_map: `size` ids from `containerID` inside are those from `hostID` outside. */
export interface IdMapping {
  containerID: number;
  hostID: number;
  size: number;
}

export const BadIdMap = defineError('BAD_ID_MAP', (d: { path: string; rule: string; hint?: string }) => ({
  message: `${d.path}: ${d.rule}`,
  ...(d.hint === undefined ? {} : { hint: d.hint }),
}));

/** user_namespaces(7): since Linux 4.15. */
const MOST_LINES = 340;
/** (uid_t) −1 means "no change" in many calls, so the kernel maps no such id. */
const IDS = 0xffff_ffff;

/** What the kernel would answer EINVAL to, said by path. */
export function checkIdMap(map: readonly IdMapping[], path: string): void {
  const bad = (where: string, rule: string): never => {
    throw new BadIdMap({ path: where, rule });
  };
  if (map.length > MOST_LINES) bad(path, `${map.length} mappings; the kernel takes ${MOST_LINES}`);
  map.forEach(({ containerID, hostID, size }, i) => {
    if (size < 1) bad(`${path}[${i}].size`, `${size} maps nothing`);
    for (const [name, id] of Object.entries({ containerID, hostID }))
      if (id + size > IDS) bad(`${path}[${i}]`, `${name} ${id} and size ${size} go beyond the last id`);
  });
  for (const side of ['containerID', 'hostID'] as const) {
    const sorted = map.map((m, i) => ({ from: m[side], to: m[side] + m.size, i })).sort((a, b) => a.from - b.from);
    sorted.forEach((range, k) => {
      const before = sorted[k - 1];
      if (before && range.from < before.to) bad(`${path}[${range.i}].${side}`, `overlaps with ${path}[${before.i}]`);
    });
  }
}

/** The text for /proc/PID/uid_map, written in one go: the kernel takes a single write. */
export function formatIdMap(map: readonly IdMapping[]): Uint8Array {
  return new TextEncoder().encode(map.map((m) => `${m.containerID} ${m.hostID} ${m.size}\n`).join(''));
}

export function parseIdMap(text: string): IdMapping[] {
  return text.split('\n').flatMap((line) => {
    const [containerID, hostID, size] = line.trim().split(/\s+/).map(Number);
    return containerID === undefined || hostID === undefined || size === undefined
      ? []
      : [{ containerID, hostID, size }];
  });
}

/** Outside, for an id inside; undefined: not mapped, which the kernel shows as 65534. */
export function toHostId(map: readonly IdMapping[], id: number): number | undefined {
  const range = map.find((m) => id >= m.containerID && id < m.containerID + m.size);
  return range && range.hostID + (id - range.containerID);
}

export function toContainerId(map: readonly IdMapping[], id: number): number | undefined {
  const range = map.find((m) => id >= m.hostID && id < m.hostID + m.size);
  return range && range.containerID + (id - range.hostID);
}

/** The map of a user namespace laid over another one, as for an idmapped mount in it: what the first leads to, seen from outside. */
export function composeIdMaps(inner: readonly IdMapping[], outer: readonly IdMapping[]): IdMapping[] {
  return inner.flatMap((line) =>
    outer.flatMap((over) => {
      const from = Math.max(line.hostID, over.containerID);
      const size = Math.min(line.hostID + line.size, over.containerID + over.size) - from;
      const containerID = line.containerID + from - line.hostID;
      return size > 0 ? [{ containerID, hostID: over.hostID + from - over.containerID, size }] : [];
    }),
  );
}

/** Ranges that /etc/subuid or /etc/subgid give a user, by name or by number (subuid(5)). */
export function subordinateIds(text: string, user: { name: string; id: number }): { start: number; count: number }[] {
  return text.split('\n').flatMap((line) => {
    const [owner, start, count] = line.trim().split(':');
    const mine = owner === user.name || owner === String(user.id);
    return mine && start && count ? [{ start: Number(start), count: Number(count) }] : [];
  });
}

/** A rootless user's map: itself as root, then its subordinate ids in order. */
export function rootlessIdMap(id: number, ranges: readonly { start: number; count: number }[]): IdMapping[] {
  const map: IdMapping[] = [{ containerID: 0, hostID: id, size: 1 }];
  let next = 1;
  for (const { start, count } of ranges) {
    map.push({ containerID: next, hostID: start, size: count });
    next += count;
  }
  return map;
}
