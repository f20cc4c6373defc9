import { decimal, isNegative, isSet, maxOr, unmet } from '#kernel/cgroup/convert.ts';
import type { CgroupResources, CgroupWrite, Controller, Integer, WishContext } from '#kernel/cgroup/resources.ts';

// Wishes as values for v1's files (Documentation/admin-guide/cgroup-v1). Each function knows one controller; the order of
// what it returns is the order of writing, and matters where a comment says so.

type Writer = (resources: CgroupResources, context: WishContext) => CgroupWrite[];

export const V1_WRITERS: Readonly<Record<Exclude<Controller, 'devices'>, Writer>> = {
  cpu: cpuWrites,
  cpuset: cpusetWrites,
  memory: memoryWrites,
  io: ioWrites,
  pids: ({ pids }, { because }) =>
    pids?.limit === undefined ? [] : [{ file: 'pids.max', value: maxOr(pids.limit), because: `${because}.pids.limit` }],
  hugetlb: hugetlbWrites,
  rdma: rdmaWrites,
  net_cls: ({ network }, { because }) =>
    network?.classID
      ? [{ file: 'net_cls.classid', value: decimal(network.classID), because: `${because}.network.classID` }]
      : [],
  net_prio: ({ network }, { because }) =>
    (network?.priorities ?? []).map(({ name, priority }, i) => ({
      file: 'net_prio.ifpriomap',
      value: `${name} ${priority}`,
      because: `${because}.network.priorities[${i}]`,
    })),
};

function cpuWrites({ cpu = {} }: CgroupResources, context: WishContext): CgroupWrite[] {
  const because = `${context.because}.cpu`;
  const writes: CgroupWrite[] = [];
  const put = (file: string, value: Integer | undefined, field: string): void => {
    if (value === undefined) return;
    if (!context.has(file)) unmet(`${because}.${field}`, `this kernel has no ${file}`);
    writes.push({ file, value: decimal(value), because: `${because}.${field}` });
  };
  if (isSet(cpu.shares)) put('cpu.shares', cpu.shares, 'shares');
  // The kernel checks quota/period against the parent's after each write. Of the two orders, one goes through a ratio no
  // larger than the old or the new one.
  const periodFirst = intermediateRatio(cpu.quota, cpu.period, context) !== 'quota';
  if (periodFirst && isSet(cpu.period)) put('cpu.cfs_period_us', cpu.period, 'period');
  if (isSet(cpu.quota)) put('cpu.cfs_quota_us', cpu.quota, 'quota');
  if (!periodFirst && isSet(cpu.period)) put('cpu.cfs_period_us', cpu.period, 'period');
  // Burst must not exceed the quota, which therefore comes first.
  put('cpu.cfs_burst_us', cpu.burst, 'burst');
  if (isSet(cpu.realtimePeriod)) put('cpu.rt_period_us', cpu.realtimePeriod, 'realtimePeriod');
  if (isSet(cpu.realtimeRuntime)) put('cpu.rt_runtime_us', cpu.realtimeRuntime, 'realtimeRuntime');
  put('cpu.idle', cpu.idle, 'idle');
  return writes;
}

function intermediateRatio(quota: Integer | undefined, period: Integer | undefined, context: WishContext): string {
  const [oldQuota, oldPeriod] = [Number(context.now('cpu.cfs_quota_us')), Number(context.now('cpu.cfs_period_us'))];
  if (!isSet(quota) || !isSet(period) || !(oldQuota > 0) || !(oldPeriod > 0) || isNegative(quota)) return 'either';
  return oldQuota / Number(period) <= Number(quota) / oldPeriod ? 'period' : 'quota';
}

function cpusetWrites({ cpu = {} }: CgroupResources, context: WishContext): CgroupWrite[] {
  const because = `${context.because}.cpu`;
  return [
    ...(cpu.cpus ? [{ file: 'cpuset.cpus', value: cpu.cpus, because: `${because}.cpus` }] : []),
    ...(cpu.mems ? [{ file: 'cpuset.mems', value: cpu.mems, because: `${because}.mems` }] : []),
  ];
}

const LIMIT = 'memory.limit_in_bytes';
const MEMSW = 'memory.memsw.limit_in_bytes';

