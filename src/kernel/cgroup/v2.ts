import { decimal, ioWeightOf, isNegative, isSet, maxOr, unmet, weightOfShares } from '#kernel/cgroup/convert.ts';
import type { CgroupResources, CgroupWrite, Controller, Integer, WishContext } from '#kernel/cgroup/resources.ts';
import { rdmaWrites } from '#kernel/cgroup/v1.ts';

// Wishes as values for v2's files (Documentation/admin-guide/cgroup-v2.rst). OCI speaks v1's language: what has no
// counterpart here is an error, as the specification demands ("Unified"), unless it asks for what v2 does anyway.

type Writer = (resources: CgroupResources, context: WishContext) => CgroupWrite[];

export const V2_WRITERS: Readonly<Record<Exclude<Controller, 'devices'>, Writer>> = {
  cpu: cpuWrites,
  cpuset: ({ cpu = {} }, { because }) => [
    ...(cpu.cpus ? [{ file: 'cpuset.cpus', value: cpu.cpus, because: `${because}.cpu.cpus` }] : []),
    ...(cpu.mems ? [{ file: 'cpuset.mems', value: cpu.mems, because: `${because}.cpu.mems` }] : []),
  ],
  memory: memoryWrites,
  io: ioWrites,
  pids: ({ pids }, { because }) =>
    pids?.limit === undefined ? [] : [{ file: 'pids.max', value: maxOr(pids.limit), because: `${because}.pids.limit` }],
  hugetlb: hugetlbWrites,
  rdma: rdmaWrites,
  net_cls: (_resources, { because }) => onlyV1(`${because}.network.classID`, 'use nftables with "socket cgroupv2"'),
  net_prio: (_resources, { because }) => onlyV1(`${because}.network.priorities`, 'use nftables with "socket cgroupv2"'),
};

function onlyV1(path: string, hint?: string): never {
  return unmet(path, 'cgroup v2 has nothing like it', hint);
}

const DEFAULT_PERIOD_US = 100_000;

function cpuWrites({ cpu = {} }: CgroupResources, context: WishContext): CgroupWrite[] {
  const because = `${context.because}.cpu`;
  if (isSet(cpu.realtimeRuntime)) onlyV1(`${because}.realtimeRuntime`);
  if (isSet(cpu.realtimePeriod)) onlyV1(`${because}.realtimePeriod`);
  const writes: CgroupWrite[] = [];
  // Idle first: the kernel refuses a weight while cpu.idle is 1.
  if (cpu.idle !== undefined) writes.push({ file: 'cpu.idle', value: decimal(cpu.idle), because: `${because}.idle` });
  if (isSet(cpu.shares) && Number(cpu.idle ?? 0) !== 1)
    writes.push({ file: 'cpu.weight', value: `${weightOfShares(cpu.shares)}`, because: `${because}.shares` });
  const burst =
    cpu.burst === undefined ? [] : [{ file: 'cpu.max.burst', value: decimal(cpu.burst), because: `${because}.burst` }];
  // The kernel refuses a burst above the quota after each write: a smaller burst goes first, a larger one last.
  const shrinks = cpu.burst !== undefined && BigInt(cpu.burst) <= BigInt(context.now('cpu.max.burst')?.trim() || '0');
  if (shrinks) writes.push(...burst);
  if (isSet(cpu.quota) || isSet(cpu.period)) {
    const [oldQuota = 'max', oldPeriod = `${DEFAULT_PERIOD_US}`] = context.now('cpu.max')?.trim().split(' ') ?? [];
    const quota = isSet(cpu.quota) ? maxOr(cpu.quota) : oldQuota;
    const period = isSet(cpu.period) ? decimal(cpu.period) : oldPeriod;
    const field = isSet(cpu.quota) ? 'quota' : 'period';
    writes.push({ file: 'cpu.max', value: `${quota} ${period}`, because: `${because}.${field}` });
  }
  if (!shrinks) writes.push(...burst);
  return writes;
}

