import type { ContainerRecord } from '#engine/core/record.ts';
import { isRunning } from '#engine/core/record.ts';
import type { Container, Pod } from '#spec/kubernetes/types.gen.ts';

/** Labels on the engine's containers: by them the agent finds its pods again, and Docker's clients see whose they are. */
export const LABEL = {
  pod: 'io.kubernetes.pod.name',
  namespace: 'io.kubernetes.pod.namespace',
  uid: 'io.kubernetes.pod.uid',
  container: 'io.kubernetes.container.name',
  attempt: 'io.kubernetes.container.restartCount',
  /** Bad runs in a row before this one. */
  streak: 'estiba.dev/bad-runs',
  /** What the container was made from; another image is another container. */
  image: 'estiba.dev/image',
  /** The pod's sandbox it lives in: a new one starts all init containers again. */
  sandbox: 'estiba.dev/sandbox',
} as const;

/** One run of one container of a pod, as the node sees it. */
export interface Run {
  id: string;
  container: string;
  attempt: number;
  streak: number;
  sandbox: string;
  image: string;
  imageId: string;
  state: 'made' | 'running' | 'ended';
  startedAtMs: number;
  finishedAtMs: number;
  exitCode: number;
  oomKilled: boolean;
  /** It never ran: why. */
  startError: string;
}

/** A run this long was a good one: the back-off starts over. */
const GOOD_RUN_MS = 600_000;
const FIRST_DELAY_MS = 10_000;
const MAX_DELAY_MS = 300_000;

export function runOf(record: ContainerRecord): Run | undefined {
  const { labels } = record.spec;
  const container = labels[LABEL.container];
  if (container === undefined || labels[LABEL.uid] === undefined) return undefined;
  const { state } = record;
  // While it is being started its program has not begun, and no time of a start is known.
  const running = isRunning(state) && state.phase !== 'starting';
  const ended = state.phase === 'exited' || state.phase === 'dead' || state.phase === 'removing';
  const failedStart = !isRunning(state) && state.startedAtMs === 0 && state.error !== '';
  return {
    id: record.id,
    container,
    attempt: Number(labels[LABEL.attempt] ?? 0),
    streak: Number(labels[LABEL.streak] ?? 0),
    sandbox: labels[LABEL.sandbox] ?? '',
    image: labels[LABEL.image] ?? '',
    imageId: record.image.id,
    state: running ? 'running' : ended || failedStart ? 'ended' : 'made',
    startedAtMs: state.startedAtMs,
    finishedAtMs: state.finishedAtMs || (failedStart ? record.createdAtMs : 0),
    exitCode: state.exitCode,
    oomKilled: state.oomKilled,
    startError: failedStart ? state.error : '',
  };
}

/** Runs of a container, oldest first. */
export function sortRuns(runs: readonly Run[]): Run[] {
  return [...runs].sort((a, b) => a.attempt - b.attempt);
}

/** Bad runs in a row that the next run follows. */
export function streakAfter(run: Run): number {
  return run.startedAtMs > 0 && run.finishedAtMs - run.startedAtMs >= GOOD_RUN_MS ? 0 : run.streak + 1;
}

/** How long after its end the next run waits: the first restart is at once, then 10 s doubled up to five minutes. */
export function restartDelayMs(run: Run): number {
  const streak = streakAfter(run);
  return streak <= 1 ? 0 : Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(streak - 2, 20));
}

/** What follows a container's end. `rules` of the container itself come before the pod's policy. */
export function restarts(pod: Pod['spec'], container: Container, run: Run): boolean {
  for (const rule of container.restartPolicyRules ?? []) {
    const { operator, values = [] } = rule.exitCodes ?? {};
    const listed = values.includes(run.exitCode);
    if (rule.action === 'Restart' && (operator === 'In' ? listed : operator === 'NotIn' && !listed)) return true;
  }
  const policy = container.restartPolicy ?? pod.restartPolicy ?? 'Always';
  return policy === 'Always' || (policy === 'OnFailure' && run.exitCode !== 0);
}

export function isSidecar(container: Container): boolean {
  return container.restartPolicy === 'Always';
}
