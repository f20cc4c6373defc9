import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import { below, type Random } from '#base/random.ts';
import { keyOf, LEASES, type Live, microTimestamp, NODES, PODS, timestamp } from '#cluster/client/resources.ts';
import type { ClusterView, Collection } from '#cluster/client/view.ts';
import { isReady } from '#cluster/controllers/pods.ts';
import type { Node, Pod, PodCondition } from '#spec/kubernetes/types.gen.ts';

export interface FakeNodeOptions {
  name: string;
  cpu: string;
  memory: string;
  pods: number;
  labels?: Record<string, string>;
}

export interface KubeletBehaviour {
  /** A container starts within this time, and is ready within it again. */
  startMs: number;
  /** A pod asked to go is gone within this time. */
  stopMs: number;
  /** Chance that a running pod turns unready for a while, looked at once a second. */
  crash: number;
  /** Pods with this label value for `sim` never become ready: the bad version. */
  neverReady: string;
}

export const CALM: KubeletBehaviour = { startMs: 500, stopMs: 500, crash: 0, neverReady: 'bad' };

const HEARTBEAT_MS = 10_000;
const LEASES_NAMESPACE = 'kube-node-lease';
const RETRY_MS = 300;

/**
 * The kubelets of all fake nodes, on one cache. Each pod goes its way by timers: started, ready, perhaps unready for a while, and
 * gone when asked. Pods of Jobs run and succeed. A node that is `dead` does nothing any more.
 */
export class FakeKubelets {
  readonly #view: ClusterView;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #pods: Collection<Pod>;
  readonly #nodes = new Map<string, FakeNodeOptions>();
  readonly #dead = new Set<string>();
  /** Uids whose way has begun, and those whose end has. */
  readonly #started = new Set<string>();
  readonly #ending = new Set<string>();
  /** Uids last reported ready. */
  readonly #ready = new Set<string>();
  #ips = 0;
  behaviour: KubeletBehaviour;

