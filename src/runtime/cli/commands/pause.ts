import { sleep } from '#base/clock.ts';
import { freezeOps, freezerState } from '#kernel/cgroup/state.ts';
import { PlanBuilder } from '#runtime/builder.ts';
import type { Command, Outcome } from '#runtime/cli/context.ts';
import { locked } from '#runtime/cli/identity.ts';
import { CommandFailed, showPlan, wrongState } from '#runtime/cli/plans.ts';
import { Unsupported } from '#runtime/errors.ts';
import type { ContainerRecord } from '#runtime/state.ts';
import { loadContainer } from '#runtime/store.ts';

const POLL_MS = 2;
/** A container that forks all the time can keep a v1 freezer from settling; runc gives up after a thousand tries too. */
const TIMEOUT_MS = 5_000;

export async function pause(c: Command): Promise<Outcome> {
  return await change(c, true, (status) =>
    status === 'running' || status === 'created' ? undefined : `container not running or created: ${status}`,
  );
}

export async function resume(c: Command): Promise<Outcome> {
  return await change(c, false, (status) => (status === 'paused' ? undefined : `container not paused: ${status}`));
}

async function change(c: Command, frozen: boolean, refuse: (status: string) => string | undefined): Promise<Outcome> {
  const [id = ''] = c.args;
  const { record } = loadContainer(c.root, id, c.files);
  const plan = planFreeze(record, frozen);
  if (c.plan !== 'run') return showPlan(c, plan);
  await locked(c, id, async () => {
    const wrong = refuse(loadContainer(c.root, id, c.files).status);
    if (wrong) throw wrongState(id, wrong);
    await freeze(c, record, frozen);
  });
  return 0;
}

function planFreeze(record: ContainerRecord, frozen: boolean) {
  const ops = freezeOps(record.cgroups, frozen);
  if (ops.length === 0)
    throw new Unsupported({ path: '$.linux.cgroupsPath', what: 'the container has no cgroup that can be frozen' });
  const b = new PlanBuilder();
  for (const op of ops) b.host(frozen ? 'command pause' : 'command resume', op);
  return b.finish();
}

/** Freezing is a wish: it is looked at, and said again, until it is fact. One that cannot be had is taken back. */
export async function freeze(c: Command, record: ContainerRecord, frozen: boolean): Promise<void> {
  const wanted = frozen ? 'frozen' : 'thawed';
  const deadline = c.clock.monotonic() + TIMEOUT_MS;
  for (;;) {
    await c.execute(planFreeze(record, frozen));
    if (freezerState(record.cgroups, c.files) === wanted) return;
    if (c.clock.monotonic() > deadline) break;
    await sleep(c.clock, POLL_MS);
  }
  if (frozen) await c.execute(planFreeze(record, false));
  throw new CommandFailed({ message: `the container's processes did not become ${wanted} within ${TIMEOUT_MS} ms` });
}
