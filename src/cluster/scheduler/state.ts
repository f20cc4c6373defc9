import { controllerOf, keyOf, type Live, type ObjectKey } from '#cluster/client/resources.ts';
import { type Amounts, amountsOf, podAmounts } from '#spec/kubernetes/pod-resources.ts';
import { claimNameOf } from '#spec/kubernetes/pod-volumes.ts';
import { matchesRequirements, type Requirement, requirementsOf } from '#spec/kubernetes/selector.ts';
import type { LabelSelector, Node, Pod, PodAffinityTerm } from '#spec/kubernetes/types.gen.ts';

/** A pod with what the plugins ask of it, computed once. */
export interface PodInfo {
  key: ObjectKey;
  uid: string;
  pod: Live<Pod>;
  requests: Amounts;
  ports: readonly HostPort[];
  terms: readonly Term[];
  claims: readonly string[];
  /** Uid of the owner; pods of one owner are spread. */
  owner: string | undefined;
}

export interface HostPort {
  port: number;
  protocol: string;
  ip: string;
}

/** A pod (anti-)affinity term; `id` is equal for equal terms, so that a thousand replicas share one count. */
export interface Term {
  id: string;
  kind: 'affinity' | 'anti-affinity';
  required: boolean;
  weight: number;
  topologyKey: string;
  count: CountKey;
}

/** Names a set of pods: namespaces (undefined: all) and a selector. */
export interface CountKey {
  id: string;
  namespaces: ReadonlySet<string> | undefined;
  requirements: readonly Requirement[] | undefined;
  /** Spread constraints look past pods that are on their way out; affinity does not. */
  liveOnly: boolean;
}

/** The namespaces whose labels a selector matches. */
export type NamespaceLookup = (selector: LabelSelector) => readonly string[];

export interface NodeInfo {
  name: string;
  node: Live<Node>;
  labels: Readonly<Record<string, string>>;
  allocatable: Amounts;
  requested: Amounts;
  /** As `requested`, with a guess for pods that name nothing: they are not free. Scores use it. */
  guessed: { cpu: number; memory: number };
  pods: Map<string, PodInfo>;
  owners: Map<string, number>;
  images: Map<string, number>;
}

// The guess for a container set without requests: upstream's figures.
const GUESS = { cpu: 100, memory: 200 * 1024 * 1024 };
// Counts kept current for different selectors; the one unused for longest is dropped and recounted when asked for again.
const MAX_COUNTS = 256;

/**
 * Nodes and what stands on them, with counts that pods' coming and going keeps current, so that a decision costs O(nodes) and
 * never O(pods). `add` and `remove` are idempotent by uid: an assumed pod and its watch event are one.
 */
export class ClusterState {
  readonly nodes = new Map<string, NodeInfo>();
  /** Nodes in a stable order, for rotating through them. */
  order: NodeInfo[] = [];
  readonly #placed = new Map<string, { info: PodInfo; nodeName: string }>();
  /** Pods on nodes that are not known yet. */
  readonly #early = new Map<string, Map<string, PodInfo>>();
  readonly #counts = new Map<string, { key: CountKey; perNode: Map<string, number> }>();
  readonly #terms = new Map<string, { term: Term; perNode: Map<string, number> }>();
  readonly #claims = new Map<string, number>();
  readonly #imageNodes = new Map<string, number>();

