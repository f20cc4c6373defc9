import type { Clock } from '#base/clock.ts';
import { describeChain, isCode } from '#base/errors.ts';
import { type Live, PODS } from '#cluster/client/resources.ts';
import type { AgentDeps } from '#cluster/node/deps.ts';
import { runHook } from '#cluster/node/pod/hooks.ts';
import type { Run } from '#cluster/node/pod/runs.ts';
import type { Container, Pod } from '#spec/kubernetes/types.gen.ts';

export interface EndWish {
  pod: Live<Pod>;
  container: Container;
  run: Run;
  ip: string;
  why: string;
  graceSeconds: number;
  /** Resolves when nobody sends new connections any more; absent where the pod goes on. */
  drained: Promise<void> | undefined;
}

// The kubelet's: whatever a hook took, a program gets this long to end by itself.
const LEAST_GRACE_MS = 2_000;
/** What waiting for the proxies may take of the grace. */
const DRAIN_MOST_MS = 5_000;

/**
 * Ends one run of a container. It is asked to end only when its hook is done and the proxies have let go of it, so that no
 * connection meets a closed port; both count against the grace.
 *
 *     preStop ─┐
 *              ├─▶ SIGTERM ──▶ grace is over: SIGKILL
 *     drained ─┘
 */
export async function endContainer(deps: AgentDeps, wish: EndWish): Promise<void> {
  const { clock, engine, events } = deps;
  const { pod, container, run } = wish;
  const graceMs = wish.graceSeconds * 1000;
  const startedMs = clock.monotonic();
  events.record(PODS, pod, { type: 'Normal', reason: 'Killing', message: messageFor(wish) });
  if (graceMs > 0) {
    const hook = runHook(deps, pod, { id: run.id, container, ip: wish.ip }, 'preStop', graceMs);
    const drained = wish.drained ?? Promise.resolve();
    await Promise.all([within(clock, hook, graceMs), within(clock, drained, Math.min(graceMs, DRAIN_MOST_MS))]);
  }
  const leftMs = graceMs === 0 ? 0 : Math.max(LEAST_GRACE_MS, graceMs - (clock.monotonic() - startedMs));
  try {
    await engine.containers.stop(run.id, { graceMs: leftMs, ...(leftMs === 0 ? { signal: 'SIGKILL' } : {}) });
  } catch (error) {
    // It has ended by itself meanwhile, or somebody removed it.
    if (!isCode(error, 'NOT_MODIFIED', 'NO_SUCH_CONTAINER')) {
      deps.log.error('a container could not be stopped', { id: run.id, error: describeChain(error) });
      throw error;
    }
  }
}

function messageFor({ container, why }: EndWish): string {
  return why.startsWith('Container ') ? why : `Stopping container ${container.name}`;
}

/** Waits for the work, but no longer than that. */
async function within(clock: Clock, work: Promise<unknown>, ms: number): Promise<void> {
  let cancel: () => void = () => undefined;
  const late = new Promise<void>((resolve) => {
    cancel = clock.after(ms, resolve);
  });
  await Promise.race([work, late]);
  cancel();
}
