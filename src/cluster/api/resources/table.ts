import { kubernetesFacts, type ResourceFacts, type TypeFacts } from '#spec/kubernetes/facts.ts';
import type { SelectableFields } from '../selectors.ts';
import { dns1035Label, dnsLabel, dnsSubdomain, type NameRule, pathSegment } from '../validation/names.ts';
import { AUTOSCALERS, type Conversion, EVENTS } from './conversion.ts';
import { selectableFields } from './fields.ts';
import { FIGURE_RESOURCES, METRICS_GROUP } from './figures.ts';
import { HOOKS, type Hooks } from './hooks.ts';

/** A served resource: its facts and, where it has any, its own behaviour. Everything else is common. */
export interface Resource {
  facts: ResourceFacts;
  /** Folder in the store; two versions of a kind share one. */
  storage: string;
  conversion: Conversion | undefined;
  /** The type that is stored, defaulted, validated and merged. */
  storedType: TypeFacts;
  nameRule: NameRule;
  fields: SelectableFields;
  /** Status is written through its own sub-resource only. */
  hasStatus: boolean;
  /** metadata.generation counts changes of the spec. */
  hasGeneration: boolean;
  hooks: Hooks;
}

const CONVERSIONS: Record<string, { conversion: Conversion; stored: string }> = {
  'autoscaling/v1 HorizontalPodAutoscaler': {
    conversion: AUTOSCALERS,
    stored: 'autoscaling/v2 HorizontalPodAutoscaler',
  },
  'events.k8s.io/v1 Event': { conversion: EVENTS, stored: 'v1 Event' },
};

const NAME_RULES: Record<string, NameRule> = {
  namespaces: dnsLabel,
  services: dns1035Label,
  roles: pathSegment,
  rolebindings: pathSegment,
  clusterroles: pathSegment,
  clusterrolebindings: pathSegment,
};

const GENERATED = new Set(
  'pods deployments replicasets statefulsets daemonsets replicationcontrollers jobs cronjobs ingresses ingressclasses networkpolicies poddisruptionbudgets endpointslices priorityclasses podtemplates'.split(
    ' ',
  ),
);

export function resourceTable(): Map<string, Resource> {
  const { resources, byKind } = kubernetesFacts();
  return new Map(
    [...resources, ...FIGURE_RESOURCES].map((facts): [string, Resource] => {
      const conversion = CONVERSIONS[`${facts.apiVersion} ${facts.kind}`];
      return [
        `${facts.apiVersion} ${facts.resource}`,
        {
          facts,
          storage: facts.resource,
          conversion: conversion?.conversion,
          storedType: (conversion && byKind.get(conversion.stored)?.type) ?? facts.type,
          nameRule: NAME_RULES[facts.resource] ?? dnsSubdomain,
          fields: selectableFields(facts.resource),
          hasStatus: facts.subresources.has('status'),
          hasGeneration: GENERATED.has(facts.resource),
          hooks: HOOKS[facts.resource] ?? {},
        },
      ];
    }),
  );
}

/** Resources that only answer and store nothing: reviews, bindings, figures. */
export function isStored(resource: Resource): boolean {
  return resource.facts.verbs.has('get') && resource.facts.group !== METRICS_GROUP;
}
