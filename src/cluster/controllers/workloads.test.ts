import { describe, expect, it } from 'vitest';
import type { Live } from '#cluster/client/resources.ts';
import { planClaims } from '#cluster/controllers/claim.ts';
import { missedStarts } from '#cluster/controllers/cronjob.ts';
import { nodeOfDaemon, planDaemonSet } from '#cluster/controllers/daemonset.ts';
import { planGarbage } from '#cluster/controllers/garbage.ts';
import { planJob, TRACKING } from '#cluster/controllers/job.ts';
import { failureAction, formatIndexes, INDEX, parseIndexes } from '#cluster/controllers/job-rules.ts';
import { evictionAtMs, planTaints } from '#cluster/controllers/nodes.ts';
import { planReplicaSet } from '#cluster/controllers/replicaset.ts';
import { REVISION_HASH } from '#cluster/controllers/revisions.ts';
import { planStatefulSet } from '#cluster/controllers/statefulset.ts';
import type { DaemonSet, Job, Node, Pod, ReplicaSet, StatefulSet } from '#spec/kubernetes/types.gen.ts';

const NOW_MS = Date.UTC(2026, 0, 1);
const NOW = '2026-01-01T00:00:00Z';
const meta = (name: string) => ({
  name,
  namespace: 'default',
  uid: name,
  resourceVersion: '1',
  creationTimestamp: NOW,
});

interface PodShape {
  phase?: string;
  ready?: boolean;
  node?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  owner?: string;
  leaving?: boolean;
  finalizers?: string[];
}

function pod(name: string, shape: PodShape = {}): Live<Pod> {
  const {
    phase = 'Running',
    ready = phase === 'Running',
    node,
    labels = {},
    annotations = {},
    owner,
    leaving,
    finalizers,
  } = shape;
  return {
    metadata: {
      ...meta(name),
      labels,
      annotations,
      ...(leaving ? { deletionTimestamp: NOW } : {}),
      ...(finalizers ? { finalizers } : {}),
      ...(owner
        ? {
            ownerReferences: [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: owner, uid: owner, controller: true }],
          }
        : {}),
    },
    spec: { containers: [{ name: 'c', image: 'i' }], ...(node ? { nodeName: node } : {}) },
    status: {
      phase: phase as 'Running',
      conditions: [{ type: 'Ready', status: ready ? 'True' : 'False', lastTransitionTime: NOW }],
    },
  };
}

describe('planReplicaSet', () => {
  const set = (replicas: number): Live<ReplicaSet> => ({ metadata: meta('rs'), spec: { replicas, selector: {} } });
  const removed = (replicas: number, pods: Live<Pod>[]) =>
    planReplicaSet({ set: set(replicas), pods, related: () => pods }).remove.map((p) => p.metadata.name);

  it('makes what is missing; pods that end or leave do not count', () => {
    const pods = [pod('a'), pod('b', { phase: 'Failed' }), pod('c', { leaving: true })];
    expect(planReplicaSet({ set: set(3), pods, related: () => pods }).create).toBe(2);
  });

  it('takes away unplaced, then unready, then cheap, then crowded ones', () => {
    expect(removed(1, [pod('ready', { node: 'n' }), pod('unplaced', { phase: 'Pending' })])).toEqual(['unplaced']);
    expect(removed(1, [pod('ready', { node: 'n' }), pod('not', { node: 'n', ready: false })])).toEqual(['not']);
    const cheap = { 'controller.kubernetes.io/pod-deletion-cost': '-5' };
    expect(removed(1, [pod('a', { node: 'n' }), pod('b', { node: 'm', annotations: cheap })])).toEqual(['b']);
    expect(removed(2, [pod('a', { node: 'm' }), pod('b', { node: 'n' }), pod('c', { node: 'n' })])).toEqual(['b']);
  });
});

describe('planClaims', () => {
  it('adopts orphans that fit, releases own ones that do not, and leaves others alone', () => {
    const owner = { metadata: meta('rs') };
    const labels = { app: 'web' };
    const plan = planClaims<Pod>(owner, { matchLabels: labels }, [
      pod('mine', { owner: 'rs', labels }),
      pod('strayed', { owner: 'rs', labels: { app: 'other' } }),
      pod('orphan', { labels }),
      pod('foreign', { owner: 'else', labels }),
    ]);
    expect(Object.entries(plan).map(([k, v]) => `${k}: ${v.map((p: Live<Pod>) => p.metadata.name)}`)).toEqual([
      'mine: mine',
      'adopt: orphan',
      'release: strayed',
    ]);
  });
});

