import { readFileSync } from 'node:fs';
import { availableParallelism, hostname, machine, release, totalmem } from 'node:os';
import type { CgroupLayout } from '#kernel/cgroup/layout.ts';
import { hierarchyOf } from '#kernel/cgroup/layout.ts';
import { type Files, hostFiles } from '#kernel/files.ts';
import { hostPlatform } from '#spec/image/platform.ts';

/** What the node says of itself and of the machine. */
export interface SystemFacts {
  /** Of this node, for good: kept in the data root. */
  id: string;
  version: string;
  commit: string;
  hostname: string;
  kernelRelease: string;
  /** Go's word, `amd64`, and the kernel's, `x86_64`. */
  architecture: string;
  machine: string;
  operatingSystem: string;
  osVersion: string;
  cpus: number;
  memoryBytes: number;
  cgroupVersion: '1' | '2';
  /** Whether the kernel can bound what the name says. */
  limits: Readonly<Record<'memory' | 'swap' | 'cpuset' | 'cpu' | 'pids' | 'oomKillDisable', boolean>>;
  ipv4Forwarding: boolean;
}

export function readSystem(
  identity: { id: string; version: string; commit: string },
  cgroups: CgroupLayout,
  files: Files = hostFiles,
): SystemFacts {
  const os = osRelease(files.read('/etc/os-release') ?? files.read('/usr/lib/os-release') ?? '');
  const has = (controller: string): boolean => hierarchyOf(cgroups, controller) !== undefined;
  const memoryHierarchy = hierarchyOf(cgroups, 'memory');
  return {
    ...identity,
    hostname: hostname(),
    kernelRelease: release(),
    architecture: hostPlatform(process.arch).architecture,
    machine: machine(),
    operatingSystem: os['PRETTY_NAME'] ?? 'Linux',
    osVersion: os['VERSION_ID'] ?? '',
    cpus: availableParallelism(),
    memoryBytes: totalmem(),
    cgroupVersion: memoryHierarchy?.version === 1 ? '1' : '2',
    limits: {
      memory: has('memory'),
      swap:
        memoryHierarchy?.version === 2 || files.exists(`${memoryHierarchy?.mount ?? ''}/memory.memsw.limit_in_bytes`),
      cpuset: has('cpuset'),
      cpu: has('cpu'),
      pids: has('pids'),
      oomKillDisable: memoryHierarchy?.version === 1,
    },
    ipv4Forwarding: files.read('/proc/sys/net/ipv4/ip_forward')?.trim() === '1',
  };
}

/** `NAME="value"` lines (os-release(5)). */
function osRelease(text: string): Record<string, string> {
  return Object.fromEntries(
    text.split('\n').flatMap((line) => {
      const [, name, value] = /^([A-Z_]+)="?(.*?)"?$/.exec(line) ?? [];
      return name === undefined || value === undefined ? [] : [[name, value]];
    }),
  );
}

/** The process's own numbers, for `docker info`. */
export function ownUsage(): { fileDescriptors: number; threads: number } {
  const status = readFileSync('/proc/self/status', 'utf8');
  return {
    fileDescriptors: Number(/^FDSize:\s*(\d+)$/m.exec(status)?.[1] ?? 0),
    threads: Number(/^Threads:\s*(\d+)$/m.exec(status)?.[1] ?? 0),
  };
}
