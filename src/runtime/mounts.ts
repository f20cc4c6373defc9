import { posix } from 'node:path';
import { fail } from '#base/shape.ts';
import type { Hierarchy } from '#kernel/cgroup/layout.ts';
import { type CgroupPlace, dirOf } from '#kernel/cgroup/place.ts';
import {
  MOUNT_ATTR_IDMAP,
  MOUNT_ATTR_RDONLY,
  type MountOptions,
  MS_BIND,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  MS_RELATIME,
  MS_REMOUNT,
  parseMountOptions,
} from '#kernel/linux/mount-options.ts';
import {
  CREATE_DIRECTORY,
  CREATE_LIKE_SOURCE,
  CREATE_NOTHING,
  NO_SLOT,
  TARGET_MAY_BE_PROC,
  TARGET_NO_LINKS,
} from '#kernel/plan/ops.ts';
import { type PlanBuilder, utf8 } from '#runtime/builder.ts';
import type { Host } from '#runtime/host.ts';
import type { IdMapping, OciConfig, OciMount } from '#spec/oci/config.ts';

/** What the mount planner needs to know of the container. */
export interface MountContext {
  config: OciConfig;
  bundle: string;
  rootfs: string;
  host: Host;
  /** Init lives in a user namespace that is not ours: what it mounts, it mounts as that one's root. */
  userns: boolean;
  cgroupns: boolean;
  /** The container's place in each hierarchy. */
  cgroups: readonly CgroupPlace[];
}

/** A mount of the configuration with its options read, and the slot that already holds its tree, if any. */
export interface PlannedMount {
  mount: OciMount;
  because: string;
  target: string;
  options: MountOptions;
  kind: 'bind' | 'cgroup' | 'tmpfs' | 'kernel' | 'other';
  from: number;
}

/** Files of /proc that engines mount over, with data of their own (lxcfs, podman). All others would fool programs. */
const PROC_FILES_THAT_MAY_BE_COVERED = new Set(
  'cpuinfo diskstats meminfo stat swaps uptime loadavg slabinfo net/dev sys/kernel/ns_last_pid sys/crypto/fips_enabled'
    .split(' ')
    .map((name) => `/proc/${name}`),
);
const KERNEL_TYPES = new Set(['proc', 'sysfs', 'mqueue', 'devpts']);

export function readMounts(context: MountContext): PlannedMount[] {
  return (context.config.mounts ?? []).map((mount, i) => {
    const because = `$.mounts[${i}]`;
    const options = parseMountOptions(mount.options ?? []);
    // Both forms are the specification's: `/x` and, deprecated, `x`, each relative to the container's root.
    const target = posix.normalize(`/${mount.destination}`).replace(/(.)\/$/, '$1');
    const planned: PlannedMount = { mount, because, target, options, kind: kindOf(mount, options), from: NO_SLOT };
    checkProcTarget(planned, context);
    checkIdMap(planned, context);
    return planned;
  });
}

function kindOf(mount: OciMount, options: MountOptions): PlannedMount['kind'] {
  if (options.bind !== 'no' || mount.type === 'bind') return 'bind';
  if (mount.type === 'cgroup' || mount.type === 'cgroup2') return 'cgroup';
  if (mount.type === 'tmpfs') return 'tmpfs';
  return KERNEL_TYPES.has(mount.type ?? '') ? 'kernel' : 'other';
}

/** CVE-2019-16884: whoever covers /proc decides what the runtime and the container's programs read there. */
function checkProcTarget({ mount, target, because, kind }: PlannedMount, { host, rootfs }: MountContext): void {
  if ((target === '/proc' && mount.type === 'proc') || (target === '/sys' && mount.type === 'sysfs')) {
    // CVE-2019-19921: a link here sends the mount elsewhere and leaves the image's own /proc in place.
    if (host.look(posix.join(rootfs, target))?.kind === 'link')
      fail(`${because}.destination`, mount.destination, `is a link: ${target} must be mounted on ordinary directory`);
  }
  if (target === '/proc') {
    const procAsSource = kind === 'bind' && posix.normalize(mount.source ?? '') === '/proc';
    if (mount.type !== 'proc' && !procAsSource)
      fail(`${because}.destination`, mount.destination, 'may only be covered by proc itself');
  } else if (target.startsWith('/proc/') && !PROC_FILES_THAT_MAY_BE_COVERED.has(target)) {
    fail(`${because}.destination`, mount.destination, 'cannot be mounted because it is inside /proc');
  }
}

function checkIdMap({ mount, options, because, kind }: PlannedMount, { config }: MountContext): void {
  const mapped = options.idmap !== 'no' || mount.uidMappings !== undefined;
  if (!mapped) return;
  if (kind !== 'bind') fail(`${because}.options`, mount.options, 'asks for an idmap, which only a bind mount can have');
  if (mount.uidMappings === undefined && !config.linux?.uidMappings?.length)
    fail(`${because}.options`, mount.options, 'asks for an idmap, but neither mount nor container has mappings');
}

