import { isCode } from '#base/errors.ts';
import { signalNumber } from '#kernel/linux/names.ts';
import { PlanBuilder } from '#runtime/builder.ts';
import type { Command, Outcome } from '#runtime/cli/context.ts';
import { isOn } from '#runtime/cli/flags.ts';
import { showPlan, wrongState } from '#runtime/cli/plans.ts';
import { planKillCgroup } from '#runtime/plan-delete.ts';
import { loadContainer } from '#runtime/store.ts';
import { hasNewNamespace } from '#spec/oci/config.ts';

const SIGKILL = 9;

/** runtime.md, "Kill". */
export async function kill(c: Command): Promise<Outcome> {
  const [id = '', name = 'SIGTERM'] = c.args;
  const signal = signalNumber(name);
  const { record, config, init, status } = loadContainer(c.root, id, c.files);
  const all = isOn(c.flags, 'all');
  const running = init !== undefined && status !== 'stopped' && status !== 'creating';
  // With --all a container whose init has ended may still have processes, when they share a PID namespace.
  if (!running && !all) throw wrongState(id, 'container not running');
  const b = new PlanBuilder();
  if (running) b.host('runtime.md, "Kill"', { op: 'kill', pid: init.pid, startTime: BigInt(init.startTime), signal });
  const orphansToo = signal === SIGKILL && !hasNewNamespace(config, 'pid');
  if (all || orphansToo) planKillCgroup(b, record, all ? 'flag --all' : 'default', signal);
  const plan = b.finish();
  if (c.plan !== 'run') return showPlan(c, plan);
  try {
    await c.execute(plan);
  } catch (error) {
    if (isCode(error, 'PLAN_FAILED') && error.data['errno'] === 'ESRCH') throw wrongState(id, 'container not running');
    throw error;
  }
  return 0;
}
