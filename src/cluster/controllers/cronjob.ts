import { Cron } from 'croner';
import { isCode, messageOf } from '#base/errors.ts';
import { referenceTo } from '#cluster/client/events.ts';
import { DONE, type Requeue } from '#cluster/client/queue.ts';
import { CRON_JOBS, JOBS, type Live, ownerReference, timestamp } from '#cluster/client/resources.ts';
import type { CronJob, CronJobStatus, Job } from '#spec/kubernetes/types.gen.ts';
import {
  again,
  type ControllerDeps,
  millis,
  onOwned,
  onSelf,
  type Reconciler,
  reconciler,
  writeStatus,
} from './loop.ts';

export interface CronPlan {
  /** Scheduled times to start a job for; at most one. */
  startAtMs: number | undefined;
  /** Still running jobs that Replace takes away first. */
  replace: Live<Job>[];
  /** Finished jobs beyond the history limits, oldest first. */
  forget: Live<Job>[];
  status: CronJobStatus;
  checkAgainMs: number | undefined;
  events: { type: 'Normal' | 'Warning'; reason: string; message: string }[];
}

// Upstream's bound: more missed starts than this are told as one line.
const TOO_MANY_MISSED = 100;

/** What is due between two times: the latest start, and how many there were. Times in ms. */
export function missedStarts(
  schedule: string,
  timeZone: string | undefined,
  sinceMs: number,
  nowMs: number,
): { latestMs: number | undefined; count: number; nextMs: number | undefined } {
  // Kubernetes reads days of month and of week as cron always did: either may match.
  const cron = new Cron(schedule, { timezone: timeZone ?? 'Etc/UTC', paused: true, mode: '5-part' });
  let latestMs: number | undefined;
  let count = 0;
  let next = cron.nextRun(new Date(sinceMs));
  while (next && next.getTime() <= nowMs && count <= TOO_MANY_MISSED) {
    latestMs = next.getTime();
    count++;
    next = cron.nextRun(next);
  }
  // Past the bound the latest is found backwards: a start of long ago must not cost a walk over years.
  if (next && next.getTime() <= nowMs) {
    latestMs = cron.previousRuns(1, new Date(nowMs + 1000))[0]?.getTime() ?? latestMs;
    next = cron.nextRun(new Date(nowMs));
  }
  return { latestMs, count, nextMs: next?.getTime() };
}

/** The zone of a schedule: the field, or the old prefix `TZ=…` that some manifests carry. */
function scheduleOf(spec: CronJob['spec']): { schedule: string; timeZone: string | undefined } {
  const prefix = /^(?:CRON_)?TZ=(\S+)\s+(.*)$/.exec(spec.schedule);
  return prefix
    ? { schedule: prefix[2] ?? '', timeZone: prefix[1] }
    : { schedule: spec.schedule, timeZone: spec.timeZone };
}

export function isFinished(job: Job): 'Complete' | 'Failed' | undefined {
  const end = job.status?.conditions?.find(
    (c) => (c.type === 'Complete' || c.type === 'Failed') && c.status === 'True',
  );
  return end?.type as 'Complete' | 'Failed' | undefined;
}

export function planCronJob(cron: Live<CronJob>, jobs: readonly Live<Job>[], nowMs: number): CronPlan {
  const { spec } = cron;
  const running = jobs.filter((j) => !isFinished(j));
  const plan: CronPlan = {
    startAtMs: undefined,
    replace: [],
    forget: [
      ...surplus(jobs, 'Complete', spec.successfulJobsHistoryLimit ?? 3),
      ...surplus(jobs, 'Failed', spec.failedJobsHistoryLimit ?? 1),
    ],
    status: statusOf(cron, jobs, running),
    checkAgainMs: undefined,
    events: finishedEvents(cron, jobs),
  };
  if (spec.suspend || cron.metadata.deletionTimestamp) return plan;

  const { schedule, timeZone } = scheduleOf(spec);
  const deadlineMs = spec.startingDeadlineSeconds === undefined ? undefined : spec.startingDeadlineSeconds * 1000;
  const lastMs = millis(cron.status?.lastScheduleTime ?? cron.metadata.creationTimestamp);
  const sinceMs = deadlineMs === undefined ? lastMs : Math.max(lastMs, nowMs - deadlineMs);
  let due: ReturnType<typeof missedStarts>;
  try {
    due = missedStarts(schedule, timeZone, sinceMs, nowMs);
  } catch (error) {
    const message = `unparseable schedule: ${JSON.stringify(spec.schedule)} : ${messageOf(error)}`;
    plan.events.push({ type: 'Warning', reason: 'UnparseableSchedule', message });
    return plan;
  }
  if (due.nextMs !== undefined) plan.checkAgainMs = due.nextMs - nowMs + 100;
  if (due.latestMs === undefined) return plan;
  if (due.count > TOO_MANY_MISSED) {
    const message = 'too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew';
    plan.events.push({ type: 'Warning', reason: 'TooManyMissedTimes', message });
  }
  if (spec.concurrencyPolicy === 'Forbid' && running.length > 0) {
    const message = 'Not starting job because prior execution is running and concurrency policy is Forbid';
    plan.events.push({ type: 'Normal', reason: 'JobAlreadyActive', message });
    return plan;
  }
  if (spec.concurrencyPolicy === 'Replace') plan.replace = running;
  plan.startAtMs = due.latestMs;
  plan.status = { ...plan.status, lastScheduleTime: timestamp(due.latestMs) };
  return plan;
}

