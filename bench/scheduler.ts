import { generateKeyPairSync } from 'node:crypto';
import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { seededRandom, systemRandom } from '#base/random.ts';
import { startApi } from '#cluster/api/start.ts';
import { KubeClient } from '#cluster/client/client.ts';
import { EventRecorder } from '#cluster/client/events.ts';
import { InProcessTransport } from '#cluster/client/in-process.ts';
import { type Live, NODES, PODS } from '#cluster/client/resources.ts';
import { ClusterView } from '#cluster/client/view.ts';
import { decide } from '#cluster/scheduler/decide.ts';
import { Scheduler } from '#cluster/scheduler/scheduler.ts';
import { ClusterState, podInfo } from '#cluster/scheduler/state.ts';
import type { Node, Pod } from '#spec/kubernetes/types.gen.ts';
import { memoryStore } from '#storage/memory.ts';

// `scheduler.mjs NODES PODS`: decisions alone, then through the API server in one process, bound and seen bound. A line each.

const [, , nodeCount = '1000', podCount = '5000'] = process.argv;
const nodes = Number(nodeCount);
const pods = Number(podCount);

const resources = { cpu: '16', memory: '64Gi', pods: '110' };
const nodeObject = (i: number): Node => ({
  metadata: {
    name: `node-${i}`,
    labels: { 'kubernetes.io/hostname': `node-${i}`, 'topology.kubernetes.io/zone': `zone-${i % 3}` },
  },
  spec: {},
  status: { capacity: resources, allocatable: resources, conditions: [{ type: 'Ready', status: 'True' }] },
});
const podObject = (i: number, kind: string): Pod => ({
  metadata: { name: `pod-${i}`, namespace: 'default', labels: { app: `app-${i % 50}` } },
  spec: {
    containers: [{ name: 'c', image: 'app', resources: { requests: { cpu: '100m', memory: '128Mi' } } }],
    ...(kind === 'spread' ? { topologySpreadConstraints: [constraint(i)] } : {}),
    ...(kind === 'apart'
      ? { affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [apart(i)] } } }
      : {}),
  },
});
const selector = (i: number) => ({ matchLabels: { app: `app-${i % 50}` } });
const constraint = (i: number) => ({
  maxSkew: 1,
  topologyKey: 'topology.kubernetes.io/zone',
  whenUnsatisfiable: 'DoNotSchedule' as const,
  labelSelector: selector(i),
});
const apart = (i: number) => ({ topologyKey: 'kubernetes.io/hostname', labelSelector: selector(i) });

for (const kind of ['plain', 'spread', 'apart']) decisions(kind);
await throughTheApi();
process.exit(0);

function decisions(kind: string): void {
  const state = new ClusterState();
  const live = <T extends Node | Pod>(object: T, uid: string): Live<T> => ({
    ...object,
    metadata: {
      ...object.metadata,
      name: object.metadata.name ?? '',
      uid,
      resourceVersion: '1',
      creationTimestamp: '2026-01-01T00:00:00Z',
    },
  });
  for (let i = 0; i < nodes; i++) state.setNode(live(nodeObject(i), `n${i}`));
  const none = {
    claim: () => undefined,
    volume: () => undefined,
    storageClass: () => undefined,
    freeVolumes: () => [],
  };
  const random = seededRandom(1);
  const startMs = performance.now();
  let placed = 0;
  for (let i = 0, at = 0; i < pods; i++) {
    const info = podInfo(live(podObject(i, kind), `p${i}`), () => []);
    const decision = decide(info, { state, volumes: none }, random, at);
    if (!decision.fits) continue;
    at = (at + decision.looked) % nodes;
    state.add(info, decision.node);
    placed++;
  }
  report(`decide, ${kind}`, placed, performance.now() - startMs);
}

async function throughTheApi(): Promise<void> {
  const log = logger('cluster:sched', silentSink);
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const api = await startApi({
    store: memoryStore(systemClock),
    clock: systemClock,
    random: () => systemRandom.next(),
    log,
    serviceCidr: '10.96.0.0/12',
    authority: 'bench',
    tokenKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  });
  const transport = new InProcessTransport(api.server, { username: 'bench', groups: ['system:masters'] });
  const client = new KubeClient(transport, { fieldManager: 'bench' });
  const deps = { client, clock: systemClock, random: systemRandom, log };
  for (let i = 0; i < nodes; i++) await client.create(NODES, nodeObject(i));
  for (let i = 0; i < pods; i++) await client.create(PODS, podObject(i, 'plain'));
  const view = new ClusterView(deps);
  const events = new EventRecorder({ client, clock: systemClock, log, component: 'default-scheduler' });
  const scheduler = new Scheduler({ view, clock: systemClock, random: systemRandom, log, events });
  const truth = new ClusterView(deps);
  let bound = 0;
  const startMs = await new Promise<number>((resolve, reject) => {
    let startedMs = 0;
    truth.of(PODS).informer.onChange((now, before) => {
      if (!now?.spec.nodeName || before?.spec.nodeName) return;
      if (++bound === pods) resolve(startedMs);
    });
    Promise.all([truth.start(), view.start()]).then(() => {
      startedMs = performance.now();
      scheduler.start();
    }, reject);
  });
  report('through the API, bound and seen', bound, performance.now() - startMs);
}

function report(what: string, count: number, ms: number): void {
  const rss = Math.round(process.memoryUsage().rss / 2 ** 20);
  console.log(
    `${what.padEnd(32)} ${count} pods, ${nodes} nodes: ${Math.round((count * 1000) / ms)} pods/s (${rss} MiB)`,
  );
}
