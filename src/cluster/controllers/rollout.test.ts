import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Live } from '#cluster/client/resources.ts';
import { deploymentStatus } from '#cluster/controllers/deployment.ts';
import { bounds, DESIRED, HASH_LABEL, MAX, planRollout, REVISION, replicasOf } from '#cluster/controllers/rollout.ts';
import type { Deployment, ReplicaSet } from '#spec/kubernetes/types.gen.ts';

const meta = (name: string, atMs = 0, annotations: Record<string, string> = {}) => ({
  name,
  namespace: 'default',
  uid: name,
  resourceVersion: '1',
  generation: 1,
  creationTimestamp: new Date(atMs).toISOString(),
  annotations,
});

const template = (image: string) => ({
  metadata: { labels: { app: 'web' } },
  spec: { containers: [{ name: 'c', image }] },
});

function deployment(replicas: number, image: string, spec: Partial<Deployment['spec']> = {}): Live<Deployment> {
  const selector = { matchLabels: { app: 'web' } };
  return { metadata: meta('web'), spec: { replicas, selector, template: template(image), ...spec } };
}

function set(image: string, replicas: number, available = replicas, desired = 0, revision = 1): Live<ReplicaSet> {
  const annotations = {
    [REVISION]: String(revision),
    ...(desired ? { [DESIRED]: String(desired), [MAX]: String(desired + 3) } : {}),
  };
  const labelled = template(image);
  return {
    metadata: meta(`web-${image}`, revision * 1000, annotations),
    spec: {
      replicas,
      selector: {},
      template: { ...labelled, metadata: { labels: { ...labelled.metadata.labels, [HASH_LABEL]: image } } },
    },
    status: { replicas, readyReplicas: available, availableReplicas: available },
  };
}

const steps = (d: Live<Deployment>, ...sets: Live<ReplicaSet>[]) =>
  planRollout({ deployment: d, sets, pods: [] })
    .steps.filter((s) => s.do !== 'annotate')
    .map((s) =>
      s.do === 'scale'
        ? `${s.set.metadata.name} → ${s.to}`
        : s.do === 'createSet'
          ? `create ${s.replicas}`
          : `delete ${s.set.metadata.name}`,
    );

