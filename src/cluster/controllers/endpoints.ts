import { referenceTo } from '#cluster/client/events.ts';
import { DONE, type Requeue } from '#cluster/client/queue.ts';
import {
  ENDPOINT_SLICES,
  ENDPOINTS,
  keyIn,
  keyOf,
  type Live,
  NODES,
  PODS,
  SERVICES,
} from '#cluster/client/resources.ts';
import { equalJson } from '#spec/kubernetes/json.ts';
import { matchesSelector } from '#spec/kubernetes/selector.ts';
import type {
  Endpoint,
  EndpointAddress,
  EndpointSlice,
  EndpointSubset,
  Endpoints,
  Node,
  Pod,
  Service,
} from '#spec/kubernetes/types.gen.ts';
import { type ControllerDeps, generatedName, onSelf, type Reconciler, reconciler } from './loop.ts';
import { isOver, isReady } from './pods.ts';

export const SERVICE_NAME = 'kubernetes.io/service-name';
export const MANAGED_BY = 'endpointslice.kubernetes.io/managed-by';
const MANAGER = 'endpointslice-controller.k8s.io';
const HEADLESS = 'service.kubernetes.io/headless';
const ZONE = 'topology.kubernetes.io/zone';
const MAX_ENDPOINTS = 100;

type Family = 'IPv4' | 'IPv6';
type SlicePorts = NonNullable<EndpointSlice['ports']>;

/** Endpoints that share address family and resolved ports; they go into slices of at most a hundred. */
interface Group {
  family: Family;
  ports: SlicePorts;
  endpoints: Map<string, Endpoint>;
}

export type SliceStep =
  | { do: 'create'; slice: EndpointSlice }
  | { do: 'update'; slice: Live<EndpointSlice> }
  | { do: 'remove'; slice: Live<EndpointSlice> };

/**
 * Slices as they should be, changing as few as can be: an endpoint stays in its slice, new ones fill slices with room, and only
 * then new slices are made.
 */
export function planSlices(
  service: Live<Service>,
  pods: readonly Live<Pod>[],
  slices: readonly Live<EndpointSlice>[],
  nodes: (name: string) => Live<Node> | undefined,
  nameSlice: () => string,
): SliceStep[] {
  const groups = groupEndpoints(service, pods, nodes);
  const steps: SliceStep[] = [];
  const labels = sliceLabels(service);
  for (const slice of slices) {
    const group = groups.get(groupKey(slice.addressType as Family, slice.ports ?? []));
    const kept: Endpoint[] = [];
    for (const endpoint of (group && slice.endpoints) ?? []) {
      const id = endpointId(endpoint);
      const wanted = group?.endpoints.get(id);
      if (!wanted) continue;
      kept.push(wanted);
      group?.endpoints.delete(id);
    }
    for (const [id, endpoint] of group?.endpoints ?? []) {
      if (kept.length >= MAX_ENDPOINTS) break;
      kept.push(endpoint);
      group?.endpoints.delete(id);
    }
    if (kept.length === 0) steps.push({ do: 'remove', slice });
    else if (!equalJson(kept, slice.endpoints) || !equalJson(slice.metadata.labels, labels))
      steps.push({ do: 'update', slice: { ...slice, endpoints: kept, metadata: { ...slice.metadata, labels } } });
  }
  for (const { family, ports, endpoints } of groups.values()) {
    const rest = [...endpoints.values()];
    for (let at = 0; at < rest.length; at += MAX_ENDPOINTS) {
      const metadata = {
        name: nameSlice(),
        namespace: service.metadata.namespace ?? '',
        labels,
        ownerReferences: [
          {
            apiVersion: 'v1',
            kind: 'Service',
            name: service.metadata.name,
            uid: service.metadata.uid,
            controller: true,
            blockOwnerDeletion: true,
          },
        ],
      };
      const part = rest.slice(at, at + MAX_ENDPOINTS);
      steps.push({ do: 'create', slice: { metadata, addressType: family, ports, endpoints: part } });
    }
  }
  return steps;
}

function sliceLabels({ metadata, spec }: Live<Service>): Record<string, string> {
  const headless = spec.clusterIP === 'None' ? { [HEADLESS]: '' } : {};
  return { ...metadata.labels, ...headless, [SERVICE_NAME]: metadata.name, [MANAGED_BY]: MANAGER };
}

function groupEndpoints(
  service: Live<Service>,
  pods: readonly Live<Pod>[],
  nodes: (name: string) => Live<Node> | undefined,
): Map<string, Group> {
  const groups = new Map<string, Group>();
  const families: Family[] = (service.spec.ipFamilies as Family[] | undefined) ?? ['IPv4'];
  for (const pod of pods) {
    if (isOver(pod)) continue;
    const ports = portsFor(service, pod);
    for (const family of families) {
      const ip = ipOf(pod, family);
      if (!ip) continue;
      const key = groupKey(family, ports);
      const group = groups.get(key) ?? { family, ports, endpoints: new Map<string, Endpoint>() };
      const endpoint = endpointOf(service, pod, ip, nodes);
      group.endpoints.set(endpointId(endpoint), endpoint);
      groups.set(key, group);
    }
  }
  return groups;
}

