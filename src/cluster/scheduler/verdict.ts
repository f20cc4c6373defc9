/**
 * Why a node cannot take a pod. Codes are stable: tools and `estiba why` match them; texts are Kubernetes', as people know them
 * from `kubectl describe pod`.
 */
export type VerdictCode =
  | 'NODE_NAME'
  | 'NODE_UNSCHEDULABLE'
  | 'TAINT'
  | 'NODE_AFFINITY'
  | 'PORTS'
  | 'RESOURCES'
  | 'TOO_MANY_PODS'
  | 'POD_AFFINITY'
  | 'POD_ANTI_AFFINITY'
  | 'EXISTING_ANTI_AFFINITY'
  | 'SPREAD'
  | 'SPREAD_LABEL'
  | 'CLAIM_MISSING'
  | 'CLAIM_UNBOUND'
  | 'VOLUME_NODE'
  | 'VOLUME_NONE_FREE'
  | 'VOLUME_IN_USE';

export interface Verdict {
  code: VerdictCode;
  /** What counts as one reason in the summary: `Insufficient cpu`. */
  text: string;
}

/** What happened in the cluster that may let a pod through which did not fit before. */
export type ClusterChange = 'node-added' | 'node-changed' | 'pod-gone' | 'pod-placed' | 'volume';

/** Which changes can turn a verdict round; a pod waits until one of those of its verdicts happens. */
export const TURNED_BY: Record<VerdictCode, readonly ClusterChange[]> = {
  NODE_NAME: ['node-added'],
  NODE_UNSCHEDULABLE: ['node-added', 'node-changed'],
  TAINT: ['node-added', 'node-changed'],
  NODE_AFFINITY: ['node-added', 'node-changed'],
  PORTS: ['node-added', 'pod-gone'],
  RESOURCES: ['node-added', 'node-changed', 'pod-gone'],
  TOO_MANY_PODS: ['node-added', 'node-changed', 'pod-gone'],
  POD_AFFINITY: ['node-added', 'node-changed', 'pod-placed'],
  POD_ANTI_AFFINITY: ['node-added', 'node-changed', 'pod-gone'],
  EXISTING_ANTI_AFFINITY: ['node-added', 'node-changed', 'pod-gone'],
  SPREAD: ['node-added', 'node-changed', 'pod-gone', 'pod-placed'],
  SPREAD_LABEL: ['node-added', 'node-changed'],
  CLAIM_MISSING: ['volume'],
  CLAIM_UNBOUND: ['volume'],
  VOLUME_NODE: ['volume', 'node-added', 'node-changed'],
  VOLUME_NONE_FREE: ['volume', 'node-added'],
  VOLUME_IN_USE: ['pod-gone'],
};

/** `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {dedicated: db}.` */
export function summary(total: number, byNode: ReadonlyMap<string, readonly Verdict[]>, forAll?: Verdict): string {
  if (total === 0) return 'no nodes available to schedule pods';
  const head = `0/${total} nodes are available`;
  if (forAll) return `${head}: ${forAll.text}.`;
  const counts = new Map<string, number>();
  for (const verdicts of byNode.values())
    for (const { text } of verdicts) counts.set(text, (counts.get(text) ?? 0) + 1);
  const reasons = [...counts].map(([text, count]) => `${count} ${text}`).sort();
  return `${head}: ${reasons.join(', ')}.`;
}
