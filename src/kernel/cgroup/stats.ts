import { posix } from 'node:path';
import type { CgroupPlace } from '#kernel/cgroup/place.ts';
import { dirOf, placeOf } from '#kernel/cgroup/place.ts';
import { events, keyed } from '#kernel/cgroup/state.ts';
import type { Files } from '#kernel/files.ts';

/**
 * What a container uses, the same on both versions. A controller that is not there leaves its part away. Bytes, and
 * nanoseconds for times; no limit is undefined.
 */
export interface CgroupStats {
  cpu?: CpuStats;
  memory?: MemoryStats;
  pids?: { current: number; limit?: number };
  io?: IoStat[];
  hugetlb?: Record<string, { usageBytes: number; maxBytes?: number; failures: number }>;
}

export interface CpuStats {
  usageNs: number;
  userNs: number;
  systemNs: number;
  /** By CPU; v1 only. */
  perCpuNs?: number[];
  periods: number;
  throttledPeriods: number;
  throttledNs: number;
  pressure?: Pressure;
}

export interface MemoryStats {
  usageBytes: number;
  /** Peak since the cgroup was made (v2: Linux 5.19). */
  maxBytes?: number;
  limitBytes?: number;
  /** Memory and swap together, as OCI counts. */
  swap?: { usageBytes: number; limitBytes?: number };
  /** How often the limit was hit. */
  failures: number;
  oomKills: number;
  /** memory.stat as the kernel writes it, other names on either version. */
  stat: Record<string, number>;
  /** What the kernel could take back at once: `docker stats` subtracts it. */
  inactiveFileBytes: number;
  cacheBytes: number;
  pressure?: Pressure;
}

export interface IoStat {
  major: number;
  minor: number;
  readBytes: number;
  writeBytes: number;
  readOps: number;
  writeOps: number;
}

/** Pressure stall information: share of time, in percent, and total. */
export interface Pressure {
  some: PressureLine;
  full: PressureLine;
}
export interface PressureLine {
  avg10: number;
  avg60: number;
  avg300: number;
  totalUs: number;
}

export function readStats(places: readonly CgroupPlace[], files: Files): CgroupStats {
  return {
    ...part('cpu', cpuStats(places, files)),
    ...part('memory', memoryStats(places, files)),
    ...part('pids', pidsStats(places, files)),
    ...part('io', ioStats(places, files)),
    ...part('hugetlb', hugetlbStats(places, files)),
  };
}

function part<K extends string, T>(key: K, value: T | undefined): { [P in K]?: T } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]?: T });
}

function reader(place: CgroupPlace, files: Files): (file: string) => string | undefined {
  return (file) => files.read(posix.join(dirOf(place), file))?.trim();
}

function cpuStats(places: readonly CgroupPlace[], files: Files): CpuStats | undefined {
  // v2 counts time in every cgroup, also without the cpu controller.
  const cpu = placeOf(places, 'cpu') ?? places.find((place) => place.version === 2 && places.length === 1);
  const accounting = placeOf(places, 'cpuacct') ?? cpu;
  if (!cpu || !accounting) return undefined;
  const stat = events(cpu, 'cpu.stat', files);
  const throttling = { periods: stat['nr_periods'] ?? 0, throttledPeriods: stat['nr_throttled'] ?? 0 };
  if (cpu.version === 2)
    return {
      usageNs: (stat['usage_usec'] ?? 0) * 1000,
      userNs: (stat['user_usec'] ?? 0) * 1000,
      systemNs: (stat['system_usec'] ?? 0) * 1000,
      ...throttling,
      throttledNs: (stat['throttled_usec'] ?? 0) * 1000,
      ...part('pressure', parsePressure(reader(cpu, files)('cpu.pressure'))),
    };
  const read = reader(accounting, files);
  return {
    usageNs: Number(read('cpuacct.usage') ?? 0),
    userNs: Number(read('cpuacct.usage_user') ?? 0),
    systemNs: Number(read('cpuacct.usage_sys') ?? 0),
    ...part('perCpuNs', read('cpuacct.usage_percpu')?.split(/\s+/).map(Number)),
    ...throttling,
    throttledNs: stat['throttled_time'] ?? 0,
  };
}

function memoryStats(places: readonly CgroupPlace[], files: Files): MemoryStats | undefined {
  const place = placeOf(places, 'memory');
  if (!place) return undefined;
  const read = reader(place, files);
  const stat = keyed(read('memory.stat') ?? '');
  if (place.version === 2) {
    const event = events(place, 'memory.events', files);
    const usageBytes = Number(read('memory.current') ?? 0);
    const limit = limitOf(read('memory.max'));
    const swap = read('memory.swap.current');
    const swapLimit = limitOf(read('memory.swap.max'));
    const both = limit !== undefined && swapLimit !== undefined ? limit + swapLimit : undefined;
    return {
      usageBytes,
      ...part('maxBytes', numberOf(read('memory.peak'))),
      ...part('limitBytes', limit),
      ...(swap === undefined ? {} : { swap: { usageBytes: usageBytes + Number(swap), ...part('limitBytes', both) } }),
      failures: event['max'] ?? 0,
      oomKills: event['oom_kill'] ?? 0,
      stat,
      inactiveFileBytes: stat['inactive_file'] ?? 0,
      cacheBytes: stat['file'] ?? 0,
      ...part('pressure', parsePressure(read('memory.pressure'))),
    };
  }
  const swapUsage = numberOf(read('memory.memsw.usage_in_bytes'));
  const swapLimit = limitOf(read('memory.memsw.limit_in_bytes'));
  return {
    usageBytes: Number(read('memory.usage_in_bytes') ?? 0),
    ...part('maxBytes', numberOf(read('memory.max_usage_in_bytes'))),
    ...part('limitBytes', limitOf(read('memory.limit_in_bytes'))),
    ...(swapUsage === undefined ? {} : { swap: { usageBytes: swapUsage, ...part('limitBytes', swapLimit) } }),
    failures: Number(read('memory.failcnt') ?? 0),
    oomKills: events(place, 'memory.oom_control', files)['oom_kill'] ?? 0,
    stat,
    // total_ counts the cgroups below too, as memory.usage_in_bytes does.
    inactiveFileBytes: stat['total_inactive_file'] ?? 0,
    cacheBytes: stat['total_cache'] ?? stat['cache'] ?? 0,
  };
}