function endpointOf(
  service: Live<Service>,
  pod: Live<Pod>,
  ip: string,
  nodes: (name: string) => Live<Node> | undefined,
): Endpoint {
  const serving = isReady(pod);
  const terminating = pod.metadata.deletionTimestamp !== undefined;
  const { nodeName } = pod.spec;
  const zone = nodeName ? nodes(nodeName)?.metadata.labels?.[ZONE] : undefined;
  const named =
    pod.spec.subdomain === service.metadata.name && pod.spec.hostname ? { hostname: pod.spec.hostname } : {};
  const { kind = 'Pod', name = '', namespace = '', uid = '' } = referenceTo(PODS, pod);
  return {
    addresses: [ip],
    conditions: {
      ready: service.spec.publishNotReadyAddresses === true || (serving && !terminating),
      serving,
      terminating,
    },
    ...named,
    ...(nodeName ? { nodeName } : {}),
    ...(zone ? { zone } : {}),
    targetRef: { kind, name, namespace, uid },
  };
}

function endpointId(endpoint: Endpoint): string {
  return `${endpoint.targetRef?.uid} ${endpoint.addresses[0]}`;
}

function groupKey(family: Family, ports: SlicePorts): string {
  const sorted = ports.map((p) => `${p.name ?? ''} ${p.protocol ?? 'TCP'} ${p.port} ${p.appProtocol ?? ''}`).sort();
  return `${family} ${sorted.join()}`;
}

/** A target port by name is looked up in each pod: versions of an app may listen on different ones. */
export function portsFor(service: Service, pod: Pod): SlicePorts {
  return (service.spec?.ports ?? []).flatMap((port) => {
    const target = port.targetPort ?? port.port;
    const number = typeof target === 'number' ? target : namedPort(pod, target, port.protocol ?? 'TCP');
    if (number === undefined) return [];
    const appProtocol = port.appProtocol ? { appProtocol: port.appProtocol } : {};
    return [{ name: port.name ?? '', port: number, protocol: port.protocol ?? ('TCP' as const), ...appProtocol }];
  });
}

function namedPort(pod: Pod, name: string, protocol: string): number | undefined {
  if (/^\d+$/.test(name)) return Number(name);
  const sidecars = (pod.spec.initContainers ?? []).filter((c) => c.restartPolicy === 'Always');
  for (const container of [...pod.spec.containers, ...sidecars])
    for (const port of container.ports ?? [])
      if (port.name === name && (port.protocol ?? 'TCP') === protocol) return port.containerPort;
  return undefined;
}

function ipOf(pod: Pod, family: Family): string | undefined {
  const all = [...(pod.status?.podIPs ?? []).map((p) => p.ip), pod.status?.podIP ?? ''];
  return all.find((ip) => ip !== '' && ip.includes(':') === (family === 'IPv6'));
}

/** The old object beside the slices, for clients that still read it; the first family only, at most a thousand addresses. */
export function planEndpoints(service: Live<Service>, pods: readonly Live<Pod>[]): EndpointSubset[] {
  const family = (service.spec.ipFamilies?.[0] as Family | undefined) ?? 'IPv4';
  const subsets = new Map<string, { ports: SlicePorts; ready: EndpointAddress[]; notReady: EndpointAddress[] }>();
  const sorted = [...pods].sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
  for (const pod of sorted.slice(0, MAX_ADDRESSES)) {
    const ip = ipOf(pod, family);
    if (!ip || isOver(pod) || pod.metadata.deletionTimestamp) continue;
    const ports = portsFor(service, pod);
    const key = groupKey(family, ports);
    const subset = subsets.get(key) ?? { ports, ready: [], notReady: [] };
    subsets.set(key, subset);
    const { kind = 'Pod', name = '', namespace = '', uid = '' } = referenceTo(PODS, pod);
    const hostname =
      pod.spec.subdomain === service.metadata.name && pod.spec.hostname ? { hostname: pod.spec.hostname } : {};
    const address: EndpointAddress = {
      ip,
      ...hostname,
      ...(pod.spec.nodeName ? { nodeName: pod.spec.nodeName } : {}),
      targetRef: { kind, name, namespace, uid },
    };
    const ready = service.spec.publishNotReadyAddresses === true || isReady(pod);
    (ready ? subset.ready : subset.notReady).push(address);
  }
  return [...subsets.values()].map(({ ports, ready, notReady }) => ({
    ...(ready.length > 0 ? { addresses: ready } : {}),
    ...(notReady.length > 0 ? { notReadyAddresses: notReady } : {}),
    ...(ports.length > 0 ? { ports: ports.map((p) => ({ ...p, port: p.port ?? 0 })) } : {}),
  }));
}

