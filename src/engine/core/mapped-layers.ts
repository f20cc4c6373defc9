import { join } from 'node:path';
import { formatIdMap, type IdMapping } from '#kernel/idmap.ts';
import { MOUNT_ATTR_IDMAP } from '#kernel/linux/mount-options.ts';
import { CREATE_NOTHING, MKDIR_MAY_EXIST, NO_SLOT } from '#kernel/plan/ops.ts';
import type { Step } from '#kernel/plan/plan.ts';
import { O_CLOEXEC, O_DIRECTORY, O_PATH } from '#runtime/builder.ts';

const MNT_DETACH = 2;
const [IDS, AT] = [0, 1];

/**
 * Layers belong to everybody, so their files have the ids that the image says. A container with a user namespace sees them through
 * mounts that show each as the id it is outside (an overlay itself cannot be mounted with a map). Those are needed until the overlay is
 * there, which has clones of its own: `before` makes them below `dir`, `after` takes them away.
 */
export function mappedLayers(
  lower: readonly string[],
  ids: readonly IdMapping[],
  dir: string,
  because: string,
): { lower: string[]; before: Step[]; after: Step[] } {
  const common = { where: 'host', because } as const;
  const map = formatIdMap(ids);
  const points = lower.map((_, i) => join(dir, String(i)));
  const before: Step[] = [
    { op: 'userns', ...common, into: IDS, uidMap: map, gidMap: map },
    {
      op: 'mkdir',
      ...common,
      path: dir,
      mode: 0o700,
      flags: MKDIR_MAY_EXIST,
      undo: [{ op: 'removeTree', path: dir }],
    },
    { op: 'open', ...common, into: AT, path: dir, flags: O_PATH | O_DIRECTORY | O_CLOEXEC, mode: 0 },
    ...lower.flatMap((source, i): Step[] => [
      { op: 'mkdir', ...common, path: points[i] ?? '', mode: 0o700, flags: MKDIR_MAY_EXIST },
      {
        op: 'bindAt',
        ...common,
        root: AT,
        source,
        from: NO_SLOT,
        target: `/${i}`,
        recursive: 0,
        create: CREATE_NOTHING,
        set: MOUNT_ATTR_IDMAP,
        clear: 0n,
        attrRecursive: 0,
        propagation: 0n,
        userns: IDS,
        undo: [{ op: 'umount', target: points[i] ?? '', flags: MNT_DETACH }],
      },
    ]),
    { op: 'close', ...common, slot: AT },
    { op: 'close', ...common, slot: IDS },
  ];
  return { lower: points, before, after: planLayersGone(dir, points, because) };
}

/** Also of what a crash between the two left. */
export function planLayersGone(dir: string, points: readonly string[], because: string): Step[] {
  const common = { where: 'host', because } as const;
  return [
    ...points.map((target): Step => ({ op: 'umount', ...common, target, flags: MNT_DETACH })),
    { op: 'removeTree', ...common, path: dir },
  ];
}
