/** The eight namespaces: the name OCI gives them, clone(2)'s flag, the link in /proc/PID/ns, and where the limit stands. */
export interface NamespaceRow {
  type: NamespaceType;
  flag: number;
  proc: string;
  /** File under /proc/sys/user with the most that one user may make. */
  limit: string;
}

export type NamespaceType = 'user' | 'pid' | 'network' | 'mount' | 'ipc' | 'uts' | 'cgroup' | 'time';

// In the order in which existing ones are entered: the user namespace first, since it owns the right to enter the others
// (setns(2)); the mount namespace last, since after it the paths of the others no longer mean the same.
export const NAMESPACES: readonly NamespaceRow[] = [
  { type: 'user', flag: 0x1000_0000, proc: 'user', limit: 'max_user_namespaces' },
  { type: 'ipc', flag: 0x0800_0000, proc: 'ipc', limit: 'max_ipc_namespaces' },
  { type: 'uts', flag: 0x0400_0000, proc: 'uts', limit: 'max_uts_namespaces' },
  { type: 'network', flag: 0x4000_0000, proc: 'net', limit: 'max_net_namespaces' },
  { type: 'pid', flag: 0x2000_0000, proc: 'pid', limit: 'max_pid_namespaces' },
  { type: 'cgroup', flag: 0x0200_0000, proc: 'cgroup', limit: 'max_cgroup_namespaces' },
  // CLONE_NEWTIME shares its bit with CSIGNAL's low byte: only clone3(2) and unshare(2) take it.
  { type: 'time', flag: 0x0000_0080, proc: 'time', limit: 'max_time_namespaces' },
  { type: 'mount', flag: 0x0002_0000, proc: 'mnt', limit: 'max_mnt_namespaces' },
];

export function namespaceRow(type: NamespaceType): NamespaceRow {
  return NAMESPACES.find((row) => row.type === type) as NamespaceRow;
}

export function namespaceFlags(types: readonly NamespaceType[]): number {
  return types.reduce((flags, type) => flags | namespaceRow(type).flag, 0);
}

/** clone(2)'s other flags that plans use. */
export const CLONE_PIDFD = 0x1000n;
export const CLONE_PARENT = 0x8000n;
export const CLONE_INTO_CGROUP = 0x2_0000_0000n;
