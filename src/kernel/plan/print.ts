import * as mountOptions from '#kernel/linux/mount-options.ts';
import {
  MOUNT_ATTR_IDMAP,
  MOUNT_ATTR_NOATIME,
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_NODIRATIME,
  MOUNT_ATTR_NOEXEC,
  MOUNT_ATTR_NOSUID,
  MOUNT_ATTR_NOSYMFOLLOW,
  MOUNT_ATTR_RDONLY,
  MOUNT_ATTR_STRICTATIME,
} from '#kernel/linux/mount-options.ts';
import { capabilityNames, RLIM_INFINITY, RLIMITS, signalName } from '#kernel/linux/names.ts';
import { CLONE_INTO_CGROUP, CLONE_PARENT, CLONE_PIDFD, NAMESPACES } from '#kernel/linux/namespaces.ts';
import * as ops from '#kernel/plan/ops.ts';
import type { Op, OpName, Plan, Step } from '#kernel/plan/plan.ts';

/**
 * A plan for people: one line a step, flags by name, the wish at the end.
 *
 *      1 host   mkdir /sys/fs/cgroup/memory/web                    $.linux.cgroupsPath    undo: rmdir …
 *      2 host   clone into new namespaces newns|newpid             $.linux.namespaces
 */
export function printPlan(plan: Plan): string {
  const digits = String(plan.steps.length).length;
  const says = plan.steps.map((step) => sayOp(step));
  const width = Math.min(MAX_SAYS_COLUMN, Math.max(0, ...says.map((s) => s.length)));
  return plan.steps
    .map((step, i) => {
      const number = String(i + 1).padStart(digits);
      const undo = step.undo?.length ? `  undo: ${step.undo.map(sayOp).join('; ')}` : '';
      return `${number} ${step.where.padEnd(6)} ${(says[i] ?? '').padEnd(width)}  ${step.because}${undo}\n`;
    })
    .join('');
}

const MAX_SAYS_COLUMN = 72;

export interface PrintedStep {
  step: number;
  where: string;
  op: string;
  says: string;
  because: string;
  args: Record<string, unknown>;
  undo?: { op: string; says: string; args: Record<string, unknown> }[];
}

/** The same as JSON values: numbers of 64 bits as decimal strings, bytes as text when they are text and as base64 if not. */
export function planToJson(plan: Plan): PrintedStep[] {
  return plan.steps.map((step, i) => ({
    step: i + 1,
    where: step.where,
    op: step.op,
    says: sayOp(step),
    because: step.because,
    args: jsonArgs(step),
    ...(step.undo?.length ? { undo: step.undo.map((op) => ({ op: op.op, says: sayOp(op), args: jsonArgs(op) })) } : {}),
  }));
}

/** One operation in words, from its row's `says`. */
export function sayOp(op: Op | Step): string {
  const values = argsOf(op);
  const text = ops.OPS[op.op].says.replace(/\{(\w+)\}/g, (_, name: string) => sayArg(op.op, name, values[name]));
  return text.replace(/ {2,}/g, ' ').trimEnd();
}

function argsOf(op: Op): Readonly<Record<string, unknown>> {
  return op as unknown as Readonly<Record<string, unknown>>;
}

function jsonArgs(op: Op): Record<string, unknown> {
  const values = argsOf(op);
  return Object.fromEntries(
    Object.keys(ops.OPS[op.op].args).map((name) => {
      const value = values[name];
      const decode = DECODERS[`${op.op}.${name}`];
      if (decode && (typeof value === 'number' || typeof value === 'bigint')) return [name, decode(value)];
      if (value instanceof Uint8Array)
        return [name, printableText(value) ?? { base64: Buffer.from(value).toString('base64') }];
      return [name, typeof value === 'bigint' ? value.toString() : value];
    }),
  );
}

function sayArg(op: OpName, name: string, value: unknown): string {
  const decode = DECODERS[`${op}.${name}`];
  if (decode && (typeof value === 'number' || typeof value === 'bigint')) return decode(value);
  if (typeof value === 'string') return quote(value);
  if (Array.isArray(value)) return value.map((item) => quote(String(item))).join(' ');
  if (value instanceof Uint8Array) return sayBytes(value);
  return String(value);
}

