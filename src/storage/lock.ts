import { linkSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { errnoOf } from '#base/errors.ts';
import { StoreLocked } from '#storage/errors.ts';

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
  const text = `${process.pid} ${statOf(process.pid)?.started ?? 0}\n`;
  writeFileSync(mine, text, { mode: 0o600 });
  try {
    for (let attempt = 0; ; attempt++) {
      try {
        linkSync(mine, path); // fails when it exists, on every file system
        break;
      } catch (error) {
        if (errnoOf(error) !== 'EEXIST' || attempt > 10) throw error;
      }
      const holder = livingHolder(path);
      if (holder !== undefined) throw new StoreLocked({ path, holder });
      rmSync(path, { force: true });
    }
  } finally {
    unlinkSync(mine);
  }
  return () => rmSync(path, { force: true });
}

function livingHolder(path: string): string | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
  const [pid = '', started] = text.trim().split(' ');
  // After a SIGKILL a process with much memory or a sync under way takes a while to go: who starts its successor does not wait.
  for (let waited = 0; waited < DYING_MS; waited += DYING_POLL_MS) {
    const found = statOf(Number(pid));
    if (!found || found.started !== started || found.ended) return undefined;
    if (!found.dying) return pid;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, DYING_POLL_MS);
  }
  return pid;
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
