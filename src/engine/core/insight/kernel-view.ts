import type { CgroupPlace } from '#kernel/cgroup/place.ts';
import { processesIn } from '#kernel/cgroup/state.ts';
import { type CgroupStats, readStats } from '#kernel/cgroup/stats.ts';
import type { Files } from '#kernel/files.ts';
import type { NamespaceType } from '#kernel/linux/namespaces.ts';
import { type Mount, parseMountInfo } from '#kernel/proc/mountinfo.ts';
import { isAlive, type ProcessStatus, parseLimits, parseStatus, readNamespaces } from '#kernel/proc/process.ts';
import { type Listener, readListeners } from '#kernel/proc/sockets.ts';

/** What the kernel says about a running container at one moment: all that the decisions beside this file look at. */
export interface KernelView {
  status: ProcessStatus;
  namespaces: Namespaces;
  /** Of the daemon, which are the host's. */
  hostNamespaces: Namespaces;
  mounts: Mount[];
  cgroups: readonly CgroupPlace[];
  use: CgroupStats;
  pids: number[];
  rlimits: Record<string, { soft?: number; hard?: number }>;
  /** Sockets of its network namespace that take what comes. */
  listeners: Listener[];
}

export type Namespaces = Partial<Record<NamespaceType, string>>;

/** Undefined when the process has ended. */
export function readKernelView(
  process: { pid: number; startTicks: number; cgroups: readonly CgroupPlace[] },
  files: Files,
): KernelView | undefined {
  const { pid, startTicks, cgroups } = process;
  const status = files.read(`/proc/${pid}/status`);
  const mounts = files.read(`/proc/${pid}/mountinfo`);
  if (status === undefined || mounts === undefined) return undefined;
  const view: KernelView = {
    status: parseStatus(status),
    namespaces: readNamespaces(pid, files),
    hostNamespaces: readNamespaces('self', files),
    mounts: parseMountInfo(mounts),
    cgroups,
    use: readStats(cgroups, files),
    pids: processesIn(cgroups, files),
    rlimits: parseLimits(files.read(`/proc/${pid}/limits`) ?? ''),
    listeners: readListeners(pid, files),
  };
  // Looked at last: had the pid been given to another meanwhile, all of the above would be its.
  return isAlive(pid, BigInt(startTicks), files) ? view : undefined;
}
