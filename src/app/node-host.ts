import { statfsSync } from 'node:fs';
import { connect } from 'node:net';
import { availableParallelism, hostname, networkInterfaces, release, totalmem } from 'node:os';
import type { Duplex } from 'node:stream';
import type { HostFacts, NodeHost, Usage } from '#cluster/node/seams.ts';
import { dirOf, hierarchiesFor, placesFor } from '#kernel/cgroup/place.ts';
import { planCgroup, removeOps } from '#kernel/cgroup/plan.ts';
import { readStats } from '#kernel/cgroup/stats.ts';
import type { Files } from '#kernel/files.ts';
import { MS_NODEV, MS_NOSUID } from '#kernel/linux/mount-options.ts';
import { dialIn } from '#kernel/netlink/dial.ts';
import type { Op, Plan } from '#kernel/plan/plan.ts';
import type { Host } from '#runtime/host.ts';
import { diskUsage } from '#storage/files.ts';
import { planSubpath } from '#volume/plan.ts';
import { openSubpath } from '#volume/subpath.ts';

const MNT_DETACH = 2;
const SUB_PATH_MODE = 0o755;
const CPU_PERIOD_US = 100_000;
/** /proc/stat counts in these (USER_HZ), whatever the kernel's own tick. */
const TICK_NS = 10_000_000;

export interface LinuxNodeHostOptions {
  run(plan: Plan): Promise<unknown>;
  host: Host;
  files: Files;
  dataRoot: string;
  /** Links of ours on the host begin with it: their addresses are not the node's. */
  daemon: string;
  version: string;
}

/** What the node agent does to its host, by plans; and what it reads there. */
export class LinuxNodeHost implements NodeHost {
  readonly #o: LinuxNodeHostOptions;
  readonly #facts: HostFacts;

  constructor(options: LinuxNodeHostOptions) {
    this.#o = options;
    this.#facts = readFacts(options);
  }

  facts(): HostFacts {
    return this.#facts;
  }

  async mountTmpfs(path: string, { sizeBytes }: { sizeBytes?: number }): Promise<void> {
    const data = sizeBytes === undefined ? 'mode=777' : `mode=777,size=${sizeBytes}`;
    await this.#run('emptyDir in memory', {
      op: 'mount',
      source: 'tmpfs',
      target: path,
      type: 'tmpfs',
      flags: MS_NOSUID | MS_NODEV,
      data,
    });
  }

  async unmount(path: string): Promise<void> {
    await this.#run('the pod goes', { op: 'umount', target: path, flags: MNT_DETACH });
  }

  async bindSubPath(directory: string, path: string, target: string): Promise<void> {
    const found = await openSubpath(directory, directory, path, { make: SUB_PATH_MODE });
    try {
      await found.makeTarget(target);
      await this.#o.run({ steps: planSubpath(directory, found.path, target) });
    } finally {
      await found.close();
    }
  }

  async setPodCgroup(path: string, limits: Parameters<NodeHost['setPodCgroup']>[1]): Promise<void> {
    const { host, files } = this.#o;
    const [place] = this.#places(path);
    if (place && files.exists(dirOf(place))) return;
    const { memoryBytes, cpuQuotaUs, cpuShares } = limits;
    const resources = {
      ...(memoryBytes === undefined ? {} : { memory: { limit: memoryBytes } }),
      cpu: { shares: cpuShares, ...(cpuQuotaUs === undefined ? {} : { quota: cpuQuotaUs, period: CPU_PERIOD_US }) },
    };
    const { create } = planCgroup({ id: '', cgroupsPath: path, resources, because: 'pod' }, host.cgroups, files);
    await this.#o.run({ steps: create });
  }

  async removePodCgroup(path: string): Promise<void> {
    await this.#run('the pod goes', ...removeOps(this.#places(path)));
  }

  usage(path: string): Usage | undefined {
    const { files } = this.#o;
    if (path === '/') return machineUsage(files);
    const { cpu, memory } = readStats(this.#places(path), files);
    if (!cpu || !memory) return undefined;
    return { cpuNs: cpu.usageNs, workingSetBytes: Math.max(0, memory.usageBytes - memory.inactiveFileBytes) };
  }

  async diskBytes(path: string): Promise<number> {
    return (await diskUsage(path)).bytes;
  }

  connect(
    { netns, ip }: { netns: string | undefined; ip: string | undefined },
    port: number,
    signal: AbortSignal,
  ): Promise<Duplex> {
    if (netns !== undefined)
      return dialIn(netns, port, ['127.0.0.1', '::1', ...(ip === undefined ? [] : [ip])], signal);
    return dialHere(port, signal);
  }

  #places(path: string): ReturnType<typeof placesFor> {
    const { cgroups } = this.#o.host;
    return placesFor(
      path,
      '',
      hierarchiesFor(
        cgroups,
        cgroups.hierarchies.every((h) => h.version === 2),
      ),
    );
  }

  async #run(because: string, ...ops: Op[]): Promise<void> {
    await this.#o.run({ steps: ops.map((op) => ({ ...op, where: 'host', because })) });
  }
}

