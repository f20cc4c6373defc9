import type { Files } from '#kernel/files.ts';
import type { NamespaceType } from '#kernel/linux/namespaces.ts';
import { NAMESPACES } from '#kernel/linux/namespaces.ts';

/** What /proc/PID/stat tells that identifies a process: a pid is used again, a pid with its start time is not. */
export interface ProcessStat {
  pid: number;
  comm: string;
  /** R, S, D, Z, T, t, X, I (proc_pid_stat(5)). */
  state: string;
  parentPid: number;
  /** Clock ticks since boot, field 22. */
  startTicks: bigint;
}

/** Undefined: no such process, or the text is not a stat line. */
export function parseStat(text: string | undefined): ProcessStat | undefined {
  // The name stands in parentheses and may hold parentheses, spaces and newlines itself: only the last ")" counts.
  const open = text?.indexOf('(') ?? -1;
  const close = text?.lastIndexOf(')') ?? -1;
  if (!text || open < 0 || close < open) return undefined;
  const [state, parentPid, ...rest] = text.slice(close + 2).split(' ');
  const start = rest[17];
  if (state === undefined || parentPid === undefined || start === undefined) return undefined;
  return {
    pid: Number.parseInt(text, 10),
    comm: text.slice(open + 1, close),
    state,
    parentPid: Number(parentPid),
    startTicks: BigInt(start.trim()),
  };
}

export function readStat(pid: number, files: Files): ProcessStat | undefined {
  return parseStat(files.read(`/proc/${pid}/stat`));
}

/** Is the process that we once knew still there? A zombie has ended, whatever its entry says. */
export function isAlive(pid: number, startTicks: bigint, files: Files): boolean {
  const stat = readStat(pid, files);
  return stat !== undefined && stat.startTicks === startTicks && stat.state !== 'Z' && stat.state !== 'X';
}

/** /proc/PID/status, as far as containers are looked at by it. */
export interface ProcessStatus {
  name: string;
  /** Real, effective, saved, file system. */
  uids: readonly number[];
  gids: readonly number[];
  groups: readonly number[];
  /** In each pid namespace, the outermost first. */
  nsPids: readonly number[];
  capabilities: { inheritable: bigint; permitted: bigint; effective: bigint; bounding: bigint; ambient: bigint };
  noNewPrivs: boolean;
  /** 0 off, 1 strict, 2 filter. */
  seccomp: number;
  seccompFilters: number;
  threads: number;
  cpusAllowed: string;
  memsAllowed: string;
}

export function parseStatus(text: string): ProcessStatus {
  const fields = new Map(
    text.split('\n').map((line) => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon), line.slice(colon + 1).trim()] as const;
    }),
  );
  const numbers = (key: string): number[] => (fields.get(key) ?? '').split(/\s+/).filter(Boolean).map(Number);
  const number = (key: string): number => Number(fields.get(key) ?? 0);
  const mask = (key: string): bigint => BigInt(`0x${fields.get(key) || '0'}`);
  return {
    name: fields.get('Name') ?? '',
    uids: numbers('Uid'),
    gids: numbers('Gid'),
    groups: numbers('Groups'),
    nsPids: numbers('NSpid'),
    capabilities: {
      inheritable: mask('CapInh'),
      permitted: mask('CapPrm'),
      effective: mask('CapEff'),
      bounding: mask('CapBnd'),
      ambient: mask('CapAmb'),
    },
    noNewPrivs: number('NoNewPrivs') === 1,
    seccomp: number('Seccomp'),
    seccompFilters: number('Seccomp_filters'),
    threads: number('Threads'),
    cpusAllowed: fields.get('Cpus_allowed_list') ?? '',
    memsAllowed: fields.get('Mems_allowed_list') ?? '',
  };
}

/** `net:[4026531840]` by type: two processes share a namespace exactly when the text is the same. */
export function readNamespaces(pid: number | 'self', files: Files): Partial<Record<NamespaceType, string>> {
  const found: Partial<Record<NamespaceType, string>> = {};
  for (const { type, proc } of NAMESPACES) {
    const link = files.readlink(`/proc/${pid}/ns/${proc}`);
    if (link !== undefined) found[type] = link;
  }
  return found;
}

/** Max open files and the like, from /proc/PID/limits: name → soft and hard; undefined is unlimited. */
export function parseLimits(text: string): Record<string, { soft?: number; hard?: number }> {
  const result: Record<string, { soft?: number; hard?: number }> = {};
  for (const line of text.split('\n').slice(1)) {
    // Columns stand at fixed places: 25 for the name, 20 for each limit (fs/proc/base.c).
    const name = line.slice(0, 25).trim();
    const value = (column: string): number | undefined => (column === 'unlimited' ? undefined : Number(column));
    const [soft, hard] = [value(line.slice(26, 46).trim()), value(line.slice(47, 67).trim())];
    if (name) result[name] = { ...(soft === undefined ? {} : { soft }), ...(hard === undefined ? {} : { hard }) };
  }
  return result;
}
