import { containerCapabilities } from '#engine/core/capabilities.ts';
import { idsOf } from '#engine/core/id-ranges.ts';
import type { ProcessPlan } from '#engine/core/image-defaults.ts';
import { ociResources } from '#engine/core/oci-resources.ts';
import type { SeccompProfiles } from '#engine/core/seccomp-profiles.ts';
import type { ContainerSpec, IpcMode } from '#engine/core/spec.ts';
import type { ResolvedUser } from '#engine/core/user.ts';
import type { Machine } from '#kernel/seccomp/docker.ts';
import { checkConfig, OCI_VERSION, type OciConfig, type OciMount } from '#spec/oci/config.ts';
import type { LinuxDevice, LinuxNamespace } from '#spec/oci/linux.ts';

/** What has been looked up for a container by the time it starts; together with its spec it gives config.json. */
export interface OciInputs {
  id: string;
  spec: ContainerSpec;
  process: ProcessPlan;
  user: ResolvedUser;
  hostname: string;
  rootfs: string;
  /** Volumes and binds with their sources resolved, sorted so that `/a` stands before `/a/b`. */
  mounts: OciMount[];
  /** Files of ours that are bound over the image's: `/etc/hosts`, `/etc/resolv.conf`, `/etc/hostname`. */
  files: { path: string; source: string }[];
  /** Namespaces to enter instead of making, by type. */
  join: Partial<Record<LinuxNamespace['type'], string>>;
  /** `/dev/shm` of the container whose IPC namespace is joined. */
  shmSource?: string;
  cgroupsPath: string;
  devices: LinuxDevice[];
  profiles: SeccompProfiles;
  host: OciHost;
}

export interface OciHost extends Machine {
  /** Capability names in our own bounding set. */
  bounding: readonly string[];
  cgroupVersion: 1 | 2;
  /** Block device path → its numbers, for throttling. */
  deviceNumbers: (path: string) => { major: number; minor: number };
  /** Hugetlb sizes and the like that this host cannot grant are errors of the runtime, not dropped here. */
  initBinary: string;
}

/**
 * Where the reaper of `--init` shows up: `/dev` is a tmpfs of ours, so this works with any image, read-only ones too. With `/dev` a
 * mount of the user's, where nothing is to be made, it is where Docker has it.
 */
function initPath(spec: ContainerSpec): string {
  return spec.mounts.some((m) => m.target === '/dev') ? '/sbin/docker-init' : '/dev/estiba-init';
}

const MASKED_PATHS = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
];
const READONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

/** Pure: the same inputs give the same config.json, checked against the runtime specification before it is used. */
export function ociConfig(inputs: OciInputs): OciConfig {
  const { spec, process, user, host } = inputs;
  const { security } = spec;
  const capabilities = containerCapabilities(security, host.bounding);
  const moved = movedDevices(inputs);
  const config = checkConfig({
    ociVersion: OCI_VERSION,
    root: { path: inputs.rootfs, readonly: security.readonlyRoot },
    ...(spec.namespaces.uts.kind === 'private'
      ? { hostname: inputs.hostname, ...(spec.domainname ? { domainname: spec.domainname } : {}) }
      : {}),
    annotations: spec.annotations,
    process: {
      terminal: spec.process.tty,
      ...(spec.process.consoleSize
        ? { consoleSize: { height: spec.process.consoleSize.rows, width: spec.process.consoleSize.columns } }
        : {}),
      cwd: process.cwd,
      env: environment(inputs),
      args: spec.init ? [initPath(spec), 'init', '--', ...process.argv] : process.argv,
      user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
      capabilities: processCapabilities(capabilities, user.uid),
      noNewPrivileges: security.noNewPrivileges,
      rlimits: spec.ulimits.map((u) => ({ type: `RLIMIT_${u.name.toUpperCase()}`, soft: u.soft, hard: u.hard })),
      oomScoreAdj: spec.oomScoreAdj,
    },
    mounts: [...systemMounts(inputs), ...moved.mounts, ...withFiles(inputs.mounts, fileMounts(inputs))],
    linux: {
      namespaces: namespaces(inputs),
      ...(inputs.join.user === undefined ? {} : { uidMappings: idsOf(spec), gidMappings: idsOf(spec) }),
      ...timeOffsets(spec),
      cgroupsPath: inputs.cgroupsPath,
      resources: ociResources(inputs),
      devices: moved.devices,
      sysctl: sysctls(spec),
      rootfsPropagation: rootPropagation(inputs.mounts),
      maskedPaths: security.privileged ? [] : (security.maskedPaths ?? MASKED_PATHS),
      readonlyPaths: security.privileged ? [] : (security.readonlyPaths ?? READONLY_PATHS),
    },
  });
  const seccomp = inputs.profiles.resolve(security, capabilities); // checked there, once for all that share it
  return seccomp ? { ...config, linux: { ...config.linux, seccomp } } : config;
}

