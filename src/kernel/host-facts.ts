import type { CgroupLayout } from '#kernel/cgroup/layout.ts';
import { hierarchyOf, readCgroupLayout } from '#kernel/cgroup/layout.ts';
import type { Files } from '#kernel/files.ts';
import { NAMESPACES } from '#kernel/linux/namespaces.ts';
import { parseLimits, parseStatus } from '#kernel/proc/process.ts';

/** What `estiba doctor` judges by. Plain data: a machine that somebody reports can be made into a test. */
export interface HostFacts {
  /** `uname -r`. */
  kernelRelease: string;
  /** Node's `process.arch` and version. */
  nodeArch: string;
  nodeVersion: string;
  uid: number;
  /** Effective capabilities, as a bit set. */
  capabilities: bigint;
  noNewPrivs: boolean;
  cgroups: CgroupLayout;
  /** Namespace types in /proc/self/ns. */
  namespaces: readonly string[];
  /** /proc/sys/user/max_*: most namespaces one user may make. */
  namespaceLimits: Readonly<Record<string, number>>;
  /** Distributions' switch for user namespaces without root; undefined: no such switch. */
  unprivilegedUserns?: boolean;
  fileSystems: readonly string[];
  seccompActions: readonly string[];
  /** /sys/kernel/security/lsm; undefined where securityfs is not mounted. */
  lsm?: string;
  apparmor: boolean;
  selinux: boolean;
  pressure: boolean;
  swapAccounting: boolean;
  ipForward: { v4: boolean; v6: boolean };
  inotifyInstances?: number;
  openFiles?: number;
  /** nf_tables answered; undefined: nobody asked. */
  nftables?: boolean;
  /** Programs found in PATH. */
  tools: Readonly<Record<string, boolean>>;
  /** Ranges for this user in /etc/subuid and /etc/subgid. */
  subordinateIds: boolean;
  /** `freeFiles` where the file system counts them. */
  dataRoot?: { path: string; freeBytes: number; freeFiles?: number };
}

/** Programs that something of ours can use. */
export const TOOLS = ['newuidmap', 'newgidmap', 'mmdebstrap', 'busybox'] as const;

export interface HostProbe {
  files: Files;
  uid: number;
  nodeArch: string;
  nodeVersion: string;
  userName: string;
  /** PATH. */
  path: string;
  /** Free room where the data will lie. */
  freeRoom?: { path: string; freeBytes: number; freeFiles?: number };
  /** Whether nf_tables answered. */
  nftables?: boolean;
}

export function readHostFacts(probe: HostProbe): HostFacts {
  const { files } = probe;
  const text = (path: string): string => files.read(path)?.trim() ?? '';
  const number = (path: string): number | undefined => (text(path) === '' ? undefined : Number(text(path)));
  const status = parseStatus(files.read('/proc/self/status') ?? '');
  const cgroups = readCgroupLayout(files);
  const lsm = files.read('/sys/kernel/security/lsm');
  const userns = number('/proc/sys/kernel/unprivileged_userns_clone');
  const restricted = number('/proc/sys/kernel/apparmor_restrict_unprivileged_userns');
  const inotifyInstances = number('/proc/sys/fs/inotify/max_user_instances');
  const openFiles = parseLimits(files.read('/proc/self/limits') ?? '')['Max open files']?.hard;
  const memory = hierarchyOf(cgroups, 'memory');
  const swapFile = memory?.version === 1 ? `${memory.mount}/memory.memsw.limit_in_bytes` : '/proc/swaps';
  const mine = (file: string): boolean =>
    text(file)
      .split('\n')
      .some((line) => [probe.userName, String(probe.uid)].includes(line.split(':')[0] ?? ''));
  return {
    kernelRelease: text('/proc/sys/kernel/osrelease'),
    nodeArch: probe.nodeArch,
    nodeVersion: probe.nodeVersion,
    uid: probe.uid,
    capabilities: status.capabilities.effective,
    noNewPrivs: status.noNewPrivs,
    cgroups,
    namespaces: files.list('/proc/self/ns') ?? [],
    namespaceLimits: Object.fromEntries(
      NAMESPACES.flatMap(({ limit }) => {
        const value = number(`/proc/sys/user/${limit}`);
        return value === undefined ? [] : [[limit, value]];
      }),
    ),
    ...(userns === undefined && restricted === undefined
      ? {}
      : { unprivilegedUserns: userns !== 0 && restricted !== 1 }),
    fileSystems: text('/proc/filesystems')
      .split('\n')
      .map((line) => line.split('\t').at(-1) ?? ''),
    seccompActions: text('/proc/sys/kernel/seccomp/actions_avail').split(' ').filter(Boolean),
    ...(lsm === undefined ? {} : { lsm }),
    apparmor: text('/sys/module/apparmor/parameters/enabled') === 'Y',
    selinux: files.exists('/sys/fs/selinux/enforce'),
    pressure: files.exists('/proc/pressure/cpu'),
    swapAccounting: files.exists(swapFile),
    ipForward: {
      v4: text('/proc/sys/net/ipv4/ip_forward') === '1',
      v6: text('/proc/sys/net/ipv6/conf/all/forwarding') === '1',
    },
    ...(inotifyInstances === undefined ? {} : { inotifyInstances }),
    ...(openFiles === undefined ? {} : { openFiles }),
    ...(probe.nftables === undefined ? {} : { nftables: probe.nftables }),
    tools: Object.fromEntries(
      TOOLS.map((name) => [name, probe.path.split(':').some((dir) => dir !== '' && files.exists(`${dir}/${name}`))]),
    ),
    subordinateIds: mine('/etc/subuid') && mine('/etc/subgid'),
    ...(probe.freeRoom ? { dataRoot: probe.freeRoom } : {}),
  };
}
