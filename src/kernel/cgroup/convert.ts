import type {
  BlockIoWish,
  CgroupResources,
  Controller,
  CpuWish,
  Integer,
  MemoryWish,
} from '#kernel/cgroup/resources.ts';
import { CgroupWishUnmet } from '#kernel/errors.ts';

// What both versions share: numbers as the kernel writes them, rules over several fields, v1's scales in v2's.

export const U64_MAX = 0xffff_ffff_ffff_ffffn;

export function unmet(path: string, rule: string, hint?: string): never {
  throw new CgroupWishUnmet({ path, rule, ...(hint === undefined ? {} : { hint }) });
}

/** 0 and missing mean "not set", as runc has it for every limit but pids. */
export function isSet(value: Integer | undefined): value is Integer {
  return value !== undefined && BigInt(value) !== 0n;
}

export function isNegative(value: Integer): boolean {
  return BigInt(value) < 0n;
}

/** A byte count or `max`: JSON.parse rounds 2^64−1 to 2^64, which no file takes. */
export function maxOr(value: Integer): string {
  const big = BigInt(value);
  return big < 0n || big >= U64_MAX ? 'max' : big.toString();
}

export function decimal(value: Integer): string {
  return BigInt(value).toString();
}

/** cpu.shares (2 … 262144, 1024 by default) as cpu.weight (1 … 10000, 100 by default). */
export function weightOfShares(shares: Integer): number {
  const value = Number(BigInt(shares));
  if (value <= 2) return 1;
  if (value >= 262_144) return 10_000;
  // A quadratic through (2, 1), (1024, 100) and (262144, 10000) in logarithms: what runc and crun came to use when the
  // straight line they had before made 39 out of the default 1024.
  const log = Math.log2(value);
  return Math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34));
}

/** blkio weight (10 … 1000) as io.weight (1 … 10000), linear as runc has it. */
export function ioWeightOf(weight: number): number {
  return Math.floor(1 + ((weight - 10) * 9999) / 990);
}

/** Which controllers a wish list touches. An empty object touches nothing. */
export function touchedControllers(resources: CgroupResources): Controller[] {
  const { cpu = {}, memory = {}, blockIO, network } = resources;
  const touched: [Controller, boolean][] = [
    ['cpuset', !!cpu.cpus || !!cpu.mems],
    ['cpu', CPU_FIELDS.some((field) => cpu[field] !== undefined)],
    ['memory', Object.values(memory).some((value) => value !== undefined && value !== 0 && value !== false)],
    ['io', Object.values(blockIO ?? {}).some((value) => (Array.isArray(value) ? value.length > 0 : !!value))],
    ['pids', resources.pids?.limit !== undefined],
    ['hugetlb', (resources.hugepageLimits ?? []).length > 0],
    ['rdma', Object.keys(resources.rdma ?? {}).length > 0],
    ['net_cls', !!network?.classID],
    ['net_prio', (network?.priorities ?? []).length > 0],
  ];
  return touched.filter(([, wished]) => wished).map(([controller]) => controller);
}

const CPU_FIELDS = ['shares', 'quota', 'burst', 'period', 'realtimeRuntime', 'realtimePeriod', 'idle'] as const;

/** Rules of the specification that hold on both versions, each over more than one field or with a range. */
export function checkResources(resources: CgroupResources, because: string): void {
  checkCpu(resources.cpu ?? {}, `${because}.cpu`);
  checkMemory(resources.memory ?? {}, `${because}.memory`);
  checkBlockIo(resources.blockIO ?? {}, `${because}.blockIO`);
  for (const [device, wish] of Object.entries(resources.rdma ?? {}))
    if (wish.hcaHandles === undefined && wish.hcaObjects === undefined)
      unmet(`${because}.rdma.${device}`, 'must have hcaHandles, hcaObjects or both');
}

function checkCpu(cpu: CpuWish, because: string): void {
  const shares = isSet(cpu.shares) ? BigInt(cpu.shares) : undefined;
  if (shares !== undefined && (shares < 2n || shares > 262_144n))
    unmet(`${because}.shares`, `${shares} is not between 2 and 262144`);
  if (isSet(cpu.quota) && isSet(cpu.burst) && !isNegative(cpu.quota) && BigInt(cpu.burst) > BigInt(cpu.quota))
    unmet(`${because}.burst`, `${cpu.burst} is larger than the quota, ${cpu.quota}`);
  if (cpu.idle !== undefined && ![0n, 1n].includes(BigInt(cpu.idle)))
    unmet(`${because}.idle`, `${cpu.idle} is neither 0 nor 1`);
}

function checkMemory(memory: MemoryWish, because: string): void {
  const { limit, swap, swappiness, reservation } = memory;
  if (isSet(limit) && isSet(swap) && !isNegative(limit) && !isNegative(swap) && BigInt(swap) < BigInt(limit))
    unmet(`${because}.swap`, `${swap} (memory and swap together) is less than the memory limit, ${limit}`);
  if (isSet(limit) && isSet(reservation) && !isNegative(limit) && BigInt(reservation) > BigInt(limit))
    unmet(`${because}.reservation`, `${reservation} is larger than the limit, ${limit}`);
  if (swappiness !== undefined && (isNegative(swappiness) || BigInt(swappiness) > 100n))
    unmet(`${because}.swappiness`, `${swappiness} is not between 0 and 100`);
}

function checkBlockIo(io: BlockIoWish, because: string): void {
  const check = (weight: number | undefined, path: string): void => {
    if (weight && (weight < 10 || weight > 1000)) unmet(path, `${weight} is not between 10 and 1000`);
  };
  check(io.weight, `${because}.weight`);
  check(io.leafWeight, `${because}.leafWeight`);
  io.weightDevice?.forEach((device, i) => {
    const path = `${because}.weightDevice[${i}]`;
    if (!device.weight && !device.leafWeight) unmet(path, 'must have weight, leafWeight or both');
    check(device.weight, `${path}.weight`);
    check(device.leafWeight, `${path}.leafWeight`);
  });
}
