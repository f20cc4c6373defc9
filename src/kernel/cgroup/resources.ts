/** A uint64 or int64 of the specification: a bigint where a double would round it. */
export type Integer = number | bigint;

/** `linux.resources` of an OCI configuration, as its JSON stands (config-linux.md, "Control groups"). */
export interface CgroupResources {
  devices?: readonly DeviceRule[];
  memory?: MemoryWish;
  cpu?: CpuWish;
  pids?: { limit?: Integer };
  blockIO?: BlockIoWish;
  hugepageLimits?: readonly { pageSize: string; limit: Integer }[];
  network?: { classID?: number; priorities?: readonly { name: string; priority: number }[] };
  rdma?: Readonly<Record<string, { hcaHandles?: number; hcaObjects?: number }>>;
  unified?: Readonly<Record<string, string>>;
}

export interface DeviceRule {
  allow: boolean;
  /** '' and missing mean all. A rule for `u` or `p` matches nothing: FIFOs are no devices, `u` is `c`. */
  type?: 'a' | 'c' | 'b' | 'u' | 'p' | '';
  /** −1 and missing mean all. */
  major?: number;
  minor?: number;
  /** Letters of `rwm`; missing or '' means all of them. */
  access?: string;
}

/** Bytes; −1 is no limit; 0 is not set, as runc has it. */
export interface MemoryWish {
  limit?: Integer;
  reservation?: Integer;
  /** Memory and swap together. */
  swap?: Integer;
  kernel?: Integer;
  kernelTCP?: Integer;
  swappiness?: Integer;
  disableOOMKiller?: boolean;
  useHierarchy?: boolean;
  checkBeforeUpdate?: boolean;
}

/** Times in microseconds. */
export interface CpuWish {
  shares?: Integer;
  quota?: Integer;
  burst?: Integer;
  period?: Integer;
  realtimeRuntime?: Integer;
  realtimePeriod?: Integer;
  cpus?: string;
  mems?: string;
  idle?: Integer;
}

export interface BlockIoWish {
  weight?: number;
  leafWeight?: number;
  weightDevice?: readonly { major: number; minor: number; weight?: number; leafWeight?: number }[];
  throttleReadBpsDevice?: readonly Throttle[];
  throttleWriteBpsDevice?: readonly Throttle[];
  throttleReadIOPSDevice?: readonly Throttle[];
  throttleWriteIOPSDevice?: readonly Throttle[];
}

export interface Throttle {
  major: number;
  minor: number;
  /** Bytes or operations a second. */
  rate: Integer;
}

/** Controllers by v2's names; `io` is v1's blkio. */
export const CONTROLLERS = [
  'cpuset',
  'cpu',
  'memory',
  'io',
  'pids',
  'hugetlb',
  'rdma',
  'net_cls',
  'net_prio',
  'devices',
] as const;
export type Controller = (typeof CONTROLLERS)[number];

/** A value for a file of the cgroup. */
export interface CgroupWrite {
  file: string;
  value: string;
  /** `$.linux.resources.memory.limit`. */
  because: string;
}

/** What a controller's wishes are decided with. */
export interface WishContext {
  /** JSON path or flag prefix that wishes are named by. */
  because: string;
  /** Does a cgroup here have this file? It depends on the kernel's version and configuration. */
  has(file: string): boolean;
  /** At an update: what the file says now. At creation: undefined. */
  now(file: string): string | undefined;
}