function pidsStats(places: readonly CgroupPlace[], files: Files): CgroupStats['pids'] {
  const place = placeOf(places, 'pids');
  if (!place) return undefined;
  const read = reader(place, files);
  return { current: Number(read('pids.current') ?? 0), ...part('limit', limitOf(read('pids.max'))) };
}

function ioStats(places: readonly CgroupPlace[], files: Files): IoStat[] | undefined {
  const place = placeOf(places, 'io');
  if (!place) return undefined;
  const devices = new Map<string, IoStat>();
  const at = (device: string): IoStat => {
    const [major = 0, minor = 0] = device.split(':').map(Number);
    const present = devices.get(device) ?? { major, minor, readBytes: 0, writeBytes: 0, readOps: 0, writeOps: 0 };
    devices.set(device, present);
    return present;
  };
  const read = reader(place, files);
  if (place.version === 2) {
    for (const line of (read('io.stat') ?? '').split('\n')) {
      const [device, ...pairs] = line.split(' ');
      if (!device || pairs.length === 0) continue;
      const values = Object.fromEntries(pairs.map((pair) => pair.split('='))) as Record<string, string>;
      const counts = { readBytes: 'rbytes', writeBytes: 'wbytes', readOps: 'rios', writeOps: 'wios' } as const;
      const stat = at(device);
      for (const [field, key] of Object.entries(counts)) stat[field as keyof typeof counts] = Number(values[key] ?? 0);
    }
    return [...devices.values()];
  }
  // `8:0 Read 4096` lines; BFQ counts what it schedules, the throttle layer everything.
  const files1 = { Bytes: 'io_service_bytes_recursive', Ops: 'io_serviced_recursive' } as const;
  for (const [unit, file] of Object.entries(files1)) {
    const text = read(`blkio.throttle.${file}`) ?? read(`blkio.bfq.${file}`) ?? '';
    for (const line of text.split('\n')) {
      const [device = '', operation, value] = line.split(' ');
      if (operation === 'Read') at(device)[`read${unit as 'Bytes' | 'Ops'}`] = Number(value);
      if (operation === 'Write') at(device)[`write${unit as 'Bytes' | 'Ops'}`] = Number(value);
    }
  }
  return [...devices.values()];
}

function hugetlbStats(places: readonly CgroupPlace[], files: Files): CgroupStats['hugetlb'] {
  const place = placeOf(places, 'hugetlb');
  if (!place) return undefined;
  const usageFile =
    place.version === 2 ? /^hugetlb\.([0-9]+[KMG]B)\.current$/ : /^hugetlb\.([0-9]+[KMG]B)\.usage_in_bytes$/;
  const read = reader(place, files);
  const sizes = (files.list(dirOf(place)) ?? []).flatMap((name) => {
    const size = usageFile.exec(name)?.[1];
    return size === undefined ? [] : [[size, name] as const];
  });
  return Object.fromEntries(
    sizes.map(([size, name]) => [
      size,
      {
        usageBytes: Number(read(name) ?? 0),
        ...part('maxBytes', numberOf(read(`hugetlb.${size}.max_usage_in_bytes`))),
        failures:
          place.version === 2
            ? (events(place, `hugetlb.${size}.events`, files)['max'] ?? 0)
            : Number(read(`hugetlb.${size}.failcnt`) ?? 0),
      },
    ]),
  );
}

export function parsePressure(text: string | undefined): Pressure | undefined {
  if (!text) return undefined;
  const line = (kind: string): PressureLine => {
    const found = text.split('\n').find((l) => l.startsWith(`${kind} `)) ?? '';
    const value = (key: string): number => Number(new RegExp(`${key}=([0-9.]+)`).exec(found)?.[1] ?? 0);
    return { avg10: value('avg10'), avg60: value('avg60'), avg300: value('avg300'), totalUs: value('total') };
  };
  return { some: line('some'), full: line('full') };
}

/** v1 writes "no limit" as the largest multiple of a page that fits an int64. */
const V1_UNLIMITED = 2 ** 63 - 2 ** 20;

function limitOf(text: string | undefined): number | undefined {
  const value = numberOf(text);
  return value === undefined || value >= V1_UNLIMITED ? undefined : value;
}

function numberOf(text: string | undefined): number | undefined {
  return text === undefined || text === '' || text === 'max' ? undefined : Number(text);
}
