import { type Live, timestamp } from '#cluster/client/resources.ts';
import { qosClass } from '#cluster/node/pod/resources.ts';
import { isSidecar, type Run, restartDelayMs, restarts } from '#cluster/node/pod/runs.ts';
import type {
  Container,
  ContainerState,
  ContainerStateTerminated,
  ContainerStatus,
  Pod,
  PodCondition,
  PodStatus,
} from '#spec/kubernetes/types.gen.ts';

/** What the node knows of a pod when it reports. */
export interface StatusInput {
  pod: Live<Pod>;
  /** All runs of each container that are still remembered, oldest first. */
  runs: ReadonlyMap<string, readonly Run[]>;
  /** Why a container cannot run yet: `ImagePullBackOff` and its like. */
  waiting: (container: string) => { reason: string; message: string } | undefined;
  started: (container: string) => boolean;
  ready: (container: string) => boolean;
  /** What a run that has ended left in its termination message. */
  message: (run: Run) => string;
  sandbox: { ready: boolean; ips: readonly string[] };
  hostIp: string;
  /** The node ended the pod for good, or never took it. */
  failed: { reason: string; message: string } | undefined;
  /** Nothing starts any more: it is deleted, failed or done. */
  ending: boolean;
  startedAtMs: number;
  nowMs: number;
}

/** The node has taken the pod back. */
export const EVICTED = 'Evicted';

type Phase = NonNullable<PodStatus['phase']>;

/** The whole status as the kubelet reports it, but for conditions of others, which are kept. Pure. */
export function podStatus(input: StatusInput): PodStatus {
  const { spec } = input.pod;
  const inits = spec.initContainers ?? [];
  const initialized = isInitialized(input);
  const initStatuses = inits.map((c) => containerStatus(input, c, true));
  const statuses = spec.containers.map((c) => containerStatus(input, c, initialized));
  const phase = input.failed ? 'Failed' : phaseOf(input, initialized, statuses);
  const { ips } = input.sandbox;
  const [ip] = ips;
  return {
    phase,
    conditions: conditions(input, phase, initialized, initStatuses, statuses),
    ...(input.failed ? { reason: input.failed.reason, message: input.failed.message } : {}),
    hostIP: input.hostIp,
    hostIPs: [{ ip: input.hostIp }],
    ...(ip === undefined ? {} : { podIP: ip, podIPs: ips.map((each) => ({ ip: each })) }),
    startTime: timestamp(input.startedAtMs),
    ...(inits.length > 0 ? { initContainerStatuses: initStatuses } : {}),
    containerStatuses: statuses,
    qosClass: qosClass(spec),
    ...(input.pod.metadata.generation === undefined ? {} : { observedGeneration: input.pod.metadata.generation }),
  };
}

/** Every init container has succeeded and every sidecar has started; so it stays once the containers have begun. */
function isInitialized(input: StatusInput): boolean {
  const { spec } = input.pod;
  if (spec.containers.some((c) => (input.runs.get(c.name)?.length ?? 0) > 0)) return true;
  return (spec.initContainers ?? []).every((c) => {
    const run = input.runs.get(c.name)?.at(-1);
    return isSidecar(c)
      ? run?.state === 'running' && input.started(c.name)
      : run?.state === 'ended' && run.exitCode === 0 && run.startError === '';
  });
}

function containerStatus(input: StatusInput, container: Container, initialized: boolean): ContainerStatus {
  const runs = input.runs.get(container.name) ?? [];
  const last = runs.at(-1);
  const before = runs.at(-2);
  const isInit = (input.pod.spec.initContainers ?? []).includes(container);
  const running = last?.state === 'running';
  const started = running && input.started(container.name);
  // An init container is ready when it has succeeded.
  const once = isInit && !isSidecar(container);
  const succeeded = last?.state === 'ended' && last.exitCode === 0 && last.startError === '';
  const { state, lastState } = states(input, container, last, before, initialized);
  return {
    name: container.name,
    image: container.image ?? '',
    imageID: last?.imageId ?? '',
    ...(last ? { containerID: containerId(last) } : {}),
    restartCount: last?.attempt ?? 0,
    ready: once ? succeeded : started && input.ready(container.name),
    started,
    state,
    lastState,
  };
}

