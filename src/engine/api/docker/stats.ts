import { flag, textOf } from '#engine/api/docker/query.ts';
import { dockerTime } from '#engine/api/docker/time.ts';
import { json } from '#engine/api/reply.ts';
import type { Handlers } from '#engine/api/server.ts';
import { type InterfaceStats, type Sample, type StatsParts, samplePair, samples } from '#engine/core/stats.ts';
import { processTable } from '#engine/core/top.ts';

/** `docker stats` and `docker top`, by operation id. */
export function statsHandlers(parts: StatsParts): Handlers {
  return {
    ContainerStats: async ({ params, query, signal }) => {
      const { id } = parts.containers.find(params['id'] ?? '');
      if (!flag(query, 'stream', true)) {
        const { before, now } = await samplePair(parts, id, { once: flag(query, 'one-shot') }, signal);
        return {
          kind: 'text',
          status: 200,
          body: statsText(now, before),
          headers: { 'Content-Type': 'application/json' },
        };
      }
      return {
        kind: 'stream',
        status: 200,
        type: 'application/json',
        run: async (out, gone) => {
          for await (const { before, now } of samples(parts, id, gone)) await out.write(statsText(now, before));
        },
      };
    },

    ContainerTop: async ({ params, query }) => {
      const { titles, processes } = await processTable(parts, params['id'] ?? '', textOf(query, 'ps_args') ?? '-ef');
      return json({ Titles: titles, Processes: processes });
    },
  };
}

/** The kernel's "no limit" of v1 is the largest page below 2⁶³, of which a double only knows the neighbourhood. */
function statsText(now: Sample, before: Sample | undefined): string {
  return `${JSON.stringify(statsJson(now, before)).replaceAll('9223372036854772000', '9223372036854771712')}\n`;
}

/** Docker's form. Nothing of a container that does not run: its numbers are absent, which clients read as zero. */
export function statsJson({ record, atMs, use }: Sample, before: Sample | undefined): object {
  const named = { name: `/${record.name}`, id: record.id };
  if (!use) {
    return {
      read: dockerTime(0),
      preread: dockerTime(0),
      pids_stats: {},
      blkio_stats: blkio(undefined),
      num_procs: 0,
      storage_stats: {},
      cpu_stats: NO_CPU,
      precpu_stats: NO_CPU,
      memory_stats: {},
      ...named,
    };
  }
  const { cgroup, networks } = use;
  return {
    read: dockerTime(atMs),
    preread: dockerTime(before?.use ? before.atMs : 0),
    pids_stats: cgroup.pids
      ? { current: cgroup.pids.current, ...(cgroup.pids.limit === undefined ? {} : { limit: cgroup.pids.limit }) }
      : {},
    blkio_stats: blkio(cgroup.io),
    num_procs: 0,
    storage_stats: {},
    cpu_stats: cpu(use),
    precpu_stats: before?.use ? cpu(before.use) : NO_CPU,
    memory_stats: memory(use),
    ...named,
    ...(networks && Object.keys(networks).length > 0
      ? { networks: Object.fromEntries(Object.entries(networks).map(([name, n]) => [name, network(n)])) }
      : {}),
  };
}

const NO_CPU = {
  cpu_usage: { total_usage: 0, usage_in_kernelmode: 0, usage_in_usermode: 0 },
  throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 },
};

type Use = NonNullable<Sample['use']>;

function cpu({ cgroup: { cpu: c }, host }: Use): object {
  if (!c) return NO_CPU;
  return {
    cpu_usage: {
      total_usage: c.usageNs,
      ...(c.perCpuNs ? { percpu_usage: c.perCpuNs } : {}),
      usage_in_kernelmode: c.systemNs,
      usage_in_usermode: c.userNs,
    },
    system_cpu_usage: host.cpuNs,
    online_cpus: host.cpus,
    throttling_data: {
      periods: c.periods,
      throttled_periods: c.throttledPeriods,
      throttled_time: c.throttledNs,
    },
  };
}

function memory({ cgroup: { memory: m }, host }: Use): object {
  if (!m) return {};
  return {
    usage: m.usageBytes,
    ...(m.maxBytes === undefined ? {} : { max_usage: m.maxBytes }),
    stats: m.stat,
    ...(m.failures > 0 ? { failcnt: m.failures } : {}),
    limit: Math.min(m.limitBytes ?? Number.POSITIVE_INFINITY, host.memoryBytes),
  };
}

function network(n: InterfaceStats): object {
  return {
    rx_bytes: n.rxBytes,
    rx_packets: n.rxPackets,
    rx_errors: n.rxErrors,
    rx_dropped: n.rxDropped,
    tx_bytes: n.txBytes,
    tx_packets: n.txPackets,
    tx_errors: n.txErrors,
    tx_dropped: n.txDropped,
  };
}

function blkio(io: Use['cgroup']['io']): object {
  const rows = (read: 'readBytes' | 'readOps', write: 'writeBytes' | 'writeOps'): object[] =>
    (io ?? []).flatMap((d) => [
      { major: d.major, minor: d.minor, op: 'read', value: d[read] },
      { major: d.major, minor: d.minor, op: 'write', value: d[write] },
    ]);
  return {
    io_service_bytes_recursive: rows('readBytes', 'writeBytes'),
    io_serviced_recursive: rows('readOps', 'writeOps'),
    io_queue_recursive: [],
    io_service_time_recursive: [],
    io_wait_time_recursive: [],
    io_merged_recursive: [],
    io_time_recursive: [],
    sectors_recursive: [],
  };
}
