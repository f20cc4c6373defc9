import type { Clock } from '#base/clock.ts';
import { sleep } from '#base/clock.ts';
import type { Containers } from '#engine/core/containers.ts';
import { type ContainerRecord, isRunning } from '#engine/core/record.ts';
import { type CgroupStats, readStats } from '#kernel/cgroup/stats.ts';
import type { Files } from '#kernel/files.ts';

/** What a container uses at one moment, in the kernel's own numbers. */
export interface Sample {
  record: ContainerRecord;
  atMs: number;
  /** Absent: it does not run. */
  use?: Use;
}

export interface Use {
  cgroup: CgroupStats;
  /** By interface of its network namespace; undefined when that is the host's. */
  networks: Record<string, InterfaceStats> | undefined;
  host: HostUse;
}

export interface InterfaceStats {
  rxBytes: number;
  rxPackets: number;
  rxErrors: number;
  rxDropped: number;
  txBytes: number;
  txPackets: number;
  txErrors: number;
  txDropped: number;
}

export interface HostUse {
  /** All CPUs together, since boot; of it, doing nothing or waiting for disks. */
  cpuNs: number;
  idleNs: number;
  cpus: number;
  memoryBytes: number;
  /** What programs could still get without anybody being swapped out. */
  availableBytes: number;
}

export interface StatsParts {
  containers: Containers;
  files: Files;
  clock: Clock;
}

const INTERVAL_MS = 1_000;

export function sample({ containers, files, clock }: StatsParts, id: string): Sample {
  const record = containers.find(id);
  if (!isRunning(record.state)) return { record, atMs: 0 };
  const { cgroups, pid } = containers.running(record.id);
  const own = record.spec.namespaces.network.kind !== 'host';
  const networks = own ? parseInterfaces(files.read(`/proc/${pid}/net/dev`) ?? '') : undefined;
  return { record, atMs: clock.now(), use: { cgroup: readStats(cgroups, files), networks, host: hostUse(files) } };
}

/** One sample and the one before it, once a second until the container is removed or the client leaves. */
export async function* samples(
  parts: StatsParts,
  id: string,
  signal: AbortSignal,
): AsyncGenerator<{ before: Sample | undefined; now: Sample }> {
  let before: Sample | undefined;
  while (!signal.aborted && parts.containers.get(id)) {
    const now = sample(parts, id);
    yield { before, now };
    before = now;
    await sleep(parts.clock, INTERVAL_MS, signal).catch(() => undefined); // the client left: the loop ends
  }
}

/** Two samples a second apart, as a client needs them for percentages; both the same moment with `once`. */
export async function samplePair(
  parts: StatsParts,
  id: string,
  how: { once: boolean },
  signal: AbortSignal,
): Promise<{ before: Sample | undefined; now: Sample }> {
  const first = sample(parts, id);
  if (how.once || !first.use) return { before: undefined, now: first };
  await sleep(parts.clock, INTERVAL_MS, signal);
  return { before: first, now: sample(parts, id) };
}

/** `/proc/net/dev` (proc_pid_net(5)), the loopback left out as Docker does. */
export function parseInterfaces(text: string): Record<string, InterfaceStats> {
  const result: Record<string, InterfaceStats> = {};
  for (const line of text.split('\n').slice(2)) {
    const colon = line.indexOf(':');
    const name = line.slice(0, colon).trim();
    if (colon < 0 || name === 'lo') continue;
    const n = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/)
      .map(Number);
    const at = (i: number): number => n[i] ?? 0;
    result[name] = {
      rxBytes: at(0),
      rxPackets: at(1),
      rxErrors: at(2),
      rxDropped: at(3),
      txBytes: at(8),
      txPackets: at(9),
      txErrors: at(10),
      txDropped: at(11),
    };
  }
  return result;
}

/** The kernel counts in USER_HZ, which is 100 on every architecture we run on. */
const NS_A_TICK = 10_000_000;
/** user nice system idle iowait irq softirq steal: guest time is within user time already. */
const CPU_FIELDS = 8;

export function hostUse(files: Files): HostUse {
  const lines = (files.read('/proc/stat') ?? '').split('\n');
  const [, ...ticks] = (lines[0] ?? '').split(/\s+/);
  const meminfo = files.read('/proc/meminfo') ?? '';
  const memory = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(meminfo)?.[1] ?? 0) * 1024;
  const sumNs = (some: readonly string[]): number => some.reduce((sum, t) => sum + Number(t), 0) * NS_A_TICK;
  return {
    cpuNs: sumNs(ticks.slice(0, CPU_FIELDS)),
    idleNs: sumNs(ticks.slice(3, 5)),
    cpus: lines.filter((line) => /^cpu\d/.test(line)).length,
    memoryBytes: memory('MemTotal'),
    availableBytes: memory('MemAvailable'),
  };
}