describe('planStatefulSet', () => {
  const set = (replicas: number, spec: Partial<StatefulSet['spec']> = {}): Live<StatefulSet> => ({
    metadata: meta('db'),
    spec: { replicas, serviceName: 'db', selector: {}, template: {}, ...spec },
  });
  const at = (ordinal: number, revision: string, shape: PodShape = {}) =>
    pod(`db-${ordinal}`, { ...shape, labels: { [REVISION_HASH]: revision } });
  const plan = (s: Live<StatefulSet>, pods: Live<Pod>[], update = 'new') =>
    planStatefulSet({ set: s, pods, currentRevision: 'old', updateRevision: update, nowMs: NOW_MS }).map((step) =>
      step.do === 'create' ? `create ${step.ordinal} ${step.revision}` : `remove ${step.pod.metadata.name}`,
    );

  it('goes up one by one, each when those before it are well', () => {
    expect(plan(set(3), [])).toEqual(['create 0 new']);
    expect(plan(set(3), [at(0, 'new', { ready: false })])).toEqual([]);
    expect(plan(set(3), [at(0, 'new')])).toEqual(['create 1 new']);
    expect(plan(set(3, { podManagementPolicy: 'Parallel' }), [])).toEqual([
      'create 0 new',
      'create 1 new',
      'create 2 new',
    ]);
  });

  it('goes down from the top, one by one', () => {
    expect(plan(set(1), [at(0, 'new'), at(1, 'new'), at(2, 'new')])).toEqual(['remove db-2']);
    expect(plan(set(1), [at(0, 'new'), at(1, 'new'), at(2, 'new', { leaving: true })])).toEqual([]);
  });

  it('updates from the top down to the partition, and makes pods below it from the old revision', () => {
    expect(plan(set(3), [at(0, 'old'), at(1, 'old'), at(2, 'old')])).toEqual(['remove db-2']);
    expect(plan(set(3), [at(0, 'old'), at(1, 'old'), at(2, 'new', { ready: false })])).toEqual([]);
    const partition = { updateStrategy: { rollingUpdate: { partition: 2 } } };
    expect(plan(set(3, partition), [at(0, 'old'), at(1, 'old'), at(2, 'new')])).toEqual([]);
    expect(plan(set(3, partition), [at(0, 'old'), at(2, 'new')])).toEqual(['create 1 old']);
  });

  it('replaces a failed pod in its place', () => {
    expect(plan(set(2), [at(0, 'new', { phase: 'Failed' }), at(1, 'new')])).toEqual(['remove db-0']);
  });
});

describe('planDaemonSet', () => {
  const set = (spec: Partial<DaemonSet['spec']> = {}): Live<DaemonSet> => ({
    metadata: meta('agent'),
    spec: { selector: {}, template: { spec: { containers: [] } }, ...spec },
  });
  const node = (name: string, spec: Node['spec'] = {}): Live<Node> => ({ metadata: meta(name), spec });
  const at = (name: string, nodeName: string, revision = 'r1', shape: PodShape = {}) =>
    pod(name, { ...shape, node: nodeName, labels: { [REVISION_HASH]: revision } });
  const plan = (s: Live<DaemonSet>, nodes: Live<Node>[], pods: Live<Pod>[], updateRevision = 'r1') =>
    planDaemonSet({ set: s, nodes, pods, updateRevision, nowMs: NOW_MS }).steps.map((step) =>
      step.do === 'create' ? `create ${step.node}` : `remove ${step.pod.metadata.name}`,
    );

  it('runs once on each node that fits, cordoned ones too, and leaves those that repel it', () => {
    const tainted = node('b', { taints: [{ key: 'x', effect: 'NoExecute' }] });
    const cordoned = node('c', { taints: [{ key: 'node.kubernetes.io/unschedulable', effect: 'NoSchedule' }] });
    expect(plan(set(), [node('a'), tainted, cordoned], [at('p', 'b')])).toEqual(['create a', 'remove p', 'create c']);
    expect(plan(set(), [node('a')], [at('p', 'a'), at('q', 'gone')])).toEqual(['remove q']);
  });

  it('updates within maxUnavailable, or surges beside the old one', () => {
    const nodes = ['a', 'b', 'c'].map((n) => node(n));
    const old = ['a', 'b', 'c'].map((n) => at(`p${n}`, n));
    expect(plan(set(), nodes, old, 'r2')).toEqual(['remove pa']);
    expect(plan(set({ updateStrategy: { rollingUpdate: { maxUnavailable: 2 } } }), nodes, old, 'r2')).toEqual([
      'remove pa',
      'remove pb',
    ]);
    const surge = set({ updateStrategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } } });
    expect(plan(surge, nodes, old, 'r2')).toEqual(['create a']);
    expect(plan(surge, nodes, [...old, at('na', 'a', 'r2')], 'r2')).toEqual(['remove pa']);
  });

  it('knows the node a pod is meant for before it is bound', () => {
    const terms = [{ matchFields: [{ key: 'metadata.name', operator: 'In' as const, values: ['n7'] }] }];
    const spec = {
      containers: [],
      affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: terms } } },
    };
    expect(nodeOfDaemon({ metadata: {}, spec })).toBe('n7');
  });
});

