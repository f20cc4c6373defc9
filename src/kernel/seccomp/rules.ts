import { BadSeccompProfile } from '#kernel/errors.ts';
import { SYSCALL_TABLES } from '#kernel/linux/syscalls.gen.ts';
import type { Arch } from '#kernel/linux/syscalls.ts';
import { syscalls } from '#kernel/linux/syscalls.ts';
import type { Operator, SeccompArg, SeccompProfile, SeccompRule } from '#kernel/seccomp/profile.ts';
import {
  ACTIONS,
  ARCHITECTURES,
  FLAG_NEW_LISTENER,
  FLAGS,
  OPERATORS,
  RET_ERRNO,
  RET_TRACE,
  RET_USER_NOTIF,
} from '#kernel/seccomp/profile.ts';

/** One comparison of a call's argument. For `SCMP_CMP_MASKED_EQ`: (argument & mask) == value. */
export interface Condition {
  index: number;
  op: Operator;
  value: bigint;
  mask: bigint;
}

/** A profile whose words have become numbers; the syscall names are known to exist somewhere. */
export interface Rules {
  /** SECCOMP_RET_* with its data. */
  defaultReturn: number;
  flags: number;
  architectures: readonly string[];
  rules: readonly { names: readonly string[]; ret: number; conditions: readonly Condition[] }[];
}

const PATH = '$.linux.seccomp';
const U64_MAX = 0xffff_ffff_ffff_ffffn;
const EPERM = 1;
const MAX_ERRNO = 4095; // linux/err.h; the kernel cuts a larger one down to it
const MAX_TRACE_DATA = 0xffff;
const ARGUMENTS = 6;

/** Reads a profile, or says which path breaks which rule. Pure; the same profile gives the same rules on every machine. */
export function readProfile(profile: SeccompProfile): Rules {
  const defaultReturn = returnOf(profile.defaultAction, profile.defaultErrnoRet, {
    action: `${PATH}.defaultAction`,
    errno: `${PATH}.defaultErrnoRet`,
  });
  // The program that would answer the notification waits for its own first call to be answered.
  if (defaultReturn === RET_USER_NOTIF) bad(`${PATH}.defaultAction`, profile.defaultAction, 'cannot be the default');
  const rules = (profile.syscalls ?? []).flatMap((rule, i) => readRule(rule, `${PATH}.syscalls[${i}]`));
  const notifies = rules.some((rule) => rule.ret === RET_USER_NOTIF);
  checkListener(profile, notifies);
  return {
    defaultReturn,
    flags: readFlags(profile.flags) | (notifies ? FLAG_NEW_LISTENER : 0),
    architectures: (profile.architectures ?? []).map((name, i) =>
      oneOf(ARCHITECTURES, name, `${PATH}.architectures[${i}]`, 'architecture'),
    ),
    rules,
  };
}

function readRule(rule: SeccompRule, path: string): Rules['rules'] {
  if (rule.names.length === 0) bad(`${path}.names`, undefined, 'must name at least one call');
  rule.names.forEach((name, i) => {
    if (!knownSomewhere(name))
      bad(`${path}.names[${i}]`, name, 'is not a system call of any architecture', 'check its spelling');
  });
  const ret = returnOf(rule.action, rule.errnoRet, { action: `${path}.action`, errno: `${path}.errnoRet` });
  // The runtime itself hands the listener over with write(2) and sendmsg(2): a notified write would wait for itself.
  if (ret === RET_USER_NOTIF && rule.names.includes('write'))
    bad(
      `${path}.names`,
      'write',
      'is refused: SCMP_ACT_NOTIFY cannot be used for the write syscall, which hands the listener over',
    );
  const conditions = (rule.args ?? []).map((arg, i) => readArg(arg, `${path}.args[${i}]`));
  const twice = conditions.some((c, i) => conditions.findIndex((other) => other.index === c.index) !== i);
  // All conditions of a rule must hold, but several on one argument are alternatives: so runc reads them (libseccomp
  // takes one a argument), and profiles in the wild count on it.
  if (twice) return conditions.map((condition) => ({ names: rule.names, ret, conditions: [condition] }));
  return [{ names: rule.names, ret, conditions }];
}

