import { posix } from 'node:path';
import type { CgroupLayout, Hierarchy } from '#kernel/cgroup/layout.ts';
import { BadCgroupsPath } from '#kernel/errors.ts';

/** The container's cgroup in one hierarchy. Plain data: it is kept in the container's state. */
export interface CgroupPlace {
  version: 1 | 2;
  mount: string;
  /** From the mount: `/estiba/web`. */
  path: string;
  /** As in `Hierarchy`. */
  controllers: readonly string[];
  name?: string;
}

export function dirOf({ mount, path }: { mount: string; path: string }): string {
  return path === '/' ? mount : `${mount}${path}`; // both are clean, and a container has dozens of such paths
}

/**
 * Where `cgroupsPath` leads in each hierarchy (config-linux.md, "Cgroups Path"). Absolute: from the mount. Relative, or the
 * container's id when there is none: below our own cgroup; on v2 beside it, since a v2 cgroup with processes in it, as
 * ours has, cannot give controllers to its children. `..` does not lead out of the mount.
 */
export function placesFor(
  cgroupsPath: string | undefined,
  id: string,
  hierarchies: readonly Hierarchy[],
): CgroupPlace[] {
  const wanted = cgroupsPath || id;
  if (wanted.includes('\0')) throw new BadCgroupsPath({ path: wanted, rule: 'holds a NUL' });
  // Clean first, join after: `../../x` stays below where it is anchored.
  const clean = posix.join('/', wanted);
  // Removing a container's cgroup removes what is below it, so it must not be the top.
  if (clean === '/') throw new BadCgroupsPath({ path: wanted, rule: 'is the top of the hierarchy' });
  return hierarchies.map(({ version, mount, controllers, name, own }) => {
    const anchor = posix.isAbsolute(wanted) ? '/' : version === 2 ? posix.dirname(own) : own;
    const path = posix.join(anchor, clean);
    return { version, mount, path, controllers, ...(name === undefined ? {} : { name }) };
  });
}

/** `$.linux.cgroupsPath`-style maps that runc keeps in its state: controller (or `name=…`, or '') → directory. */
export function pathMap(places: readonly CgroupPlace[]): Record<string, string> {
  const entries = places.flatMap((place) => {
    if (place.version === 2) return [['', dirOf(place)] as const];
    const keys = place.name === undefined ? place.controllers : [`name=${place.name}`];
    return keys.map((key) => [key, dirOf(place)] as const);
  });
  return Object.fromEntries(entries);
}

/** The place that has `controller`, by v2's names (`io`). */
export function placeOf(places: readonly CgroupPlace[], controller: string): CgroupPlace | undefined {
  const v1Name = controller === 'io' ? 'blkio' : controller;
  return places.find((place) => place.controllers.includes(place.version === 1 ? v1Name : controller));
}

/** The unified place, whatever its controllers. */
export function unifiedPlace(places: readonly CgroupPlace[]): CgroupPlace | undefined {
  return places.find((place) => place.version === 2);
}

/**
 * The hierarchies a container gets a cgroup in: all of v1, as under runc, and the unified one when it has controllers
 * that are wished for or when there is nothing else. In hybrid layouts it is left out otherwise: each hierarchy costs
 * about 0.1 ms a container.
 */
export function hierarchiesFor(layout: CgroupLayout, needsUnified: boolean): Hierarchy[] {
  return layout.hierarchies.filter((h) => h.version === 1 || layout.kind === 'v2' || needsUnified);
}
