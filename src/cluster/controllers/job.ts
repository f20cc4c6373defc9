import { DONE, type Requeue } from '#cluster/client/queue.ts';
import { JOBS, type Live, PODS, timestamp } from '#cluster/client/resources.ts';
import type { Job, JobCondition, JobStatus, Pod } from '#spec/kubernetes/types.gen.ts';
import {
  backoffLeftMs,
  failureAction,
  formatIndexes,
  INDEX,
  INDEX_FAILURES,
  indexOf,
  parseIndexes,
  successMet,
} from './job-rules.ts';
import {
  again,
  type ControllerDeps,
  conditionOf,
  generatedName,
  millis,
  onOwned,
  onSelf,
  type Reconciler,
  reconciler,
  slowStart,
  sooner,
  withCondition,
  writeStatus,
} from './loop.ts';
import { isActive, isOver, isReady, podFrom } from './pods.ts';

/** Keeps a pod until its end is counted: a pod that vanishes uncounted would be run again. */
export const TRACKING = 'batch.kubernetes.io/job-tracking';
const BURST = 500;

export interface JobPlan {
  create: { index: number | undefined; indexFailures: number }[];
  remove: Live<Pod>[];
  /** Counted in the written status: their finalizer may go. */
  unpin: Live<Pod>[];
  status: JobStatus;
  checkAgainMs: number | undefined;
  events: { type: 'Normal' | 'Warning'; reason: string; message: string }[];
}

interface Tally {
  succeeded: number;
  failed: number;
  succeededIndexes: Set<number>;
  failedIndexes: Set<number>;
  uncounted: { succeeded: string[]; failed: string[] };
}

/**
 * Ends are counted in two writes, so that a crash between them counts nothing twice and loses nothing: the uid goes into
 * `uncountedTerminatedPods`, the pod's finalizer goes, the uid becomes a number.
 */
export function planJob(job: Live<Job>, pods: readonly Live<Pod>[], nowMs: number): JobPlan {
  const tally = count(job, pods);
  const active = pods.filter(isActive);
  const finished = (job.status?.conditions ?? []).find((c) => isFinal(c) && c.status === 'True');
  const plan: JobPlan = { create: [], remove: [], unpin: [], status: {}, checkAgainMs: undefined, events: [] };
  let conditions = job.status?.conditions ?? [];
  let startTime = job.status?.startTime;
  const suspended = job.spec.suspend === true;
  const set = (type: string, status: string, reason = '', message = ''): void => {
    const wanted: JobCondition = { type, status, reason, message, lastProbeTime: timestamp(nowMs) };
    conditions = withCondition(conditions, wanted, timestamp(nowMs));
  };

  const ending = finished ? undefined : (known(conditions) ?? verdict(job, pods, tally, nowMs));
  if (finished || job.metadata.deletionTimestamp) plan.remove = active;
  else if (ending) {
    // The announcement comes first; the final word when the last pod has gone, so that nobody acts on a job still running.
    set(ending.type === 'Complete' ? 'SuccessCriteriaMet' : 'FailureTarget', 'True', ending.reason, ending.message);
    plan.remove = active;
    const gone = pods.every((p) => isOver(p) || hasFailed(job, p));
    if (gone) {
      set(ending.type, 'True', ending.reason, ending.message);
      const good = ending.type === 'Complete';
      plan.events.push({
        type: good ? 'Normal' : 'Warning',
        reason: good ? 'Completed' : ending.reason,
        message: good ? 'Job completed' : ending.message,
      });
    }
  } else if (suspended) {
    plan.remove = active;
    if (conditionOf(conditions, 'Suspended')?.status !== 'True') {
      set('Suspended', 'True', 'JobSuspended', 'Job suspended');
      plan.events.push({ type: 'Normal', reason: 'Suspended', message: 'Job suspended' });
    }
    startTime = undefined;
  } else {
    if (conditionOf(conditions, 'Suspended')?.status === 'True') {
      set('Suspended', 'False', 'JobResumed', 'Job resumed');
      plan.events.push({ type: 'Normal', reason: 'Resumed', message: 'Job resumed' });
    }
    startTime ??= timestamp(nowMs);
    Object.assign(plan, schedule(job, pods, tally, nowMs));
    const deadline = job.spec.activeDeadlineSeconds;
    if (deadline !== undefined)
      plan.checkAgainMs = sooner(plan.checkAgainMs, millis(startTime) + deadline * 1000 - nowMs + 1);
  }

  const uncounted = new Set([...tally.uncounted.succeeded, ...tally.uncounted.failed]);
  plan.unpin = pods.filter((p) => pinned(p) && (uncounted.has(p.metadata.uid) || isIgnored(job, p) || !!finished));
  const complete = conditionOf(conditions, 'Complete')?.status === 'True';
  const left = active.length - plan.remove.length;
  const failedIndexes = formatIndexes(tally.failedIndexes);
  plan.status = {
    ...(startTime ? { startTime } : {}),
    ...(complete ? { completionTime: job.status?.completionTime ?? timestamp(nowMs) } : {}),
    ...(left > 0 ? { active: left } : {}),
    ...(tally.succeeded > 0 ? { succeeded: tally.succeeded } : {}),
    ...(tally.failed > 0 ? { failed: tally.failed } : {}),
    ready: active.filter(isReady).length,
    terminating: pods.filter((p) => p.metadata.deletionTimestamp && !isOver(p)).length,
    ...(tally.succeededIndexes.size > 0 ? { completedIndexes: formatIndexes(tally.succeededIndexes) } : {}),
    ...(job.spec.backoffLimitPerIndex !== undefined && failedIndexes !== '' ? { failedIndexes } : {}),
    uncountedTerminatedPods: {
      ...(tally.uncounted.succeeded.length > 0 ? { succeeded: tally.uncounted.succeeded } : {}),
      ...(tally.uncounted.failed.length > 0 ? { failed: tally.uncounted.failed } : {}),
    },
    ...(conditions.length > 0 ? { conditions } : {}),
  };
  return plan;
}