function machineUsage(files: Files): Usage {
  const [, ...ticks] = (files.read('/proc/stat') ?? '').split('\n')[0]?.trim().split(/\s+/).map(Number) ?? [];
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = ticks;
  const memory = new Map(
    [...(files.read('/proc/meminfo') ?? '').matchAll(/^(\w+):\s+(\d+) kB$/gm)].map((m) => [m[1], Number(m[2]) * 1024]),
  );
  return {
    cpuNs: (user + nice + system + irq + softirq) * TICK_NS,
    workingSetBytes: (memory.get('MemTotal') ?? 0) - (memory.get('MemAvailable') ?? 0),
  };
}

function readFacts({ files, dataRoot, daemon, version }: LinuxNodeHostOptions): HostFacts {
  const textOf = (path: string): string => files.read(path) ?? '';
  const disk = statfsSync(dataRoot);
  return {
    cpus: availableParallelism(),
    memoryBytes: totalmem(),
    diskBytes: disk.blocks * disk.bsize,
    address: hostAddress(daemon),
    hostname: hostname(),
    kernelVersion: release(),
    osImage: /^PRETTY_NAME="?([^"\n]*)/m.exec(textOf('/etc/os-release'))?.[1] ?? 'Linux',
    machineId: textOf('/etc/machine-id').trim(),
    bootId: textOf('/proc/sys/kernel/random/boot_id').trim(),
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    version,
    lowestOomScoreAdj: Number(textOf('/proc/self/oom_score_adj') || 0),
  };
}

/** The first address of the host that others could reach; a machine without a network has its loopback. */
function hostAddress(daemon: string): string {
  const own = (name: string): boolean => name.startsWith(`${daemon}0`) || name.startsWith(`${daemon.slice(0, 6)}-`);
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    if (own(name) || /^(docker|br-|veth|cni|podman)/.test(name)) continue;
    for (const address of addresses ?? []) if (address.family === 'IPv4' && !address.internal) return address.address;
  }
  return '127.0.0.1';
}

/** As long as in a namespace of its own: see native/net/dial.c. */
const DIAL_MS = 10_000;

function dialHere(port: number, signal: AbortSignal): Promise<Duplex> {
  const late = AbortSignal.any([signal, AbortSignal.timeout(DIAL_MS)]);
  return new Promise((resolve, reject) => {
    if (late.aborted) return reject(late.reason);
    const socket = connect({ host: 'localhost', port, allowHalfOpen: true });
    const giveUp = (): void => void socket.destroy(late.reason);
    late.addEventListener('abort', giveUp, { once: true });
    socket.once('error', reject);
    socket.once('connect', () => {
      late.removeEventListener('abort', giveUp);
      socket.off('error', reject);
      resolve(socket);
    });
  });
}
