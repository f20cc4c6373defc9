import type { Command } from '#runtime/cli/context.ts';
import { withLock } from '#runtime/lock.ts';
import { type ProcessIdentity, paths } from '#runtime/state.ts';
import { readProcess } from '#runtime/store.ts';

/** The calling command, for locks and for `creating`: whoever looks can tell whether it still lives. */
export function identityOf(c: Command): ProcessIdentity {
  return { pid: c.pid, startTime: readProcess(c.pid, c.files)?.startTime ?? 0 };
}

/** Does what changes a container while nobody else does. */
export function locked<T>(c: Command, id: string, work: () => Promise<T>): Promise<T> {
  const lock = { id, self: identityOf(c), clock: c.clock, files: c.files };
  return withLock(paths(c.root, id).lock, lock, work);
}
