import { isSidecar, type Run, restartDelayMs, restarts } from '#cluster/node/pod/runs.ts';
import type { Container, PodSpec } from '#spec/kubernetes/types.gen.ts';

/**
 * What a pod needs next. Pure: the wish and what is seen give steps with their reason; called again after each of them, late or
 * after a crash, it gives the same.
 *
 *     no sandbox ──▶ sandbox ──▶ init 1 ──▶ … ──▶ init n ──▶ all containers at once
 *                                  │ a sidecar only has to be started, the next follows; it ends after the containers
 *     terminating ──▶ containers end ──▶ sidecars end, last one first ──▶ gone
 */
export interface PodSeen {
  spec: PodSpec;
  /** Its incarnation. Undefined: there is none (not yet, or a boot took it). */
  sandbox: string | undefined;
  /** Sandbox, volumes and files are in place: containers may start. */
  prepared: boolean;
  /** Newest run of each container. */
  runs: ReadonlyMap<string, Run>;
  /** Probes' verdicts on running containers. */
  started: (container: string) => boolean;
  /** Why a running container has to be ended: a failed liveness or startup probe, a failed postStart hook. */
  condemned: (container: string) => string | undefined;
  /** Containers that something is being done to. */
  busy: ReadonlySet<string>;
  /** The pod ends, and why: deleted, past its deadline, refused. */
  ending: string | undefined;
  nowMs: number;
}

export type PodStep =
  | { do: 'sandbox'; why: string }
  | { do: 'start'; container: Container; attempt: number; after: Run | undefined; why: string }
  | { do: 'end'; container: Container; run: Run; why: string }
  | { do: 'wait'; container: Container; forMs: number; why: string };

/** In `busy`: the sandbox is being made. */
export const SANDBOX = '';

export interface PodPlan {
  steps: PodStep[];
  /** All that was to run has run: nothing starts any more, the sandbox may go. */
  over: boolean;
}

export function planPod(seen: PodSeen): PodPlan {
  const { spec, runs } = seen;
  if (seen.ending !== undefined) return planEnd(seen, seen.ending);
  const init = spec.initContainers ?? [];
  if (isOver(seen)) return planEnd(seen, 'all its containers are done');
  if (!seen.prepared) {
    // Containers of a lost sandbox run in namespaces nobody else can reach.
    const all = seen.sandbox === undefined ? [...init, ...spec.containers] : [];
    const orphans = all.flatMap((c) => endStep(seen, c, 'its sandbox is gone'));
    if (orphans.length > 0 || seen.busy.has(SANDBOX)) return { steps: orphans, over: false };
    return { steps: [{ do: 'sandbox', why: 'it is not in place' }], over: false };
  }
  const begun = spec.containers.some((c) => runs.get(c.name)?.sandbox === seen.sandbox);
  const steps: PodStep[] = [];
  for (const container of init) {
    const run = runs.get(container.name);
    if (isSidecar(container)) {
      steps.push(...keepUp(seen, container, run));
      const up = run?.state === 'running' && seen.started(container.name);
      if (!up && !begun) return { steps, over: false };
      continue;
    }
    const done = run?.state === 'ended' && run.exitCode === 0 && run.sandbox === seen.sandbox;
    if (begun || done) continue;
    steps.push(...keepUp(seen, container, run));
    return { steps, over: false };
  }
  for (const container of spec.containers) steps.push(...keepUp(seen, container, runs.get(container.name)));
  return { steps, over: false };
}

/** Starts what should run and does not, ends what should not run as it does. */
function keepUp(seen: PodSeen, container: Container, run: Run | undefined): PodStep[] {
  if (seen.busy.has(container.name)) return [];
  if (run?.state === 'running') {
    const why =
      seen.condemned(container.name) ?? (run.image === container.image ? undefined : 'its definition changed');
    return why === undefined ? [] : [{ do: 'end', container, run, why }];
  }
  if (run === undefined || run.state === 'made')
    return [{ do: 'start', container, attempt: run?.attempt ?? 0, after: run, why: 'it has not run yet' }];
  const start = { do: 'start', container, attempt: run.attempt + 1, after: run } as const;
  const init = (seen.spec.initContainers ?? []).includes(container);
  if (run.sandbox !== seen.sandbox && (init || restarts(seen.spec, container, run)))
    return [{ ...start, why: 'its sandbox was made anew' }];
  // An init container that failed runs again unless the pod says Never; `Always` means "until it succeeds" for it.
  const again =
    init && !isSidecar(container)
      ? run.exitCode !== 0 && seen.spec.restartPolicy !== 'Never'
      : restarts(seen.spec, container, run);
  if (!again) return [];
  const dueMs = run.finishedAtMs + restartDelayMs(run);
  if (dueMs > seen.nowMs)
    return [{ do: 'wait', container, forMs: dueMs - seen.nowMs, why: `it ended with ${run.exitCode}, and waits` }];
  return [{ ...start, why: `it ended with ${run.exitCode}` }];
}

/** Nothing of the pod will run again: each container is done for good, or an init container failed for good. */
export function isOver(seen: Pick<PodSeen, 'spec' | 'runs'>): boolean {
  const { spec, runs } = seen;
  const failed = (spec.initContainers ?? []).some((c) => {
    const run = runs.get(c.name);
    return !isSidecar(c) && run?.state === 'ended' && run.exitCode !== 0 && spec.restartPolicy === 'Never';
  });
  if (failed) return true;
  return spec.containers.every((c) => {
    const run = runs.get(c.name);
    return run?.state === 'ended' && !restarts(spec, c, run);
  });
}

/** Containers together, then sidecars one by one, last one first: they serve the others to the end. */
function planEnd(seen: PodSeen, why: string): PodPlan {
  const { spec } = seen;
  const sidecars = (spec.initContainers ?? []).filter(isSidecar);
  const first = [...spec.containers, ...(spec.initContainers ?? []).filter((c) => !isSidecar(c))];
  const alive = (c: Container): boolean => seen.busy.has(c.name) || seen.runs.get(c.name)?.state === 'running';
  if (first.some(alive)) return { steps: first.flatMap((c) => endStep(seen, c, why)), over: false };
  const last = sidecars.findLast(alive);
  if (last) return { steps: endStep(seen, last, why), over: false };
  return { steps: [], over: true };
}

function endStep(seen: PodSeen, container: Container, why: string): PodStep[] {
  const run = seen.runs.get(container.name);
  return run?.state === 'running' && !seen.busy.has(container.name) ? [{ do: 'end', container, run, why }] : [];
}
