import { EstibaError } from '#base/errors.ts';
import { errnoName, signalName } from '#kernel/linux/names.ts';
import { PlanFailed, type StepFailure } from '#kernel/plan/errors.ts';
import { OPS } from '#kernel/plan/ops.ts';
import type { Op, Plan } from '#kernel/plan/plan.ts';
import { sayOp } from '#kernel/plan/print.ts';

// What the executor says, as records one after another (native/result.c). Little endian:
//
//   magic 'ESTR' u32 · kind u32 · pid u32 · step u32 · op u32 · errno u32 · status u32 · detail bytes u32 · detail
//
//   done        the plan ran to its end, or up to `ready`; pid is the container's (0: the plan makes none). detail: netlink answers
//   failed      step and op, errno (0: none), detail; what was done is taken back
//   undoFailed  an undo of `step` failed; comes before its `failed`, the other undos ran
//   exited      `waitInit`: status as wait(2) has it

export const RESULT_MAGIC = 0x5254_5345; // "ESTR"
export const RESULT_HEADER_BYTES = 32;
const MAX_DETAIL_BYTES = 1 << 20;
const KINDS = { 1: 'done', 2: 'failed', 3: 'exited', 4: 'undoFailed' } as const;

export interface ResultRecord {
  kind: (typeof KINDS)[keyof typeof KINDS];
  pid: number;
  step: number;
  opCode: number;
  errno: number;
  status: number;
  detail: Buffer;
}

export interface ExitStatus {
  /** 0 to 255; 128 + signal when a signal ended the process. */
  code: number;
  signal?: string;
  coreDumped?: boolean;
}

/** Takes whole records from the front of `bytes`; `rest` is the beginning of one that has not come yet. */
export function decodeResults(bytes: Buffer): { records: ResultRecord[]; rest: Buffer } {
  const records: ResultRecord[] = [];
  let at = 0;
  while (bytes.length - at >= RESULT_HEADER_BYTES) {
    const word = (i: number): number => bytes.readUInt32LE(at + i * 4);
    const kind = KINDS[word(1) as keyof typeof KINDS];
    const detailBytes = word(7);
    if (word(0) !== RESULT_MAGIC || kind === undefined || detailBytes > MAX_DETAIL_BYTES)
      throw new EstibaError('BAD_RESULT', 'the executor sent something that is not a result record');
    const end = at + RESULT_HEADER_BYTES + detailBytes;
    if (end > bytes.length) break;
    records.push({
      kind,
      pid: word(2),
      step: word(3),
      opCode: word(4),
      errno: word(5),
      status: word(6),
      detail: bytes.subarray(at + RESULT_HEADER_BYTES, end),
    });
    at = end;
  }
  return { records, rest: bytes.subarray(at) };
}

/** wait(2)'s status in the words every engine uses. */
export function exitStatus(status: number): ExitStatus {
  const signal = status & 0x7f;
  if (signal === 0) return { code: (status >> 8) & 0xff };
  return {
    code: 128 + signal,
    signal: signalName(signal),
    ...((status & 0x80) === 0 ? {} : { coreDumped: true }),
  };
}

/** The error a `failed` record stands for, with what only the plan knows: the step in words and its wish. */
export function planFailed(plan: Plan, record: ResultRecord): EstibaError {
  return new PlanFailed(stepFailure(plan, record));
}

export function stepFailure(plan: Plan, record: ResultRecord): StepFailure {
  const step = plan.steps[record.step];
  // An undo's record names its own operation, which is not the step's.
  const op: Op | undefined =
    step && (OPS[step.op].code === record.opCode ? step : step.undo?.find((u) => OPS[u.op].code === record.opCode));
  const errno = record.errno === 0 ? '' : errnoName(record.errno);
  const hint = op && hintFor(op, errno);
  return {
    step: record.step,
    steps: plan.steps.length,
    op: op?.op ?? 'plan',
    says: op ? sayOp(op) : 'read the plan',
    errno,
    detail: record.detail.toString('utf8'),
    because: step?.because ?? 'the executor',
    ...(hint === undefined ? {} : { hint }),
  };
}

/** What to do about the failures that people meet. Keys: operation and errno, or the errno alone. */
const HINTS: Readonly<Record<string, string>> = {
  'clone ENOSPC': 'a limit of /proc/sys/user/max_*_namespaces is reached; raise it or remove containers',
  'clone EPERM': 'namespaces need CAP_SYS_ADMIN, or a new user namespace among them',
  'clone EINVAL': 'the kernel lacks one of these namespaces',
  'rlimit EPERM': 'a hard limit cannot be raised without CAP_SYS_RESOURCE on the host',
  'writeProc EPERM': 'the id map is not covered by /etc/subuid and /etc/subgid, or it maps ids twice',
  'idMapTool ENOENT': 'install newuidmap and newgidmap (Debian: uidmap)',
  'pivotRoot EINVAL': "the root's parent mount is shared, or the root is on initramfs: use --no-pivot there",
  'seccomp EINVAL': 'the kernel does not know a flag or action of the profile',
  'removeCgroup EBUSY': 'processes are left in this cgroup or below it',
  'mkdir ENOSPC': 'the file system is full, or the number of cgroups or inodes is at its limit',
};

function hintFor(op: Op, errno: string): string | undefined {
  return HINTS[`${op.op} ${errno}`];
}