describe('planRollout', () => {
  it('makes the first set at full size', () => {
    expect(steps(deployment(10, 'a'))).toEqual(['create 10']);
  });

  it('surges by a quarter, rounded up, and takes old ones as new ones become available', () => {
    const d = deployment(10, 'b');
    expect(steps(d, set('a', 10, 10, 10))).toEqual(['create 3']);
    expect(steps(d, set('a', 10, 10, 10), set('b', 3, 0, 10, 2))).toEqual(['web-a → 8']);
    expect(steps(d, set('a', 8, 8, 10), set('b', 3, 0, 10, 2))).toEqual(['web-b → 5']);
    expect(steps(d, set('a', 8, 8, 10), set('b', 5, 3, 10, 2))).toEqual(['web-a → 5']);
    expect(steps(d, set('a', 0, 0, 10), set('b', 10, 10, 10, 2))).toEqual([]);
  });

  it('pods that do not serve go first', () => {
    expect(steps(deployment(10, 'c'), set('a', 5, 5, 10), set('b', 5, 0, 10, 2), set('c', 3, 0, 10, 3))).toEqual([
      'web-b → 3',
    ]);
  });

  it('shares a new size among the sets of an unfinished rollout', () => {
    const d = deployment(20, 'b');
    expect(steps(d, set('a', 8, 8, 10), set('b', 5, 5, 10, 2))).toEqual(['web-a → 15', 'web-b → 10']);
  });

  it('recreates only when the last old pod is gone', () => {
    const d = deployment(3, 'b', { strategy: { type: 'Recreate' } });
    expect(steps(d, set('a', 3))).toEqual(['web-a → 0']);
    expect(steps(d, set('a', 0))).toEqual(['create 3']);
  });

  it('numbers revisions, and gives a returning set the next number and its history', () => {
    const plan = planRollout({
      deployment: deployment(1, 'a'),
      sets: [set('a', 0, 0, 0, 1), set('b', 1, 1, 0, 2)],
      pods: [],
    });
    expect(plan.revision).toBe(3);
    expect(plan.steps[0]).toMatchObject({
      do: 'annotate',
      annotations: { [REVISION]: '3', 'deployment.kubernetes.io/revision-history': '1' },
    });
  });

  it('keeps no more old sets than the history limit', () => {
    const d = deployment(1, 'd', { revisionHistoryLimit: 1 });
    expect(steps(d, set('a', 0), set('b', 0, 0, 0, 2), set('c', 0, 0, 0, 3), set('d', 1, 1, 1, 4))).toEqual([
      'delete web-a',
      'delete web-b',
    ]);
  });

  it('never leaves its bounds, whatever the sets say', () => {
    const percent = fc.integer({ min: 0, max: 100 }).map((n) => `${n}%`);
    const old = fc.tuple(fc.nat(12), fc.nat(12));
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        percent,
        percent,
        old,
        old,
        (desired, maxSurge, maxUnavailable, a, b) => {
          const d = deployment(desired, 'b', { strategy: { rollingUpdate: { maxSurge, maxUnavailable } } });
          let sets = [set('a', a[0], Math.min(a[0], a[1]), desired), set('b', b[0], Math.min(b[0], b[1]), desired, 2)];
          const { surge, unavailable } = bounds(d);
          const total = () => sets.reduce((n, s) => n + replicasOf(s), 0);
          const serving = () => sets.reduce((n, s) => n + Math.min(replicasOf(s), s.status?.availableReplicas ?? 0), 0);
          const [before, servingBefore] = [total(), serving()];
          for (const step of planRollout({ deployment: d, sets, pods: [] }).steps)
            if (step.do === 'scale')
              sets = sets.map((s) =>
                s.metadata.uid === step.set.metadata.uid ? { ...s, spec: { ...s.spec, replicas: step.to } } : s,
              );
          expect(total()).toBeLessThanOrEqual(Math.max(before, desired + surge));
          // More new pods than wished for are cut back even when they serve.
          if (b[0] <= desired) expect(serving()).toBeGreaterThanOrEqual(Math.min(servingBefore, desired - unavailable));
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe('deploymentStatus', () => {
  const nowMs = Date.UTC(2026, 0, 1);

  it('tells progress, success and the missed deadline in the words kubectl knows', () => {
    const d = deployment(2, 'a', { progressDeadlineSeconds: 60 });
    const first = deploymentStatus({ deployment: d, current: set('a', 2, 0), old: [], created: true, nowMs });
    expect(first.status.conditions).toMatchObject([
      { type: 'Available', status: 'False', reason: 'MinimumReplicasUnavailable' },
      {
        type: 'Progressing',
        status: 'True',
        reason: 'NewReplicaSetCreated',
        message: 'Created new replica set "web-a"',
      },
    ]);
    expect(first.checkAgainMs).toBe(61_000);
    const waiting = { ...d, status: first.status };
    const late = deploymentStatus({
      deployment: waiting,
      current: set('a', 2, 0),
      old: [],
      created: false,
      nowMs: nowMs + 61_000,
    });
    expect(late.status.conditions?.[1]).toMatchObject({ status: 'False', reason: 'ProgressDeadlineExceeded' });
    const done = deploymentStatus({
      deployment: waiting,
      current: set('a', 2, 2),
      old: [],
      created: false,
      nowMs: nowMs + 5_000,
    });
    expect(done.status.conditions).toMatchObject([
      { type: 'Available', status: 'True' },
      {
        type: 'Progressing',
        reason: 'NewReplicaSetAvailable',
        message: 'ReplicaSet "web-a" has successfully progressed.',
      },
    ]);
  });
});
