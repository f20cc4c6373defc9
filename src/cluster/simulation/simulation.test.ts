import { describe, expect, it } from 'vitest';
import { isCode } from '#base/errors.ts';
import {
  CRON_JOBS,
  DEPLOYMENTS,
  ENDPOINT_SLICES,
  HPAS,
  JOBS,
  keyOf,
  NAMESPACES,
  NODES,
  PERSISTENT_VOLUME_CLAIMS,
  POD_DISRUPTION_BUDGETS,
  PODS,
  REPLICA_SETS,
  SERVICES,
  STATEFUL_SETS,
} from '#cluster/client/resources.ts';
import type { PodMetrics } from '#cluster/controllers/autoscale.ts';
import { isActive, isReady } from '#cluster/controllers/pods.ts';
import type { Deployment, Pod } from '#spec/kubernetes/types.gen.ts';
import { Simulation } from './simulation.ts';

function deployment(name: string, replicas: number, options: { version?: string; cpu?: string } = {}): Deployment {
  const labels = { app: name };
  const { version = 'v1', cpu = '100m' } = options;
  return {
    metadata: { name, namespace: 'default' },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels: { ...labels, sim: version } },
        spec: { containers: [{ name: 'c', image: `app:${version}`, resources: { requests: { cpu } } }] },
      },
    },
  };
}

const ready = (s: Simulation, name: string, version = 'v1'): number =>
  s.truth
    .of(PODS)
    .list()
    .filter((p: Pod) => p.metadata.labels?.['app'] === name && p.metadata.labels['sim'] === version && isReady(p))
    .length;