const MAX_ADDRESSES = 1_000;
const ENDPOINTS_MANAGED_BY = 'endpoints.kubernetes.io/managed-by';
const ENDPOINTS_MANAGER = 'endpoint-controller';

export function endpointsController(deps: ControllerDeps): Reconciler {
  const { view, random } = deps;
  const services = view.of(SERVICES);
  const pods = view.of(PODS);
  const slices = view.of(ENDPOINT_SLICES);
  const endpoints = view.of(ENDPOINTS);
  const nodes = view.of(NODES);
  slices.informer.addIndex('service', (s) => [keyIn(s.metadata.namespace, s.metadata.labels?.[SERVICE_NAME] ?? '')]);
  const loop = reconciler(deps, 'endpoints', reconcile);
  onSelf(services, loop);
  onSelf(endpoints, loop);
  slices.informer.onChange((now, before) => {
    const name = (now ?? before)?.metadata.labels?.[SERVICE_NAME];
    if (name) loop.queue.add(keyIn((now ?? before)?.metadata.namespace, name));
  });
  pods.informer.onChange((now, before) => {
    for (const service of services.inNamespace((now ?? before)?.metadata.namespace ?? '')) {
      const { selector } = service.spec;
      if (!selector || Object.keys(selector).length === 0) continue;
      const label = { matchLabels: selector };
      if (matchesSelector(label, now?.metadata.labels) || (before && matchesSelector(label, before.metadata.labels)))
        loop.queue.add(keyOf(service));
    }
  });
  return loop;

  async function reconcile(key: string): Promise<Requeue> {
    const service = services.get(key);
    if (!service?.spec.selector || service.spec.type === 'ExternalName') await dropEndpoints(key, service);
    const managed = slices.informer.by('service', key).filter((s) => s.metadata.labels?.[MANAGED_BY] === MANAGER);
    // Slices of a service that is gone go with it by owner reference; without a selector somebody else keeps them.
    if (!service || service.metadata.deletionTimestamp || !service.spec.selector) return DONE;
    if (service.spec.type === 'ExternalName') {
      for (const slice of managed) await slices.remove(slice);
      return DONE;
    }
    const selected = podsOf(service);
    const steps = planSlices(
      service,
      selected,
      managed,
      (name) => nodes.get(name),
      () => generatedName(`${service.metadata.name}-`, random),
    );
    for (const step of steps) {
      if (step.do === 'create') await slices.create(step.slice);
      else if (step.do === 'update') await slices.update(step.slice);
      else await slices.remove(step.slice);
    }
    await writeEndpoints(service, planEndpoints(service, selected));
    return DONE;
  }

  /** The old object has no owner reference, as upstream: it goes when nobody is left whose pods it lists. */
  async function dropEndpoints(key: string, service: Live<Service> | undefined): Promise<void> {
    const known = endpoints.get(key);
    if (known?.metadata.labels?.[ENDPOINTS_MANAGED_BY] !== ENDPOINTS_MANAGER) return;
    // Written by hand for a Service without a selector they are its own; these were ours.
    if (!service && (await services.fresh(key))) return;
    await endpoints.remove(known);
  }

  function podsOf(service: Live<Service>): Live<Pod>[] {
    const selector = { matchLabels: service.spec.selector ?? {} };
    if (Object.keys(selector.matchLabels).length === 0) return [];
    return pods
      .inNamespace(service.metadata.namespace ?? '')
      .filter((p) => matchesSelector(selector, p.metadata.labels));
  }

  async function writeEndpoints(service: Live<Service>, subsets: EndpointSubset[]): Promise<void> {
    const known = endpoints.get(keyOf(service));
    const labels = {
      ...service.metadata.labels,
      [ENDPOINTS_MANAGED_BY]: ENDPOINTS_MANAGER,
      ...(service.spec.clusterIP === 'None' ? { [HEADLESS]: '' } : {}),
    };
    const { name, namespace = '' } = service.metadata;
    const wanted: Endpoints = { metadata: { name, namespace, labels }, ...(subsets.length > 0 ? { subsets } : {}) };
    if (!known) await endpoints.create(wanted);
    else if (!equalJson(known.subsets ?? [], subsets) || !equalJson(known.metadata.labels, labels)) {
      const { subsets: _old, ...rest } = known;
      await endpoints.update({
        ...rest,
        ...(subsets.length > 0 ? { subsets } : {}),
        metadata: { ...known.metadata, labels },
      });
    }
  }
}
