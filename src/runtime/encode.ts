import { fail } from '#base/shape.ts';
import type { OciProcess } from '#spec/oci/config.ts';
import type { SCHEDULER_POLICIES } from '#spec/oci/linux.ts';

// Words of the configuration as the numbers and structs that system calls take.

/** personality(2): PER_LINUX, PER_LINUX32. */
export const PERSONALITY = { LINUX: 0x0000n, LINUX32: 0x0008n } as const;

/** SCHED_ISO was reserved and never implemented; the kernel answers EINVAL. */
const POLICY_NUMBERS: Readonly<Record<(typeof SCHEDULER_POLICIES)[number], number>> = {
  SCHED_OTHER: 0,
  SCHED_FIFO: 1,
  SCHED_RR: 2,
  SCHED_BATCH: 3,
  SCHED_ISO: 4,
  SCHED_IDLE: 5,
  SCHED_DEADLINE: 6,
};

const SCHEDULER_FLAG_BITS: Readonly<Record<string, bigint>> = {
  SCHED_FLAG_RESET_ON_FORK: 0x01n,
  SCHED_FLAG_RECLAIM: 0x02n,
  SCHED_FLAG_DL_OVERRUN: 0x04n,
  SCHED_FLAG_KEEP_POLICY: 0x08n,
  SCHED_FLAG_KEEP_PARAMS: 0x10n,
  SCHED_FLAG_UTIL_CLAMP_MIN: 0x20n,
  SCHED_FLAG_UTIL_CLAMP_MAX: 0x40n,
};

const SCHED_ATTR_SIZE = 48; // the first published size; later kernels take it too (sched_setattr(2))

/** struct sched_attr. */
export function encodeScheduler(scheduler: NonNullable<OciProcess['scheduler']>): Uint8Array {
  const attr = Buffer.alloc(SCHED_ATTR_SIZE);
  const flags = (scheduler.flags ?? []).reduce((bits, flag) => bits | (SCHEDULER_FLAG_BITS[flag] ?? 0n), 0n);
  attr.writeUInt32LE(SCHED_ATTR_SIZE, 0);
  attr.writeUInt32LE(POLICY_NUMBERS[scheduler.policy], 4);
  attr.writeBigUInt64LE(flags, 8);
  attr.writeInt32LE(scheduler.nice ?? 0, 16);
  attr.writeUInt32LE((scheduler.priority ?? 0) >>> 0, 20);
  attr.writeBigUInt64LE(BigInt(scheduler.runtime ?? 0), 24);
  attr.writeBigUInt64LE(BigInt(scheduler.deadline ?? 0), 32);
  attr.writeBigUInt64LE(BigInt(scheduler.period ?? 0), 40);
  return attr;
}

const IO_CLASSES = { IOPRIO_CLASS_RT: 1, IOPRIO_CLASS_BE: 2, IOPRIO_CLASS_IDLE: 3 } as const;

/** ioprio_set(2): the class in the upper three bits of sixteen. */
export function encodeIoPriority({ class: name, priority }: NonNullable<OciProcess['ioPriority']>): number {
  return (IO_CLASSES[name] << 13) | (priority ?? 0);
}

const POLICY_MODES: Readonly<Record<string, number>> = {
  MPOL_DEFAULT: 0,
  MPOL_PREFERRED: 1,
  MPOL_BIND: 2,
  MPOL_INTERLEAVE: 3,
  MPOL_LOCAL: 4,
  MPOL_PREFERRED_MANY: 5,
  MPOL_WEIGHTED_INTERLEAVE: 6,
};
const POLICY_FLAGS: Readonly<Record<string, number>> = {
  MPOL_F_STATIC_NODES: 1 << 15,
  MPOL_F_RELATIVE_NODES: 1 << 14,
  MPOL_F_NUMA_BALANCING: 1 << 13,
};

/** set_mempolicy(2): mode and flags share one number. */
export const MEMORY_POLICY = {
  encode(mode: string, flags: readonly string[]): number {
    return flags.reduce((bits, flag) => bits | (POLICY_FLAGS[flag] ?? 0), POLICY_MODES[mode] ?? 0);
  },
};

const NODES_MAX = 1024; // MAX_NUMNODES of the largest configuration
const CPUS_MAX = 8192; // NR_CPUS of the largest configuration

export function encodeMemoryNodes(list: string): Uint8Array {
  return bitSet(list, NODES_MAX, '$.linux.memoryPolicy.nodes');
}

export function encodeCpuMask(list: string): Uint8Array {
  return bitSet(list, CPUS_MAX, '$.process.execCPUAffinity');
}

/** `0-3,7` as a bit set, in whole 8-byte words as the kernel wants; empty for an empty list. */
function bitSet(list: string, max: number, path: string): Uint8Array {
  const numbers = list.split(',').flatMap((part) => {
    const range = /^\s*(\d+)(?:\s*-\s*(\d+))?\s*$/.exec(part);
    if (!range) return [];
    const [from, to] = [Number(range[1]), Number(range[2] ?? range[1])];
    if (to >= max) fail(path, list, `names ${to}, and ${max - 1} is the last`);
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  });
  if (numbers.length === 0) return new Uint8Array();
  const bits = new Uint8Array(Math.ceil((Math.max(...numbers) + 1) / 64) * 8);
  for (const n of numbers) bits[n >> 3] = (bits[n >> 3] ?? 0) | (1 << (n & 7));
  return bits;
}