describe('the control plane in simulation', () => {
  it('brings a deployment up, updates it within its bounds and back again', async () => {
    const s = await Simulation.start({ seed: 1, nodes: 5 });
    await s.client.create(DEPLOYMENTS, deployment('web', 6));
    expect(await s.until(() => ready(s, 'web') === 6, 20_000)).toBe(true);
    await s.run(2_000);
    s.referee.guarded.add('default/web');
    const web = () => s.truth.of(DEPLOYMENTS).get('default/web');
    expect(web()?.status).toMatchObject({
      replicas: 6,
      availableReplicas: 6,
      conditions: [
        { type: 'Available', status: 'True' },
        { type: 'Progressing', reason: 'NewReplicaSetAvailable' },
      ],
    });

    const now = await s.client.get(DEPLOYMENTS, 'default/web');
    await s.client.update(DEPLOYMENTS, { ...now, spec: deployment('web', 6, { version: 'v2' }).spec });
    expect(await s.until(() => ready(s, 'web', 'v2') === 6 && ready(s, 'web') === 0, 60_000)).toBe(true);
    await s.run(5_000);
    expect(web()?.metadata.annotations?.['deployment.kubernetes.io/revision']).toBe('2');
    expect(web()?.status).toMatchObject({ replicas: 6, updatedReplicas: 6, availableReplicas: 6 });

    const bad = await s.client.get(DEPLOYMENTS, 'default/web');
    await s.client.update(DEPLOYMENTS, {
      ...bad,
      spec: { ...deployment('web', 6, { version: 'bad' }).spec, progressDeadlineSeconds: 30 },
    });
    await s.run(40_000);
    expect(web()?.status?.conditions).toContainEqual(
      expect.objectContaining({ type: 'Progressing', status: 'False', reason: 'ProgressDeadlineExceeded' }),
    );
    const undo = await s.client.get(DEPLOYMENTS, 'default/web');
    await s.client.update(DEPLOYMENTS, { ...undo, spec: deployment('web', 6, { version: 'v2' }).spec });
    expect(await s.until(() => ready(s, 'web', 'v2') === 6, 60_000)).toBe(true);
    await s.run(5_000);
    expect(web()?.metadata.annotations?.['deployment.kubernetes.io/revision']).toBe('4');
    expect(s.truth.of(PODS).list().filter(isActive)).toHaveLength(6);
    expect(s.referee.fouls).toEqual([]);
    await s.stop();
  });

  it('children go when their owner goes', async () => {
    const s = await Simulation.start({ seed: 2, nodes: 3 });
    await s.client.create(DEPLOYMENTS, deployment('web', 3));
    expect(await s.until(() => ready(s, 'web') === 3, 20_000)).toBe(true);
    await s.client.delete(DEPLOYMENTS, 'default/web', { propagationPolicy: 'Foreground' });
    const gone = () => s.truth.of(PODS).list().length + s.truth.of(REPLICA_SETS).list().length === 0;
    expect(await s.until(() => gone() && s.truth.of(DEPLOYMENTS).list().length === 0, 30_000)).toBe(true);
    await s.stop();
  });

  it('a job runs each index once and ends', async () => {
    const s = await Simulation.start({ seed: 3, nodes: 3 });
    s.truth.of(JOBS).informer.start();
    await s.client.create(JOBS, {
      metadata: { name: 'sum', namespace: 'default' },
      spec: {
        completions: 5,
        parallelism: 2,
        completionMode: 'Indexed',
        template: { spec: { restartPolicy: 'Never', containers: [{ name: 'c', image: 'app' }] } },
      },
    });
    const job = () => s.truth.of(JOBS).get('default/sum');
    expect(await s.until(() => job()?.status?.conditions?.some((c) => c.type === 'Complete') ?? false, 60_000)).toBe(
      true,
    );
    await s.run(2_000);
    expect(job()?.status).toMatchObject({ succeeded: 5, completedIndexes: '0-4', uncountedTerminatedPods: {} });
    await s.stop();
  });

  it('a drain with a disruption budget never takes more than it allows, and gets done', async () => {
    const s = await Simulation.start({ seed: 4, nodes: 4 });
    await s.client.create(DEPLOYMENTS, deployment('web', 6));
    await s.client.create(POD_DISRUPTION_BUDGETS, {
      metadata: { name: 'web', namespace: 'default' },
      spec: { minAvailable: 5, selector: { matchLabels: { app: 'web' } } },
    });
    expect(await s.until(() => ready(s, 'web') === 6, 20_000)).toBe(true);
    await s.run(2_000);
    let lowest = 6;
    s.truth.of(PODS).informer.onChange(() => {
      const up = s.truth
        .of(PODS)
        .list()
        .filter((p) => isActive(p) && isReady(p)).length;
      lowest = Math.min(lowest, up);
    });
    for (const name of ['node-0', 'node-1'])
      await s.client.patch(NODES, name, { spec: { unschedulable: true } }, { type: 'merge' });
    const onDrained = () =>
      s.truth
        .of(PODS)
        .list()
        .filter((p) => ['node-0', 'node-1'].includes(p.spec.nodeName ?? ''));
    for (let i = 0; i < 100 && onDrained().length > 0; i++) {
      for (const pod of onDrained()) await s.client.evict(keyOf(pod)).catch(only('KUBE_TOO_MANY'));
      await s.run(200);
    }
    expect(onDrained()).toEqual([]);
    expect(lowest).toBe(5);
    await s.stop();
  });

  it('a stateful set keeps its claims: they come in order, bind where the pod stands, and outlive a scale down', async () => {
    const s = await Simulation.start({ seed: 5, nodes: 3 });
    const claims = () => s.truth.of(PERSISTENT_VOLUME_CLAIMS).list();
    claims();
    await s.do(s.truth.start());
    const labels = { app: 'db' };
    await s.client.create(STATEFUL_SETS, {
      metadata: { name: 'db', namespace: 'default' },
      spec: {
        replicas: 3,
        serviceName: 'db',
        selector: { matchLabels: labels },
        template: {
          metadata: { labels: { ...labels, sim: 'v1' } },
          spec: { containers: [{ name: 'c', image: 'db' }] },
        },
        volumeClaimTemplates: [
          {
            metadata: { name: 'data' },
            spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
          },
        ],
      },
    });
    expect(await s.until(() => ready(s, 'db') === 3, 30_000)).toBe(true);
    const names = ['data-db-0', 'data-db-1', 'data-db-2'];
    expect(claims().map((c) => [c.metadata.name, c.status?.phase])).toEqual(names.map((n) => [n, 'Bound']));
    const volumes = claims().map((c) => c.spec.volumeName);
    await s.client.patch(STATEFUL_SETS, 'default/db', { spec: { replicas: 1 } }, { type: 'merge' });
    expect(await s.until(() => ready(s, 'db') === 1, 20_000)).toBe(true);
    await s.client.patch(STATEFUL_SETS, 'default/db', { spec: { replicas: 3 } }, { type: 'merge' });
    expect(await s.until(() => ready(s, 'db') === 3, 20_000)).toBe(true);
    expect(claims().map((c) => c.spec.volumeName)).toEqual(volumes);
    await s.stop();
  });

  it('pods leave a node that has gone silent, and a deleted namespace takes everything along', async () => {
    const s = await Simulation.start({ seed: 6, nodes: 3 });
    await s.client.create(NAMESPACES, { metadata: { name: 'shop' }, spec: {} });
    const web = deployment('web', 4);
    await s.client.create(DEPLOYMENTS, { ...web, metadata: { name: 'web', namespace: 'shop' } });
    expect(await s.until(() => ready(s, 'web') === 4, 20_000)).toBe(true);
    s.kubelets.kill('node-0');
    // 50 s until the node counts as unreachable, 300 s that pods tolerate it.
    const elsewhere = () =>
      s.truth
        .of(PODS)
        .list()
        .filter((p) => isActive(p) && isReady(p) && p.spec.nodeName !== 'node-0').length === 4;
    expect(await s.until(elsewhere, 400_000)).toBe(true);
    expect(s.truth.of(NODES).get('node-0')?.spec?.taints).toContainEqual(
      expect.objectContaining({ key: 'node.kubernetes.io/unreachable', effect: 'NoExecute' }),
    );
    s.kubelets.revive('node-0');
    await s.client.delete(NAMESPACES, 'shop');
    const present = () => s.truth.of(NAMESPACES).get('shop');
    s.truth.of(NAMESPACES).informer.start();
    expect(await s.until(() => s.truth.of(NAMESPACES).informer.hasSynced && !present(), 60_000)).toBe(true);
    expect(s.truth.of(PODS).list()).toEqual([]);
    await s.stop();
  });

  it('a cron job starts a job a minute and keeps its history', async () => {
    const s = await Simulation.start({ seed: 7, nodes: 2 });
    s.truth.of(JOBS);
    s.truth.of(CRON_JOBS);
    await s.do(s.truth.start());
    const template = { spec: { restartPolicy: 'Never' as const, containers: [{ name: 'c', image: 'dump' }] } };
    await s.client.create(CRON_JOBS, {
      metadata: { name: 'dump', namespace: 'default' },
      spec: { schedule: '* * * * *', jobTemplate: { spec: { template } } },
    });
    await s.run(330_000);
    const jobs = s.truth.of(JOBS).list();
    expect(jobs).toHaveLength(3);
    expect(jobs.every((j) => j.status?.succeeded === 1)).toBe(true);
    expect(s.truth.of(CRON_JOBS).get('default/dump')?.status).toMatchObject({
      lastScheduleTime: '2026-01-01T00:05:00Z',
    });
    await s.stop();
  });

  it('an autoscaler follows the load up and, after its window, down', async () => {
    let load = '50m';
    const metrics: PodMetrics = {
      usage: (_namespace, pods) =>
        Promise.resolve(
          new Map(
            pods.map((p) => [p.metadata.name, { atMs: Number.MAX_SAFE_INTEGER, containers: { c: { cpu: load } } }]),
          ),
        ),
    };
    const s = await Simulation.start({ seed: 8, nodes: 3, metrics });
    await s.client.create(DEPLOYMENTS, deployment('web', 2));
    await s.client.create(HPAS, {
      metadata: { name: 'web', namespace: 'default' },
      spec: {
        scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'web' },
        minReplicas: 2,
        maxReplicas: 8,
        metrics: [
          { type: 'Resource', resource: { name: 'cpu', target: { type: 'Utilization', averageUtilization: 50 } } },
        ],
      },
    });
    await s.run(60_000);
    expect(ready(s, 'web')).toBe(2);
    load = '100m';
    expect(await s.until(() => ready(s, 'web') === 8, 120_000)).toBe(true);
    load = '10m';
    await s.run(200_000);
    expect(ready(s, 'web')).toBe(8);
    expect(await s.until(() => ready(s, 'web') === 2, 300_000)).toBe(true);
    await s.stop();
  });

  it('endpoints follow readiness', async () => {
    const s = await Simulation.start({ seed: 9, nodes: 2 });
    s.truth.of(ENDPOINT_SLICES);
    await s.do(s.truth.start());
    await s.client.create(SERVICES, {
      metadata: { name: 'web', namespace: 'default' },
      spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: 8080 }] },
    });
    await s.client.create(DEPLOYMENTS, deployment('web', 3));
    const slices = () =>
      s.truth
        .of(ENDPOINT_SLICES)
        .inNamespace('default')
        .filter((e) => e.metadata.name.startsWith('web-'));
    const up = () =>
      slices()
        .flatMap((e) => e.endpoints ?? [])
        .filter((e) => e.conditions?.ready).length;
    expect(await s.until(() => up() === 3, 20_000)).toBe(true);
    expect(slices()).toHaveLength(1);
    expect(slices()[0]).toMatchObject({ addressType: 'IPv4', ports: [{ port: 8080, protocol: 'TCP' }] });
    await s.client.patch(DEPLOYMENTS, 'default/web', { spec: { replicas: 1 } }, { type: 'merge' });
    expect(await s.until(() => slices().flatMap((e) => e.endpoints ?? []).length === 1, 20_000)).toBe(true);
    await s.stop();
  });
});

function only(code: string): (error: unknown) => void {
  return (error) => {
    if (!isCode(error, code)) throw error;
  };
}