  setNode(node: Live<Node>): void {
    const { name, labels = {} } = node.metadata;
    const known = this.nodes.get(name);
    const allocatable = amountsOf(node.status?.allocatable ?? node.status?.capacity);
    const images = imagesOf(node);
    for (const image of known?.images.keys() ?? []) bump(this.#imageNodes, image, -1);
    for (const image of images.keys()) bump(this.#imageNodes, image, 1);
    if (known) {
      Object.assign(known, { node, labels, allocatable, images });
      return;
    }
    const info: NodeInfo = {
      name,
      node,
      labels,
      allocatable,
      images,
      requested: {},
      guessed: { cpu: 0, memory: 0 },
      pods: new Map(),
      owners: new Map(),
    };
    this.nodes.set(name, info);
    this.order.push(info);
    for (const pod of this.#early.get(name)?.values() ?? []) this.#occupy(info, pod, 1);
    this.#early.delete(name);
  }

  removeNode(name: string): void {
    const info = this.nodes.get(name);
    if (!info) return;
    for (const image of info.images.keys()) bump(this.#imageNodes, image, -1);
    const pods = new Map(info.pods);
    for (const pod of pods.values()) this.#occupy(info, pod, -1);
    this.nodes.delete(name);
    this.order = this.order.filter((n) => n !== info);
    if (pods.size > 0) this.#early.set(name, pods);
  }

  has(uid: string): boolean {
    return this.#placed.has(uid);
  }

  /** Puts a pod on a node; a changed pod (labels, resources) replaces its former self. */
  add(info: PodInfo, nodeName: string): void {
    const known = this.#placed.get(info.uid);
    if (known && known.info.pod === info.pod && known.nodeName === nodeName) return;
    this.remove(info.uid);
    this.#placed.set(info.uid, { info, nodeName });
    const node = this.nodes.get(nodeName);
    if (node) this.#occupy(node, info, 1);
    else {
      const waiting = this.#early.get(nodeName) ?? new Map<string, PodInfo>();
      this.#early.set(nodeName, waiting.set(info.uid, info));
    }
  }

  /** True when it was there. */
  remove(uid: string): boolean {
    const known = this.#placed.get(uid);
    if (!known) return false;
    this.#placed.delete(uid);
    const node = this.nodes.get(known.nodeName);
    if (node) this.#occupy(node, known.info, -1);
    const early = this.#early.get(known.nodeName);
    early?.delete(uid);
    if (early?.size === 0) this.#early.delete(known.nodeName);
    return true;
  }

  /** Pods of the set on each node that has one. Terminating pods do not count. */
  countsOf(key: CountKey): ReadonlyMap<string, number> {
    const known = this.#counts.get(key.id);
    if (known) {
      this.#counts.delete(key.id);
      this.#counts.set(key.id, known);
      return known.perNode;
    }
    const perNode = new Map<string, number>();
    for (const { info, nodeName } of this.#placed.values())
      if (this.nodes.has(nodeName) && countsFor(key, info)) bump(perNode, nodeName, 1);
    this.#counts.set(key.id, { key, perNode });
    if (this.#counts.size > MAX_COUNTS) {
      const oldest = this.#counts.keys().next().value;
      if (oldest !== undefined) this.#counts.delete(oldest);
    }
    return perNode;
  }

  /** The terms of placed pods that this pod matches, each with the nodes where such pods stand. */
  *termsAbout(pod: PodInfo): Generator<{ term: Term; perNode: ReadonlyMap<string, number> }> {
    for (const entry of this.#terms.values()) if (countsFor(entry.term.count, pod)) yield entry;
  }

  claimUsers(claim: ObjectKey): number {
    return this.#claims.get(claim) ?? 0;
  }

  /** How many nodes hold an image. */
  imageSpread(image: string): number {
    return this.#imageNodes.get(image) ?? 0;
  }

  #occupy(node: NodeInfo, info: PodInfo, sign: 1 | -1): void {
    if (sign === 1) node.pods.set(info.uid, info);
    else node.pods.delete(info.uid);
    for (const [name, amount] of Object.entries(info.requests))
      node.requested[name] = (node.requested[name] ?? 0) + sign * amount;
    node.guessed.cpu += sign * (info.requests['cpu'] || GUESS.cpu);
    node.guessed.memory += sign * (info.requests['memory'] || GUESS.memory);
    if (info.owner) bump(node.owners, info.owner, sign);
    for (const claim of info.claims) bump(this.#claims, `${info.pod.metadata.namespace}/${claim}`, sign);
    for (const term of info.terms) {
      const known = this.#terms.get(term.id) ?? { term, perNode: new Map<string, number>() };
      bump(known.perNode, node.name, sign);
      if (known.perNode.size === 0) this.#terms.delete(term.id);
      else this.#terms.set(term.id, known);
    }
    for (const { key, perNode } of this.#counts.values()) if (countsFor(key, info)) bump(perNode, node.name, sign);
  }
}

export function guessedOf(info: PodInfo): { cpu: number; memory: number } {
  return { cpu: info.requests['cpu'] || GUESS.cpu, memory: info.requests['memory'] || GUESS.memory };
}

export function podInfo(pod: Live<Pod>, namespacesWith: NamespaceLookup): PodInfo {
  const spec = pod.spec;
  return {
    key: keyOf(pod),
    uid: pod.metadata.uid,
    pod,
    requests: podAmounts(spec),
    ports: hostPortsOf(pod),
    terms: termsOf(pod, namespacesWith),
    claims: (spec.volumes ?? []).flatMap((volume) => claimNameOf(pod, volume) ?? []),
    owner: controllerOf(pod)?.uid,
  };
}

/** `namespaces: undefined` in the key means all of them. */
export function countKey(
  namespaces: ReadonlySet<string> | undefined,
  selector: LabelSelector | undefined,
  options: { extra?: Record<string, string>; liveOnly?: boolean } = {},
): CountKey {
  const { extra = {}, liveOnly = false } = options;
  const requirements = selector && [
    ...requirementsOf(selector),
    ...Object.entries(extra).map(([key, value]): Requirement => ({ key, operator: 'In', values: [value] })),
  ];
  const id = `${liveOnly} ${namespaces ? [...namespaces].sort().join(',') : '*'} ${JSON.stringify(requirements ?? null)}`;
  return { id, namespaces, requirements, liveOnly };
}

function countsFor(key: CountKey, info: PodInfo): boolean {
  const { namespace = '', labels, deletionTimestamp } = info.pod.metadata;
  if ((key.liveOnly && deletionTimestamp) || !key.requirements) return false;
  return (!key.namespaces || key.namespaces.has(namespace)) && matchesRequirements(key.requirements, labels);
}

function hostPortsOf(pod: Pod): HostPort[] {
  const containers = [
    ...pod.spec.containers,
    ...(pod.spec.initContainers ?? []).filter((c) => c.restartPolicy === 'Always'),
  ];
  return containers.flatMap((c) =>
    (c.ports ?? []).flatMap((p) => {
      const port = p.hostPort ?? (pod.spec.hostNetwork ? p.containerPort : 0);
      return port > 0 ? [{ port, protocol: p.protocol ?? 'TCP', ip: p.hostIP || '0.0.0.0' }] : [];
    }),
  );
}

function besides(selector: LabelSelector, more: LabelSelector['matchExpressions'] = []): LabelSelector {
  return { ...selector, matchExpressions: [...(selector.matchExpressions ?? []), ...more] };
}

function termsOf(pod: Live<Pod>, namespacesWith: NamespaceLookup): Term[] {
  const { podAffinity, podAntiAffinity } = pod.spec.affinity ?? {};
  const term = (kind: Term['kind'], required: boolean, weight: number, t: PodAffinityTerm): Term => {
    const namespaces = namespacesOf(t, pod.metadata.namespace ?? '', namespacesWith);
    const extra: Record<string, string> = {};
    for (const key of t.matchLabelKeys ?? []) {
      const value = pod.metadata.labels?.[key];
      if (value !== undefined) extra[key] = value;
    }
    const others = (t.mismatchLabelKeys ?? []).flatMap((key) => {
      const value = pod.metadata.labels?.[key];
      return value === undefined ? [] : [{ key, operator: 'NotIn' as const, values: [value] }];
    });
    const selector = others.length === 0 || !t.labelSelector ? t.labelSelector : besides(t.labelSelector, others);
    const count = countKey(namespaces, selector, { extra });
    return {
      id: `${kind} ${required} ${weight} ${t.topologyKey} ${count.id}`,
      kind,
      required,
      weight,
      topologyKey: t.topologyKey,
      count,
    };
  };
  return [
    ...(podAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? []).map((t) => term('affinity', true, 1, t)),
    ...(podAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []).map((t) =>
      term('affinity', false, t.weight, t.podAffinityTerm),
    ),
    ...(podAntiAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? []).map((t) =>
      term('anti-affinity', true, 1, t),
    ),
    ...(podAntiAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []).map((t) =>
      term('anti-affinity', false, t.weight, t.podAffinityTerm),
    ),
  ];
}

/** Named ones and selected ones together; the pod's own when neither is given. An empty selector means all. */
function namespacesOf(term: PodAffinityTerm, own: string, namespacesWith: NamespaceLookup): Set<string> | undefined {
  const { namespaces = [], namespaceSelector } = term;
  if (!namespaceSelector) return new Set(namespaces.length > 0 ? namespaces : [own]);
  if (requirementsOf(namespaceSelector).length === 0) return undefined;
  return new Set([...namespaces, ...namespacesWith(namespaceSelector)]);
}

function imagesOf(node: Node): Map<string, number> {
  const out = new Map<string, number>();
  for (const image of node.status?.images ?? [])
    for (const name of image.names ?? []) out.set(name, image.sizeBytes ?? 0);
  return out;
}

function bump(map: Map<string, number>, key: string, by: number): void {
  const next = (map.get(key) ?? 0) + by;
  if (next === 0) map.delete(key);
  else map.set(key, next);
}
