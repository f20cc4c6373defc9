import { lstatSync, readFileSync, readlinkSync, type Stats, statSync } from 'node:fs';
import { posix } from 'node:path';
import { assert } from '#base/errors.ts';
import { readCgroupLayout } from '#kernel/cgroup/layout.ts';
import { type Files, hostFiles } from '#kernel/files.ts';
import { landlockAbi } from '#kernel/landlock.ts';
import { archOfNode } from '#kernel/linux/syscalls.ts';
import { type Mount, mountOf, parseMountInfo } from '#kernel/proc/mountinfo.ts';
import { kernelAtLeast } from '#kernel/seccomp/docker.ts';
import type { Host } from '#runtime/host.ts';

/** Files of a container's root that planners read are small; a larger one is none of ours. */
const SMALL_FILE_BYTES = 1024 * 1024;
/** As many links as the kernel follows (path_resolution(7)). */
const MOST_LINKS = 40;
/** What is absent is an answer: an error with its stack costs several times the system call. */
const QUIET = { throwIfNoEntry: false } as const;

/** The machine as it is now. Facts that cost a read are read when first asked for. */
export function readHost(ids: { uid: number; gid: number }, files: Files = hostFiles): Host {
  const status = files.read('/proc/self/status') ?? '';
  const lastCap = Number(files.read('/proc/sys/kernel/cap_last_cap') ?? 40);
  const arch = archOfNode(process.arch);
  assert(arch !== undefined, `no system call tables for ${process.arch}`);
  // Read each time: a daemon lives on while roots are mounted and unmounted.
  const mountTable = (): Mount[] => parseMountInfo(files.read('/proc/self/mountinfo') ?? '');
  // No thread of ours ever leaves its namespaces: they are looked at once, and an exec compares eight of them.
  const own = new Map<string, Stats | undefined>();
  const statOf = (path: string): Stats | undefined => orUndefined(() => statSync(path, QUIET));
  const once = (path: string): Stats | undefined => {
    if (!path.startsWith('/proc/self/ns/')) return statOf(path);
    if (!own.has(path)) own.set(path, statOf(path));
    return own.get(path);
  };
  const release = (): string => files.read('/proc/sys/kernel/osrelease')?.trim() ?? '';
  const resctrl = () => mountTable().find((m) => m.fsType === 'resctrl')?.mountPoint;
  return {
    ...ids,
    rootless: ids.uid !== 0 || !isInitialUserNamespace(files.read('/proc/self/uid_map') ?? ''),
    arch,
    // What we may hand on is permitted now and not cut off by the bounding set.
    capabilities: capabilityLine(status, 'CapBnd') & capabilityLine(status, 'CapPrm'),
    allCapabilities: (1n << BigInt(lastCap + 1)) - 1n,
    apparmor: files.read('/sys/module/apparmor/parameters/enabled')?.startsWith('Y') ?? false,
    selinux: files.exists('/sys/fs/selinux/enforce'),
    entersByPidfd: kernelAtLeast(release(), '5.8'),
    landlock: () => landlockAbi(release(), files.read('/sys/kernel/security/lsm')),
    resctrl,
    cgroups: readCgroupLayout(files),
    look: (path) => seen(lstat(path)),
    lookInside: (root, path) => seen(findInside(root, path)?.stats),
    readInside: (root, path) => readSmall(findInside(root, path)),
    mountOf: (path) => {
      const mount = mountOf(mountTable(), path);
      return {
        point: mount?.mountPoint ?? '/',
        shared: mount?.propagation.some((p) => p.startsWith('shared:')) ?? false,
      };
    },
    mountsOfType: (...types) =>
      mountTable()
        .filter((m) => types.includes(m.fsType))
        .map((m) => m.mountPoint),
    sameFile: (a, b) => {
      const [first, second] = [once(a), once(b)];
      return first !== undefined && second !== undefined && first.dev === second.dev && first.ino === second.ino;
    },
  };
}

/** All 2^32-1 ids, each as itself. */
function isInitialUserNamespace(uidMap: string): boolean {
  return /^\s*0\s+0\s+4294967295\s*$/.test(uidMap);
}

function capabilityLine(status: string, name: string): bigint {
  return BigInt(`0x${new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1] ?? '0'}`);
}

function seen(stats: Stats | undefined): ReturnType<Host['look']> {
  return stats && { kind: kindOf(stats), mode: stats.mode };
}

function lstat(path: string): Stats | undefined {
  return orUndefined(() => lstatSync(path, QUIET));
}

function kindOf(stats: Stats): 'directory' | 'file' | 'link' | 'other' {
  if (stats.isDirectory()) return 'directory';
  if (stats.isSymbolicLink()) return 'link';
  return stats.isFile() ? 'file' : 'other';
}

/** `stats`: as the walk has seen it; absent when nothing is there. */
interface Found {
  path: string;
  stats: Stats | undefined;
}

/**
 * Where a path leads when `root` is `/`: as the executor's RESOLVE_IN_ROOT, but for looking only. Between this look and
 * the act the image may change; what acts resolves again, in the kernel.
 */
function findInside(root: string, path: string): Found | undefined {
  const parts = path.split('/');
  let at: string[] = [];
  let last: Found | undefined;
  for (let links = 0; parts.length > 0; ) {
    const part = parts.shift();
    if (part === undefined || part === '' || part === '.') continue;
    if (part === '..') {
      at = at.slice(0, -1);
      last = undefined;
      continue;
    }
    const step = posix.join(root, ...at, part);
    const stats = lstat(step);
    const target = stats?.isSymbolicLink() ? orUndefined(() => readlinkSync(step)) : undefined;
    if (target === undefined) {
      at.push(part);
      last = { path: step, stats };
      continue;
    }
    if (++links > MOST_LINKS) return undefined;
    parts.unshift(...target.split('/'));
    last = undefined;
    if (target.startsWith('/')) at = [];
  }
  if (last) return last;
  const end = posix.join(root, ...at);
  return { path: end, stats: lstat(end) };
}

function readSmall(found: Found | undefined): string | undefined {
  // A FIFO would block us, a device may do worse.
  if (!found?.stats?.isFile() || found.stats.size > SMALL_FILE_BYTES) return undefined;
  return orUndefined(() => readFileSync(found.path, 'utf8'));
}

/** Whatever the reason a look fails (gone, not a directory, no right), to the planner the thing is not there. */
function orUndefined<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
