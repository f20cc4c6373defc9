import type { CgroupLayout } from '#kernel/cgroup/layout.ts';
import type { Arch } from '#kernel/linux/syscalls.ts';

/**
 * What planners see of the machine. They read facts and change nothing, so a plan can be made, printed and tested
 * without root; `readHost` in host-linux.ts is the real one.
 */
export interface Host {
  uid: number;
  gid: number;
  /** Not real root: another uid, or root of a user namespace. */
  rootless: boolean;
  arch: Arch;
  /** Capabilities we have and can hand on, as a bit set. */
  capabilities: bigint;
  /** All that this kernel knows. */
  allCapabilities: bigint;
  apparmor: boolean;
  selinux: boolean;
  /** setns(2) takes a pidfd, and all its process's namespaces at once (Linux 5.8). */
  entersByPidfd: boolean;
  /** Landlock's ABI version; 0 where there is none. */
  landlock(): number;
  /** Where resctrl is mounted. */
  resctrl(): string | undefined;
  cgroups: CgroupLayout;
  /** What stands at a path; links are not followed. Undefined when nothing does. */
  look(path: string): { kind: 'directory' | 'file' | 'link' | 'other'; mode: number } | undefined;
  /** The same for a path inside a root file system: links in it are followed, but never out of it. */
  lookInside(root: string, path: string): { kind: 'directory' | 'file' | 'link' | 'other'; mode: number } | undefined;
  /** A small file inside a root file system, read as lookInside looks; undefined when absent. */
  readInside(root: string, path: string): string | undefined;
  /** The mount that holds a path, with its propagation. */
  mountOf(path: string): { point: string; shared: boolean };
  /** Where file systems of these types are mounted, in the order of mounting. */
  mountsOfType(...types: string[]): readonly string[];
  /** Do both name the same namespace (or file)? Undefined paths do not exist. */
  sameFile(a: string, b: string): boolean;
}
