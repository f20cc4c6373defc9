import type { CgroupLayout } from '#kernel/cgroup/layout.ts';
import { detectLayout } from '#kernel/cgroup/layout.ts';
import type { Files } from '#kernel/files.ts';
import { treeFiles } from '#kernel/files.ts';

// Three hosts as data, for tests that need no root: what they have mounted, and what their files say.

export interface Host {
  layout: CgroupLayout;
  files: Files;
}

const V1 = ['cpu', 'cpuacct', 'cpuset', 'memory', 'devices', 'freezer', 'blkio', 'pids', 'net_cls', 'net_prio'];
const ROOT = '/sys/fs/cgroup';

const V1_FILES: Readonly<Record<string, string>> = {
  [`${ROOT}/cpu/system/cgroup.procs`]: '',
  [`${ROOT}/cpu/system/cpu.shares`]: '1024\n',
  [`${ROOT}/cpu/system/cpu.cfs_quota_us`]: '-1\n',
  [`${ROOT}/cpu/system/cpu.cfs_period_us`]: '100000\n',
  [`${ROOT}/cpu/system/cpu.cfs_burst_us`]: '0\n',
  [`${ROOT}/cpu/system/cpu.idle`]: '0\n',
  [`${ROOT}/cpuset/cpuset.cpus`]: '0-3\n',
  [`${ROOT}/cpuset/cpuset.mems`]: '0\n',
  [`${ROOT}/memory/memory.limit_in_bytes`]: '9223372036854771712\n',
  [`${ROOT}/memory/memory.memsw.limit_in_bytes`]: '9223372036854771712\n',
  [`${ROOT}/memory/memory.soft_limit_in_bytes`]: '9223372036854771712\n',
  [`${ROOT}/memory/memory.swappiness`]: '60\n',
  [`${ROOT}/memory/memory.oom_control`]: 'oom_kill_disable 0\nunder_oom 0\noom_kill 0\n',
  [`${ROOT}/memory/memory.kmem.tcp.limit_in_bytes`]: '9223372036854771712\n',
  [`${ROOT}/blkio/blkio.bfq.io_serviced`]: '',
  [`${ROOT}/pids/system/pids.max`]: 'max\n',
};

function v1Mounts(names: readonly string[], mounted: string): string {
  return names
    .map((name, i) => `${32 + i} 31 0:${29 + i} / ${mounted}/${name} rw - cgroup cgroup rw,${name}\n`)
    .join('');
}

export function v1Host(own = '/'): Host {
  const cgroup = V1.map((name, i) => `${i + 1}:${name}:${own}\n`).join('');
  const layout = detectLayout({ mountinfo: v1Mounts(V1, ROOT), cgroup, controllersOf: () => undefined });
  return { layout, files: treeFiles(V1_FILES) };
}

/** As v1, and a unified hierarchy with hugetlb: the shape of Firecracker guests and of systemd's hybrid mode. */
export function hybridHost(): Host {
  const tree = {
    ...V1_FILES,
    [`${ROOT}/unified/cgroup.controllers`]: 'hugetlb\n',
    [`${ROOT}/unified/cgroup.subtree_control`]: '\n',
    [`${ROOT}/unified/cgroup.procs`]: '1\n',
  };
  const names = V1.filter((name) => !name.startsWith('net_'));
  const named = `60 31 0:60 / ${ROOT}/systemd rw - cgroup cgroup rw,xattr,name=systemd\n`;
  const mountinfo = `${v1Mounts(names, ROOT)}${named}61 31 0:61 / ${ROOT}/unified rw - cgroup2 cgroup2 rw\n`;
  const files = treeFiles(tree);
  const controllersOf = (mount: string): string | undefined => files.read(`${mount}/cgroup.controllers`);
  return { layout: detectLayout({ mountinfo, cgroup: '0::/\n1:name=systemd:/\n', controllersOf }), files };
}

/** Debian 12 with systemd: our own cgroup has processes in it, the top hands some controllers down. */
export function v2Host(more: Readonly<Record<string, string>> = {}): Host {
  const tree = {
    [`${ROOT}/cgroup.controllers`]: 'cpuset cpu io memory hugetlb pids rdma misc\n',
    [`${ROOT}/cgroup.subtree_control`]: 'cpu memory pids\n',
    [`${ROOT}/cgroup.procs`]: '2\n3\n',
    [`${ROOT}/system.slice/cgroup.controllers`]: 'cpu memory pids\n',
    [`${ROOT}/system.slice/cgroup.subtree_control`]: 'memory pids\n',
    [`${ROOT}/system.slice/cgroup.procs`]: '',
    [`${ROOT}/system.slice/memory.swap.max`]: 'max\n',
    [`${ROOT}/system.slice/memory.max`]: 'max\n',
    ...more,
  };
  const files = treeFiles(tree);
  const mountinfo = `30 23 0:26 / ${ROOT} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n`;
  const controllersOf = (mount: string): string | undefined => files.read(`${mount}/cgroup.controllers`);
  return { layout: detectLayout({ mountinfo, cgroup: '0::/system.slice/estiba.service\n', controllersOf }), files };
}