function environment({ spec, process, user, hostname }: OciInputs): string[] {
  const env = [...process.env];
  const has = (name: string): boolean => env.some((entry) => entry.startsWith(`${name}=`));
  if (!has('HOSTNAME') && spec.namespaces.uts.kind === 'private') env.splice(1, 0, `HOSTNAME=${hostname}`);
  if (!has('HOME')) env.push(`HOME=${user.home}`);
  return env;
}

/**
 * Root has its capabilities permitted and effective; another user has them in the bounding set alone, where a set-uid
 * program can pick them up. Nothing is inheritable since CVE-2022-24769.
 */
function processCapabilities(bounding: string[], uid: number): Record<string, string[]> {
  const active = uid === 0 ? bounding : [];
  return { bounding, permitted: active, effective: active, inheritable: [], ambient: [] };
}

function systemMounts({ spec, host, shmSource }: OciInputs): OciMount[] {
  const { privileged } = spec.security;
  const cgroupOptions = ['nosuid', 'noexec', 'nodev', ...(privileged ? [] : ['ro'])];
  const mounts: OciMount[] = [
    { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
    },
    {
      destination: '/sys',
      type: 'sysfs',
      source: 'sysfs',
      options: ['nosuid', 'noexec', 'nodev', ...(privileged ? [] : ['ro'])],
    },
    {
      destination: '/sys/fs/cgroup',
      type: host.cgroupVersion === 2 ? 'cgroup2' : 'cgroup',
      source: 'cgroup',
      options: cgroupOptions,
    },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
  ];
  if (spec.namespaces.ipc.kind !== 'none') {
    mounts.push(
      shmSource === undefined
        ? {
            destination: '/dev/shm',
            type: 'tmpfs',
            source: 'shm',
            options: ['nosuid', 'noexec', 'nodev', 'mode=1777', `size=${spec.shmBytes}`],
          }
        : {
            destination: '/dev/shm',
            type: 'bind',
            source: shmSource,
            options: ['rbind', 'nosuid', 'noexec', 'nodev', 'rprivate'],
          },
    );
  }
  // A mount of the user's own in one of these places replaces ours.
  return mounts.filter((mount) => !isReplaced(mount.destination, spec));
}

function isReplaced(destination: string, spec: ContainerSpec): boolean {
  return destination !== '/proc' && destination !== '/dev' && spec.mounts.some((m) => m.target === destination);
}

function fileMounts({ files, spec, host }: OciInputs): OciMount[] {
  const ids = idsOf(spec);
  const binds = files
    .filter((file) => !spec.mounts.some((m) => m.target === file.path))
    .map(
      (file): OciMount => ({
        destination: file.path,
        type: 'bind',
        source: file.source,
        options: ['rbind', 'rprivate', ...(spec.security.readonlyRoot ? ['ro'] : [])],
        ...(ids ? { uidMappings: ids, gidMappings: ids } : {}),
      }),
    );
  if (!spec.init) return binds;
  return [
    ...binds,
    { destination: initPath(spec), type: 'bind', source: host.initBinary, options: ['bind', 'ro', 'rprivate'] },
  ];
}

