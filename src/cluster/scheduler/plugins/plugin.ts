import type { ClusterState, NodeInfo, PodInfo } from '../state.ts';
import type { Verdict } from '../verdict.ts';
import type { VolumeFacts } from './volumes.ts';

/** What a decision may look at. Nothing in it changes while a decision is made. */
export interface Sight {
  state: ClusterState;
  volumes: VolumeFacts;
}

export type NodeFilter = (node: NodeInfo) => Verdict | readonly Verdict[] | undefined;
export type NodeScore = (node: NodeInfo) => number;

/**
 * `prepare` looks at the pod once and answers what to ask of each node; undefined when the plugin has nothing to say about this
 * pod. A verdict instead of a function holds for every node.
 */
export interface FilterPlugin {
  name: string;
  prepare(pod: PodInfo, sight: Sight): NodeFilter | { forAll: Verdict } | undefined;
}

export interface ScorePlugin {
  name: string;
  weight: number;
  /** Raw scores; `scale` says how they become 0…100: `as-is` they are already, `up` most is best, `down` least is best. */
  scale: 'as-is' | 'up' | 'down' | 'min-max';
  prepare(pod: PodInfo, sight: Sight, candidates: readonly NodeInfo[]): NodeScore | undefined;
}
