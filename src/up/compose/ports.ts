import type { ComposePort, ComposeService } from '#spec/compose/model.ts';
import { refuse } from '#spec/compose/tree.ts';
import { SERVICE_LABEL } from '#spec/estiba/cluster.ts';
import type { ServicePort, ServiceSpec } from '#spec/kubernetes/types.gen.ts';
import { type ComposeInput, dnsName, refuseAttribute, selectorOf } from '#up/compose/context.ts';
import { linksOf } from '#up/compose/gate.ts';
import { declaredPorts, protocolOf } from '#up/compose/pod.ts';
import { compact, type UpObject, unlessEmpty } from '#up/objects.ts';

/** Suffix of the Service that stands for published ports. */
export const PUBLISHED = 'published';

/**
 * The names of a service and the ports it publishes:
 *
 *   NAME             headless: the name is that of the pods, and every port of theirs is reachable, declared or not, as in Compose
 *   ALIAS            the same for network aliases, links and container names
 *   NAME-published   type LoadBalancer: host port H leads to container port C
 *   NAME-any-port    type NodePort: ports without a host port
 */
export function servicesOf(input: ComposeInput, service: ComposeService): UpObject[] {
  const hostNetwork = service.rest.has('network_mode');
  if (hostNetwork && service.ports.length > 0)
    refuseAttribute(service, 'ports', 'cannot be published with the network of the host');
  const names = [service.name, ...aliasesOf(input, service)];
  const headless = names.map((name) => serviceObject(input, service, name, headlessSpec(input, service)));
  const fixed = service.ports.filter((p) => p.published !== undefined);
  const free = service.ports.filter((p) => p.published === undefined);
  for (const port of service.ports) checkAddress(service, port);
  const published: UpObject[] = [];
  if (fixed.length > 0) {
    const ports = fixed.map((p) => servicePort(p.published ?? p.target, p));
    published.push(publishedObject(input, service, PUBLISHED, { type: 'LoadBalancer', ports }));
  }
  if (free.length > 0) {
    const ports = free.map((p) => servicePort(p.target, p));
    published.push(publishedObject(input, service, 'any-port', { type: 'NodePort', ports }));
  }
  return [...headless, ...published];
}

/** Names besides its own under which others find a service. */
function aliasesOf(input: ComposeInput, service: ComposeService): string[] {
  const found = new Set<string>();
  const path = `services.${service.name}`;
  for (const { aliases } of Object.values(service.networks))
    for (const alias of aliases) found.add(dnsName(alias, service.where('networks'), `${path}.networks.aliases`));
  if (service.containerName !== undefined)
    found.add(dnsName(service.containerName, service.where('container_name'), `${path}.container_name`));
  for (const other of Object.values(input.project.services)) {
    const alias = linksOf(other)[service.name];
    if (alias !== undefined) found.add(dnsName(alias, other.where('links'), `services.${other.name}.links`));
  }
  // Another service of that name would be found instead, as in Compose.
  return [...found].filter((name) => name !== service.name && !input.project.services[name]);
}

function headlessSpec(input: ComposeInput, service: ComposeService): ServiceSpec {
  const ports = declaredPorts(service).map(
    ({ port, protocol }): ServicePort => ({ name: portName(port, protocol), port, protocol }),
  );
  const peers = service.volumes.some((v) => v.type === 'volume' && v.source !== undefined);
  return compact<ServiceSpec>({
    clusterIP: 'None',
    selector: selectorOf(input, service.name),
    ports: unlessEmpty(ports),
    // Members of one data store look for each other before any of them is ready.
    publishNotReadyAddresses: peers || undefined,
  });
}

function publishedObject(input: ComposeInput, service: ComposeService, suffix: string, spec: ServiceSpec): UpObject {
  const object = serviceObject(input, service, `${service.name}-${suffix}`, {
    ...spec,
    selector: selectorOf(input, service.name),
  });
  return object;
}

function serviceObject(input: ComposeInput, service: ComposeService, name: string, spec: ServiceSpec): UpObject {
  const metadata = { name, namespace: input.namespace, labels: { [SERVICE_LABEL]: service.name } };
  return { apiVersion: 'v1', kind: 'Service', metadata, spec } as UpObject;
}

function servicePort(port: number, { target, protocol }: ComposePort): ServicePort {
  const name = protocolOf(protocol);
  return { name: portName(port, name), port, targetPort: target, protocol: name };
}

function portName(port: number, protocol: string): string {
  return `${protocol.toLowerCase()}-${port}`;
}

/** A LoadBalancer listens on every address of the node. */
function checkAddress(service: ComposeService, { hostIp, at }: ComposePort): void {
  if (hostIp === undefined || hostIp === '0.0.0.0' || hostIp === '::') return;
  refuse(
    at,
    `services.${service.name}.ports`,
    `published ports are on all addresses of a node, not on ${hostIp} alone`,
  );
}
