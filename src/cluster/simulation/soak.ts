import { isCode } from '#base/errors.ts';
import { below, pick, type Random, seededRandom } from '#base/random.ts';
import {
  controllerOf,
  DAEMON_SETS,
  DEPLOYMENTS,
  JOBS,
  type KubeObject,
  keyOf,
  type Live,
  NODES,
  POD_DISRUPTION_BUDGETS,
  PODS,
  REPLICA_SETS,
  type Resource,
  STATEFUL_SETS,
} from '#cluster/client/resources.ts';
import { isActive, isReady } from '#cluster/controllers/pods.ts';
import type { DaemonSet, Deployment, Job, Pod, PodDisruptionBudget, StatefulSet } from '#spec/kubernetes/types.gen.ts';
import { Simulation } from './simulation.ts';

export interface SoakResult {
  seed: number;
  /** What the referee noted, and where the state differs from the wish once the dust has settled. */
  fouls: string[];
  pods: number;
  actions: number;
}

const CHAOS_MS = 60_000;
const SETTLE_MS = 240_000;

const template = (app: string, version: string) => ({
  metadata: { labels: { app, sim: version } },
  spec: {
    terminationGracePeriodSeconds: 5,
    containers: [{ name: 'c', image: `app:${version}`, resources: { requests: { cpu: '100m', memory: '64Mi' } } }],
  },
});

function deployment(app: string, replicas: number): Deployment {
  const selector = { matchLabels: { app } };
  return { metadata: { name: app, namespace: 'default' }, spec: { replicas, selector, template: template(app, 'v1') } };
}

function statefulSet(app: string, replicas: number): StatefulSet {
  const selector = { matchLabels: { app } };
  return {
    metadata: { name: app, namespace: 'default' },
    spec: { replicas, serviceName: app, selector, template: template(app, 'v1') },
  };
}

function daemonSet(app: string): DaemonSet {
  return {
    metadata: { name: app, namespace: 'default' },
    spec: { selector: { matchLabels: { app } }, template: template(app, 'v1') },
  };
}

function job(name: string, completions: number): Job {
  const { metadata, spec } = template(name, 'v1');
  return {
    metadata: { name, namespace: 'default' },
    spec: {
      completions,
      backoffLimit: 50,
      parallelism: 3,
      completionMode: 'Indexed',
      template: { metadata, spec: { ...spec, restartPolicy: 'Never' } },
    },
  };
}

function budget(app: string): PodDisruptionBudget {
  return {
    metadata: { name: app, namespace: 'default' },
    spec: { minAvailable: 2, selector: { matchLabels: { app } } },
  };
}

/** One life of a small cluster: chaos from a seed, calm, and the question whether all is as wished. */
export async function soak(seed: number): Promise<SoakResult> {
  const random = seededRandom(seed ^ 0x5eed);
  const s = await Simulation.start({
    seed,
    nodes: 4 + below(random, 6),
    faults: { delayMs: 40, loseRequest: 0.02, loseAnswer: 0.02, cutWatch: 0.01 },
    behaviour: { startMs: 800, stopMs: 800, crash: 0.01, neverReady: 'bad' },
  });
  for (const resource of [STATEFUL_SETS, DAEMON_SETS, JOBS]) s.truth.of(resource as Resource<KubeObject>);
  await s.do(s.truth.start());
  const actions = await chaos(s, random);
  await calmDown(s);
  const fouls = [...s.referee.fouls, ...differences(s), ...(await onceMore(s))];
  const pods = s.truth.of(PODS).informer.size;
  await s.stop();
  return { seed, fouls, pods, actions };
}

async function chaos(s: Simulation, random: Random): Promise<number> {
  const { client } = s;
  await client.create(DEPLOYMENTS, deployment('web', 4));
  await client.create(DEPLOYMENTS, deployment('api', 3));
  await client.create(STATEFUL_SETS, statefulSet('db', 3));
  await client.create(DAEMON_SETS, daemonSet('agent'));
  await client.create(POD_DISRUPTION_BUDGETS, budget('web'));
  const endMs = s.clock.now() + CHAOS_MS;
  let [actions, version, jobs] = [0, 1, 0];
  const dead = new Set<string>();
  while (s.clock.now() < endMs) {
    await s.run(200 + below(random, 2_500));
    actions++;
    const app = pick(random, ['web', 'api']);
    const nodes = s.truth.of(NODES).list();
    const pods = s.truth.of(PODS).list();
    switch (below(random, 10)) {
      case 0:
        await patch(s, DEPLOYMENTS, app, { spec: { replicas: below(random, 8) } });
        break;
      case 1:
        version++;
        await patch(s, DEPLOYMENTS, app, { spec: { template: template(app, `v${version}`) } });
        break;
      case 2:
        await patch(s, DEPLOYMENTS, app, { spec: { template: template(app, random.next() < 0.3 ? 'bad' : 'v1') } });
        break;
      case 3:
        await patch(s, STATEFUL_SETS, 'db', { spec: { replicas: 1 + below(random, 4) } });
        break;
      case 4:
        version++;
        await patch(s, STATEFUL_SETS, 'db', { spec: { template: template('db', `v${version}`) } });
        break;
      case 5:
        await client.create(JOBS, job(`job-${jobs++}`, 1 + below(random, 6)));
        break;
      case 6:
        if (pods.length > 0) await quietly(client.delete(PODS, keyOf(pick(random, pods))));
        break;
      case 7:
        if (pods.length > 0) await quietly(client.evict(keyOf(pick(random, pods))));
        break;
      case 8: {
        const node = pick(random, nodes).metadata.name;
        if (dead.has(node)) s.kubelets.revive(node);
        else if (dead.size < 2) s.kubelets.kill(node);
        if (!dead.delete(node)) dead.add(node);
        break;
      }
      default:
        await quietly(
          client.patch(
            NODES,
            pick(random, nodes).metadata.name,
            { spec: { unschedulable: random.next() < 0.4 } },
            { type: 'merge' },
          ),
        );
    }
  }
  for (const node of dead) s.kubelets.revive(node);
  return actions;
}

