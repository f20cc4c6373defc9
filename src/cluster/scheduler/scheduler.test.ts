import { describe, expect, it } from 'vitest';
import { seededRandom } from '#base/random.ts';
import type { Live } from '#cluster/client/resources.ts';
import { decide } from '#cluster/scheduler/decide.ts';
import type { VolumeFacts } from '#cluster/scheduler/plugins/volumes.ts';
import { ClusterState, podInfo } from '#cluster/scheduler/state.ts';
import { summary } from '#cluster/scheduler/verdict.ts';
import type { Node, Pod, PodSpec } from '#spec/kubernetes/types.gen.ts';

let uids = 0;
const meta = (name: string, labels: Record<string, string> = {}) => ({
  name,
  namespace: 'default',
  uid: `u${uids++}`,
  resourceVersion: '1',
  creationTimestamp: '2026-01-01T00:00:00Z',
  labels,
});

function node(
  name: string,
  options: { cpu?: string; labels?: Record<string, string>; spec?: Node['spec'] } = {},
): Live<Node> {
  return {
    metadata: meta(name, { 'kubernetes.io/hostname': name, ...options.labels }),
    spec: options.spec ?? {},
    status: { allocatable: { cpu: options.cpu ?? '4', memory: '8Gi', pods: '10' } },
  };
}

function pod(
  name: string,
  spec: Partial<PodSpec> & { cpu?: string } = {},
  labels: Record<string, string> = {},
): Live<Pod> {
  const { cpu, ...rest } = spec;
  return {
    metadata: meta(name, labels),
    spec: { containers: [{ name: 'c', image: 'i', ...(cpu ? { resources: { requests: { cpu } } } : {}) }], ...rest },
  };
}

const NO_VOLUMES: VolumeFacts = {
  claim: () => undefined,
  volume: () => undefined,
  storageClass: () => undefined,
  freeVolumes: () => [],
};

function cluster(nodes: Live<Node>[], placed: [Live<Pod>, string][] = [], volumes = NO_VOLUMES) {
  const state = new ClusterState();
  for (const n of nodes) state.setNode(n);
  for (const [p, at] of placed)
    state.add(
      podInfo(p, () => []),
      at,
    );
  const ask = (p: Live<Pod>) =>
    decide(
      podInfo(p, () => []),
      { state, volumes },
      seededRandom(1),
    );
  const placeOf = (p: Live<Pod>): string => {
    const d = ask(p);
    return d.fits ? d.node : summary(d.total, d.byNode, d.forAll);
  };
  return { state, placeOf };
}

describe('a pod that does not fit is told why, in the words of Kubernetes', () => {
  it('counts a reason for each node', () => {
    const { placeOf } = cluster([
      node('a', { cpu: '1' }),
      node('b', { spec: { taints: [{ key: 'dedicated', value: 'db', effect: 'NoSchedule' }] } }),
      node('c', { spec: { unschedulable: true } }),
    ]);
    expect(placeOf(pod('p', { cpu: '2' }))).toBe(
      '0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {dedicated: db}, 1 node(s) were unschedulable.',
    );
  });

  it('with no nodes, says so', () => {
    expect(cluster([]).placeOf(pod('p'))).toBe('no nodes available to schedule pods');
  });

  it('a missing claim holds for all nodes', () => {
    const { placeOf } = cluster([node('a')]);
    expect(placeOf(pod('p', { volumes: [{ name: 'v', persistentVolumeClaim: { claimName: 'data' } }] }))).toBe(
      '0/1 nodes are available: persistentvolumeclaim "data" not found.',
    );
  });
});