function states(
  input: StatusInput,
  container: Container,
  last: Run | undefined,
  before: Run | undefined,
  initialized: boolean,
): { state: ContainerState; lastState: ContainerState } {
  const past = (run: Run | undefined): ContainerState =>
    run?.state === 'ended' ? { terminated: terminated(input, run) } : {};
  if (last?.state === 'running')
    return { state: { running: { startedAt: timestamp(last.startedAtMs) } }, lastState: past(before) };
  const waiting = input.ending ? undefined : input.waiting(container.name);
  if (last?.state === 'ended') {
    if (waiting) return { state: { waiting }, lastState: past(last) };
    const delayMs = restartDelayMs(last);
    const backsOff =
      !input.ending && willRestart(input, container, last) && delayMs > 0 && last.finishedAtMs + delayMs > input.nowMs;
    if (!backsOff) return { state: past(last), lastState: past(before) };
    const { name, namespace = '', uid } = input.pod.metadata;
    const message = `back-off ${goDuration(delayMs)} restarting failed container=${container.name} pod=${name}_${namespace}(${uid})`;
    return { state: { waiting: { reason: 'CrashLoopBackOff', message } }, lastState: past(last) };
  }
  const reason = initialized ? 'ContainerCreating' : 'PodInitializing';
  return { state: { waiting: waiting ?? { reason } }, lastState: past(before) };
}

function willRestart({ pod }: StatusInput, container: Container, run: Run): boolean {
  const isInit = (pod.spec.initContainers ?? []).includes(container) && !isSidecar(container);
  return isInit ? run.exitCode !== 0 && pod.spec.restartPolicy !== 'Never' : restarts(pod.spec, container, run);
}

const NEVER = '1970-01-01T00:00:00Z';

function terminated(input: StatusInput, run: Run): ContainerStateTerminated {
  const message = run.startError || input.message(run);
  return {
    exitCode: run.startError === '' ? run.exitCode : 128,
    reason: run.startError ? 'StartError' : run.oomKilled ? 'OOMKilled' : run.exitCode === 0 ? 'Completed' : 'Error',
    ...(message === '' ? {} : { message }),
    startedAt: run.startedAtMs === 0 ? NEVER : timestamp(run.startedAtMs),
    finishedAt: timestamp(run.finishedAtMs),
    containerID: containerId(run),
  };
}

export function containerId(run: Pick<Run, 'id'>): string {
  return `estiba://${run.id}`;
}