function surplus(jobs: readonly Live<Job>[], end: 'Complete' | 'Failed', limit: number): Live<Job>[] {
  const finished = jobs
    .filter((j) => isFinished(j) === end)
    .sort(
      (a, b) =>
        millis(a.status?.startTime) - millis(b.status?.startTime) || (a.metadata.name < b.metadata.name ? -1 : 1),
    );
  return finished.slice(0, Math.max(0, finished.length - limit));
}

function statusOf(cron: Live<CronJob>, jobs: readonly Live<Job>[], running: readonly Live<Job>[]): CronJobStatus {
  const times = jobs.filter((j) => isFinished(j) === 'Complete').map((j) => j.status?.completionTime ?? '');
  const lastSuccessfulTime = [cron.status?.lastSuccessfulTime ?? '', ...times].sort().at(-1);
  return {
    ...(running.length > 0 ? { active: running.map((j) => referenceTo(JOBS, j)) } : {}),
    ...(cron.status?.lastScheduleTime ? { lastScheduleTime: cron.status.lastScheduleTime } : {}),
    ...(lastSuccessfulTime ? { lastSuccessfulTime } : {}),
  };
}

function finishedEvents(cron: Live<CronJob>, jobs: readonly Live<Job>[]): CronPlan['events'] {
  const active = new Set((cron.status?.active ?? []).map((a) => a.uid));
  return jobs
    .filter((j) => active.has(j.metadata.uid) && isFinished(j))
    .map((j) => ({
      type: 'Normal' as const,
      reason: 'SawCompletedJob',
      message: `Saw completed job: ${j.metadata.name}, condition: ${isFinished(j)}`,
    }));
}

/** One name a start, so that a start is never made twice: the minute of its time. */
export function jobOf(cron: Live<CronJob>, startAtMs: number): Job {
  const { jobTemplate } = cron.spec;
  return {
    metadata: {
      name: `${cron.metadata.name}-${Math.floor(startAtMs / 60_000)}`,
      namespace: cron.metadata.namespace ?? '',
      ...(jobTemplate.metadata?.labels ? { labels: jobTemplate.metadata.labels } : {}),
      annotations: {
        ...jobTemplate.metadata?.annotations,
        'batch.kubernetes.io/cronjob-scheduled-timestamp': timestamp(startAtMs),
      },
      ownerReferences: [ownerReference(CRON_JOBS, cron)],
    },
    spec: jobTemplate.spec ?? { template: {} },
  };
}

export function cronJobController(deps: ControllerDeps): Reconciler {
  const { view, clock } = deps;
  const crons = view.of(CRON_JOBS);
  const jobs = view.of(JOBS);
  const events = deps.events('cronjob-controller');
  const loop = reconciler(deps, 'cronjob', reconcile);
  onSelf(crons, loop);
  onOwned(jobs, 'CronJob', loop);
  return loop;

  async function reconcile(key: string): Promise<Requeue> {
    const cron = crons.get(key);
    if (!cron) return DONE;
    const plan = planCronJob(cron, jobs.ownedBy(cron.metadata.uid), clock.now());
    for (const text of plan.events) events.record(CRON_JOBS, cron, text);
    for (const job of [...plan.replace, ...plan.forget]) {
      await jobs.remove(job, { propagationPolicy: 'Background' });
      const message = `Deleted job ${job.metadata.name}`;
      events.record(CRON_JOBS, cron, { type: 'Normal', reason: 'SuccessfulDelete', message });
    }
    if (plan.startAtMs !== undefined) await start(cron, plan.startAtMs);
    const status = planCronJob(cron, jobs.ownedBy(cron.metadata.uid), clock.now()).status;
    const lastScheduleTime = plan.status.lastScheduleTime;
    await writeStatus(crons, cron, { ...status, ...(lastScheduleTime ? { lastScheduleTime } : {}) });
    return again(plan.checkAgainMs);
  }

  async function start(cron: Live<CronJob>, startAtMs: number): Promise<void> {
    const job = jobOf(cron, startAtMs);
    try {
      await jobs.create(job);
    } catch (error) {
      // This start was made by an earlier run whose status was not written.
      if (isCode(error, 'KUBE_ALREADY_EXISTS')) return;
      const message = `Error creating job: ${messageOf(error)}`;
      events.record(CRON_JOBS, cron, { type: 'Warning', reason: 'FailedCreate', message });
      throw error;
    }
    events.record(CRON_JOBS, cron, {
      type: 'Normal',
      reason: 'SuccessfulCreate',
      message: `Created job ${job.metadata.name}`,
    });
  }
}
