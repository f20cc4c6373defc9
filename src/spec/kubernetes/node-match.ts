import type { NodeSelector, NodeSelectorTerm, Taint, Toleration } from './types.gen.ts';

/** An empty toleration key with Exists tolerates all; an empty effect matches every effect. */
export function isTolerated(taint: Taint, tolerations: readonly Toleration[] | undefined): boolean {
  return (tolerations ?? []).some((t) => {
    if (t.effect && t.effect !== taint.effect) return false;
    if (t.key && t.key !== taint.key) return false;
    if (t.operator === 'Exists') return true;
    return t.key !== undefined && t.key !== '' && (t.value ?? '') === (taint.value ?? '');
  });
}

export interface NamedNode {
  name: string;
  labels: Readonly<Record<string, string>>;
}

/** Terms are alternatives. */
export function matchesNodeSelector(selector: NodeSelector, node: NamedNode): boolean {
  return selector.nodeSelectorTerms.some((term) => matchesNodeTerm(term, node));
}

/** All expressions of a term must hold; a term without any matches nothing. */
export function matchesNodeTerm(term: NodeSelectorTerm, node: NamedNode): boolean {
  const { matchExpressions = [], matchFields = [] } = term;
  if (matchExpressions.length + matchFields.length === 0) return false;
  return (
    matchExpressions.every((e) => holds(e, node.labels[e.key])) &&
    matchFields.every((e) => holds(e, e.key === 'metadata.name' ? node.name : undefined))
  );
}

function holds(e: { operator: string; values?: readonly string[] }, value: string | undefined): boolean {
  const { values = [] } = e;
  switch (e.operator) {
    case 'In':
      return value !== undefined && values.includes(value);
    case 'NotIn':
      return value === undefined || !values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
    case 'Gt':
      return value !== undefined && /^-?\d+$/.test(value) && Number(value) > Number(values[0]);
    case 'Lt':
      return value !== undefined && /^-?\d+$/.test(value) && Number(value) < Number(values[0]);
    default:
      return false;
  }
}
