import { posix } from 'node:path';
import type { Files } from '#kernel/files.ts';
import { parseMountInfo } from '#kernel/proc/mountinfo.ts';

/** One mounted hierarchy: of v1 with some controllers or a name, or the unified one of v2. */
export interface Hierarchy {
  version: 1 | 2;
  /** Where it is mounted: `/sys/fs/cgroup/memory`. */
  mount: string;
  /** The cgroup that the mount shows at its top; not `/` inside containers without a cgroup namespace. */
  root: string;
  /** v1: what is mounted here; v2: what cgroup.controllers of the top offers. */
  controllers: readonly string[];
  /** v1's `name=systemd` and the like. */
  name?: string;
  /** The cgroup this process is in, as seen from the mount: `/` is the mount itself. */
  own: string;
}

/**
 * Which controller lives where. `hybrid` is v1 with a unified hierarchy beside it; a controller is in one of the two only,
 * so every decision asks for the controller, never for the kind.
 */
export interface CgroupLayout {
  kind: 'none' | 'v1' | 'hybrid' | 'v2';
  hierarchies: readonly Hierarchy[];
}

export interface LayoutFacts {
  /** /proc/self/mountinfo. */
  mountinfo: string;
  /** /proc/self/cgroup. */
  cgroup: string;
  /** cgroup.controllers at the top of the v2 mount, if there is one. */
  controllersOf: (mount: string) => string | undefined;
}

export function readCgroupLayout(files: Files): CgroupLayout {
  return detectLayout({
    mountinfo: files.read('/proc/self/mountinfo') ?? '',
    cgroup: files.read('/proc/self/cgroup') ?? '',
    controllersOf: (mount) => files.read(`${mount}/cgroup.controllers`),
  });
}

export function detectLayout(facts: LayoutFacts): CgroupLayout {
  const own = parseOwnCgroups(facts.cgroup);
  const hierarchies: Hierarchy[] = [];
  for (const mount of parseMountInfo(facts.mountinfo)) {
    if (mount.fsType !== 'cgroup' && mount.fsType !== 'cgroup2') continue;
    const found =
      mount.fsType === 'cgroup2'
        ? { version: 2 as const, controllers: words(facts.controllersOf(mount.mountPoint) ?? '') }
        : v1Mount(mount.superOptions);
    // The same hierarchy may be mounted in several places (a bind into a chroot): the first is the host's own.
    if (hierarchies.some((h) => sameHierarchy(h, found))) continue;
    const key = found.version === 2 ? '' : found.name ? `name=${found.name}` : (found.controllers[0] ?? '');
    const place = { mount: mount.mountPoint, root: mount.root };
    hierarchies.push({ ...found, ...place, own: seenFrom(mount.root, own.get(key) ?? '/') });
  }
  const v1 = hierarchies.some((h) => h.version === 1);
  const v2 = hierarchies.some((h) => h.version === 2);
  return { kind: v1 ? (v2 ? 'hybrid' : 'v1') : v2 ? 'v2' : 'none', hierarchies };
}

/** Options of the superblock that are no controllers (cgroups(7), cgroup_show_options in the kernel). */
const NOT_CONTROLLERS = new Set(['rw', 'ro', 'noprefix', 'xattr', 'clone_children', 'cpuset_v2_mode', 'favordynmods']);

function v1Mount(superOptions: string): { version: 1; controllers: string[]; name?: string } {
  const options = superOptions.split(',').filter((o) => !NOT_CONTROLLERS.has(o) && !o.startsWith('release_agent='));
  const name = options.find((option) => option.startsWith('name='))?.slice('name='.length);
  const controllers = options.filter((option) => !option.includes('='));
  return { version: 1, controllers, ...(name === undefined ? {} : { name }) };
}

type Found = Pick<Hierarchy, 'version' | 'controllers' | 'name'>;

function sameHierarchy(a: Found, b: Found): boolean {
  if (a.version === 2 || b.version === 2) return a.version === b.version;
  return a.name === b.name && a.controllers.join() === b.controllers.join();
}

/** `/proc/PID/cgroup`: hierarchy key → path. The key is '' for v2, a controller, or `name=…`. */
export function parseOwnCgroups(text: string): Map<string, string> {
  const result = new Map<string, string>();
  for (const line of text.split('\n')) {
    const match = /^\d+:([^:]*):(.*)$/.exec(line);
    if (match) for (const key of (match[1] ?? '').split(',')) result.set(key, match[2] ?? '/');
  }
  return result;
}

/** Inside a container without a cgroup namespace, /proc tells host paths but the mount shows only what is below its root. */
function seenFrom(root: string, path: string): string {
  const relative = posix.relative(root, path);
  return relative.startsWith('..') ? '/' : posix.join('/', relative);
}

/** The hierarchy that has `controller` (v2's names: `io`, not `blkio`). */
export function hierarchyOf(layout: CgroupLayout, controller: string): Hierarchy | undefined {
  return layout.hierarchies.find((h) => h.controllers.includes(h.version === 1 ? v1Name(controller) : controller));
}

export function unifiedOf(layout: CgroupLayout): Hierarchy | undefined {
  return layout.hierarchies.find((h) => h.version === 2);
}

function v1Name(controller: string): string {
  return controller === 'io' ? 'blkio' : controller;
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}