function isFinal(c: JobCondition): boolean {
  return c.type === 'Complete' || c.type === 'Failed';
}

interface Ending {
  type: 'Complete' | 'Failed';
  reason: string;
  message: string;
}

/** An announced end stays, whatever happens to the pods meanwhile. */
function known(conditions: readonly JobCondition[]): Ending | undefined {
  const failing = conditionOf(conditions, 'FailureTarget');
  if (failing?.status === 'True')
    return { type: 'Failed', reason: failing.reason ?? '', message: failing.message ?? '' };
  const met = conditionOf(conditions, 'SuccessCriteriaMet');
  return met?.status === 'True'
    ? { type: 'Complete', reason: met.reason ?? '', message: met.message ?? '' }
    : undefined;
}

function pinned(pod: Live<Pod>): boolean {
  return pod.metadata.finalizers?.includes(TRACKING) ?? false;
}

function count(job: Live<Job>, pods: readonly Live<Pod>[]): Tally {
  const { status } = job;
  const byUid = new Map(pods.map((p) => [p.metadata.uid, p]));
  const indexed = job.spec.completionMode === 'Indexed';
  const completions = job.spec.completions ?? Number.POSITIVE_INFINITY;
  const tally: Tally = {
    succeeded: indexed ? 0 : (status?.succeeded ?? 0),
    failed: status?.failed ?? 0,
    succeededIndexes: parseIndexes(status?.completedIndexes),
    failedIndexes: parseIndexes(status?.failedIndexes),
    uncounted: { succeeded: [], failed: [] },
  };
  // The finalizer is gone: the second half of an earlier count.
  const stillOpen = (uids: readonly string[] | undefined): { open: string[]; closed: number } => {
    const open = (uids ?? []).filter((uid) => {
      const pod = byUid.get(uid);
      return pod && pinned(pod);
    });
    return { open, closed: (uids ?? []).length - open.length };
  };
  const succeeded = stillOpen(status?.uncountedTerminatedPods?.succeeded);
  const failed = stillOpen(status?.uncountedTerminatedPods?.failed);
  tally.failed += failed.closed;
  if (!indexed) tally.succeeded += succeeded.closed;
  tally.uncounted = { succeeded: succeeded.open, failed: failed.open };
  const counted = new Set([...succeeded.open, ...failed.open]);

  for (const pod of pods) {
    const { uid } = pod.metadata;
    if (!pinned(pod) || counted.has(uid)) continue;
    const index = indexOf(pod);
    if (pod.status?.phase === 'Succeeded') {
      if (indexed && index !== undefined && index < completions) tally.succeededIndexes.add(index);
      tally.uncounted.succeeded.push(uid);
    } else if (hasFailed(job, pod)) {
      // Not counted, but let go below: it is replaced and forgotten.
      if (isIgnored(job, pod)) continue;
      tally.uncounted.failed.push(uid);
      if (index !== undefined && indexIsLost(job, pod)) tally.failedIndexes.add(index);
    }
  }
  if (indexed) tally.succeeded = tally.succeededIndexes.size;
  return tally;
}

