import type { KubeClient } from '#cluster/client/client.ts';
import {
  DAEMON_SETS,
  DEPLOYMENTS,
  JOBS,
  type KubeObject,
  keyIn,
  type Resource,
  STATEFUL_SETS,
} from '#cluster/client/resources.ts';
import { matchesSelector } from '#spec/kubernetes/selector.ts';
import type { LabelSelector } from '#spec/kubernetes/types.gen.ts';
import type { Finding } from '#up/why/finding.ts';
import { explainPod } from '#up/why/pod.ts';
import { explainClaim, explainIngress, explainService } from '#up/why/service.ts';
import { eventsOf, lookAround, type World } from '#up/why/world.ts';

type Workload = KubeObject & { spec?: { selector?: LabelSelector; replicas?: number } };

const WORKLOADS: Readonly<Record<string, Resource<KubeObject>>> = {
  deployment: DEPLOYMENTS,
  deploy: DEPLOYMENTS,
  statefulset: STATEFUL_SETS,
  sts: STATEFUL_SETS,
  daemonset: DAEMON_SETS,
  ds: DAEMON_SETS,
  job: JOBS,
};

/** Why an object of a cluster is as it is; undefined when it is not there. `kind` as kubectl takes it, short names too. */
export async function explainObject(
  client: KubeClient,
  kind: string,
  name: string,
  namespace: string,
): Promise<Finding[] | undefined> {
  const workload = WORKLOADS[kind];
  const [world, found] = await Promise.all([
    lookAround(client, namespace),
    workload ? client.find(workload, keyIn(namespace, name)) : undefined,
  ]);
  if (workload) return found && explainWorkload({ ...(found as Workload), kind: workload.kind }, world);
  const named = <T extends { metadata: { name?: string } }>(objects: readonly T[]): T | undefined =>
    objects.find((o) => o.metadata.name === name);
  const explain = <T>(object: T | undefined, how: (object: T, world: World) => Finding[]): Finding[] | undefined =>
    object && how(object, world);
  if (kind === 'pod' || kind === 'po') return explain(named(world.pods), explainPod);
  if (kind === 'service' || kind === 'svc') return explain(named(world.services), explainService);
  if (kind === 'ingress' || kind === 'ing') return explain(named(world.ingresses), explainIngress);
  return explain(named(world.claims), explainClaim);
}

/** A workload is as its pods are; without pods its own events say why. */
export function explainWorkload(object: Workload, world: World): Finding[] {
  const { name = '' } = object.metadata;
  const describe = `kubectl -n ${world.namespace} describe ${(object.kind ?? '').toLowerCase()} ${name}`;
  const pods = world.pods.filter((p) => matchesSelector(object.spec?.selector, p.metadata.labels ?? {}));
  if (pods.length === 0) {
    const wantsNone = object.spec?.replicas === 0;
    // Of a Deployment the ReplicaSet makes the pods, and its name begins with the Deployment's.
    const failed =
      world.events.find((e) => e.reason === 'FailedCreate' && e.involvedObject.name?.startsWith(name)) ??
      eventsOf(world, object.kind ?? '', name)[0];
    return [
      {
        code: wantsNone ? 'WORK_SCALED_TO_ZERO' : failed ? 'WORK_CANNOT_CREATE' : 'WORK_NO_PODS',
        level: wantsNone ? 'info' : 'waiting',
        fact: 'has no pods',
        cause: wantsNone ? 'spec.replicas is 0' : (failed?.message ?? 'nobody has made them yet'),
        evidence: failed ? [`event ${failed.reason}: ${failed.message ?? ''}`] : [],
        next: describe,
      },
    ];
  }
  const troubles = pods.flatMap((pod) =>
    explainPod(pod, world)
      .filter((f) => f.level !== 'info')
      .map((f) => ({ ...f, fact: `pod ${pod.metadata.name} ${f.fact}` })),
  );
  if (troubles.length > 0) return troubles;
  return [
    {
      code: 'WORK_FINE',
      level: 'info',
      fact: `has ${pods.length} pods that run`,
      cause: 'all of them are ready',
      evidence: [],
      next: describe,
    },
  ];
}
