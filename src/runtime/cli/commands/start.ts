import { closeSync, constants, openSync, readSync } from 'node:fs';
import { sleep } from '#base/clock.ts';
import { errnoOf } from '#base/errors.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { PlanBuilder } from '#runtime/builder.ts';
import { deleteContainer } from '#runtime/cli/commands/delete.ts';
import type { Command, Outcome } from '#runtime/cli/context.ts';
import { locked } from '#runtime/cli/identity.ts';
import { carryOut, showPlan, wrongState } from '#runtime/cli/plans.ts';
import { planLateHooks } from '#runtime/plan-delete.ts';
import { paths } from '#runtime/state.ts';
import { type Container, isAlive, loadContainer } from '#runtime/store.ts';

const POLL_MS = 1;

/** runtime.md, "Start". */
export async function start(c: Command): Promise<Outcome> {
  const [id = ''] = c.args;
  if (c.plan !== 'run') return showPlan(c, unlinkFifo(paths(c.root, id).fifo));
  loadContainer(c.root, id, c.files); // an unknown id is said before the lock's directory is missed
  await locked(c, id, async () => {
    const container = loadContainer(c.root, id, c.files);
    refuseUnlessCreated(container);
    await letGo(c, container);
    await runPoststart(c, container);
  });
  return 0;
}

function refuseUnlessCreated({ record, status }: Container): void {
  const { id } = record;
  if (status === 'stopped') throw wrongState(id, 'cannot start a container that has stopped');
  if (status === 'running') throw wrongState(id, 'cannot start an already running container');
  if (status !== 'created') throw wrongState(id, `cannot start a container in the ${status} state`);
}

/**
 * Init waits in open(2) of the FIFO for somebody to read it, writes a byte and goes on:
 *
 *   init                          start
 *     open for writing, waits  ◀──  open for reading, not waiting
 *     ── one byte ──────────────▶   read
 *     startContainer hooks, exec    unlink: the container counts as running
 */
async function letGo(c: Command, { record, init }: Container): Promise<void> {
  const { fifo } = paths(c.root, record.id);
  const fd = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    for (;;) {
      // Whether it lives is looked at first: a short program has run to its end a moment after init wrote its byte.
      const lives = init !== undefined && isAlive(init, c.files);
      if (gotByte(fd)) break;
      if (!lives) throw wrongState(record.id, 'cannot start a container that has stopped');
      await sleep(c.clock, POLL_MS);
    }
  } finally {
    closeSync(fd);
  }
  await c.execute(unlinkFifo(fifo));
}

/** Nothing yet is end of file as long as nobody has opened the other end, EAGAIN afterwards. */
function gotByte(fd: number): boolean {
  try {
    return readSync(fd, Buffer.alloc(1)) === 1;
  } catch (error) {
    if (errnoOf(error) === 'EAGAIN') return false;
    throw error;
  }
}

function unlinkFifo(fifo: string): Plan {
  const b = new PlanBuilder();
  b.host('runtime.md, "Start"', { op: 'unlink', path: fifo });
  return b.finish();
}

/** "If any poststart hook fails, the runtime MUST generate an error, stop the container, and continue at step 12." */
async function runPoststart(c: Command, { record, config, init }: Container): Promise<void> {
  try {
    for (const plan of planLateHooks(record, config, 'poststart', 'running', init?.pid ?? 0))
      await carryOut(c, 'start', plan);
  } catch (error) {
    await deleteContainer(c, loadContainer(c.root, record.id, c.files), { force: true });
    throw error;
  }
}