/**
 * A pod that was asked to go counts as failed at once; where replacements wait for the end (podReplacementPolicy, failure policies)
 * only when it has ended, or when no grace is left and so nobody will report its end.
 */
function hasFailed(job: Live<Job>, pod: Live<Pod>): boolean {
  if (pod.status?.phase === 'Failed') return true;
  if (!pod.metadata.deletionTimestamp || pod.status?.phase === 'Succeeded') return false;
  return !waitsForEnd(job) || pod.metadata.deletionGracePeriodSeconds === 0;
}

function waitsForEnd({ spec }: Live<Job>): boolean {
  return spec.podReplacementPolicy === 'Failed' || spec.podFailurePolicy !== undefined;
}

function isIgnored(job: Live<Job>, pod: Live<Pod>): boolean {
  return pod.status?.phase === 'Failed' && failureAction(job, pod).action === 'Ignore';
}

function indexIsLost(job: Live<Job>, pod: Live<Pod>): boolean {
  if (job.spec.backoffLimitPerIndex === undefined) return false;
  if (failureAction(job, pod).action === 'FailIndex') return true;
  return Number(pod.metadata.annotations?.[INDEX_FAILURES] ?? 0) >= job.spec.backoffLimitPerIndex;
}

function allSucceeded(tally: Tally, job: Live<Job>): number {
  return job.spec.completionMode === 'Indexed'
    ? tally.succeededIndexes.size
    : tally.succeeded + tally.uncounted.succeeded.length;
}

/** How the job ends, if it does now. */
function verdict(job: Live<Job>, pods: readonly Live<Pod>[], tally: Tally, nowMs: number): Ending | undefined {
  const { spec, status } = job;
  for (const pod of pods.filter((p) => p.status?.phase === 'Failed')) {
    const { action, why } = failureAction(job, pod);
    if (action === 'FailJob') return { type: 'Failed', reason: 'PodFailurePolicy', message: why };
  }
  const failures = tally.failed + tally.uncounted.failed.length;
  const restarts = spec.template.spec?.restartPolicy === 'OnFailure' ? restartsOf(pods) : 0;
  const limit = spec.backoffLimit ?? (spec.backoffLimitPerIndex === undefined ? 6 : Number.POSITIVE_INFINITY);
  if (failures > limit || (restarts > 0 && restarts >= limit))
    return { type: 'Failed', reason: 'BackoffLimitExceeded', message: 'Job has reached the specified backoff limit' };
  const startMs = millis(status?.startTime);
  if (!spec.suspend && spec.activeDeadlineSeconds !== undefined && nowMs - startMs >= spec.activeDeadlineSeconds * 1000)
    return { type: 'Failed', reason: 'DeadlineExceeded', message: 'Job was active longer than specified deadline' };
  const succeeded = allSucceeded(tally, job);
  const policy = successMet(job, tally.succeededIndexes);
  if (policy) return { type: 'Complete', reason: 'SuccessPolicy', message: policy };
  if (spec.completions === undefined) {
    // A work queue: one that succeeds says the work is done; the others are let end by themselves.
    const none = !pods.some(isActive);
    return succeeded > 0 && none ? completed() : undefined;
  }
  if (succeeded >= spec.completions) return completed();
  if (tally.failedIndexes.size > 0) {
    if (spec.maxFailedIndexes !== undefined && tally.failedIndexes.size > spec.maxFailedIndexes)
      return {
        type: 'Failed',
        reason: 'MaxFailedIndexesExceeded',
        message: 'Job has exceeded the specified maximal number of failed indexes',
      };
    if (succeeded + tally.failedIndexes.size >= spec.completions)
      return { type: 'Failed', reason: 'FailedIndexes', message: 'Job has failed indexes' };
  }
  return undefined;
}

function completed(): Ending {
  return { type: 'Complete', reason: 'CompletionsReached', message: 'Reached expected number of succeeded pods' };
}