function quote(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a terminal must not receive them from a plan
  if (!/[\u0000-\u0020\u007f"]/.test(text)) return text;
  return JSON.stringify(text);
}

const MAX_BYTES_SHOWN = 60;

function sayBytes(value: Uint8Array): string {
  const text = printableText(value);
  if (text === undefined) return `${value.length} bytes`;
  const line = text.trim();
  return quote(line.length > MAX_BYTES_SHOWN ? `${line.slice(0, MAX_BYTES_SHOWN)}…` : line);
}

function printableText(value: Uint8Array): string | undefined {
  const text = Buffer.from(value).toString('utf8');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: this is how text is told from a BPF program
  return /[\u0000-\u0008\u000e-\u001f\ufffd]/.test(text) ? undefined : text;
}

// -- flags by name

type Names = readonly (readonly [bit: bigint, name: string])[];
type Decode = (value: number | bigint) => string;

/** `nosuid|nodev`; bits without a name as hex, so that nothing set stays unseen; nothing set says nothing. */
function flags(names: Names): Decode {
  return (value) => {
    let rest = BigInt(value);
    const found: string[] = [];
    for (const [bit, name] of names) {
      if ((rest & bit) !== bit) continue;
      found.push(name);
      rest &= ~bit;
    }
    if (rest !== 0n) found.push(`0x${rest.toString(16)}`);
    return found.join('|');
  };
}

const MS_NAMES: Names = Object.entries(mountOptions)
  .filter(([name, value]) => name.startsWith('MS_') && typeof value === 'bigint')
  .map(([name, value]) => [value as bigint, name.slice(3).toLowerCase()] as const);

const ATTR_NAMES: Names = [
  [MOUNT_ATTR_IDMAP, 'idmap'],
  [0x70n, 'atime'],
  [MOUNT_ATTR_RDONLY, 'ro'],
  [MOUNT_ATTR_NOSUID, 'nosuid'],
  [MOUNT_ATTR_NODEV, 'nodev'],
  [MOUNT_ATTR_NOEXEC, 'noexec'],
  [MOUNT_ATTR_NOATIME, 'noatime'],
  [MOUNT_ATTR_STRICTATIME, 'strictatime'],
  [MOUNT_ATTR_NODIRATIME, 'nodiratime'],
  [MOUNT_ATTR_NOSYMFOLLOW, 'nosymfollow'],
];

const CLONE_NAMES: Names = [
  ...NAMESPACES.map((row) => [BigInt(row.flag), `new${row.proc}`] as const),
  [CLONE_PIDFD, 'pidfd'],
  [CLONE_PARENT, 'parent'],
  [CLONE_INTO_CGROUP, 'into_cgroup'],
];

// open(2), asm-generic; O_DIRECTORY and O_NOFOLLOW differ on arm64 and are passed in generic numbers, see native/ops_file.c.
const OPEN_NAMES: Names = [
  [0o1n, 'wronly'],
  [0o2n, 'rdwr'],
  [0o100n, 'creat'],
  [0o200n, 'excl'],
  [0o400n, 'noctty'],
  [0o1000n, 'trunc'],
  [0o2000n, 'append'],
  [0o4000n, 'nonblock'],
  [0o200000n, 'directory'],
  [0o400000n, 'nofollow'],
  [0o2000000n, 'cloexec'],
  [0o10000000n, 'path'],
];

const UMOUNT_NAMES: Names = [
  [1n, 'force'],
  [2n, 'detach'],
  [4n, 'expire'],
  [8n, 'nofollow'],
];

const SECCOMP_NAMES: Names = [
  [1n, 'tsync'],
  [2n, 'log'],
  [4n, 'spec_allow'],
  [8n, 'new_listener'],
  [16n, 'tsync_esrch'],
  [32n, 'wait_killable_recv'],
];

const PRCTL_NAMES: Readonly<Record<number, string>> = {
  1: 'pdeathsig',
  4: 'dumpable',
  8: 'keepcaps',
  15: 'name',
  28: 'securebits',
  36: 'child_subreaper',
  38: 'no_new_privs',
  41: 'thp_disable',
};

const octal: Decode = (value) => `0${value.toString(8)}`;
const capabilities: Decode = (value) =>
  capabilityNames(BigInt(value)).join(',').toLowerCase().replaceAll('cap_', '') || 'none';
const limit: Decode = (value) => (BigInt(value) === RLIM_INFINITY ? 'unlimited' : value.toString());
const signal: Decode = (value) => signalName(Number(value));
/** Linux's 64-bit encoding, as gnu_dev_makedev packs it. */
const device: Decode = (value) => {
  const d = BigInt(value);
  const major = ((d >> 8n) & 0xfffn) | ((d >> 32n) & 0xffff_f000n);
  const minor = (d & 0xffn) | ((d >> 12n) & 0xffff_ff00n);
  return `${major}:${minor}`;
};
const slot: Decode = (value) => (Number(value) === ops.NO_SLOT ? 'none' : `slot ${value}`);

const DECODERS: Readonly<Record<string, Decode | undefined>> = {
  'mkdir.mode': octal,
  'mknod.mode': octal,
  'mknod.device': device,
  'chmod.mode': octal,
  'write.flags': flags(OPEN_NAMES),
  'write.mode': octal,
  'open.flags': flags(OPEN_NAMES),
  'open.mode': octal,
  'open.into': slot,
  'close.slot': slot,
  'killCgroup.signal': signal,
  'kill.signal': signal,
  'clone.flags': flags(CLONE_NAMES),
  'clone.cgroup': slot,
  'setns.slot': slot,
  'setns.type': flags(CLONE_NAMES),
  'openProcess.into': slot,
  'enterProcess.slot': slot,
  'enterProcess.types': flags(CLONE_NAMES),
  'cloneInto.slot': slot,
  'cloneInto.types': flags(CLONE_NAMES),
  'cloneInto.flags': flags(CLONE_NAMES),
  'cloneInto.cgroup': slot,
  'unshare.flags': flags(CLONE_NAMES),
  'prctl.option': (value) => PRCTL_NAMES[Number(value)] ?? value.toString(),
  'capset.effective': capabilities,
  'capset.permitted': capabilities,
  'capset.inheritable': capabilities,
  'capBounding.keep': capabilities,
  'capAmbient.set': capabilities,
  'seccomp.flags': flags(SECCOMP_NAMES),
  'rlimit.resource': (value) => (RLIMITS[Number(value)] ?? value.toString()).replace('RLIMIT_', '').toLowerCase(),
  'rlimit.soft': limit,
  'rlimit.hard': limit,
  'umask.mask': octal,
  'mount.flags': flags(MS_NAMES),
  'umount.flags': flags(UMOUNT_NAMES),
  'mountAt.root': slot,
  'mountAt.flags': flags(MS_NAMES),
  'bindAt.root': slot,
  'bindAt.from': slot,
  'bindAt.set': flags(ATTR_NAMES),
  'bindAt.clear': flags(ATTR_NAMES),
  'bindAt.propagation': flags(MS_NAMES),
  'bindAt.userns': slot,
  'openTree.into': slot,
  'openTree.set': flags(ATTR_NAMES),
  'openTree.clear': flags(ATTR_NAMES),
  'openTree.userns': slot,
  'userns.into': slot,
  'mountAttr.set': flags(ATTR_NAMES),
  'mountAttr.clear': flags(ATTR_NAMES),
  'mountAttr.propagation': flags(MS_NAMES),
  'attrAt.root': slot,
  'attrAt.set': flags(ATTR_NAMES),
  'attrAt.clear': flags(ATTR_NAMES),
  'attrAt.propagation': flags(MS_NAMES),
  'copyUpAt.root': slot,
  'copyUpAt.flags': flags(MS_NAMES),
  'maskAt.root': slot,
  'readonlyAt.root': slot,
  'deviceAt.root': slot,
  'deviceAt.mode': octal,
  'deviceAt.device': device,
  'symlinkAt.root': slot,
  'mkdirAt.root': slot,
  'mkdirAt.mode': octal,
  'awaitStart.slot': slot,
  'joinCgroup.slot': slot,
};
