import type { ResourceFacts, TypeFacts } from '#spec/kubernetes/facts.ts';

/** `metrics.k8s.io`: what nodes and pods use, measured when somebody asks; nothing of it is stored. Kubernetes' own facts lack it. */
export const METRICS_GROUP = 'metrics.k8s.io';
const VERSION = 'v1beta1';
const API_VERSION = `${METRICS_GROUP}/${VERSION}`;

export const FIGURE_RESOURCES: readonly ResourceFacts[] = [
  figureResource('nodes', 'NodeMetrics', false),
  figureResource('pods', 'PodMetrics', true),
];

function figureResource(resource: string, kind: string, namespaced: boolean): ResourceFacts {
  const type: TypeFacts = {
    name: `metrics.${VERSION}.${kind}`,
    atomic: false,
    fields: new Map(),
    apiVersion: API_VERSION,
    kind,
  };
  return {
    group: METRICS_GROUP,
    version: VERSION,
    apiVersion: API_VERSION,
    resource,
    singular: '',
    kind,
    namespaced,
    verbs: new Set(['get', 'list'] as const),
    shortNames: [],
    categories: [],
    subresources: new Map(),
    type,
  };
}
