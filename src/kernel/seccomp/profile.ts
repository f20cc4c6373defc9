/**
 * `linux.seccomp` of an OCI configuration, as its JSON stands (config-linux.md, "Seccomp"). Values are uint64: a decoder
 * that meets one above 2^53 should hand it over as a bigint, since a rounded mask would be another mask.
 */
export interface SeccompProfile {
  defaultAction: string;
  defaultErrnoRet?: number;
  architectures?: readonly string[];
  flags?: readonly string[];
  listenerPath?: string;
  listenerMetadata?: string;
  syscalls?: readonly SeccompRule[];
}

export interface SeccompRule {
  names: readonly string[];
  action: string;
  errnoRet?: number;
  args?: readonly SeccompArg[];
}

export interface SeccompArg {
  /** 0 … 5. */
  index: number;
  value: number | bigint;
  /** Only for SCMP_CMP_MASKED_EQ: (argument & value) == valueTwo. */
  valueTwo?: number | bigint;
  op: string;
}

// SECCOMP_RET_* (linux/seccomp.h).
export const RET_KILL_PROCESS = 0x8000_0000;
export const RET_KILL_THREAD = 0x0000_0000;
export const RET_TRAP = 0x0003_0000;
export const RET_ERRNO = 0x0005_0000;
export const RET_USER_NOTIF = 0x7fc0_0000;
export const RET_TRACE = 0x7ff0_0000;
export const RET_LOG = 0x7ffc_0000;
export const RET_ALLOW = 0x7fff_0000;

export const ACTIONS: Readonly<Record<string, number>> = {
  SCMP_ACT_KILL: RET_KILL_THREAD,
  SCMP_ACT_KILL_THREAD: RET_KILL_THREAD,
  SCMP_ACT_KILL_PROCESS: RET_KILL_PROCESS,
  SCMP_ACT_TRAP: RET_TRAP,
  SCMP_ACT_ERRNO: RET_ERRNO,
  SCMP_ACT_TRACE: RET_TRACE,
  SCMP_ACT_ALLOW: RET_ALLOW,
  SCMP_ACT_LOG: RET_LOG,
  SCMP_ACT_NOTIFY: RET_USER_NOTIF,
};

export const OPERATORS = [
  'SCMP_CMP_NE',
  'SCMP_CMP_LT',
  'SCMP_CMP_LE',
  'SCMP_CMP_EQ',
  'SCMP_CMP_GE',
  'SCMP_CMP_GT',
  'SCMP_CMP_MASKED_EQ',
] as const;
export type Operator = (typeof OPERATORS)[number];

// SECCOMP_FILTER_FLAG_* (linux/seccomp.h).
export const FLAGS: Readonly<Record<string, number>> = {
  SECCOMP_FILTER_FLAG_TSYNC: 1,
  SECCOMP_FILTER_FLAG_LOG: 2,
  SECCOMP_FILTER_FLAG_SPEC_ALLOW: 4,
  SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: 32,
};
export const FLAG_NEW_LISTENER = 8;

/** The specification's names. Those without a table here are accepted and left out: a kernel only reports its own. */
export const ARCHITECTURES = [
  'SCMP_ARCH_X86',
  'SCMP_ARCH_X86_64',
  'SCMP_ARCH_X32',
  'SCMP_ARCH_ARM',
  'SCMP_ARCH_AARCH64',
  'SCMP_ARCH_MIPS',
  'SCMP_ARCH_MIPS64',
  'SCMP_ARCH_MIPS64N32',
  'SCMP_ARCH_MIPSEL',
  'SCMP_ARCH_MIPSEL64',
  'SCMP_ARCH_MIPSEL64N32',
  'SCMP_ARCH_PPC',
  'SCMP_ARCH_PPC64',
  'SCMP_ARCH_PPC64LE',
  'SCMP_ARCH_S390',
  'SCMP_ARCH_S390X',
  'SCMP_ARCH_PARISC',
  'SCMP_ARCH_PARISC64',
  'SCMP_ARCH_RISCV64',
  'SCMP_ARCH_LOONGARCH64',
  'SCMP_ARCH_M68K',
  'SCMP_ARCH_SH',
  'SCMP_ARCH_SHEB',
] as const;
