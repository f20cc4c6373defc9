import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf } from '#base/errors.ts';

// A shim's directory, written by native/state.c. Each file is renamed into place.
//
//   DIR/pid          PID START            of the shim: together they name it for good
//   DIR/init         PID START            of the container, once it is created
//   DIR/exit         STATUS OOM NS        wait(2)'s status, whether the kernel killed for memory, when (Unix time)
//   DIR/exec.NAME    STATUS OOM NS        of an exec that has ended
//   DIR/shim.sock                         gone when the shim is

export interface ShimState {
  pid?: number;
  startTime?: bigint;
  initPid?: number;
  initStartTime?: bigint;
}

export interface ExitRecord {
  /** As wait(2) has it. */
  status: number;
  oomKilled: boolean;
  atMs: number;
}

export async function readShimState(dir: string): Promise<ShimState> {
  const [pid, init] = await Promise.all([readFields(join(dir, 'pid')), readFields(join(dir, 'init'))]);
  return {
    ...(pid ? { pid: Number(pid[0]), startTime: BigInt(pid[1] ?? 0) } : {}),
    ...(init ? { initPid: Number(init[0]), initStartTime: BigInt(init[1] ?? 0) } : {}),
  };
}

/** Of a container that is created. */
export async function readInitStart(dir: string): Promise<bigint | undefined> {
  const init = await readFields(join(dir, 'init'));
  return init && BigInt(init[1] ?? 0);
}

export async function readExit(dir: string, name: string): Promise<ExitRecord | undefined> {
  const fields = await readFields(join(dir, name));
  if (!fields) return undefined;
  return {
    status: Number(fields[0]),
    oomKilled: fields[1] === '1',
    atMs: Number(BigInt(fields[2] ?? 0) / 1_000_000n),
  };
}

/** Whether the very process that wrote the directory still runs; its pid alone may be another's by now. */
export async function shimLives(dir: string): Promise<boolean> {
  const { pid, startTime } = await readShimState(dir);
  if (pid === undefined || startTime === undefined) return false;
  return (await processStartTime(pid)) === startTime;
}

/** Field 22 of /proc/PID/stat, in clock ticks since boot; undefined when there is no such process. */
export async function processStartTime(pid: number): Promise<bigint | undefined> {
  const stat = await readOr(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The name in field 2 may hold spaces and brackets: count from the last ')'.
  const field = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[22 - 3];
  return field === undefined ? undefined : BigInt(field);
}

async function readFields(path: string): Promise<string[] | undefined> {
  return (await readOr(path))?.trim().split(' ');
}

/** By this thread: a line in memory, read in microseconds. */
async function readOr(path: string): Promise<string | undefined> {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    // ESRCH: the process ended while its file was read.
    if (['ENOENT', 'ESRCH', 'ENOTDIR'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}