function restartsOf(pods: readonly Live<Pod>[]): number {
  return pods
    .filter(isActive)
    .flatMap((p) => [...(p.status?.initContainerStatuses ?? []), ...(p.status?.containerStatuses ?? [])])
    .reduce((sum, c) => sum + c.restartCount, 0);
}

/** Which pods to start or stop so that as many run as should. */
function schedule(
  job: Live<Job>,
  pods: readonly Live<Pod>[],
  tally: Tally,
  nowMs: number,
): Pick<JobPlan, 'create' | 'remove' | 'checkAgainMs'> {
  const { spec } = job;
  const active = pods.filter(isActive);
  const parallelism = spec.parallelism ?? 1;
  const succeeded = allSucceeded(tally, job);
  // A terminating pod still does its work: whoever asks for it waits until it has failed for good.
  const leaving = waitsForEnd(job) ? pods.filter((p) => p.metadata.deletionTimestamp && !isOver(p)) : [];
  const open = (spec.completions ?? Number.POSITIVE_INFINITY) - succeeded - (indexLosses(tally) || 0);
  const wanted =
    spec.completions === undefined ? (succeeded > 0 ? active.length : parallelism) : Math.min(parallelism, open);
  if (active.length > wanted) {
    const order = [...active].sort(
      (a, b) => Number(isReady(a)) - Number(isReady(b)) || (indexOf(b) ?? 0) - (indexOf(a) ?? 0),
    );
    return { create: [], remove: order.slice(0, active.length - wanted), checkAgainMs: undefined };
  }
  const indexed = spec.completionMode === 'Indexed';
  const taken = new Set<number>();
  const doubles: Live<Pod>[] = [];
  for (const pod of active) {
    const index = indexOf(pod);
    if (!indexed || index === undefined) continue;
    if (taken.has(index) || tally.succeededIndexes.has(index)) doubles.push(pod);
    taken.add(index);
  }
  if (doubles.length > 0) return { create: [], remove: doubles, checkAgainMs: undefined };
  const room = Math.min(BURST, wanted - active.length - leaving.length);
  if (room <= 0) return { create: [], remove: [], checkAgainMs: undefined };
  const waitMs = backoffLeftMs(pods, nowMs);
  if (waitMs > 0) return { create: [], remove: [], checkAgainMs: waitMs };
  if (!indexed)
    return {
      create: Array.from({ length: room }, () => ({ index: undefined, indexFailures: 0 })),
      remove: [],
      checkAgainMs: undefined,
    };
  for (const pod of leaving) taken.add(indexOf(pod) ?? -1);
  const create: JobPlan['create'] = [];
  for (let index = 0; index < (spec.completions ?? 0) && create.length < room; index++) {
    if (taken.has(index) || tally.succeededIndexes.has(index) || tally.failedIndexes.has(index)) continue;
    create.push({ index, indexFailures: failuresOf(job, index, pods) });
  }
  return { create, remove: [], checkAgainMs: undefined };
}

function indexLosses({ failedIndexes }: Tally): number {
  return failedIndexes.size;
}

function failuresOf(job: Live<Job>, index: number, pods: readonly Live<Pod>[]): number {
  const counts = pods
    .filter((p) => indexOf(p) === index && hasFailed(job, p))
    .map((p) => Number(p.metadata.annotations?.[INDEX_FAILURES] ?? 0) + 1);
  return Math.max(0, ...counts);
}

export function jobPod(job: Live<Job>, at: { index: number | undefined; indexFailures: number }, name: string): Pod {
  const { uid, name: jobName } = job.metadata;
  const indexLabel = at.index === undefined ? {} : { [INDEX]: String(at.index) };
  const labels = {
    'batch.kubernetes.io/controller-uid': uid,
    'batch.kubernetes.io/job-name': jobName,
    'controller-uid': uid,
    'job-name': jobName,
    ...indexLabel,
  };
  const pod = podFrom(job.spec.template, JOBS, job, name, labels);
  const perIndex = job.spec.backoffLimitPerIndex === undefined ? {} : { [INDEX_FAILURES]: String(at.indexFailures) };
  const metadata = { ...pod.metadata, finalizers: [...(pod.metadata.finalizers ?? []), TRACKING] };
  if (at.index === undefined) return { ...pod, metadata };
  const fieldRef = { fieldPath: `metadata.annotations['${INDEX}']` };
  const withIndex = <C extends { env?: { name: string }[] }>(c: C): C => ({
    ...c,
    env: c.env?.some((e) => e.name === 'JOB_COMPLETION_INDEX')
      ? c.env
      : [...(c.env ?? []), { name: 'JOB_COMPLETION_INDEX', valueFrom: { fieldRef } }],
  });
  return {
    ...pod,
    metadata: { ...metadata, annotations: { ...metadata.annotations, ...indexLabel, ...perIndex } },
    spec: {
      ...pod.spec,
      hostname: `${jobName}-${at.index}`,
      containers: pod.spec.containers.map(withIndex),
      ...(pod.spec.initContainers ? { initContainers: pod.spec.initContainers.map(withIndex) } : {}),
    },
  };
}