/**
 * In a user namespace nobody makes device nodes (mknod(2)), and a runtime binds the host's of the same path. What is to have another
 * one inside is a mount of its own.
 */
function movedDevices({ spec, devices }: OciInputs): { mounts: OciMount[]; devices: LinuxDevice[] } {
  if (spec.namespaces.user.kind === 'host') return { mounts: [], devices };
  const mounts = devices.flatMap(({ path: destination }): OciMount[] => {
    const wish = spec.devices.find(({ path }) => destination === path || destination.startsWith(`${path}/`));
    const source = wish ? wish.hostPath + destination.slice(wish.path.length) : destination;
    return source === destination ? [] : [{ destination, type: 'bind', source, options: ['bind', 'nosuid', 'noexec'] }];
  });
  return { mounts, devices: devices.filter(({ path }) => !mounts.some(({ destination }) => destination === path)) };
}

/** A volume at `/etc` comes before our `/etc/resolv.conf`, which it would hide; all others after: they may lie below. */
function withFiles(mounts: readonly OciMount[], files: readonly OciMount[]): OciMount[] {
  const isAbove = ({ destination }: OciMount): boolean =>
    files.some((file) => file.destination.startsWith(`${destination}/`));
  return [...mounts.filter(isAbove), ...files, ...mounts.filter((mount) => !isAbove(mount))];
}

const NAMESPACE_FIELDS = [
  ['network', 'network'],
  ['pid', 'pid'],
  ['ipc', 'ipc'],
  ['uts', 'uts'],
  ['cgroup', 'cgroup'],
] as const;

function namespaces({ spec, join }: OciInputs): LinuxNamespace[] {
  const list: LinuxNamespace[] = [{ type: 'mount' }];
  for (const [field, type] of NAMESPACE_FIELDS) {
    const mode: IpcMode = spec.namespaces[field];
    if (mode.kind === 'host') continue;
    const path = join[type];
    list.push(path === undefined ? { type } : { type, path });
  }
  // Made with the network's namespace, which has to belong to it; its map of ids was written there.
  if (join.user !== undefined) list.push({ type: 'user', path: join.user });
  if (spec.namespaces.timeOffsets) list.push({ type: 'time' });
  return list;
}

function timeOffsets(spec: ContainerSpec): object {
  const offsets = spec.namespaces.timeOffsets;
  if (!offsets) return {};
  return {
    timeOffsets: { monotonic: { secs: offsets.monotonicSeconds }, boottime: { secs: offsets.boottimeSeconds } },
  };
}

/** Docker's defaults in a network namespace of one's own: low ports and ping need no privilege there. */
function sysctls(spec: ContainerSpec): Record<string, string> {
  const own = spec.namespaces.network.kind === 'private' && !spec.security.privileged;
  const defaults: Record<string, string> = own ? { 'net.ipv4.ip_unprivileged_port_start': '0' } : {};
  // Of group ids that there are: the kernel refuses others.
  const last = Math.max(...(idsOf(spec) ?? []).map(({ containerID, size }) => containerID + size - 1));
  if (own) defaults['net.ipv4.ping_group_range'] = `0 ${last > 0 ? last : 2_147_483_647}`;
  return { ...defaults, ...spec.sysctls };
}

/** The root is a slave or shared when one of its mounts is, or what is mounted later outside could never reach inside. */
function rootPropagation(mounts: readonly OciMount[]): 'rprivate' | 'rslave' | 'rshared' {
  const options = mounts.flatMap((m) => m.options ?? []);
  if (options.some((o) => o === 'shared' || o === 'rshared')) return 'rshared';
  return options.some((o) => o === 'slave' || o === 'rslave') ? 'rslave' : 'rprivate';
}
