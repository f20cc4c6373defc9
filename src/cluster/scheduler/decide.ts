import type { Random } from '#base/random.ts';
import { pick } from '#base/random.ts';
import { nodeAffinity, nodeName, nodeUnschedulable, preferAffinity, preferUntainted, taints } from './plugins/node.ts';
import type { FilterPlugin, NodeFilter, ScorePlugin, Sight } from './plugins/plugin.ts';
import { balanced, imageLocality, leastAllocated, ports, resources } from './plugins/resources.ts';
import { podAffinity, preferPodAffinity, preferSpread, spread } from './plugins/topology.ts';
import { volumes } from './plugins/volumes.ts';
import type { NodeInfo, PodInfo } from './state.ts';
import type { Verdict } from './verdict.ts';

// In this order a node's first objection is the one shown; the cheap ones come first.
export const FILTERS: readonly FilterPlugin[] = [
  nodeUnschedulable,
  nodeName,
  taints,
  nodeAffinity,
  ports,
  resources,
  volumes,
  spread,
  podAffinity,
];

export const SCORES: readonly ScorePlugin[] = [
  preferUntainted,
  preferAffinity,
  preferSpread,
  preferPodAffinity,
  leastAllocated,
  balanced,
  imageLocality,
];

export type Decision =
  | { fits: true; node: string; score: number; looked: number }
  | { fits: false; total: number; byNode: Map<string, readonly Verdict[]>; forAll: Verdict | undefined };

// Upstream's rule: small clusters are searched whole; of larger ones enough nodes to choose well among, at least a hundred.
const SEARCH_ALL_UP_TO = 100;

export function enoughNodes(total: number): number {
  if (total <= SEARCH_ALL_UP_TO) return total;
  const percent = Math.max(5, 50 - Math.floor(total / 125));
  return Math.max(SEARCH_ALL_UP_TO, Math.floor((total * percent) / 100));
}

/**
 * Chooses a node for a pod, or says for each node why not. Pure: the same sight, random and `startAt` give the same answer.
 * `startAt` rotates where the search begins, so that all nodes of a large cluster get their turn.
 */
export function decide(pod: PodInfo, sight: Sight, random: Random, startAt = 0): Decision {
  const { order } = sight.state;
  const byNode = new Map<string, readonly Verdict[]>();
  const checks: NodeFilter[] = [];
  for (const plugin of FILTERS) {
    const check = plugin.prepare(pod, sight);
    if (typeof check === 'function') checks.push(check);
    else if (check) return { fits: false, total: order.length, byNode, forAll: check.forAll };
  }

  const candidates: NodeInfo[] = [];
  const wanted = enoughNodes(order.length);
  let looked = 0;
  for (; looked < order.length && candidates.length < wanted; looked++) {
    const node = order[(startAt + looked) % order.length];
    if (!node) continue;
    const objection = firstObjection(node, checks);
    if (objection) byNode.set(node.name, objection);
    else candidates.push(node);
  }

  if (candidates.length === 0) return { fits: false, total: order.length, byNode, forAll: undefined };
  const { node, score } = best(pod, sight, candidates, random);
  return { fits: true, node: node.name, score, looked };
}

function firstObjection(node: NodeInfo, checks: readonly NodeFilter[]): readonly Verdict[] | undefined {
  for (const check of checks) {
    const verdict = check(node);
    if (verdict) return Array.isArray(verdict) ? (verdict as readonly Verdict[]) : [verdict as Verdict];
  }
  return undefined;
}

/** Equal scores are decided by chance, or the first node by name would fill up first. */
function best(
  pod: PodInfo,
  sight: Sight,
  candidates: readonly NodeInfo[],
  random: Random,
): { node: NodeInfo; score: number } {
  const totals = new Float64Array(candidates.length);
  if (candidates.length > 1) {
    for (const plugin of SCORES) {
      const score = plugin.prepare(pod, sight, candidates);
      if (!score) continue;
      const raw = Float64Array.from(candidates, score);
      rescale(raw, plugin.scale);
      for (let i = 0; i < raw.length; i++) totals[i] = (totals[i] ?? 0) + plugin.weight * Math.round(raw[i] ?? 0);
    }
  }
  const top = totals.reduce((most, total) => Math.max(most, total), 0);
  const ties: number[] = [];
  for (let i = 0; i < totals.length; i++) if (totals[i] === top) ties.push(i);
  const winner = pick(random, ties);
  const node = candidates[winner];
  if (!node) throw new RangeError('best of no candidates');
  return { node, score: top };
}

function rescale(raw: Float64Array, scale: ScorePlugin['scale']): void {
  if (scale === 'as-is') return;
  let [min, max] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const value of raw) {
    min = Math.min(min, value);
    max = Math.max(max, value);
  }
  for (let i = 0; i < raw.length; i++) {
    const value = raw[i] ?? 0;
    if (scale === 'min-max') raw[i] = max === min ? 0 : (100 * (value - min)) / (max - min);
    else if (max <= 0) raw[i] = scale === 'down' ? 100 : 0;
    else raw[i] = scale === 'up' ? (100 * value) / max : (100 * (max - value)) / max;
  }
}
