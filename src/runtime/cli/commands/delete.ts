import { isCode, messageOf } from '#base/errors.ts';
import type { Command, Outcome } from '#runtime/cli/context.ts';
import { isOn } from '#runtime/cli/flags.ts';
import { locked } from '#runtime/cli/identity.ts';
import { showPlan, wrongState } from '#runtime/cli/plans.ts';
import { planForget, planKillAll, planLateHooks, planRemoveAndForget } from '#runtime/plan-delete.ts';
import { type Container, checkId, loadContainer } from '#runtime/store.ts';
import { hasNewNamespace } from '#spec/oci/config.ts';

/** runtime.md, "Delete". */
export async function remove(c: Command): Promise<Outcome> {
  const [id = ''] = c.args;
  const force = isOn(c.flags, 'force');
  let container: Container;
  try {
    container = loadContainer(c.root, id, c.files);
  } catch (error) {
    if (force && isCode(error, 'CONTAINER_NOT_FOUND')) return 0;
    // What a crash left before or while the record was written: nothing but the directory can exist.
    if (force && isCode(error, 'STATE_UNREADABLE')) return await sweep(c, id);
    throw error;
  }
  if (c.plan !== 'run') return showPlan(c, planKillAll(container.record, container.config, container.init));
  await locked(c, id, () => deleteContainer(c, container, { force }));
  return 0;
}

async function sweep(c: Command, id: string): Promise<Outcome> {
  checkId(id);
  await c.execute(planForget(c.root, id));
  return 0;
}

export async function deleteContainer(c: Command, container: Container, { force }: { force: boolean }): Promise<void> {
  const { record, config, init, status } = container;
  const { id } = record;
  const stopped = status === 'stopped';
  if (!stopped && !force) throw wrongState(id, `cannot delete container ${id} that is not stopped: ${status}`);
  // Processes that outlive init are the container's as well, when it has no PID namespace that ends them.
  if (!stopped || !hasNewNamespace(config, 'pid'))
    await c.execute(planKillAll(record, config, stopped ? undefined : init));
  try {
    await c.execute(planRemoveAndForget(record, c.root));
  } catch (error) {
    // Containers may share a cgroupsPath: what is not empty is not ours alone, and its last user removes it.
    if (!isCode(error, 'PLAN_FAILED') || error.data['errno'] !== 'EBUSY') throw error;
    c.log.warn(`cgroup left in place, since there are other processes in it: ${messageOf(error)}`);
    await c.execute(planForget(c.root, id));
  }
  // "If any poststop hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle continue."
  for (const plan of planLateHooks(record, config, 'poststop', 'stopped', 0)) {
    try {
      await c.execute(plan);
    } catch (error) {
      c.log.warn(`poststop hook: ${messageOf(error)}`);
    }
  }
}
