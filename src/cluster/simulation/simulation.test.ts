import { describe, expect, it } from 'vitest';
import { DEPLOYMENTS, JOBS, PODS, REPLICA_SETS } from '#cluster/client/resources.ts';
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
});