export function jobController(deps: ControllerDeps): Reconciler {
  const { view, clock, random } = deps;
  const jobs = view.of(JOBS);
  const pods = view.of(PODS);
  const events = deps.events('job-controller');
  const loop = reconciler(deps, 'job', reconcile);
  onSelf(jobs, loop);
  onOwned(pods, 'Job', loop);
  return loop;

  async function reconcile(key: string): Promise<Requeue> {
    const job = jobs.get(key);
    if (!job) {
      await letGo(key);
      return DONE;
    }
    if (job.spec.managedBy && job.spec.managedBy !== 'kubernetes.io/job-controller') return DONE;
    const plan = planJob(job, pods.ownedBy(job.metadata.uid), clock.now());
    await writeStatus(jobs, job, plan.status);
    for (const text of plan.events) events.record(JOBS, job, text);
    await Promise.all(plan.unpin.map(unpin));
    await Promise.all(plan.remove.map((pod) => remove(job, pod)));
    const failed = await slowStart(plan.create, async (at) => {
      const base = at.index === undefined ? `${job.metadata.name}-` : `${job.metadata.name}-${at.index}-`;
      const name = generatedName(base, random);
      await pods.create(jobPod(job, at, name));
      events.record(JOBS, job, { type: 'Normal', reason: 'SuccessfulCreate', message: `Created pod: ${name}` });
    });
    if (failed) throw failed;
    // Created pods change `active`; the next run, which their events bring, writes it.
    const expiry = expiresInMs(jobs.get(key) ?? job, clock.now());
    if (expiry !== undefined && expiry <= 0) await jobs.remove(job, { propagationPolicy: 'Foreground' });
    return again(sooner(plan.checkAgainMs, expiry !== undefined && expiry > 0 ? expiry : undefined));
  }

  async function unpin(pod: Live<Pod>): Promise<void> {
    const present = pods.get(`${pod.metadata.namespace}/${pod.metadata.name}`);
    if (present?.metadata.uid !== pod.metadata.uid) return;
    const finalizers = (present.metadata.finalizers ?? []).filter((f) => f !== TRACKING);
    await pods.update({ ...present, metadata: { ...present.metadata, finalizers } });
  }

  async function remove(job: Live<Job>, pod: Live<Pod>): Promise<void> {
    if (pinned(pod) && !isOver(pod)) await unpin(pod);
    await pods.remove(pods.get(`${pod.metadata.namespace}/${pod.metadata.name}`) ?? pod);
    const message = `Deleted pod: ${pod.metadata.name}`;
    events.record(JOBS, job, { type: 'Normal', reason: 'SuccessfulDelete', message });
  }

  /** The job was deleted before its pods were counted: nobody will count them any more. */
  async function letGo(key: string): Promise<void> {
    const [namespace = '', name = ''] = key.split('/');
    const orphaned = pods
      .inNamespace(namespace)
      .filter((p) => pinned(p) && p.metadata.labels?.['batch.kubernetes.io/job-name'] === name)
      .filter((p) => !p.metadata.ownerReferences?.some((o) => o.kind === 'Job' && jobs.ownedBy(o.uid).length > 0));
    for (const pod of orphaned) await unpin(pod);
  }
}

/** Time until a finished job with a time to live is deleted; undefined when it stays. */
export function expiresInMs(job: Live<Job>, nowMs: number): number | undefined {
  const ttl = job.spec.ttlSecondsAfterFinished;
  const end = (job.status?.conditions ?? []).find((c) => isFinal(c) && c.status === 'True');
  if (ttl === undefined || !end || job.metadata.deletionTimestamp) return undefined;
  return millis(end.lastTransitionTime) + ttl * 1000 - nowMs;
}