/**
 * Host steps before the clone: trees that init may not reach from its user namespace, and idmapped ones, for which only
 * the owner of the source's file system has the right.
 */
export function planTrees(b: PlanBuilder, context: MountContext, mounts: readonly PlannedMount[]): void {
  for (const planned of mounts) {
    if (planned.kind !== 'bind') continue;
    const { mount, options, because } = planned;
    const idmapped = options.idmap !== 'no' || mount.uidMappings !== undefined;
    if (!idmapped && !(context.userns && !context.host.rootless)) continue;
    const recursive = options.bind === 'rbind' ? 1 : 0;
    const userns = idmapped ? planIdMapNamespace(b, context, planned) : NO_SLOT;
    planned.from = b.slot();
    b.host(because, {
      op: 'openTree',
      into: planned.from,
      path: sourceOf(mount, context),
      recursive,
      set: idmapped ? MOUNT_ATTR_IDMAP : 0n,
      clear: 0n,
      attrRecursive: options.idmap === 'ridmap' ? 1 : 0,
      userns,
    });
    b.close('host', because, userns);
  }
}

function planIdMapNamespace(b: PlanBuilder, { config }: MountContext, { mount, because }: PlannedMount): number {
  const into = b.slot();
  const uidMap = idMapText(mount.uidMappings ?? config.linux?.uidMappings ?? []);
  const gidMap = idMapText(mount.gidMappings ?? config.linux?.gidMappings ?? []);
  b.host(`${because}.uidMappings`, { op: 'userns', into, uidMap: utf8(uidMap), gidMap: utf8(gidMap) });
  return into;
}

export function idMapText(mappings: readonly IdMapping[]): string {
  return mappings.map((m) => `${m.containerID} ${m.hostID} ${m.size}\n`).join('');
}

function sourceOf(mount: OciMount, { bundle }: MountContext): string {
  return posix.resolve(bundle, mount.source ?? '.');
}

/** Init's steps: each mount below `root`, in the order listed (config.md, "Mounts": "MUST mount in the listed order"). */
export function planMounts(b: PlanBuilder, context: MountContext, mounts: readonly PlannedMount[], root: number): void {
  for (const planned of mounts) {
    if (planned.kind === 'bind') planBind(b, context, planned, root);
    else if (planned.kind === 'cgroup') planCgroupMount(b, context, planned, root);
    else if (planned.kind === 'tmpfs') planTmpfs(b, context, planned, root);
    else planPlain(b, planned, root);
  }
}

/** A read-only tmpfs is made so last: mounts, devices and the console after it need files in it. */
export function planReadOnlyTmpfs(b: PlanBuilder, mounts: readonly PlannedMount[], root: number): void {
  for (const { kind, options, target: path, because } of mounts) {
    if (kind !== 'tmpfs' || !(options.flags & MS_RDONLY)) continue;
    const attr = { recursive: 0, set: MOUNT_ATTR_RDONLY, clear: 0n, propagation: 0n };
    b.init(`${because}.options`, { op: 'attrAt', root, path, ...attr });
  }
}

function planBind(b: PlanBuilder, context: MountContext, planned: PlannedMount, root: number): void {
  const { mount, options, because, target } = planned;
  if (options.flags & MS_REMOUNT) {
    planPlain(b, planned, root);
    return;
  }
  const recursive = options.bind === 'rbind' ? 1 : 0;
  const wantsRecursive = (options.recursiveSet | options.recursiveClear) !== 0n;
  const wantsOwn = (options.attrSet | options.attrClear) !== 0n;
  const { from } = planned;
  const [first, ...more] = options.propagation;
  b.init(because, {
    op: 'bindAt',
    root,
    source: sourceOf(mount, context),
    from,
    target,
    recursive,
    create: CREATE_LIKE_SOURCE | (target.startsWith('/proc/') ? TARGET_MAY_BE_PROC : 0),
    set: wantsRecursive ? options.recursiveSet : options.attrSet,
    clear: wantsRecursive ? options.recursiveClear : options.attrClear,
    attrRecursive: wantsRecursive ? 1 : 0,
    propagation: first ?? 0n,
    userns: NO_SLOT,
  });
  b.release(from);
  // mount_setattr(2) changes one mount or all of a tree: where both are wished, the one at the top comes after.
  if (wantsOwn && wantsRecursive) {
    const { attrSet: set, attrClear: clear } = options;
    b.init(`${because}.options`, { op: 'attrAt', root, path: target, recursive: 0, set, clear, propagation: 0n });
  }
  planPropagation(b, { ...planned, options: { ...options, propagation: more } }, root);
}

