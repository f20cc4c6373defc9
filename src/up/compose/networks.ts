import type { ComposeProject, ComposeService } from '#spec/compose/model.ts';
import { refuse } from '#spec/compose/tree.ts';
import { SERVICE_LABEL } from '#spec/estiba/cluster.ts';
import type { NetworkPolicySpec } from '#spec/kubernetes/types.gen.ts';
import { type ComposeInput, objectName, refuseAttribute, selectorOf } from '#up/compose/context.ts';
import { protocolOf } from '#up/compose/pod.ts';
import { compact, type UpObject } from '#up/objects.ts';

const PREFIX = 'network.estiba.dev/';
const MEMBER = 'member';

/** On the pods of a service: which networks they are in. */
export function networkLabels(service: ComposeService): Record<string, string> {
  return Object.fromEntries(Object.keys(service.networks).map((name) => [`${PREFIX}${objectName(name)}`, MEMBER]));
}

/** Who shares no network with a pod does not reach it; published ports are open to all. */
export function policiesOf(input: ComposeInput): UpObject[] {
  const { project } = input;
  const used = new Set(Object.values(project.services).flatMap((s) => Object.keys(s.networks)));
  for (const service of Object.values(project.services)) checkAddresses(service);
  for (const name of Object.keys(project.networks)) if (used.has(name)) checkNetwork(project, name);
  const policy = (name: string, spec: NetworkPolicySpec, labels?: Record<string, string>): UpObject => {
    const metadata = compact({ name, namespace: input.namespace, labels });
    return { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata, spec } as UpObject;
  };
  const within = [...used].sort().map((network) => {
    const members = { matchLabels: { [`${PREFIX}${objectName(network)}`]: MEMBER } };
    const spec: NetworkPolicySpec = {
      podSelector: members,
      policyTypes: ['Ingress'],
      ingress: [{ from: [{ podSelector: members }] }],
    };
    return policy(`network-${objectName(network)}`, spec);
  });
  const open = Object.values(project.services).flatMap((service) => {
    if (service.ports.length === 0) return [];
    const ports = [...new Map(service.ports.map((p) => [`${p.target}/${p.protocol}`, p])).values()];
    const rule = { ports: ports.map(({ target, protocol }) => ({ port: target, protocol: protocolOf(protocol) })) };
    const podSelector = { matchLabels: selectorOf(input, service.name) };
    const spec: NetworkPolicySpec = { podSelector, policyTypes: ['Ingress'], ingress: [rule] };
    return [policy(`published-${service.name}`, spec, { [SERVICE_LABEL]: service.name })];
  });
  return [...within, ...open];
}

function checkAddresses(service: ComposeService): void {
  for (const [name, { ipv4Address, rest }] of Object.entries(service.networks)) {
    if (ipv4Address !== undefined)
      refuseAttribute(
        service,
        'networks',
        `${name}: pods get their addresses from the cluster; use the name instead of ${ipv4Address}`,
      );
    for (const [key, value] of rest ?? []) {
      if (key === 'priority') continue; // an order, where all is joined at once
      refuse(value.at, `services.${service.name}.networks.${name}.${key}`, 'the cluster decides how a pod is reached');
    }
  }
}

function checkNetwork(project: ComposeProject, name: string): void {
  const network = project.networks[name];
  if (!network) return;
  const path = `networks.${name}`;
  if (network.external)
    refuse(network.at, path, 'an app has its own networks; one that others made has no counterpart in Kubernetes');
  if (network.internal) refuse(network.at, `${path}.internal`, 'policies for what leaves a pod are not enforced here');
  for (const [key, value] of network.rest) {
    if (key === 'labels' || key === 'attachable') continue; // both are for other tools that join the network
    if (key === 'driver' && value.is === 'scalar' && ['bridge', 'overlay', 'default'].includes(value.text)) continue;
    refuse(value.at, `${path}.${key}`, 'the cluster decides how pods reach each other');
  }
}
