import { type Clock, sleep } from '#base/clock.ts';
import { defineError } from '#base/errors.ts';
import type { CgroupPlace } from '#kernel/cgroup/place.ts';
import { freezeOps, freezerState } from '#kernel/cgroup/state.ts';
import type { Files } from '#kernel/files.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { PlanBuilder } from '#runtime/builder.ts';
import { Unsupported } from '#runtime/errors.ts';

const POLL_MS = 2;
/** A container that forks all the time can keep a v1 freezer from settling; runc gives up after a thousand tries too. */
const TIMEOUT_MS = 5_000;

export const NotFrozen = defineError('NOT_FROZEN', (d: { wanted: string; timeoutMs: number }) => ({
  message: `the container's processes did not become ${d.wanted} within ${d.timeoutMs} ms`,
}));

export function planFreeze(cgroups: readonly CgroupPlace[], frozen: boolean): Plan {
  const ops = freezeOps(cgroups, frozen);
  if (ops.length === 0)
    throw new Unsupported({ path: '$.linux.cgroupsPath', what: 'the container has no cgroup that can be frozen' });
  const b = new PlanBuilder();
  for (const op of ops) b.host(frozen ? 'pause' : 'resume', op);
  return b.finish();
}

/** Freezing is a wish: it is looked at, and said again, until it is fact. One that cannot be had is taken back. */
export async function freeze(
  cgroups: readonly CgroupPlace[],
  frozen: boolean,
  world: { clock: Clock; files: Files; run: (plan: Plan) => Promise<unknown> },
): Promise<void> {
  const wanted = frozen ? 'frozen' : 'thawed';
  const deadline = world.clock.monotonic() + TIMEOUT_MS;
  for (;;) {
    await world.run(planFreeze(cgroups, frozen));
    if (freezerState(cgroups, world.files) === wanted) return;
    if (world.clock.monotonic() > deadline) break;
    await sleep(world.clock, POLL_MS);
  }
  if (frozen) await world.run(planFreeze(cgroups, false));
  throw new NotFrozen({ wanted, timeoutMs: TIMEOUT_MS });
}
