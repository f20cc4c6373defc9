import type { KubeClient } from '#cluster/client/client.ts';
import {
  ENDPOINT_SLICES,
  EVENTS,
  INGRESSES,
  NODES,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  PODS,
  type Resource,
  SECRETS,
  SERVICES,
  STORAGE_CLASSES,
} from '#cluster/client/resources.ts';
import type * as k8s from '#spec/kubernetes/types.gen.ts';

/** What an explanation may look at: one namespace, and what of the cluster it depends on. */
export interface World {
  namespace: string;
  pods: readonly k8s.Pod[];
  events: readonly k8s.Event[];
  services: readonly k8s.Service[];
  slices: readonly k8s.EndpointSlice[];
  ingresses: readonly k8s.Ingress[];
  ingressClasses: readonly string[];
  claims: readonly k8s.PersistentVolumeClaim[];
  volumes: readonly k8s.PersistentVolume[];
  storageClasses: readonly k8s.StorageClass[];
  nodes: readonly k8s.Node[];
  secrets: readonly string[];
  policies: readonly k8s.NetworkPolicy[];
}

export const EMPTY_WORLD: World = {
  namespace: 'default',
  pods: [],
  events: [],
  services: [],
  slices: [],
  ingresses: [],
  ingressClasses: [],
  claims: [],
  volumes: [],
  storageClasses: [],
  nodes: [],
  secrets: [],
  policies: [],
};

const POLICIES: Resource<k8s.NetworkPolicy> = {
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  plural: 'networkpolicies',
  namespaced: true,
};
const INGRESS_CLASSES: Resource<k8s.IngressClass> = {
  apiVersion: 'networking.k8s.io/v1',
  kind: 'IngressClass',
  plural: 'ingressclasses',
  namespaced: false,
};

/** Reads what an explanation needs, all lists at once. */
export async function lookAround(client: KubeClient, namespace: string): Promise<World> {
  const here = { namespace };
  const [pods, events, services, slices, ingresses, classes, claims, volumes, storage, nodes, secrets, policies] =
    await Promise.all([
      client.list(PODS, here),
      client.list(EVENTS, here),
      client.list(SERVICES, here),
      client.list(ENDPOINT_SLICES, here),
      client.list(INGRESSES, here),
      client.list(INGRESS_CLASSES),
      client.list(PERSISTENT_VOLUME_CLAIMS, here),
      client.list(PERSISTENT_VOLUMES),
      client.list(STORAGE_CLASSES),
      client.list(NODES),
      client.list(SECRETS, here),
      client.list(POLICIES, here),
    ]);
  return {
    namespace,
    pods: pods.items,
    events: events.items,
    services: services.items,
    slices: slices.items,
    ingresses: ingresses.items,
    ingressClasses: classes.items.map((c) => c.metadata.name),
    claims: claims.items,
    volumes: volumes.items,
    storageClasses: storage.items,
    nodes: nodes.items,
    secrets: secrets.items.map((s) => s.metadata.name),
    policies: policies.items,
  };
}

/** Events of an object, the newest first. */
export function eventsOf(world: World, kind: string, name: string): k8s.Event[] {
  const at = (e: k8s.Event): string => e.series?.lastObservedTime ?? e.lastTimestamp ?? e.eventTime ?? '';
  return world.events
    .filter(({ involvedObject: o }) => o.kind === kind && o.name === name)
    .sort((a, b) => (at(a) < at(b) ? 1 : -1));
}
