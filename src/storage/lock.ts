import { copyFileSync, linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { errnoOf } from '#base/errors.ts';
import { StoreLocked } from '#storage/errors.ts';

/** Of others' comings and goings between two looks. */
const ATTEMPTS_MOST = 10;
const DYING_MS = 5_000;
const DYING_POLL_MS = 10;
/** include/linux/sched.h */
const PF_EXITING = 0x4;

/**
 * One process a directory. The lock file holds pid and start time of its holder, so that a file left by a crash, or a
 * pid that was given to somebody else since, holds nothing. Returns what lets go.
 */
export function lockDirectory(path: string): () => void {
  const mine = `${path}.${process.pid}`;
  writeFileSync(mine, `${process.pid} ${statOf(process.pid)?.started ?? 0}\n`, { mode: 0o600 });
  try {
    take(path, mine);
  } finally {
    rmSync(mine, { force: true });
  }
  return () => rmSync(path, { force: true });
}

/**
 * A dead holder's file is taken over by whoever holds `PATH.after-PID-START`, a lock of its own: were it only removed, the slower
 * of two who find it dead would remove the lock that the faster has taken meanwhile. Nobody who gets that right late can use it, since
 * the file does not name that holder any more.
 */
function take(path: string, mine: string): void {
  for (let attempt = 0; ; attempt++) {
    try {
      linkSync(mine, path); // fails when it exists, on every file system
      return;
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST' || attempt > ATTEMPTS_MOST) throw error;
    }
    const text = readOr(path);
    if (text === undefined) continue;
    if (isHolding(text)) throw new StoreLocked({ path, holder: text.split(' ')[0] ?? '' });
    const right = `${path}.after-${text.trim().replace(/\W+/g, '-')}`;
    take(right, mine);
    const isStill = readOr(path) === text;
    if (isStill) {
      copyFileSync(mine, `${mine}.next`); // a link of it lies at what we hold already: a rename between links does nothing
      renameSync(`${mine}.next`, path);
    }
    rmSync(right, { force: true });
    if (isStill) return;
  }
}

function readOr(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** After a SIGKILL a process with much memory or a sync under way takes a while to go: who starts its successor does not wait. */
function isHolding(text: string): boolean {
  const [pid = '', started] = text.trim().split(' ');
  for (let waited = 0; waited < DYING_MS; waited += DYING_POLL_MS) {
    const found = statOf(Number(pid));
    if (!found || found.started !== started || found.ended) return false;
    if (!found.dying) return true;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, DYING_POLL_MS);
  }
  return true;
}

interface ProcessStat {
  /** In clock ticks after boot. */
  started: string | undefined;
  /** A zombie: nothing of it is left but its number, and its files are closed. */
  ended: boolean;
  /** On its way out, with files that may still be open. */
  dying: boolean;
}

/** Fields 3, 9 and 22 of /proc/PID/stat (proc(5)). The name in field 2 may hold blanks and brackets. */
function statOf(pid: number): ProcessStat | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const state = fields[0] ?? '';
    return { started: fields[19], ended: 'ZX'.includes(state), dying: (Number(fields[6]) & PF_EXITING) !== 0 };
  } catch {
    return undefined; // no such process
  }
}