describe('planJob', () => {
  const job = (spec: Partial<Job['spec']>, status: Job['status'] = {}): Live<Job> => ({
    metadata: meta('job'),
    spec: { template: { spec: { containers: [], restartPolicy: 'Never' } }, ...spec },
    status: { startTime: NOW, ...status },
  });
  const run = (name: string, phase: string, index?: number) =>
    pod(name, {
      phase,
      finalizers: [TRACKING],
      ...(index === undefined ? {} : { annotations: { [INDEX]: String(index) } }),
    });

  it('counts an end in two writes, so that a crash in between counts it once', () => {
    const spec = { completions: 2, parallelism: 1 };
    const first = planJob(job(spec), [run('a', 'Succeeded')], NOW_MS);
    expect(first.status).toMatchObject({ uncountedTerminatedPods: { succeeded: ['a'] } });
    expect(first.status.succeeded).toBeUndefined();
    expect(first.unpin.map((p) => p.metadata.name)).toEqual(['a']);
    const unpinned = pod('a', { phase: 'Succeeded' });
    const second = planJob(job(spec, first.status), [unpinned], NOW_MS);
    expect(second.status).toMatchObject({ succeeded: 1, uncountedTerminatedPods: {} });
    expect(planJob(job(spec, second.status), [unpinned], NOW_MS).status.succeeded).toBe(1);
  });

  it('runs the lowest open indexes, as many at once as allowed', () => {
    const spec = { completions: 5, parallelism: 3, completionMode: 'Indexed' as const };
    const plan = planJob(job(spec, { completedIndexes: '0' }), [run('b', 'Running', 2)], NOW_MS);
    expect(plan.create.map((c) => c.index)).toEqual([1, 3]);
  });

  it('fails after the back-off limit, at its deadline, or when a rule says so', () => {
    const reason = (spec: Partial<Job['spec']>, pods: Live<Pod>[], nowMs = NOW_MS) =>
      planJob(job(spec), pods, nowMs).status.conditions?.find((c) => c.type === 'Failed')?.reason;
    const failed = (n: number) => Array.from({ length: n }, (_, i) => run(`f${i}`, 'Failed'));
    expect(reason({ completions: 1, backoffLimit: 2 }, failed(2))).toBeUndefined();
    expect(reason({ completions: 1, backoffLimit: 2 }, failed(3))).toBe('BackoffLimitExceeded');
    expect(reason({ completions: 1, activeDeadlineSeconds: 10 }, [], NOW_MS + 10_000)).toBe('DeadlineExceeded');
    const rules = [{ action: 'FailJob' as const, onExitCodes: { operator: 'In' as const, values: [42] } }];
    const dead = run('x', 'Failed');
    const status = {
      ...dead.status,
      containerStatuses: [
        { name: 'c', image: 'i', imageID: '', ready: false, restartCount: 0, state: { terminated: { exitCode: 42 } } },
      ],
    };
    expect(reason({ completions: 1, podFailurePolicy: { rules } }, [{ ...dead, status }])).toBe('PodFailurePolicy');
    expect(failureAction(job({ podFailurePolicy: { rules } }), dead).action).toBe('Count');
  });

  it('suspended, runs nothing', () => {
    const plan = planJob(job({ completions: 1, suspend: true }), [run('a', 'Running')], NOW_MS);
    expect(plan.remove.map((p) => p.metadata.name)).toEqual(['a']);
    expect(plan.status.conditions).toMatchObject([{ type: 'Suspended', status: 'True' }]);
  });

  it('writes and reads index lists', () => {
    expect(formatIndexes([5, 0, 1, 2, 7])).toBe('0-2,5,7');
    expect([...parseIndexes('0-2,5,7')]).toEqual([0, 1, 2, 5, 7]);
  });
});

