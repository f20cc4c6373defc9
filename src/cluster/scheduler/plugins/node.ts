import { isTolerated, matchesNodeSelector, matchesNodeTerm } from '#spec/kubernetes/node-match.ts';
import type { Taint } from '#spec/kubernetes/types.gen.ts';
import type { NodeInfo } from '../state.ts';
import type { Verdict } from '../verdict.ts';
import type { FilterPlugin, ScorePlugin } from './plugin.ts';

const UNSCHEDULABLE: Verdict = { code: 'NODE_UNSCHEDULABLE', text: 'node(s) were unschedulable' };
const AFFINITY: Verdict = { code: 'NODE_AFFINITY', text: "node(s) didn't match Pod's node affinity/selector" };
const UNSCHEDULABLE_TAINT: Taint = { key: 'node.kubernetes.io/unschedulable', effect: 'NoSchedule' };

export const nodeName: FilterPlugin = {
  name: 'NodeName',
  prepare({ pod }) {
    const wanted = pod.spec.nodeName;
    if (!wanted) return undefined;
    const verdict: Verdict = { code: 'NODE_NAME', text: "node(s) didn't match the requested node name" };
    return (node) => (node.name === wanted ? undefined : verdict);
  },
};

export const nodeUnschedulable: FilterPlugin = {
  name: 'NodeUnschedulable',
  prepare({ pod }) {
    const tolerated = isTolerated(UNSCHEDULABLE_TAINT, pod.spec.tolerations);
    return (node) => (node.node.spec?.unschedulable && !tolerated ? UNSCHEDULABLE : undefined);
  },
};

export const taints: FilterPlugin = {
  name: 'TaintToleration',
  prepare({ pod }) {
    const { tolerations } = pod.spec;
    return ({ node }) => {
      for (const taint of node.spec?.taints ?? []) {
        if (taint.effect === 'PreferNoSchedule' || isTolerated(taint, tolerations)) continue;
        return { code: 'TAINT', text: `node(s) had untolerated taint {${taint.key}: ${taint.value ?? ''}}` };
      }
      return undefined;
    };
  },
};

export const preferUntainted: ScorePlugin = {
  name: 'TaintToleration',
  weight: 3,
  scale: 'down',
  prepare({ pod }, _sight, candidates) {
    const soft = ({ node }: NodeInfo): Taint[] =>
      (node.spec?.taints ?? []).filter((t) => t.effect === 'PreferNoSchedule');
    if (!candidates.some((n) => soft(n).length > 0)) return undefined;
    return (node) => soft(node).filter((t) => !isTolerated(t, pod.spec.tolerations)).length;
  },
};

export const nodeAffinity: FilterPlugin = {
  name: 'NodeAffinity',
  prepare({ pod }) {
    const required = pod.spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
    const wanted = Object.entries(pod.spec.nodeSelector ?? {});
    if (!required && wanted.length === 0) return undefined;
    return (node) =>
      wanted.every(([key, value]) => node.labels[key] === value) && (!required || matchesNodeSelector(required, node))
        ? undefined
        : AFFINITY;
  },
};

export const preferAffinity: ScorePlugin = {
  name: 'NodeAffinity',
  weight: 2,
  scale: 'up',
  prepare({ pod }) {
    const preferred = pod.spec.affinity?.nodeAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [];
    if (preferred.length === 0) return undefined;
    return (node) => preferred.reduce((sum, p) => (matchesNodeTerm(p.preference, node) ? sum + p.weight : sum), 0);
  },
};
