import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { type Clock, sleep } from '#base/clock.ts';
import { errnoOf } from '#base/errors.ts';
import type { Files } from '#kernel/files.ts';
import { Locked } from '#runtime/errors.ts';
import { type ProcessIdentity, parseIdentity } from '#runtime/state.ts';
import { isAlive } from '#runtime/store.ts';

const RETRY_MS = 20;
/** Longer than any command needs for one container; a holder that lives on past this is stuck, and named. */
const TIMEOUT_MS = 15_000;

/**
 * One command at a time changes a container. The lock is a file with its holder's identity, so a holder that was killed
 * holds nothing: who finds such a file moves it away and tries again.
 */
export async function withLock<T>(
  path: string,
  { id, self, clock, files }: { id: string; self: ProcessIdentity; clock: Clock; files: Files },
  work: () => Promise<T>,
): Promise<T> {
  const deadline = clock.monotonic() + TIMEOUT_MS;
  while (!take(path, self)) {
    const holder = parseIdentity(files.read(path) ?? '');
    if (holder && !isAlive(holder, files)) moveAway(path, holder);
    else if (clock.monotonic() > deadline) throw new Locked({ id, pid: holder?.pid ?? 0 });
    else await sleep(clock, RETRY_MS);
  }
  try {
    return await work();
  } finally {
    rmSync(path, { force: true }); // gone already when the work was `delete`
  }
}

function take(path: string, self: ProcessIdentity): boolean {
  try {
    writeFileSync(path, `${self.pid} ${self.startTime}\n`, { flag: 'wx', mode: 0o600 });
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false;
    throw error;
  }
}

/** Two may find the same dead holder. What was moved tells: a living one's lock is put back. */
function moveAway(path: string, dead: ProcessIdentity): void {
  const aside = `${path}.${dead.pid}`;
  try {
    renameSync(path, aside);
    const moved = parseIdentity(readFileSync(aside, 'utf8'));
    if (moved && moved.pid !== dead.pid) renameSync(aside, path);
    else rmSync(aside, { force: true });
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error; // another was faster
  }
}