function memoryWrites({ memory = {} }: CgroupResources, context: WishContext): CgroupWrite[] {
  const because = `${context.because}.memory`;
  // Kernel and TCP memory are part of memory.max; "no limit of its own" is what v2 does.
  for (const field of ['kernel', 'kernelTCP'] as const) {
    const value = memory[field];
    if (isSet(value) && !isNegative(value)) onlyV1(`${because}.${field}`, 'it is part of memory.limit there');
  }
  if (memory.swappiness !== undefined) onlyV1(`${because}.swappiness`);
  if (memory.disableOOMKiller) onlyV1(`${because}.disableOOMKiller`);
  const writes: CgroupWrite[] = [];
  const { limit, reservation } = memory;
  if (memory.checkBeforeUpdate && isSet(limit)) refuseBelowUsage(limit, because, context);
  const swap = swapOf(memory.limit, memory.swap, because, context);
  if (swap !== undefined) writes.push({ file: 'memory.swap.max', value: swap, because: `${because}.swap` });
  if (isSet(limit)) writes.push({ file: 'memory.max', value: maxOr(limit), because: `${because}.limit` });
  if (isSet(reservation))
    writes.push({ file: 'memory.low', value: maxOr(reservation), because: `${because}.reservation` });
  return writes;
}

/** v1's memory.limit is refused below present use; v2's calls the OOM killer. */
function refuseBelowUsage(limit: Integer, because: string, context: WishContext): void {
  const usage = context.now('memory.current')?.trim();
  if (usage && !isNegative(limit) && BigInt(limit) < BigInt(usage))
    unmet(`${because}.limit`, `${limit} is less than what is in use, ${usage}`, 'set checkBeforeUpdate to false');
}

/** OCI's swap is memory and swap together; v2's is swap alone. */
function swapOf(
  limit: Integer | undefined,
  swap: Integer | undefined,
  because: string,
  context: WishContext,
): string | undefined {
  if (!isSet(swap)) {
    const lifts = isSet(limit) && isNegative(limit) && context.has('memory.swap.max');
    return lifts ? 'max' : undefined;
  }
  const wanted = isNegative(swap) ? 'max' : swapAlone(limit, swap, because);
  if (context.has('memory.swap.max')) return wanted;
  // Without swap in the kernel, "no swap" holds already.
  return wanted === '0' ? undefined : unmet(`${because}.swap`, 'this kernel has no memory.swap.max');
}

function swapAlone(limit: Integer | undefined, swap: Integer, because: string): string {
  if (!isSet(limit) || isNegative(limit))
    unmet(`${because}.swap`, 'counts memory and swap together, so memory.limit must be set too');
  return (BigInt(swap) - BigInt(limit)).toString();
}

function ioWrites({ blockIO: io = {} }: CgroupResources, context: WishContext): CgroupWrite[] {
  const because = `${context.because}.blockIO`;
  const writes: CgroupWrite[] = [];
  const bfq = context.has('io.bfq.weight');
  const weigh = (weight: number, device: string, path: string): void => {
    if (!bfq && !context.has('io.weight'))
      unmet(path, 'this kernel weighs no block I/O: no io.weight, no io.bfq.weight');
    const value = bfq ? weight : ioWeightOf(weight);
    writes.push({ file: bfq ? 'io.bfq.weight' : 'io.weight', value: `${device}${value}`, because: path });
  };
  if (io.leafWeight) onlyV1(`${because}.leafWeight`);
  // Spelt out: BFQ before Linux 5.13 takes the bare number only, newer ones take it too.
  if (io.weight) weigh(io.weight, '', `${because}.weight`);
  io.weightDevice?.forEach(({ major, minor, weight, leafWeight }, i) => {
    const path = `${because}.weightDevice[${i}]`;
    if (leafWeight) onlyV1(`${path}.leafWeight`);
    if (weight) weigh(weight, `${major}:${minor} `, path);
  });
  const throttles = [
    ['throttleReadBpsDevice', 'rbps'],
    ['throttleWriteBpsDevice', 'wbps'],
    ['throttleReadIOPSDevice', 'riops'],
    ['throttleWriteIOPSDevice', 'wiops'],
  ] as const;
  for (const [field, key] of throttles)
    io[field]?.forEach(({ major, minor, rate }, i) => {
      // 0 lifts the limit on v1; here the word is max.
      const value = BigInt(rate) === 0n ? 'max' : maxOr(rate);
      writes.push({ file: 'io.max', value: `${major}:${minor} ${key}=${value}`, because: `${because}.${field}[${i}]` });
    });
  return writes;
}

function hugetlbWrites({ hugepageLimits = [] }: CgroupResources, context: WishContext): CgroupWrite[] {
  return hugepageLimits.flatMap(({ pageSize, limit }, i) => {
    const because = `${context.because}.hugepageLimits[${i}]`;
    const usage = `hugetlb.${pageSize}.max`;
    const reservations = `hugetlb.${pageSize}.rsvd.max`;
    if (!context.has(usage)) unmet(because, `this kernel has no huge pages of ${pageSize}`);
    return [reservations, usage]
      .filter((file) => context.has(file))
      .map((file) => ({ file, value: maxOr(limit), because }));
  });
}