  constructor(options: { view: ClusterView; clock: Clock; random: Random; behaviour: KubeletBehaviour }) {
    this.#view = options.view;
    this.#clock = options.clock;
    this.#random = options.random;
    this.behaviour = options.behaviour;
    this.#pods = options.view.of(PODS);
    this.#pods.informer.addIndex('node', (p) => [p.spec.nodeName ?? '']);
    this.#pods.informer.onChange((now, before) => {
      if (now) this.#see(now);
      else if (before) {
        this.#started.delete(before.metadata.uid);
        this.#ending.delete(before.metadata.uid);
        this.#ready.delete(before.metadata.uid);
      }
    });
  }

  async add(options: FakeNodeOptions): Promise<void> {
    this.#nodes.set(options.name, options);
    await this.#insist(() => this.#register(options));
    this.#heartbeat(options.name);
  }

  kill(name: string): void {
    this.#dead.add(name);
  }

  revive(name: string): void {
    this.#dead.delete(name);
    // What was under way when it died was lost: it starts from what the server says.
    for (const pod of this.#pods.informer.by('node', name)) {
      this.#started.delete(pod.metadata.uid);
      this.#ending.delete(pod.metadata.uid);
      this.#see(pod);
    }
  }

  async #register(options: FakeNodeOptions): Promise<void> {
    const now = timestamp(this.#clock.now());
    const resources = { cpu: options.cpu, memory: options.memory, pods: String(options.pods) };
    const ready = { type: 'Ready', status: 'True', reason: 'KubeletReady', message: 'kubelet is posting ready status' };
    const node: Node = {
      metadata: { name: options.name, labels: { 'kubernetes.io/hostname': options.name, ...options.labels } },
      spec: {},
      status: {
        capacity: resources,
        allocatable: resources,
        conditions: [{ ...ready, lastHeartbeatTime: now, lastTransitionTime: now }],
      },
    };
    const made = await this.#createOrGet(node);
    await this.#view.client.updateStatus(NODES, { ...made, ...(node.status ? { status: node.status } : {}) });
  }

  async #createOrGet(node: Node): Promise<Live<Node>> {
    try {
      return await this.#view.client.create(NODES, node);
    } catch (error) {
      if (!isCode(error, 'KUBE_ALREADY_EXISTS')) throw error;
      return this.#view.client.get(NODES, node.metadata.name ?? '');
    }
  }

  #heartbeat(name: string): void {
    // Spread, so that a thousand nodes do not call in the same millisecond.
    const delayMs = HEARTBEAT_MS - below(this.#random, 1_000);
    this.#clock.after(delayMs, () => {
      this.#heartbeat(name);
      if (!this.#dead.has(name)) void this.#renew(name).catch(lost);
    });
  }

  async #renew(name: string): Promise<void> {
    const key = `${LEASES_NAMESPACE}/${name}`;
    const spec = { holderIdentity: name, leaseDurationSeconds: 40, renewTime: microTimestamp(this.#clock.now()) };
    const held = await this.#view.client.find(LEASES, key);
    if (held) await this.#view.client.update(LEASES, { ...held, spec });
    else await this.#view.client.create(LEASES, { metadata: { namespace: LEASES_NAMESPACE, name }, spec });
    const node = await this.#view.client.find(NODES, name);
    const ready = node?.status?.conditions?.find((c) => c.type === 'Ready');
    if (!node || ready?.status === 'True') return;
    // Back from silence: say so.
    const now = timestamp(this.#clock.now());
    const condition = {
      type: 'Ready',
      status: 'True',
      reason: 'KubeletReady',
      lastHeartbeatTime: now,
      lastTransitionTime: now,
    };
    await this.#view.client.updateStatus(NODES, { ...node, status: { ...node.status, conditions: [condition] } });
  }

  #see(pod: Live<Pod>): void {
    const node = pod.spec.nodeName;
    const { uid, deletionTimestamp } = pod.metadata;
    if (!node || !this.#nodes.has(node) || this.#dead.has(node)) return;
    if (deletionTimestamp && !this.#ending.has(uid)) {
      this.#ending.add(uid);
      this.#later(this.behaviour.stopMs, () => this.#end(pod));
    }
    // The node controller took it for lost while we were silent: as a real kubelet does, say again what is so.
    if (this.#ready.has(uid) && !deletionTimestamp && !isReady(pod))
      this.#later(1_000, async () => {
        if (this.#ready.has(uid)) await this.#report(pod, { phase: 'Running', ready: true });
      });
    if (
      !this.#started.has(uid) &&
      !deletionTimestamp &&
      pod.status?.phase !== 'Succeeded' &&
      pod.status?.phase !== 'Failed'
    ) {
      this.#started.add(uid);
      this.#later(this.behaviour.startMs, () => this.#run(pod));
    }
  }

  #later(withinMs: number, work: () => Promise<void>): void {
    this.#clock.after(1 + below(this.#random, Math.max(1, withinMs)), () => void this.#insist(work).catch(lost));
  }

  async #run(pod: Live<Pod>): Promise<void> {
    const ip = `10.${64 + ((this.#ips >> 16) & 63)}.${(this.#ips >> 8) & 255}.${this.#ips & 255}`;
    this.#ips++;
    await this.#report(pod, { phase: 'Running', ready: false, ip });
    if (pod.metadata.ownerReferences?.some((o) => o.kind === 'Job')) {
      this.#later(this.behaviour.startMs, () => this.#report(pod, { phase: 'Succeeded', ready: false }));
      return;
    }
    if (pod.metadata.labels?.['sim'] === this.behaviour.neverReady) return;
    this.#later(this.behaviour.startMs, async () => {
      await this.#report(pod, { phase: 'Running', ready: true });
      this.#mayCrash(pod);
    });
  }

  #mayCrash(pod: Live<Pod>): void {
    if (this.behaviour.crash === 0) return;
    this.#clock.after(1_000, () => {
      if (this.#ending.has(pod.metadata.uid) || !this.#started.has(pod.metadata.uid)) return;
      if (this.#random.next() >= this.behaviour.crash) {
        this.#mayCrash(pod);
        return;
      }
      void this.#crash(pod).catch(lost);
    });
  }

  /** One report after the other: a late "not ready" must not overtake the "ready" that follows it. */
  async #crash(pod: Live<Pod>): Promise<void> {
    await this.#insist(() => this.#report(pod, { phase: 'Running', ready: false }));
    this.#later(3_000, async () => {
      await this.#report(pod, { phase: 'Running', ready: true });
      this.#mayCrash(pod);
    });
  }

  async #report(pod: Live<Pod>, as: { phase: string; ready: boolean; ip?: string }): Promise<void> {
    const present = await this.#view.client.find(PODS, keyOf(pod));
    if (present?.metadata.uid !== pod.metadata.uid || this.#dead.has(pod.spec.nodeName ?? '')) return;
    if (as.ready) this.#ready.add(pod.metadata.uid);
    else this.#ready.delete(pod.metadata.uid);
    const now = timestamp(this.#clock.now());
    const status = as.ready ? 'True' : 'False';
    const had = (present.status?.conditions ?? []).filter((c) => c.type !== 'Ready' && c.type !== 'ContainersReady');
    const known = present.status?.conditions?.find((c) => c.type === 'Ready');
    const lastTransitionTime = known?.status === status ? (known.lastTransitionTime ?? now) : now;
    const conditions: PodCondition[] = [
      ...had,
      { type: 'Ready', status, lastTransitionTime },
      { type: 'ContainersReady', status, lastTransitionTime },
    ];
    const ip = as.ip && !present.status?.podIP ? { podIP: as.ip, podIPs: [{ ip: as.ip }] } : {};
    await this.#view.client.updateStatus(PODS, {
      ...present,
      status: { ...present.status, ...ip, phase: as.phase as 'Running', conditions },
    });
  }

  async #end(pod: Live<Pod>): Promise<void> {
    const preconditions = { uid: pod.metadata.uid };
    try {
      await this.#view.client.delete(PODS, keyOf(pod), { gracePeriodSeconds: 0, preconditions });
    } catch (error) {
      if (!isCode(error, 'KUBE_NOT_FOUND')) throw error;
    }
  }

  /** A kubelet does not give up: what the network lost or somebody else overtook is tried again. */
  async #insist(work: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        await work();
        return;
      } catch (error) {
        if (!isCode(error, 'KUBE_UNREACHABLE', 'KUBE_CONFLICT', 'KUBE_ALREADY_EXISTS')) throw error;
        await new Promise<void>((go) => void this.#clock.after(RETRY_MS, go));
      }
    }
  }
}

/** The pod or node has gone meanwhile: nothing is left to report on. */
function lost(): void {}
