import { describe, expect, it } from 'vitest';
import {
  CLUSTER_ROLES,
  ENDPOINTS,
  PERSISTENT_VOLUME_CLAIMS,
  PODS,
  REPLICATION_CONTROLLERS,
  SERVICES,
} from '#cluster/client/resources.ts';
import { isActive, isReady } from '#cluster/controllers/pods.ts';
import { Simulation } from './simulation.ts';

const metadata = (name: string, labels: Record<string, string> = {}) => ({ name, namespace: 'default', labels });
const spec = { containers: [{ name: 'c', image: 'app:v1' }] };

describe('lesser controllers, in simulation', () => {
  it('the old Endpoints go with their Service; those made by hand stay', async () => {
    const s = await Simulation.start({ seed: 31, nodes: 1 });
    const names = () => s.truth.of(ENDPOINTS).inNamespace('default');
    names();
    await s.do(s.truth.start());
    await s.client.create(ENDPOINTS, {
      metadata: metadata('outside'),
      subsets: [{ addresses: [{ ip: '192.0.2.1' }], ports: [{ port: 1 }] }],
    });
    await s.client.create(SERVICES, {
      metadata: metadata('web'),
      spec: { selector: { app: 'web' }, ports: [{ port: 80 }] },
    });
    expect(await s.until(() => names().some((e) => e.metadata.name === 'web'), 20_000)).toBe(true);
    await s.client.delete(SERVICES, 'default/web');
    expect(await s.until(() => !names().some((e) => e.metadata.name === 'web'), 20_000)).toBe(true);
    expect(names().map((e) => e.metadata.name)).toContain('outside');
    await s.stop();
  });

  it('a pod’s ephemeral volume has a claim of its own, bound before it runs and gone with it', async () => {
    const s = await Simulation.start({ seed: 32, nodes: 2 });
    const claims = () => s.truth.of(PERSISTENT_VOLUME_CLAIMS).list();
    claims();
    await s.do(s.truth.start());
    const volumeClaimTemplate = {
      metadata: { labels: { of: 'scratch' } },
      spec: { accessModes: ['ReadWriteOnce' as const], resources: { requests: { storage: '1Gi' } } },
    };
    await s.client.create(PODS, {
      metadata: metadata('worker', { sim: 'v1' }),
      spec: { ...spec, volumes: [{ name: 'scratch', ephemeral: { volumeClaimTemplate } }] },
    });
    expect(await s.until(() => s.truth.of(PODS).list().some(isReady), 20_000)).toBe(true);
    expect(claims().map((c) => [c.metadata.name, c.metadata.labels, c.status?.phase])).toEqual([
      ['worker-scratch', { of: 'scratch' }, 'Bound'],
    ]);
    await s.client.delete(PODS, 'default/worker');
    expect(await s.until(() => claims().length === 0, 60_000)).toBe(true);
    await s.stop();
  });

  it('a ReplicationController keeps its pods, by scale and by adoption', async () => {
    const s = await Simulation.start({ seed: 33, nodes: 2 });
    const active = () => s.truth.of(PODS).list().filter(isActive);
    await s.client.create(PODS, { metadata: metadata('orphan', { app: 'old', sim: 'v1' }), spec });
    await s.client.create(REPLICATION_CONTROLLERS, {
      metadata: metadata('old'),
      spec: {
        replicas: 3,
        selector: { app: 'old' },
        template: { metadata: { labels: { app: 'old', sim: 'v1' } }, spec },
      },
    });
    expect(await s.until(() => active().filter(isReady).length === 3, 20_000)).toBe(true);
    expect(active().map((p) => p.metadata.ownerReferences?.[0]?.kind)).toEqual(Array(3).fill('ReplicationController'));
    await s.client.patch(
      REPLICATION_CONTROLLERS,
      'default/old',
      { spec: { replicas: 1 } },
      { type: 'merge', sub: 'scale' },
    );
    expect(await s.until(() => active().length === 1, 20_000)).toBe(true);
    const known = await s.do(s.client.get(REPLICATION_CONTROLLERS, 'default/old'));
    expect(known.status).toMatchObject({ replicas: 1, readyReplicas: 1 });
    await s.stop();
  });

  it('an aggregated ClusterRole holds the rules of those its selectors find, and follows them', async () => {
    const s = await Simulation.start({ seed: 34, nodes: 1 });
    const rulesOf = (name: string) => s.truth.of(CLUSTER_ROLES).get(name)?.rules ?? [];
    rulesOf('');
    await s.do(s.truth.start());
    const part = (name: string, resource: string) => ({
      metadata: { name, labels: { to: 'all' } },
      rules: [{ apiGroups: [''], resources: [resource], verbs: ['get'] }],
    });
    await s.client.create(CLUSTER_ROLES, part('one', 'pods'));
    await s.client.create(CLUSTER_ROLES, {
      metadata: { name: 'all' },
      aggregationRule: { clusterRoleSelectors: [{ matchLabels: { to: 'all' } }] },
    });
    expect(await s.until(() => rulesOf('all').length === 1, 20_000)).toBe(true);
    await s.client.create(CLUSTER_ROLES, part('two', 'secrets'));
    expect(await s.until(() => rulesOf('all').length === 2, 20_000)).toBe(true);
    await s.client.delete(CLUSTER_ROLES, 'one');
    expect(
      await s.until(
        () =>
          rulesOf('all')
            .map((r) => r.resources?.[0])
            .join() === 'secrets',
        20_000,
      ),
    ).toBe(true);
    await s.stop();
  });
});