/** `10s`, `1m20s`, `5m0s`, as Go prints them. */
export function goDuration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${seconds % 60}s`;
}

function phaseOf(input: StatusInput, initialized: boolean, statuses: readonly ContainerStatus[]): Phase {
  const { spec } = input.pod;
  const initFailed = (spec.initContainers ?? []).some((c) => {
    const run = input.runs.get(c.name)?.at(-1);
    return !isSidecar(c) && run?.state === 'ended' && !willRestart(input, c, run) && run.exitCode !== 0;
  });
  if (!initialized) return initFailed ? 'Failed' : 'Pending';
  const ended = statuses.filter((s) => s.state?.terminated ?? (s.state?.waiting && s.lastState?.terminated));
  const running = statuses.filter((s) => s.state?.running);
  // Some container has never run: the pod is still coming up.
  if (ended.length + running.length < statuses.length) return 'Pending';
  if (running.length > 0) return 'Running';
  const comesBack = spec.containers.some((c) => {
    const run = input.runs.get(c.name)?.at(-1);
    return run !== undefined && restarts(spec, c, run);
  });
  const sidecarRuns = (spec.initContainers ?? []).some(
    (c) => isSidecar(c) && input.runs.get(c.name)?.at(-1)?.state === 'running',
  );
  const codes = ended.map((s) => s.state?.terminated?.exitCode ?? s.lastState?.terminated?.exitCode);
  const gone = input.pod.metadata.deletionTimestamp !== undefined;
  if ((comesBack && !(input.ending && gone)) || sidecarRuns) return 'Running';
  return codes.every((code) => code === 0) ? 'Succeeded' : 'Failed';
}

// ---- conditions

function conditions(
  input: StatusInput,
  phase: Phase,
  initialized: boolean,
  inits: readonly ContainerStatus[],
  statuses: readonly ContainerStatus[],
): PodCondition[] {
  const { spec, status } = input.pod;
  const known = status?.conditions ?? [];
  const made: Omit<PodCondition, 'lastTransitionTime'>[] = [
    { type: 'PodReadyToStartContainers', status: input.sandbox.ready ? 'True' : 'False' },
    initializedCondition(phase, initialized, inits),
  ];
  const sidecars = (spec.initContainers ?? []).flatMap((c, i) => (isSidecar(c) ? (inits[i] ?? []) : []));
  const containersReady = readyCondition(phase, [...sidecars, ...statuses]);
  const gates = (spec.readinessGates ?? []).filter(
    (gate) => known.find((c) => c.type === gate.conditionType)?.status !== 'True',
  );
  const ready =
    containersReady.status === 'True' && gates.length > 0
      ? {
          status: 'False',
          reason: 'ReadinessGatesNotReady',
          message: gates
            .map((g) => `corresponding condition of pod readiness gate "${g.conditionType}" does not exist.`)
            .join(', '),
        }
      : containersReady;
  made.push({ type: 'Ready', ...ready }, { type: 'ContainersReady', ...containersReady });
  if (!known.some((c) => c.type === 'PodScheduled')) made.push({ type: 'PodScheduled', status: 'True' });
  if (input.failed?.reason === EVICTED)
    made.push({
      type: 'DisruptionTarget',
      status: 'True',
      reason: 'TerminationByKubelet',
      message: input.failed.message,
    });
  const now = timestamp(input.nowMs);
  const generation = input.pod.metadata.generation;
  const own = made.map((condition): PodCondition => {
    const had = known.find((c) => c.type === condition.type);
    return {
      ...condition,
      ...(generation === undefined ? {} : { observedGeneration: generation }),
      lastTransitionTime: had?.status === condition.status ? (had.lastTransitionTime ?? now) : now,
    };
  });
  return [...own, ...known.filter((c) => !own.some((o) => o.type === c.type))];
}

function initializedCondition(
  phase: Phase,
  initialized: boolean,
  inits: readonly ContainerStatus[],
): Omit<PodCondition, 'lastTransitionTime'> {
  if (initialized)
    return { type: 'Initialized', status: 'True', ...(phase === 'Succeeded' ? { reason: 'PodCompleted' } : {}) };
  const missing = inits.filter((s) => !s.ready).map((s) => s.name);
  return {
    type: 'Initialized',
    status: 'False',
    reason: 'ContainersNotInitialized',
    message: `containers with incomplete status: [${missing.join(' ')}]`,
  };
}

function readyCondition(
  phase: Phase,
  statuses: readonly ContainerStatus[],
): { status: string; reason?: string; message?: string } {
  if (phase === 'Succeeded') return { status: 'False', reason: 'PodCompleted' };
  if (phase === 'Failed') return { status: 'False', reason: 'PodFailed' };
  const unready = statuses.filter((s) => !s.ready).map((s) => s.name);
  if (unready.length === 0) return { status: 'True' };
  return {
    status: 'False',
    reason: 'ContainersNotReady',
    message: `containers with unready status: [${unready.join(' ')}]`,
  };
}
