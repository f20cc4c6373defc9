import { type Clock, sleep } from '#base/clock.ts';
import { describeChain, isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { Random } from '#base/random.ts';
import type { EventRecorder } from '#cluster/client/events.ts';
import {
  type Live,
  NAMESPACES,
  NODES,
  type ObjectKey,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  PODS,
  STORAGE_CLASSES,
  timestamp,
} from '#cluster/client/resources.ts';
import type { ClusterView } from '#cluster/client/view.ts';
import { matchesSelector } from '#spec/kubernetes/selector.ts';
import type { Node, PersistentVolume, Pod } from '#spec/kubernetes/types.gen.ts';
import { SELECTED_NODE } from '#spec/kubernetes/volume-match.ts';
import { type Decision, decide } from './decide.ts';
import type { Sight } from './plugins/plugin.ts';
import type { VolumeFacts } from './plugins/volumes.ts';
import { SchedulingQueue } from './queue.ts';
import { ClusterState, type PodInfo, podInfo } from './state.ts';
import { summary, type Verdict, type VerdictCode } from './verdict.ts';

export interface SchedulerDeps {
  view: ClusterView;
  clock: Clock;
  random: Random;
  log: Logger;
  events: EventRecorder;
}

/** Why a pod waits; kept while it does. */
export interface Unplaced {
  atMs: number;
  attempts: number;
  message: string;
  byNode: ReadonlyMap<string, readonly Verdict[]>;
  /** Holds for the pod wherever it would go. */
  forAll: Verdict | undefined;
}

export const SCHEDULER_NAME = 'default-scheduler';
// Binds in flight: enough to hide the server's latency, few enough to stay fair to everybody else.
const MAX_BINDS = 64;
// Decisions in a row before other work of the process gets its turn.
const SLICE_MS = 8;
const CLAIM_WAIT_MS = 600_000;
const ASK_AGAIN_MS = 500;
const MAX_KEPT_VERDICTS = 10_000;

/** Places pods: one decision after another against the state in memory, binding beside it. */
export class Scheduler {
  readonly #deps: SchedulerDeps;
  readonly #state = new ClusterState();
  readonly #queue: SchedulingQueue;
  readonly #sight: Sight;
  readonly #infos = new Map<string, PodInfo>();
  /** Uids decided and not yet seen bound: their room is taken. */
  readonly #assumed = new Set<string>();
  readonly #unplaced = new Map<ObjectKey, Unplaced>();
  readonly #volumeWaiters = new Set<() => void>();
  #startAt = 0;
  #binds = 0;
  #wake: () => void = () => undefined;
  #stopped = false;
  #loop: Promise<void> | undefined;

  constructor(deps: SchedulerDeps) {
    this.#deps = deps;
    this.#queue = new SchedulingQueue(deps.clock, () => this.#wake());
    this.#sight = { state: this.#state, volumes: this.#watchVolumes() };
    deps.view.of(NAMESPACES);
    deps.view.of(NODES).informer.onChange((now, before) => this.#nodeChanged(now, before));
    deps.view.of(PODS).informer.onChange((now, before) => this.#podChanged(now, before));
  }

  /** Call when the view has synced: deciding on half the pods would fill nodes twice. */
  start(): void {
    this.#loop ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#wake();
    await this.#loop;
  }

  why(pod: ObjectKey): Unplaced | undefined {
    return this.#unplaced.get(pod);
  }

  async #run(): Promise<void> {
    const { clock } = this.#deps;
    let sliceStartMs = clock.monotonic();
    while (!this.#stopped) {
      const next = this.#binds < MAX_BINDS ? this.#queue.take() : undefined;
      if (!next) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = () => undefined;
        sliceStartMs = clock.monotonic();
        continue;
      }
      this.#place(next.info, next.attempts);
      if (clock.monotonic() - sliceStartMs < SLICE_MS) continue;
      await sleep(clock, 0);
      sliceStartMs = clock.monotonic();
    }
  }

  #place(info: PodInfo, attempts: number): void {
    const { random, log } = this.#deps;
    const mark = this.#queue.changeMark;
    const decision = decide(info, this.#sight, random, this.#startAt);
    log.debug('decide', () => ({ pod: info.key, to: decision.fits ? decision.node : 'nowhere' }));
    if (!decision.fits) {
      this.#refuse(info, decision, attempts, mark);
      return;
    }
    this.#startAt = (this.#startAt + decision.looked) % Math.max(1, this.#state.order.length);
    this.#state.add(info, decision.node);
    this.#assumed.add(info.uid);
    this.#binds++;
    void this.#bind(info, decision.node, mark).finally(() => {
      this.#binds--;
      this.#wake();
    });
  }

  async #bind(info: PodInfo, node: string, mark: number): Promise<void> {
    const { view, events, log } = this.#deps;
    try {
      await this.#claimVolumes(info, node);
      await view.client.bind(info.pod, node);
      this.#queue.forget(info.uid);
      this.#unplaced.delete(info.key);
      const message = `Successfully assigned ${info.key} to ${node}`;
      events.record(PODS, info.pod, { type: 'Normal', reason: 'Scheduled', message });
    } catch (error) {
      log.debug('bind failed', () => ({ pod: info.key, node, error: describeChain(error) }));
      await this.#settle(info, mark);
    }
  }

  /**
   * A bind that failed may have happened: the answer is lost, or another scheduler was first. The room stays taken until the
   * server has said where the pod is, or two pods could get it.
   */
  async #settle(info: PodInfo, mark: number): Promise<void> {
    const { view, clock } = this.#deps;
    let present: Live<Pod> | undefined;
    for (;;) {
      try {
        present = await view.of(PODS).fresh(info.key);
        break;
      } catch (error) {
        if (!isCode(error, 'KUBE_UNREACHABLE') || this.#stopped) return;
        await sleep(clock, ASK_AGAIN_MS);
      }
    }
    if (!this.#assumed.delete(info.uid)) return;
    if (present?.metadata.uid === info.uid && present.spec.nodeName) {
      this.#state.add(this.#infoOf(present), present.spec.nodeName);
      this.#queue.forget(info.uid);
      return;
    }
    this.#state.remove(info.uid);
    if (present?.metadata.uid === info.uid) this.#queue.park(info.uid, new Set(), mark);
    else this.#queue.forget(info.uid);
    this.#queue.changed('pod-gone');
  }

  #refuse(info: PodInfo, no: Extract<Decision, { fits: false }>, attempts: number, mark: number): void {
    const { clock, events } = this.#deps;
    const message = summary(no.total, no.byNode, no.forAll);
    this.#unplaced.set(info.key, { atMs: clock.now(), attempts, message, byNode: no.byNode, forAll: no.forAll });
    if (this.#unplaced.size > MAX_KEPT_VERDICTS) {
      const oldest = this.#unplaced.keys().next().value;
      if (oldest !== undefined) this.#unplaced.delete(oldest);
    }
    const codes = new Set<VerdictCode>(no.forAll ? [no.forAll.code] : []);
    for (const verdicts of no.byNode.values()) for (const { code } of verdicts) codes.add(code);
    // An empty cluster has no verdict; the first node is what such a pod waits for.
    if (codes.size === 0) codes.add('NODE_NAME');
    this.#queue.park(info.uid, codes, mark);
    events.record(PODS, info.pod, { type: 'Warning', reason: 'FailedScheduling', message });
    void this.#writeCondition(info, message);
  }

  async #writeCondition(info: PodInfo, message: string): Promise<void> {
    const { view, clock, log } = this.#deps;
    const pod = view.of(PODS).get(info.key) ?? info.pod;
    const known = pod.status?.conditions?.find((c) => c.type === 'PodScheduled');
    if (known?.status === 'False' && known.message === message) return;
    const condition = {
      type: 'PodScheduled',
      status: 'False',
      reason: 'Unschedulable',
      message,
      lastTransitionTime: known?.status === 'False' ? known.lastTransitionTime : timestamp(clock.now()),
    };
    const others = (pod.status?.conditions ?? []).filter((c) => c.type !== 'PodScheduled');
    const patch = { metadata: { uid: info.uid }, status: { conditions: [...others, condition] } };
    try {
      await view.of(PODS).patch(info.key, patch, 'strategic', 'status');
    } catch (error) {
      // The next attempt writes it again; the event has told the same.
      log.debug('condition not written', () => ({ pod: info.key, error: describeChain(error) }));
    }
  }

  /** Claims that wait for their first consumer learn the node, and the pod waits until they are bound. */
  async #claimVolumes(info: PodInfo, node: string): Promise<void> {
    const claims = this.#deps.view.of(PERSISTENT_VOLUME_CLAIMS);
    const keys = info.claims.map((name) => `${info.pod.metadata.namespace}/${name}`);
    const unbound = keys.filter((key) => !claims.get(key)?.spec.volumeName);
    if (unbound.length === 0) return;
    for (const key of unbound) await claims.patch(key, { metadata: { annotations: { [SELECTED_NODE]: node } } });
    const deadlineMs = this.#deps.clock.monotonic() + CLAIM_WAIT_MS;
    while (unbound.some((key) => !claims.get(key)?.spec.volumeName)) {
      const leftMs = deadlineMs - this.#deps.clock.monotonic();
      if (leftMs <= 0 || this.#stopped || !this.#assumed.has(info.uid))
        throw new Error(`claims ${unbound.join(', ')} were not bound in time`);
      await this.#nextVolumeChange(leftMs);
    }
  }

  #nextVolumeChange(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#volumeWaiters.delete(done);
        cancel();
        resolve();
      };
      const cancel = this.#deps.clock.after(timeoutMs, done);
      this.#volumeWaiters.add(done);
    });
  }

  #nodeChanged(now: Live<Node> | undefined, before: Live<Node> | undefined): void {
    if (!now) {
      if (before) this.#state.removeNode(before.metadata.name);
      // Spread and affinity are measured over the nodes there are.
      this.#queue.changed('pod-gone');
      return;
    }
    this.#state.setNode(now);
    if (!before) this.#queue.changed('node-added');
    else if (nodeFace(now) !== nodeFace(before)) this.#queue.changed('node-changed');
  }

  #podChanged(now: Live<Pod> | undefined, before: Live<Pod> | undefined): void {
    const pod = now ?? before;
    if (!pod) return;
    const { uid } = pod.metadata;
    const over = !now || now.status?.phase === 'Succeeded' || now.status?.phase === 'Failed';
    if (over) {
      this.#queue.forget(uid);
      this.#assumed.delete(uid);
      this.#infos.delete(uid);
      this.#unplaced.delete(`${pod.metadata.namespace}/${pod.metadata.name}`);
      for (const wake of [...this.#volumeWaiters]) wake();
      if (this.#state.remove(uid)) this.#queue.changed('pod-gone');
      return;
    }
    if (now.spec.nodeName) {
      const isNew = !before?.spec.nodeName;
      const info = this.#infoOf(now);
      this.#assumed.delete(uid);
      this.#state.add(info, now.spec.nodeName);
      if (!isNew) return;
      this.#queue.forget(uid);
      this.#unplaced.delete(info.key);
      this.#queue.changed('pod-placed');
      return;
    }
    if (this.#assumed.has(uid)) return;
    const ours = (now.spec.schedulerName || SCHEDULER_NAME) === SCHEDULER_NAME;
    if (ours && !now.metadata.deletionTimestamp && !now.spec.schedulingGates?.length) this.#enqueue(now, before);
    else this.#queue.forget(uid);
  }

  /** Only a change of what the decision looks at brings a waiting pod forward; our own condition is none. */
  #enqueue(now: Live<Pod>, before: Live<Pod> | undefined): void {
    const known = this.#infos.get(now.metadata.uid);
    const info = this.#infoOf(now);
    if (!before || known !== info) this.#queue.add(info);
  }

  #infoOf(pod: Live<Pod>): PodInfo {
    const known = this.#infos.get(pod.metadata.uid);
    if (known && podFace(known.pod) === podFace(pod)) return known;
    const info = podInfo(pod, (selector) =>
      this.#deps.view
        .of(NAMESPACES)
        .list()
        .filter((n) => matchesSelector(selector, n.metadata.labels))
        .map((n) => n.metadata.name),
    );
    this.#infos.set(info.uid, info);
    return info;
  }

  #watchVolumes(): VolumeFacts {
    const { view } = this.#deps;
    const claims = view.of(PERSISTENT_VOLUME_CLAIMS);
    const volumes = view.of(PERSISTENT_VOLUMES);
    const classes = view.of(STORAGE_CLASSES);
    volumes.informer.addIndex('free', (v) => [v.status?.phase === 'Available' ? 'yes' : 'no']);
    const changed = (): void => {
      this.#queue.changed('volume');
      for (const wake of [...this.#volumeWaiters]) wake();
    };
    claims.informer.onChange(changed);
    volumes.informer.onChange(changed);
    classes.informer.onChange(changed);
    return {
      claim: (key) => claims.get(key),
      volume: (name) => volumes.get(name),
      storageClass: (name) => classes.get(name),
      freeVolumes: (): Iterable<Live<PersistentVolume>> => volumes.informer.by('free', 'yes'),
    };
  }
}

/** What of a pod can change a decision while it waits or stands: labels, gates, its ending, its resized resources. */
function podFace({ metadata, spec }: Live<Pod>): string {
  const requests = spec.containers.map((c) => c.resources?.requests ?? null);
  return JSON.stringify([
    metadata.labels,
    !!metadata.deletionTimestamp,
    spec.schedulingGates,
    requests,
    spec.nodeSelector,
    spec.tolerations,
  ]);
}

/** What of a node can turn a verdict; a heartbeat is not in it. */
function nodeFace({ metadata, spec, status }: Live<Node>): string {
  return JSON.stringify([metadata.labels, spec?.unschedulable, spec?.taints, status?.allocatable]);
}