function memoryWrites({ memory = {} }: CgroupResources, context: WishContext): CgroupWrite[] {
  const because = `${context.because}.memory`;
  const { limit, reservation, swappiness } = memory;
  const writes: CgroupWrite[] = [];
  const put = (file: string, value: Integer, field: string): void => {
    if (!context.has(file)) unmet(`${because}.${field}`, `this kernel has no ${file}`, fixFor(file));
    writes.push({ file, value: decimal(value), because: `${because}.${field}` });
  };
  // Without a limit on memory there is none on memory and swap, or the kernel would refuse the first of the two.
  const lifts = isSet(limit) && isNegative(limit) && !isSet(memory.swap) && context.has(MEMSW);
  const swap = lifts ? -1 : memory.swap;
  const swapFirst = isSet(limit) && isSet(swap) && mustRaiseSwapFirst(limit, swap, context);
  if (swapFirst) put(MEMSW, swap, 'swap');
  if (isSet(limit)) put(LIMIT, limit, 'limit');
  if (!swapFirst && isSet(swap)) put(MEMSW, swap, 'swap');
  if (isSet(reservation)) put('memory.soft_limit_in_bytes', reservation, 'reservation');
  if (isSet(memory.kernelTCP)) put('memory.kmem.tcp.limit_in_bytes', memory.kernelTCP, 'kernelTCP');
  if (swappiness !== undefined) put('memory.swappiness', swappiness, 'swappiness');
  if (memory.disableOOMKiller) put('memory.oom_control', 1, 'disableOOMKiller');
  if (memory.useHierarchy) put('memory.use_hierarchy', 1, 'useHierarchy');
  return writes;
}

/** memory ≤ memory+swap must hold after each write: a limit above the present memory+swap has to wait for it. */
function mustRaiseSwapFirst(limit: Integer, swap: Integer, context: WishContext): boolean {
  const present = context.now(MEMSW)?.trim();
  if (present === undefined) return false; // new: both are unlimited, and lowering goes memory first
  return isNegative(limit) || BigInt(limit) > BigInt(present) || isNegative(swap);
}

function fixFor(file: string): string | undefined {
  return file === MEMSW ? 'boot with swapaccount=1, or leave the swap limit away' : undefined;
}

function ioWrites({ blockIO: io = {} }: CgroupResources, context: WishContext): CgroupWrite[] {
  const because = `${context.because}.blockIO`;
  const writes: CgroupWrite[] = [];
  if (io.weight)
    writes.push({ file: weightFile('weight', context, because), value: `${io.weight}`, because: `${because}.weight` });
  if (io.leafWeight) noLeafWeight(`${because}.leafWeight`);
  io.weightDevice?.forEach(({ major, minor, weight, leafWeight }, i) => {
    const path = `${because}.weightDevice[${i}]`;
    if (leafWeight) noLeafWeight(`${path}.leafWeight`);
    writes.push({
      file: weightFile('weight_device', context, path),
      value: `${major}:${minor} ${weight}`,
      because: path,
    });
  });
  const throttles = [
    ['throttleReadBpsDevice', 'blkio.throttle.read_bps_device'],
    ['throttleWriteBpsDevice', 'blkio.throttle.write_bps_device'],
    ['throttleReadIOPSDevice', 'blkio.throttle.read_iops_device'],
    ['throttleWriteIOPSDevice', 'blkio.throttle.write_iops_device'],
  ] as const;
  for (const [field, file] of throttles)
    io[field]?.forEach(({ major, minor, rate }, i) => {
      writes.push({ file, value: `${major}:${minor} ${decimal(rate)}`, because: `${because}.${field}[${i}]` });
    });
  return writes;
}

/** CFQ's files went with CFQ in Linux 5.0; BFQ has its own, and neither is there when no scheduler weighs. */
function weightFile(kind: 'weight' | 'weight_device', context: WishContext, because: string): string {
  const file = [`blkio.${kind}`, `blkio.bfq.${kind}`].find((name) => context.has(name));
  return file ?? unmet(because, `this kernel weighs no block I/O: neither blkio.${kind} nor blkio.bfq.${kind} exists`);
}

function noLeafWeight(path: string): never {
  return unmet(path, 'no kernel since 5.0 has leaf weights', 'leave it away');
}

function hugetlbWrites({ hugepageLimits = [] }: CgroupResources, context: WishContext): CgroupWrite[] {
  return hugepageLimits.flatMap(({ pageSize, limit }, i) => {
    const because = `${context.because}.hugepageLimits[${i}]`;
    const usage = `hugetlb.${pageSize}.limit_in_bytes`;
    const reservations = `hugetlb.${pageSize}.rsvd.limit_in_bytes`;
    if (!context.has(usage)) unmet(because, `this kernel has no huge pages of ${pageSize}`);
    const value = maxOr(limit) === 'max' ? '-1' : decimal(limit);
    // The specification wants reservations limited where the kernel can (5.7); what is used without one counts too.
    return [reservations, usage].filter((file) => context.has(file)).map((file) => ({ file, value, because }));
  });
}

/** The same on both versions. */
export function rdmaWrites({ rdma = {} }: CgroupResources, { because }: WishContext): CgroupWrite[] {
  return Object.entries(rdma).map(([device, { hcaHandles, hcaObjects }]) => ({
    file: 'rdma.max',
    value: [
      device,
      ...(hcaHandles === undefined ? [] : [`hca_handle=${hcaHandles}`]),
      ...(hcaObjects === undefined ? [] : [`hca_object=${hcaObjects}`]),
    ].join(' '),
    because: `${because}.rdma.${device}`,
  }));
}
