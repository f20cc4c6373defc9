import type { Clock } from '#base/clock.ts';
import type { Logger } from '#base/log.ts';
import type { Random } from '#base/random.ts';
import type { KubeClient } from '#cluster/client/client.ts';
import { Informer } from '#cluster/client/informer.ts';
import {
  controllerOf,
  EVENTS,
  type KubeObject,
  keyOf,
  type Live,
  NODES,
  PODS,
  type Resource,
} from '#cluster/client/resources.ts';
import { nanoOf, unitsOf } from '#spec/kubernetes/quantity.ts';
import type { ContainerStatus, Event, Node, Pod } from '#spec/kubernetes/types.gen.ts';
import type { Feed, Table } from '#web/hub.ts';
import type { EventRow, NodeRow, PodRow, World } from '#web/wire.ts';

export interface ClusterFeedDeps {
  client: KubeClient;
  clock: Clock;
  random: Random;
  log: Logger;
}

/** Pods, nodes and events of the cluster, by list and watch. */
export function clusterFeed(deps: ClusterFeedDeps): Feed {
  return {
    async start(tables) {
      const follow = <K extends KubeObject, T extends Table>(
        resource: Resource<K>,
        table: T,
        row: (object: Live<K>) => World[T],
      ): Informer<K> => {
        const informer = new Informer(deps, resource);
        informer.onChange((now, before) => {
          if (now) tables.put(table, row(now));
          else if (before) tables.drop(table, row(before).key);
        });
        informer.start();
        return informer;
      };
      const informers = [
        follow(PODS, 'pods', podRow),
        follow(NODES, 'nodes', nodeRow),
        follow(EVENTS, 'events', clusterEventRow),
      ];
      await Promise.all(informers.map((informer) => informer.synced));
      return () => {
        for (const informer of informers) void informer.stop();
      };
    },
  };
}

const APP_LABELS = ['estiba.dev/app', 'app.kubernetes.io/part-of'];

/** Pure. */
export function podRow(pod: Live<Pod>): PodRow {
  const { metadata, spec, status = {} } = pod;
  const namespace = metadata.namespace ?? '';
  const labels = metadata.labels ?? {};
  const statuses = status.containerStatuses ?? [];
  const owner = controllerOf(pod);
  const all = [
    ...(spec.initContainers ?? []).map((c) => ({ ...c, init: true })),
    ...spec.containers.map((c) => ({ ...c, init: false })),
  ];
  const known = [...(status.initContainerStatuses ?? []), ...statuses];
  return {
    key: keyOf(pod),
    namespace,
    name: metadata.name,
    app: APP_LABELS.map((label) => labels[label]).find((app) => app !== undefined) ?? namespace,
    phase: status.phase ?? 'Unknown',
    ...podState(pod),
    ready: statuses.filter((c) => c.ready).length,
    wanted: spec.containers.length,
    restarts: known.reduce((sum, c) => sum + c.restartCount, 0),
    node: spec.nodeName ?? '',
    ip: status.podIP ?? '',
    createdAtMs: Date.parse(metadata.creationTimestamp),
    owner: owner ? `${owner.kind} ${owner.name}` : '',
    containers: all.map(({ name, image = '', init }) => {
      const own = known.find((c) => c.name === name);
      return { name, image, init, state: stateWord(own), ready: own?.ready ?? false, restarts: own?.restartCount ?? 0 };
    }),
  };
}

/** One word for how it is, and a sentence when something holds it up. */
function podState({ metadata, status = {} }: Live<Pod>): Pick<PodRow, 'state' | 'message'> {
  if (metadata.deletionTimestamp) return { state: 'Terminating', message: '' };
  if (status.phase === 'Succeeded') return { state: 'Completed', message: '' };
  for (const { state } of [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])]) {
    const held = state?.waiting ?? (state?.terminated?.exitCode === 0 ? undefined : state?.terminated);
    if (held?.reason) return { state: held.reason, message: held.message ?? '' };
  }
  const placed = status.conditions?.find((c) => c.type === 'PodScheduled');
  if (placed?.status === 'False') return { state: placed.reason ?? 'Pending', message: placed.message ?? '' };
  return { state: status.reason ?? status.phase ?? 'Unknown', message: status.message ?? '' };
}

function stateWord(status: ContainerStatus | undefined): string {
  const { running, terminated, waiting } = status?.state ?? {};
  if (running) return 'running';
  if (terminated) return `${terminated.reason ?? 'ended'}, exit code ${terminated.exitCode}`;
  return waiting?.reason ?? 'waiting';
}

/** Pure. */
export function nodeRow({ metadata, spec, status }: Live<Node>): NodeRow {
  const ready = status?.conditions?.find((c) => c.type === 'Ready');
  const capacity = status?.capacity ?? {};
  return {
    key: metadata.name,
    name: metadata.name,
    ready: ready?.status === 'True',
    note: ready?.status !== 'True' ? (ready?.message ?? 'has not reported yet') : spec?.unschedulable ? 'cordoned' : '',
    version: status?.nodeInfo?.kubeletVersion ?? '',
    os: status?.nodeInfo?.osImage ?? '',
    address: status?.addresses?.find((a) => a.type === 'InternalIP')?.address ?? '',
    cpus: Number(nanoOf(capacity['cpu']) / 1_000_000n) / 1000,
    memoryBytes: unitsOf(capacity['memory']),
    podsMax: unitsOf(capacity['pods']),
    createdAtMs: Date.parse(metadata.creationTimestamp),
  };
}

/** Pure. */
export function clusterEventRow(event: Live<Event>): EventRow {
  const { involvedObject: about, metadata } = event;
  const at = event.lastTimestamp ?? event.eventTime ?? event.firstTimestamp ?? metadata.creationTimestamp;
  return {
    key: metadata.uid,
    atMs: Date.parse(at),
    from: 'cluster',
    warning: event.type === 'Warning',
    kind: about.kind ?? '',
    name: [about.namespace, about.name].filter((part) => part).join('/'),
    action: event.reason ?? '',
    text: event.message ?? '',
    count: event.count ?? event.series?.count ?? 1,
  };
}
