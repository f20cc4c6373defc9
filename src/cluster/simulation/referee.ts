import { controllerOf, DEPLOYMENTS, keyOf, type Live, NODES, PODS, REPLICA_SETS } from '#cluster/client/resources.ts';
import type { ClusterView } from '#cluster/client/view.ts';
import { isActive, isOver, isReady } from '#cluster/controllers/pods.ts';
import { bounds } from '#cluster/controllers/rollout.ts';
import { amountsOf, podAmounts } from '#spec/kubernetes/pod-resources.ts';
import type { Deployment, Pod } from '#spec/kubernetes/types.gen.ts';

/**
 * Looks at every change of the true state, through a network without faults, and notes what must never be. Rules that hold only
 * while no pod crashes (availability during a rollout) are watched for deployments named in `guarded`.
 */
export class Referee {
  readonly fouls: string[] = [];
  /** Deployments that are up: from now on they may not fall below their bounds. */
  readonly guarded = new Set<string>();
  readonly #view: ClusterView;

  constructor(view: ClusterView) {
    this.#view = view;
    view.of(NODES);
    view.of(DEPLOYMENTS);
    view.of(REPLICA_SETS);
    const pods = view.of(PODS);
    pods.informer.addIndex('node', (p) => [p.spec.nodeName ?? '']);
    pods.informer.onChange((now, before) => {
      if (now?.spec.nodeName && !before?.spec.nodeName) this.#fits(now.spec.nodeName);
      if (now && before?.spec.nodeName && now.spec.nodeName !== before.spec.nodeName)
        this.#foul(`${keyOf(now)} moved from ${before.spec.nodeName} to ${now.spec.nodeName}`);
      const deployment = this.#deploymentOf((now ?? before) as Live<Pod>);
      if (deployment) this.#withinBounds(deployment);
    });
  }

  #foul(what: string): void {
    this.fouls.push(what);
  }

  /** Every placed pod fits its node. */
  #fits(nodeName: string): void {
    const node = this.#view.of(NODES).get(nodeName);
    if (!node) return;
    const room = amountsOf(node.status?.allocatable);
    const here = this.#view
      .of(PODS)
      .informer.by('node', nodeName)
      .filter((p) => !isOver(p));
    const used: Record<string, number> = { pods: here.length };
    for (const pod of here)
      for (const [name, amount] of Object.entries(podAmounts(pod.spec))) used[name] = (used[name] ?? 0) + amount;
    for (const [name, amount] of Object.entries(used))
      if (amount > (room[name] ?? 0)) this.#foul(`node ${nodeName} has ${amount} of ${room[name] ?? 0} ${name} taken`);
  }

  #deploymentOf(pod: Live<Pod>): Live<Deployment> | undefined {
    const set = controllerOf(pod);
    if (set?.kind !== 'ReplicaSet') return undefined;
    const owner = this.#view.of(REPLICA_SETS).get(`${pod.metadata.namespace}/${set.name}`);
    const reference = owner && controllerOf(owner);
    const deployment = reference && this.#view.of(DEPLOYMENTS).get(`${pod.metadata.namespace}/${reference.name}`);
    return deployment?.metadata.uid === reference?.uid ? deployment : undefined;
  }

  podsOf(deployment: Live<Deployment>): Live<Pod>[] {
    return this.#view
      .of(REPLICA_SETS)
      .ownedBy(deployment.metadata.uid)
      .flatMap((set) => this.#view.of(PODS).ownedBy(set.metadata.uid));
  }

  /** A rolling update never exceeds its surge, and a guarded one never falls below what must be available. */
  #withinBounds(deployment: Live<Deployment>): void {
    const key = keyOf(deployment);
    if (!this.guarded.has(key)) return;
    const { desired, surge, unavailable } = bounds(deployment);
    const active = this.podsOf(deployment).filter(isActive);
    if (active.length > desired + surge) this.#foul(`${key} has ${active.length} pods, ${desired}+${surge} allowed`);
    const ready = active.filter(isReady).length;
    if (ready < desired - unavailable) this.#foul(`${key} has ${ready} ready, ${desired}-${unavailable} needed`);
  }
}