function planPlain(b: PlanBuilder, planned: PlannedMount, root: number): void {
  const { mount, options, because, target, kind } = planned;
  const type = mount.type ?? '';
  // CVE-2023-27561: a link swapped in for /proc or /sys must not lead the mount elsewhere.
  const noLinks = type === 'proc' || type === 'sysfs' ? TARGET_NO_LINKS : 0;
  const create = (options.flags & MS_REMOUNT ? CREATE_NOTHING : CREATE_DIRECTORY) | noLinks;
  const source = mount.source ?? type;
  const flags = options.flags | (kind === 'bind' ? MS_BIND : 0n);
  b.init(because, { op: 'mountAt', root, source, target, type, flags, data: options.data, create });
  planPropagation(b, planned, root);
}

function planTmpfs(b: PlanBuilder, context: MountContext, planned: PlannedMount, root: number): void {
  const { mount, options, because, target } = planned;
  const flags = options.flags & ~MS_RDONLY;
  // Without a mode of its own a tmpfs takes the one of the directory it covers: /tmp stays 1777.
  const covered = context.host.lookInside(context.rootfs, target);
  const keepsMode = covered?.kind === 'directory' && !/(^|,)mode=/.test(options.data);
  const mode = keepsMode ? `mode=${(covered.mode & 0o7777).toString(8)}` : '';
  const data = [options.data, mode].filter(Boolean).join(',');
  if (options.tmpcopyup) b.init(because, { op: 'copyUpAt', root, target, data, flags });
  else {
    const source = mount.source ?? 'tmpfs';
    b.init(because, { op: 'mountAt', root, source, target, type: 'tmpfs', flags, data, create: CREATE_DIRECTORY });
  }
  planPropagation(b, planned, root);
}

function planPropagation(b: PlanBuilder, { options, because, target }: PlannedMount, root: number): void {
  for (const flags of options.propagation)
    b.init(`${because}.options`, { op: 'mountAt', root, source: '', target, type: '', flags, data: '', create: 0 });
}

/**
 * A `cgroup` mount shows the container its own place. With a cgroup namespace the kernel cuts the view; without one each
 * hierarchy is bound at the container's directory. On v1 that is a tmpfs with a directory for each hierarchy.
 */
function planCgroupMount(b: PlanBuilder, context: MountContext, planned: PlannedMount, root: number): void {
  const { options, because, target } = planned;
  const { kind, hierarchies } = context.host.cgroups;
  if (kind === 'v2') {
    const [unified] = hierarchies;
    if (unified) planHierarchy(b, context, planned, { root, target, type: 'cgroup2', data: '', hierarchy: unified });
    return;
  }
  const flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  const create = CREATE_DIRECTORY;
  b.init(because, { op: 'mountAt', root, source: 'tmpfs', target, type: 'tmpfs', flags, data: 'mode=755', create });
  for (const hierarchy of hierarchies) {
    // Beside v1 the unified hierarchy is ours to use and not shown, as under runc: programs that find it take it for v2.
    if (hierarchy.version === 2) continue;
    const base = posix.basename(hierarchy.mount);
    const at = posix.join(target, base);
    const data = hierarchy.name ? `none,name=${hierarchy.name}` : hierarchy.controllers.join(',');
    planHierarchy(b, context, planned, { root, target: at, type: 'cgroup', data, hierarchy });
    if (hierarchy.controllers.length > 1)
      for (const alias of hierarchy.controllers.filter((c) => c !== base))
        b.init(because, { op: 'symlinkAt', root, target: base, path: posix.join(target, alias) });
  }
  // The tmpfs itself only carries the directories; it becomes read-only with the mount it stands for.
  if (options.flags & MS_RDONLY)
    b.init(`${because}.options`, {
      op: 'mountAt',
      root,
      source: '',
      target,
      type: '',
      flags: flags | MS_RDONLY | MS_REMOUNT | MS_BIND,
      data: '',
      create: 0,
    });
}

function planHierarchy(
  b: PlanBuilder,
  context: MountContext,
  { options, because }: PlannedMount,
  at: { root: number; target: string; type: string; data: string; hierarchy: Hierarchy },
): void {
  const { root, target, type, data, hierarchy } = at;
  const place = context.cgroups.find((p) => p.mount === hierarchy.mount);
  if (context.cgroupns) {
    // Control files only: nothing in there is to be run or opened as a device, whatever the options say.
    const flags = (options.flags & ~MS_RELATIME) | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    b.init(because, {
      op: 'mountAt',
      root,
      source: hierarchy.name ?? type,
      target,
      type,
      flags,
      data,
      create: CREATE_DIRECTORY,
    });
    return;
  }
  b.init(because, {
    op: 'bindAt',
    root,
    source: place ? dirOf(place) : hierarchy.mount,
    from: NO_SLOT,
    target,
    recursive: 0,
    create: CREATE_DIRECTORY,
    set: options.attrSet,
    clear: options.attrClear,
    attrRecursive: 0,
    propagation: 0n,
    userns: NO_SLOT,
  });
}

/** True when the container brings a /dev of its own making, so that ours must stay away from it. */
export function bindsDev(mounts: readonly PlannedMount[]): boolean {
  return mounts.some((m) => m.kind === 'bind' && m.target === '/dev');
}