describe('missedStarts', () => {
  const at = (text: string) => Date.parse(text);

  it('finds the latest due start and the next one, in the zone of the schedule', () => {
    const due = missedStarts('30 9 * * *', 'Europe/Madrid', at('2026-06-01T00:00:00Z'), at('2026-06-02T08:00:00Z'));
    expect(due).toEqual({ latestMs: at('2026-06-02T07:30:00Z'), count: 2, nextMs: at('2026-06-03T07:30:00Z') });
  });

  it('does not walk through years of missed starts', () => {
    const due = missedStarts('* * * * *', undefined, at('2020-01-01T00:00:00Z'), at('2026-01-01T00:00:30Z'));
    expect(due.latestMs).toBe(at('2026-01-01T00:00:00Z'));
    expect(due.count).toBeGreaterThan(100);
  });
});

describe('planGarbage', () => {
  const refs = [
    { apiVersion: 'v1', kind: 'A', name: 'a', uid: 'a' },
    { apiVersion: 'v1', kind: 'B', name: 'b', uid: 'b' },
  ];
  it('deletes when no owner is left, and drops owners that are gone while others hold', () => {
    expect(planGarbage(['gone', 'gone'], refs, false)).toMatchObject({ do: 'delete', policy: 'Background' });
    expect(planGarbage(['gone', 'waiting'], refs, true)).toMatchObject({ do: 'delete', policy: 'Foreground' });
    expect(planGarbage(['gone', 'solid'], refs, true)).toEqual({ do: 'dropOwners', uids: ['a'] });
    expect(planGarbage(['solid', 'solid'], refs, true)).toEqual({ do: 'nothing' });
  });
});

describe('nodes', () => {
  const taint = { key: 'node.kubernetes.io/unreachable', effect: 'NoExecute' as const, timeAdded: NOW };
  const silent: Live<Node> = {
    metadata: meta('n'),
    spec: { taints: [taint, { key: 'mine', effect: 'NoSchedule' }] },
    status: { conditions: [{ type: 'Ready', status: 'Unknown' }] },
  };

  it('taints follow conditions; others stay', () => {
    expect(planTaints(silent, NOW_MS).map((t) => `${t.key}:${t.effect}`)).toEqual([
      'mine:NoSchedule',
      'node.kubernetes.io/unreachable:NoSchedule',
      'node.kubernetes.io/unreachable:NoExecute',
    ]);
    const back: Live<Node> = { ...silent, status: { conditions: [{ type: 'Ready', status: 'True' }] } };
    expect(planTaints(back, NOW_MS)).toEqual([{ key: 'mine', effect: 'NoSchedule' }]);
  });

  it('a pod leaves at once, after its toleration, or never', () => {
    const tolerating = (tolerationSeconds?: number): Live<Pod> => {
      const p = pod('p');
      const toleration = {
        key: taint.key,
        operator: 'Exists' as const,
        ...(tolerationSeconds === undefined ? {} : { tolerationSeconds }),
      };
      return { ...p, spec: { ...p.spec, tolerations: [toleration] } };
    };
    expect(evictionAtMs(pod('p'), silent, NOW_MS)).toBe(NOW_MS);
    expect(evictionAtMs(tolerating(300), silent, NOW_MS + 5)).toBe(NOW_MS + 300_000);
    expect(evictionAtMs(tolerating(), silent, NOW_MS)).toBeUndefined();
  });
});