describe('filters', () => {
  it('node selector, affinity and tolerations choose the node', () => {
    const { placeOf } = cluster([
      node('a', { labels: { disk: 'ssd' }, spec: { taints: [{ key: 'x', effect: 'NoSchedule' }] } }),
      node('b', { labels: { disk: 'hdd' } }),
    ]);
    expect(placeOf(pod('p', { nodeSelector: { disk: 'ssd' } }))).toContain('untolerated taint {x: }');
    expect(placeOf(pod('p', { nodeSelector: { disk: 'ssd' }, tolerations: [{ operator: 'Exists' }] }))).toBe('a');
    const terms = [{ matchExpressions: [{ key: 'disk', operator: 'NotIn' as const, values: ['ssd'] }] }];
    expect(
      placeOf(
        pod('p', {
          affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: terms } } },
        }),
      ),
    ).toBe('b');
  });

  it('a host port is taken once a node, on the wildcard address for all', () => {
    const web = (name: string, hostIP?: string) =>
      pod(name, {
        containers: [
          { name: 'c', image: 'i', ports: [{ containerPort: 80, hostPort: 80, ...(hostIP ? { hostIP } : {}) }] },
        ],
      });
    const { placeOf } = cluster([node('a')], [[web('x', '10.0.0.1'), 'a']]);
    expect(placeOf(web('y', '10.0.0.2'))).toBe('a');
    expect(placeOf(web('y'))).toContain("didn't have free ports");
  });

  it('anti-affinity holds both ways, affinity lets the first of a group stand anywhere', () => {
    const term = { labelSelector: { matchLabels: { app: 'db' } }, topologyKey: 'kubernetes.io/hostname' };
    const apart = { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [term] } };
    const together = { podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [term] } };
    const lonely = cluster([node('a')], [[pod('db-0', { affinity: apart }, { app: 'db' }), 'a']]);
    expect(lonely.placeOf(pod('db-1', { affinity: apart }, { app: 'db' }))).toContain(
      "1 node(s) didn't satisfy existing pods",
    );
    expect(lonely.placeOf(pod('plain', {}, { app: 'db' }))).toContain('existing pods anti-affinity');
    expect(lonely.placeOf(pod('web'))).toBe('a');
    const two = cluster([node('a'), node('b')]);
    const first = pod('db-0', { affinity: together }, { app: 'db' });
    const at = two.placeOf(first);
    expect(['a', 'b']).toContain(at);
    two.state.add(
      podInfo(first, () => []),
      at,
    );
    expect(two.placeOf(pod('db-1', { affinity: together }, { app: 'db' }))).toBe(at);
    expect(cluster([node('a')]).placeOf(pod('web', { affinity: together }))).toContain(
      "didn't match pod affinity rules",
    );
  });

  it('a hard spread constraint keeps the skew', () => {
    const constraint = {
      maxSkew: 1,
      topologyKey: 'zone',
      whenUnsatisfiable: 'DoNotSchedule' as const,
      labelSelector: { matchLabels: { app: 'web' } },
    };
    const spec = { topologySpreadConstraints: [constraint] };
    const { placeOf } = cluster(
      [node('a', { labels: { zone: '1' } }), node('b', { labels: { zone: '2' }, cpu: '1' }), node('c')],
      [[pod('w0', spec, { app: 'web' }), 'a']],
    );
    expect(placeOf(pod('w1', spec, { app: 'web' }))).toBe('b');
    expect(placeOf(pod('w1', { ...spec, cpu: '2' }, { app: 'web' }))).toBe(
      "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints, " +
        "1 node(s) didn't match pod topology spread constraints (missing required label).",
    );
  });

  it('a claim whose volume lies on one node binds the pod to it', () => {
    const affinity = {
      required: {
        nodeSelectorTerms: [
          { matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In' as const, values: ['b'] }] },
        ],
      },
    };
    const facts: VolumeFacts = {
      ...NO_VOLUMES,
      claim: () => ({ metadata: meta('data'), spec: { volumeName: 'pv' } }),
      volume: () => ({ metadata: meta('pv'), spec: { nodeAffinity: affinity } }),
    };
    const { placeOf } = cluster([node('a'), node('b')], [], facts);
    expect(placeOf(pod('p', { volumes: [{ name: 'v', persistentVolumeClaim: { claimName: 'data' } }] }))).toBe('b');
  });
});

describe('scores', () => {
  it('prefer the emptier node and spread pods of one owner', () => {
    const owner = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'rs', uid: 'rs', controller: true };
    const owned = (name: string): Live<Pod> => {
      const p = pod(name, { cpu: '100m' });
      return { ...p, metadata: { ...p.metadata, ownerReferences: [owner] } };
    };
    const { state, placeOf } = cluster([node('a'), node('b'), node('c')], [[pod('big', { cpu: '3' }), 'a']]);
    const seen: string[] = [];
    for (let i = 0; i < 3; i++) {
      const p = owned(`p${i}`);
      const at = placeOf(p);
      state.add(
        podInfo(p, () => []),
        at,
      );
      seen.push(at);
    }
    expect(seen.sort()).toEqual(['a', 'b', 'c']);
    expect(['b', 'c']).toContain(placeOf(pod('other', { cpu: '1' })));
  });
});

describe('ClusterState', () => {
  it('comes back to nothing when all pods go, whatever the order of nodes and pods', () => {
    const state = new ClusterState();
    const p = podInfo(pod('p', { cpu: '1' }), () => []);
    state.add(p, 'late');
    state.setNode(node('late'));
    expect(state.nodes.get('late')?.requested).toMatchObject({ cpu: 1000 });
    state.add(p, 'late');
    expect(state.nodes.get('late')?.requested).toMatchObject({ cpu: 1000 });
    state.remove(p.uid);
    expect(state.nodes.get('late')).toMatchObject({ requested: { cpu: 0 }, guessed: { cpu: 0, memory: 0 } });
  });
});
