import { sleep } from '#base/clock.ts';
import { oomKills } from '#kernel/cgroup/state.ts';
import { type CgroupStats, type MemoryStats, readStats } from '#kernel/cgroup/stats.ts';
import type { Command, Outcome } from '#runtime/cli/context.ts';
import { BadUsage, isOn, text } from '#runtime/cli/flags.ts';
import { wrongState } from '#runtime/cli/plans.ts';
import { loadContainer } from '#runtime/store.ts';

/** How often a death by the OOM killer is looked for, between two statistics. */
const OOM_POLL_MS = 100;
const UNITS: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Statistics at intervals, and `oom` events, one JSON object a line, until the container stops. */
export async function events(c: Command): Promise<Outcome> {
  const [id = ''] = c.args;
  const intervalMs = duration(text(c.flags, 'interval') ?? '5s');
  const { record, status } = loadContainer(c.root, id, c.files);
  if (status === 'stopped') throw wrongState(id, `container with id ${id} is not running`);
  const stats = (): void => print(c, { type: 'stats', id, data: runcStats(readStats(record.cgroups, c.files)) });
  if (isOn(c.flags, 'stats')) {
    stats();
    return 0;
  }
  let kills = oomKills(record.cgroups, c.files) ?? 0;
  // The first statistics come after the first interval, as under runc.
  for (let next = c.clock.monotonic() + intervalMs; isThere(c, id); ) {
    await sleep(c.clock, Math.max(1, Math.min(OOM_POLL_MS, next - c.clock.monotonic())));
    const now = oomKills(record.cgroups, c.files) ?? kills;
    for (; kills < now; kills++) print(c, { type: 'oom', id });
    if (c.clock.monotonic() < next) continue;
    if (isThere(c, id)) stats();
    next += intervalMs;
  }
  return 0;
}

function isThere(c: Command, id: string): boolean {
  try {
    return loadContainer(c.root, id, c.files).status !== 'stopped';
  } catch {
    return false; // deleted, perhaps half: either way it is over
  }
}

function print(c: Command, event: object): void {
  c.stdout(`${JSON.stringify(event)}\n`);
}

/** Go's durations: `5s`, `100ms`, `1m30s`. */
function duration(words: string): number {
  const parts = [...words.matchAll(/(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)/g)];
  const milliseconds = parts.reduce((sum, [, n = '0', unit = 's']) => sum + Number(n) * (UNITS[unit] ?? 0), 0);
  if (parts.map(([all]) => all).join('') !== words || milliseconds <= 0)
    throw new BadUsage({ message: 'duration interval must be greater than 0', command: 'events' });
  return milliseconds;
}

const U64_MAX = 18446744073709551615n;

/** The shape of runc's statistics, which containerd and cAdvisor read. Zeroes are left out where runc leaves them out. */
export function runcStats(stats: CgroupStats): object {
  const { cpu, memory, pids, io = [], hugetlb = {} } = stats;
  return {
    cpu: {
      usage: {
        total: cpu?.usageNs ?? 0,
        ...(cpu?.perCpuNs ? { percpu: cpu.perCpuNs } : {}),
        kernel: cpu?.systemNs ?? 0,
        user: cpu?.userNs ?? 0,
      },
      throttling: cpu
        ? { periods: cpu.periods, throttledPeriods: cpu.throttledPeriods, throttledTime: cpu.throttledNs }
        : {},
    },
    memory: memory ? memoryStats(memory) : {},
    pids: pids ? { current: pids.current, ...(pids.limit === undefined ? {} : { limit: pids.limit }) } : {},
    blkio: {
      ioServiceBytesRecursive: io.flatMap((d) => entries(d, { Read: d.readBytes, Write: d.writeBytes })),
      ioServicedRecursive: io.flatMap((d) => entries(d, { Read: d.readOps, Write: d.writeOps })),
    },
    hugetlb: Object.fromEntries(
      Object.entries(hugetlb).map(([size, h]) => [
        size,
        { usage: h.usageBytes, ...(h.maxBytes === undefined ? {} : { max: h.maxBytes }), failcnt: h.failures },
      ]),
    ),
    intel_rdt: {},
    network_interfaces: null,
  };
}

function entries({ major, minor }: { major: number; minor: number }, byOp: Record<string, number>) {
  return Object.entries(byOp).map(([op, value]) => ({ major, minor, op, value }));
}

function memoryStats(memory: MemoryStats): object {
  const entry = (usage: number, limit: number | undefined, max: number | undefined, failcnt: number): object => ({
    limit: limit ?? Number(U64_MAX),
    usage,
    ...(max === undefined ? {} : { max }),
    failcnt,
  });
  return {
    cache: memory.cacheBytes,
    usage: entry(memory.usageBytes, memory.limitBytes, memory.maxBytes, memory.failures),
    swap: entry(memory.swap?.usageBytes ?? 0, memory.swap?.limitBytes, undefined, 0),
    kernel: entry(0, 0, undefined, 0),
    kernelTCP: entry(0, 0, undefined, 0),
    raw: memory.stat,
  };
}
