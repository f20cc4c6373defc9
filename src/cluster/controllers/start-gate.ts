import { DONE, type Requeue } from '#cluster/client/queue.ts';
import { JOBS, keyOf, type Live, type ObjectKey, PODS } from '#cluster/client/resources.ts';
import { APP_LABEL, SERVICE_LABEL, START_GATE } from '#spec/estiba/cluster.ts';
import type { Job, Pod } from '#spec/kubernetes/types.gen.ts';
import { type ControllerDeps, conditionOf, type Reconciler, reconciler } from './loop.ts';

/** What a gated pod still waits for, in words; empty: it may start. Pure. */
export function missingFor(pod: Pod, pods: readonly Pod[], jobs: readonly Job[]): string[] {
  const app = pod.metadata.labels?.[APP_LABEL];
  const within = <T extends { metadata: Pod['metadata'] }>(objects: readonly T[], service: string): T[] =>
    objects.filter(
      ({ metadata: m }) =>
        m.labels?.[APP_LABEL] === app && m.labels?.[SERVICE_LABEL] === service && !m.deletionTimestamp,
    );
  return Object.entries(wishesOf(pod)).flatMap(([service, condition]) => {
    const own = within(pods, service);
    switch (condition) {
      case 'service_started':
        return own.length > 0 && own.every(hasStarted) ? [] : [`${service} has not started`];
      case 'service_healthy':
        return own.length > 0 && own.every(isReady) ? [] : [`${service} is not ready`];
      case 'service_completed_successfully': {
        const done = within(jobs, service).some(
          (job) => conditionOf(job.status?.conditions, 'Complete')?.status === 'True',
        );
        return done ? [] : [`${service} has not completed`];
      }
      default:
        return [`${service}: nobody knows the condition ${condition}`];
    }
  });
}

function wishesOf(pod: Pod): Record<string, string> {
  try {
    return JSON.parse(pod.metadata.annotations?.[START_GATE] ?? '{}') as Record<string, string>;
  } catch {
    return { [START_GATE]: 'that is no JSON' };
  }
}

function hasStarted(pod: Pod): boolean {
  const { containerStatuses = [], phase } = pod.status ?? {};
  if (phase === 'Succeeded') return true;
  return (
    containerStatuses.length > 0 &&
    containerStatuses.every((s) => s.state?.running ?? s.lastState?.terminated ?? s.state?.terminated)
  );
}

function isReady(pod: Pod): boolean {
  return conditionOf(pod.status?.conditions, 'Ready')?.status === 'True';
}

/** Looks at a gated pod whenever it, a pod or a job of its app changes. */
export function startGateController(deps: ControllerDeps): Reconciler {
  const { view } = deps;
  const pods = view.of(PODS);
  const jobs = view.of(JOBS);
  const loop = reconciler(deps, 'start-gate', reconcile);
  const enqueueGated = (namespace: string | undefined, app: string | undefined): void => {
    if (app === undefined) return;
    for (const pod of pods.inNamespace(namespace ?? ''))
      if (isGated(pod) && pod.metadata.labels?.[APP_LABEL] === app) loop.queue.add(keyOf(pod));
  };
  for (const collection of [pods, jobs])
    collection.informer.onChange((now: Live<Pod | Job> | undefined, before: Live<Pod | Job> | undefined) => {
      const { metadata } = now ?? before ?? {};
      enqueueGated(metadata?.namespace, metadata?.labels?.[APP_LABEL]);
    });
  return loop;

  async function reconcile(key: ObjectKey): Promise<Requeue> {
    const pod = pods.get(key);
    if (!pod || !isGated(pod) || pod.metadata.deletionTimestamp) return DONE;
    const { namespace = '' } = pod.metadata;
    if (missingFor(pod, pods.inNamespace(namespace), jobs.inNamespace(namespace)).length > 0) return DONE;
    const left = (pod.spec.schedulingGates ?? []).filter(({ name }) => name !== START_GATE);
    const { schedulingGates: _, ...spec } = pod.spec;
    await pods.update({ ...pod, spec: left.length === 0 ? spec : { ...spec, schedulingGates: left } });
    return DONE;
  }
}

function isGated(pod: Pod): boolean {
  return pod.spec.schedulingGates?.some(({ name }) => name === START_GATE) ?? false;
}
