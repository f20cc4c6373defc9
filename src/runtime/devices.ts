import { posix } from 'node:path';
import { deviceNumber, type PlanBuilder, S_IFBLK, S_IFCHR, S_IFIFO } from '#runtime/builder.ts';
import type { LinuxDevice } from '#spec/oci/linux.ts';

const RW_FOR_ALL = 0o666;

/** config-linux.md, "Default Devices". */
const DEFAULT_DEVICES: readonly LinuxDevice[] = [
  ['/dev/null', 1, 3],
  ['/dev/zero', 1, 5],
  ['/dev/full', 1, 7],
  ['/dev/random', 1, 8],
  ['/dev/urandom', 1, 9],
  ['/dev/tty', 5, 0],
].map(([path, major, minor]) => ({
  type: 'c',
  path: String(path),
  major: Number(major),
  minor: Number(minor),
  fileMode: RW_FOR_ALL,
}));

/** What programs expect beside the devices (config-linux.md, "Dev symbolic links" of runtime-linux.md). */
const DEV_LINKS = [
  ['/proc/self/fd', '/dev/fd'],
  ['/proc/self/fd/0', '/dev/stdin'],
  ['/proc/self/fd/1', '/dev/stdout'],
  ['/proc/self/fd/2', '/dev/stderr'],
  // The container's own devpts, so that a terminal of the host cannot be opened by its number.
  ['pts/ptmx', '/dev/ptmx'],
] as const;

export interface DeviceOptions {
  devices: readonly LinuxDevice[];
  /** A user namespace may not make device nodes: the host's are bound instead. */
  bind: boolean;
  /** Links to /proc/kcore too, where the kernel has it. */
  kcore: boolean;
}

/** Init's steps in /dev below `root`. */
export function planDevices(b: PlanBuilder, root: number, options: DeviceOptions): void {
  const own = options.devices.map((device, i) => ({ device, because: `$.linux.devices[${i}]` }));
  const defaults = DEFAULT_DEVICES.filter((d) => !own.some(({ device }) => posix.normalize(device.path) === d.path));
  const all = [
    ...defaults.map((device) => ({ device, because: 'config-linux.md, "Default Devices"' })),
    // /dev/ptmx is always the link to the container's own devpts.
    ...own.filter(({ device }) => posix.normalize(device.path) !== '/dev/ptmx'),
  ];
  for (const { device, because } of all)
    b.init(because, {
      op: 'deviceAt',
      root,
      path: posix.normalize(device.path),
      mode: typeBits(device.type) | ((device.fileMode ?? RW_FOR_ALL) & 0o7777),
      device: deviceNumber(device.major ?? 0, device.minor ?? 0),
      uid: device.uid ?? 0,
      gid: device.gid ?? 0,
      bind: options.bind && device.type !== 'p' ? 1 : 0,
    });
  for (const [target, path] of DEV_LINKS)
    b.init('runtime-linux.md, "Dev symbolic links"', { op: 'symlinkAt', root, target, path });
  if (options.kcore) b.init('default', { op: 'symlinkAt', root, target: '/proc/kcore', path: '/dev/core' });
}

function typeBits(type: LinuxDevice['type']): number {
  if (type === 'b') return S_IFBLK;
  return type === 'p' ? S_IFIFO : S_IFCHR;
}
