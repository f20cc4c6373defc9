import type { DaemonSet, Deployment, Job, Pod, StatefulSet } from '#spec/kubernetes/types.gen.ts';
import type { LiveObject } from '#up/cluster.ts';
import { explainPod } from '#up/why/pod.ts';
import type { World } from '#up/why/world.ts';

/** Where an object stands on its way. `failed`: waiting longer changes nothing. */
export interface Readiness {
  state: 'ready' | 'waiting' | 'failed';
  /** `2 of 3 ready`, and what keeps the others. */
  says: string;
}

const READY: Readiness = { state: 'ready', says: 'ready' };

// A program may fail while what it needs is still starting; this often it is its own fault.
const MAX_RESTARTS = 5;

export function readinessOf(object: LiveObject, world: World): Readiness {
  switch (object.kind) {
    case 'Deployment': {
      const { metadata, spec, status } = object as unknown as Deployment;
      const wanted = spec.replicas ?? 1;
      const late = status?.conditions?.find((c) => c.type === 'Progressing' && c.reason === 'ProgressDeadlineExceeded');
      const { updatedReplicas = 0, availableReplicas = 0, replicas = 0 } = status ?? {};
      const seen = (status?.observedGeneration ?? 0) >= (metadata.generation ?? 0);
      // Of the version before, until the controller has looked at this one.
      if (late && seen) return { state: 'failed', says: late.message ?? 'its progress deadline is over' };
      if (seen && updatedReplicas >= wanted && replicas <= updatedReplicas && availableReplicas >= wanted) return READY;
      return waiting(
        `${Math.min(updatedReplicas, availableReplicas)} of ${wanted} ready`,
        spec.selector.matchLabels,
        world,
      );
    }
    case 'StatefulSet': {
      const { metadata, spec, status } = object as unknown as StatefulSet;
      const wanted = spec?.replicas ?? 1;
      const { updatedReplicas = 0, readyReplicas = 0 } = status ?? {};
      const seen = (status?.observedGeneration ?? 0) >= (metadata.generation ?? 0);
      if (seen && updatedReplicas >= wanted && readyReplicas >= wanted) return READY;
      return waiting(
        `${Math.min(updatedReplicas, readyReplicas)} of ${wanted} ready`,
        spec?.selector.matchLabels,
        world,
      );
    }
    case 'DaemonSet': {
      const { metadata, spec, status } = object as unknown as DaemonSet;
      const { desiredNumberScheduled = 0, numberReady = 0, updatedNumberScheduled = 0 } = status ?? {};
      const seen = (status?.observedGeneration ?? 0) >= (metadata.generation ?? 0);
      if (seen && numberReady >= desiredNumberScheduled && updatedNumberScheduled >= desiredNumberScheduled)
        return READY;
      return waiting(`${numberReady} of ${desiredNumberScheduled} ready`, spec?.selector.matchLabels, world);
    }
    case 'Job':
      return jobReadiness(object as unknown as Job, world);
    case 'Pod': {
      const [found] = explainPod(object as unknown as Pod, world);
      if (!found || found.level === 'info') return READY;
      return { state: found.level === 'broken' ? 'failed' : 'waiting', says: `${found.fact}: ${found.cause}` };
    }
    default:
      return READY;
  }
}

/** A job that runs for ever is as ready as it gets once its pods are. */
function jobReadiness({ spec, status }: Job, world: World): Readiness {
  const failed = status?.conditions?.find((c) => c.type === 'Failed' && c.status === 'True');
  if (failed) return { state: 'failed', says: failed.message ?? 'it failed' };
  if (status?.conditions?.some((c) => c.type === 'Complete' && c.status === 'True')) return READY;
  const wanted = spec?.completions ?? 1;
  const done = status?.succeeded ?? 0;
  if ((status?.ready ?? 0) > 0 && spec?.template.spec?.restartPolicy === 'OnFailure') return READY;
  return waiting(`${done} of ${wanted} done`, spec?.selector?.matchLabels, world);
}

/** The first pod that keeps it waiting says why; one that cannot come makes the whole fail. */
function waiting(says: string, selector: Readonly<Record<string, string>> | undefined, world: World): Readiness {
  const wanted = Object.entries(selector ?? { '': '' });
  const own = world.pods.filter((p) => wanted.every(([k, v]) => p.metadata.labels?.[k] === v));
  const pods = own.filter((p) => !p.metadata.deletionTimestamp);
  const troubles = pods.flatMap((pod) =>
    explainPod(pod, world)
      .filter((f) => f.level !== 'info')
      .map((f) => ({ pod, ...f })),
  );
  const broken = troubles.find(
    (t) => t.level === 'broken' || (t.code === 'POD_CRASH_LOOP' && restartsOf(t.pod) >= MAX_RESTARTS),
  );
  const shown = broken ?? troubles[0];
  const ending = own.find((p) => p.metadata.deletionTimestamp);
  if (!shown && ending)
    return { state: 'waiting', says: `${says}: ${ending.metadata.name} has its grace period to end` };
  if (!shown) return { state: 'waiting', says };
  const text = `${says}: ${shown.pod.metadata.name} ${shown.fact}: ${shown.cause}`;
  return { state: broken ? 'failed' : 'waiting', says: text };
}

function restartsOf(pod: Pod): number {
  return Math.max(0, ...(pod.status?.containerStatuses ?? []).map((s) => s.restartCount));
}
