import { dirOf, placeOf } from '#kernel/cgroup/place.ts';
import { removeOps } from '#kernel/cgroup/plan.ts';
import { freezeOps } from '#kernel/cgroup/state.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { PlanBuilder } from '#runtime/builder.ts';
import { planHooks } from '#runtime/hooks.ts';
import { type ContainerRecord, type ProcessIdentity, paths } from '#runtime/state.ts';
import { type HookPoint, hasNewNamespace, type OciConfig } from '#spec/oci/config.ts';

/** SIGKILL's victim is gone in a millisecond; a process in uninterruptible sleep takes as long as its disk. */
const KILL_TIMEOUT_MS = 10_000;
const SIGKILL = 9;
const MNT_DETACH = 2;

/** `delete --force` first: init dies, and with it all of its PID namespace; without one, all of its cgroup. */
export function planKillAll(record: ContainerRecord, config: OciConfig, init: ProcessIdentity | undefined): Plan {
  const b = new PlanBuilder();
  const because = 'flag --force';
  const startTime = BigInt(init?.startTime ?? 0);
  if (init) b.host(because, { op: 'kill', pid: init.pid, startTime, signal: SIGKILL });
  if (!hasNewNamespace(config, 'pid')) planKillCgroup(b, record, because);
  // A frozen process of v1 dies only once it is thawed (cgroup-v1/freezer-subsystem.rst).
  for (const op of freezeOps(record.cgroups, false)) b.host(because, op);
  if (init) b.host(because, { op: 'waitGone', pid: init.pid, startTime, timeoutMs: KILL_TIMEOUT_MS });
  return b.finish();
}

export function planKillCgroup(b: PlanBuilder, record: ContainerRecord, because: string, signal = SIGKILL): void {
  const place = placeOf(record.cgroups, 'freezer') ?? placeOf(record.cgroups, 'pids') ?? record.cgroups[0];
  if (place) b.host(because, { op: 'killCgroup', path: dirOf(place), signal });
}

/** Mounts first, since a cgroup may be mounted below the root. */
export function planRemove(record: Removable): Plan {
  return removal(record).finish();
}

/** What was made for the container, then what was known of it: until that is gone, `delete` can be said again. */
export function planRemoveAndForget(record: ContainerRecord, root: string): Plan {
  const b = removal(record);
  for (const step of planForget(root, record.id).steps) b.step(step);
  return b.finish();
}

export function planForget(root: string, id: string): Plan {
  const b = new PlanBuilder();
  b.host('runtime.md, "Delete"', { op: 'removeTree', path: paths(root, id).dir });
  return b.finish();
}

type Removable = Pick<ContainerRecord, 'cgroups' | 'rootfs' | 'ownsRootMount'>;

function removal(record: Removable): PlanBuilder {
  const b = new PlanBuilder();
  const because = 'runtime.md, "Delete"';
  if (record.ownsRootMount) b.host(because, { op: 'umount', target: record.rootfs, flags: MNT_DETACH });
  for (const op of removeOps(record.cgroups)) b.host(because, op);
  return b;
}

/** Hooks outside of a create: one plan each, since one that fails must not keep the next from running. */
export function planLateHooks(
  record: ContainerRecord,
  config: OciConfig,
  point: HookPoint,
  status: 'running' | 'stopped',
  pid: number,
): Plan[] {
  return (config.hooks?.[point] ?? []).map((hook, i) => {
    const b = new PlanBuilder();
    const facts = { id: record.id, bundle: record.bundle, annotations: config.annotations ?? {} };
    planHooks(b, 'host', { ...config, hooks: { [point]: [hook] } }, point, facts, status, pid);
    const plan = b.finish();
    return { steps: plan.steps.map((step) => ({ ...step, because: `$.hooks.${point}[${i}]` })) };
  });
}
