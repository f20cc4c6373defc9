import { linkSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { errnoOf } from '#base/errors.ts';
import { StoreLocked } from '#storage/errors.ts';

/**
 * One process a directory. The lock file holds pid and start time of its holder, so that a file left by a crash, or a
 * pid that was given to somebody else since, holds nothing. Returns what lets go.
 */
export function lockDirectory(path: string): () => void {
  const mine = `${path}.${process.pid}`;
  const text = `${process.pid} ${startTimeOf(process.pid) ?? 0}\n`;
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
  return startTimeOf(Number(pid)) === started ? pid : undefined;
}

/** Field 22 of /proc/PID/stat (proc(5)), in clock ticks after boot. The name in field 2 may hold blanks and brackets. */
function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined; // no such process
  }
}