async function calmDown(s: Simulation): Promise<void> {
  s.calm();
  for (const node of s.truth.of(NODES).list())
    await s.client.patch(NODES, node.metadata.name, { spec: { unschedulable: null } }, { type: 'merge' });
  for (const app of ['web', 'api']) await patch(s, DEPLOYMENTS, app, { spec: { template: template(app, 'final') } });
  await s.until(() => differences(s).length === 0, SETTLE_MS);
  await s.run(5_000);
}

async function patch(s: Simulation, resource: Resource<KubeObject>, name: string, body: unknown): Promise<void> {
  await s.client.patch(resource, `default/${name}`, body, { type: 'merge' });
}

/** The thing may have gone, or a budget said no: both are part of the game. */
async function quietly(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!isCode(error, 'KUBE_NOT_FOUND', 'KUBE_TOO_MANY', 'KUBE_CONFLICT')) throw error;
  }
}

/** After the dust settles the state equals the wish; no pod is lost or doubled. */
function differences(s: Simulation): string[] {
  const out: string[] = [];
  const pods = s.truth.of(PODS).list();
  const owned = (uid: string): Live<Pod>[] => pods.filter((p) => controllerOf(p)?.uid === uid);
  for (const d of s.truth.of(DEPLOYMENTS).list()) {
    const all = s.referee.podsOf(d);
    const good = all.filter(
      (p) => isActive(p) && isReady(p) && p.metadata.labels?.['sim'] === d.spec.template.metadata?.labels?.['sim'],
    );
    if (good.length !== d.spec.replicas || all.length !== d.spec.replicas)
      out.push(`${keyOf(d)}: ${good.length} good of ${all.length} pods, wished ${d.spec.replicas}`);
    const { observedGeneration, availableReplicas = 0 } = d.status ?? {};
    if (observedGeneration !== d.metadata.generation || availableReplicas !== d.spec.replicas)
      out.push(`${keyOf(d)}: status says ${availableReplicas} at generation ${observedGeneration}`);
  }
  for (const set of s.truth.of(STATEFUL_SETS).list()) {
    const names = owned(set.metadata.uid)
      .filter((p) => isReady(p) && p.metadata.labels?.['sim'] === set.spec.template.metadata?.labels?.['sim'])
      .map((p) => p.metadata.name)
      .sort();
    const wished = Array.from({ length: set.spec.replicas ?? 1 }, (_, i) => `${set.metadata.name}-${i}`);
    if (names.join() !== wished.join()) out.push(`${keyOf(set)}: has ${names.join()}, wished ${wished.join()}`);
    if ((set.status?.readyReplicas ?? 0) !== set.spec.replicas)
      out.push(`${keyOf(set)}: status says ${set.status?.readyReplicas}`);
  }
  for (const set of s.truth.of(DAEMON_SETS).list()) {
    const nodes = s.truth.of(NODES).list().length;
    const ready = owned(set.metadata.uid).filter(isReady);
    const at = new Set(ready.map((p) => p.spec.nodeName));
    if (at.size !== nodes || ready.length !== nodes)
      out.push(`${keyOf(set)}: ${ready.length} pods on ${at.size} of ${nodes} nodes`);
  }
  for (const j of s.truth.of(JOBS).list()) {
    const done = j.status?.conditions?.some((c) => c.type === 'Complete' && c.status === 'True');
    if (!done || j.status?.succeeded !== j.spec.completions)
      out.push(`${keyOf(j)}: ${j.status?.succeeded} of ${j.spec.completions} ${JSON.stringify(j.status?.conditions)}`);
  }
  return out;
}

/** Applying twice is applying once: a restatement of every wish changes no pod. */
async function onceMore(s: Simulation): Promise<string[]> {
  const uids = (): string =>
    s.truth
      .of(PODS)
      .list()
      .map((p) => p.metadata.uid)
      .sort()
      .join();
  const before = uids();
  for (const d of s.truth.of(DEPLOYMENTS).list()) await s.client.update(DEPLOYMENTS, d).catch(ignoreConflict);
  for (const set of s.truth.of(REPLICA_SETS).list()) await s.client.update(REPLICA_SETS, set).catch(ignoreConflict);
  await s.run(3_000);
  return uids() === before ? [] : ['applying the same wish again changed the pods'];
}

function ignoreConflict(error: unknown): void {
  if (!isCode(error, 'KUBE_CONFLICT')) throw error;
}