function readArg(arg: SeccompArg, path: string): Condition {
  if (!Number.isInteger(arg.index) || arg.index < 0 || arg.index >= ARGUMENTS)
    bad(`${path}.index`, arg.index, `is not an argument number between 0 and ${ARGUMENTS - 1}`);
  const op = oneOf(OPERATORS, arg.op, `${path}.op`, 'comparison');
  const value = readU64(arg.value, `${path}.value`);
  if (op !== 'SCMP_CMP_MASKED_EQ') return { index: arg.index, op, value, mask: U64_MAX };
  return { index: arg.index, op, mask: value, value: readU64(arg.valueTwo ?? 0, `${path}.valueTwo`) };
}

function readU64(value: number | bigint, path: string): bigint {
  // JSON.parse rounds 2^64-1 up to 2^64, and nothing else that is a uint64 becomes 2^64 but its 1024 neighbours.
  if (value === 2 ** 64) return U64_MAX;
  if (typeof value === 'number' && !Number.isSafeInteger(value))
    bad(path, value, 'is not an integer that is held exactly');
  const big = BigInt(value);
  return big >= 0n && big <= U64_MAX ? big : bad(path, value, 'is not an unsigned 64-bit integer');
}

function returnOf(action: string, errnoRet: number | undefined, path: { action: string; errno: string }): number {
  const ret = Object.hasOwn(ACTIONS, action) ? ACTIONS[action] : undefined;
  if (ret === undefined) return bad(path.action, action, `is none of ${Object.keys(ACTIONS).join(', ')}`);
  const takesErrno = ret === RET_ERRNO || ret === RET_TRACE;
  if (!takesErrno) {
    if (errnoRet !== undefined) bad(path.errno, errnoRet, `goes with SCMP_ACT_ERRNO and SCMP_ACT_TRACE, not ${action}`);
    return ret;
  }
  const data = errnoRet ?? EPERM;
  const most = ret === RET_ERRNO ? MAX_ERRNO : MAX_TRACE_DATA;
  if (!Number.isInteger(data) || data < 0 || data > most) bad(path.errno, data, `is not an integer from 0 to ${most}`);
  return (ret | data) >>> 0;
}

function readFlags(flags: readonly string[] | undefined): number {
  // Unset is not empty: runc then asks for SPEC_ALLOW, which spares the container the speculation-store-bypass
  // mitigation that seccomp would otherwise switch on before Linux 5.16.
  if (flags === undefined) return FLAGS['SECCOMP_FILTER_FLAG_SPEC_ALLOW'] ?? 0;
  return flags.reduce((all, name, i) => {
    const bit = Object.hasOwn(FLAGS, name) ? FLAGS[name] : undefined;
    return all | (bit ?? bad(`${PATH}.flags[${i}]`, name, `is none of ${Object.keys(FLAGS).join(', ')}`));
  }, 0);
}

function checkListener(profile: SeccompProfile, notifies: boolean): void {
  if (notifies && !profile.listenerPath)
    bad(`${PATH}.listenerPath`, undefined, 'must be set: SCMP_ACT_NOTIFY needs a program that answers');
  if (profile.listenerMetadata && !profile.listenerPath)
    bad(`${PATH}.listenerMetadata`, profile.listenerMetadata, 'must not be set without listenerPath');
  if (!notifies && profile.flags?.includes('SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV'))
    bad(`${PATH}.flags`, 'SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV', 'goes with SCMP_ACT_NOTIFY only');
}

/** Calls of architectures without a table here, which profiles for all machines name. */
const FOREIGN = new Set(
  `cachectl multiplexer rtas s390_guarded_storage s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr s390_sthyi
  spu_create spu_run subpage_prot swapcontext switch_endian sync_file_range2 sys_debug_setcontext syscall sysmips
  timerfd`.split(/\s+/),
);

function knownSomewhere(name: string): boolean {
  return FOREIGN.has(name) || (Object.keys(SYSCALL_TABLES) as Arch[]).some((arch) => syscalls(arch).has(name));
}

function oneOf<T extends string>(known: readonly T[], value: string, path: string, kind: string): T {
  const found = known.find((k) => k === value);
  return found ?? bad(path, value, `is not a known ${kind}`, `one of ${known.join(', ')}`);
}

function bad(path: string, value: unknown, rule: string, hint?: string): never {
  throw new BadSeccompProfile({ path, value, rule, ...(hint === undefined ? {} : { hint }) });
}
