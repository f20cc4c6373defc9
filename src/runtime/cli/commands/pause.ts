import { isCode } from '#base/errors.ts';
import type { Command, Outcome } from '#runtime/cli/context.ts';
import { locked } from '#runtime/cli/identity.ts';
import { CommandFailed, showPlan, wrongState } from '#runtime/cli/plans.ts';
import { freeze as freezeCgroups, planFreeze } from '#runtime/freeze.ts';
import type { ContainerRecord } from '#runtime/state.ts';
import { loadContainer } from '#runtime/store.ts';

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
  const plan = planFreeze(record.cgroups, frozen);
  if (c.plan !== 'run') return showPlan(c, plan);
  await locked(c, id, async () => {
    const wrong = refuse(loadContainer(c.root, id, c.files).status);
    if (wrong) throw wrongState(id, wrong);
    await freeze(c, record, frozen);
  });
  return 0;
}

export async function freeze(c: Command, record: ContainerRecord, frozen: boolean): Promise<void> {
  try {
    await freezeCgroups(record.cgroups, frozen, { clock: c.clock, files: c.files, run: (plan) => c.execute(plan) });
  } catch (error) {
    if (!isCode(error, 'NOT_FROZEN')) throw error;
    throw new CommandFailed({ message: error.message }, { cause: error });
  }
}
