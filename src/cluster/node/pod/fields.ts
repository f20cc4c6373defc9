import type { Live } from '#cluster/client/resources.ts';
import { BadContainerConfig } from '#cluster/node/errors.ts';
import { nanoOf } from '#spec/kubernetes/quantity.ts';
import type { Container, ObjectFieldSelector, Pod, ResourceFieldSelector } from '#spec/kubernetes/types.gen.ts';

/** What the downward API tells a pod of itself. */
export interface Self {
  pod: Live<Pod>;
  ips: readonly string[];
  hostIp: string;
  /** Stand in for limits that are not set. */
  allocatable: { cpuMilli: number; memoryBytes: number; ephemeralBytes: number };
}

/** `metadata.labels['app']` and its like. */
export function fieldValue(self: Self, { fieldPath }: ObjectFieldSelector): string {
  const { metadata, spec } = self.pod;
  const [, map, key] = /^metadata\.(labels|annotations)\['([^']+)'\]$/.exec(fieldPath) ?? [];
  if (map !== undefined && key !== undefined)
    return (map === 'labels' ? metadata.labels : metadata.annotations)?.[key] ?? '';
  switch (fieldPath) {
    case 'metadata.name':
      return metadata.name;
    case 'metadata.namespace':
      return metadata.namespace ?? '';
    case 'metadata.uid':
      return metadata.uid;
    case 'metadata.labels':
      return formatMap(metadata.labels);
    case 'metadata.annotations':
      return formatMap(metadata.annotations);
    case 'spec.nodeName':
      return spec.nodeName ?? '';
    case 'spec.serviceAccountName':
      return spec.serviceAccountName ?? '';
    case 'status.hostIP':
    case 'status.hostIPs':
      return self.hostIp;
    case 'status.podIP':
      return self.ips[0] ?? '';
    case 'status.podIPs':
      return self.ips.join(',');
    default:
      throw new BadContainerConfig({ message: `unsupported fieldPath: ${fieldPath}` });
  }
}

/** A file of `key="value"` lines, in order, with Go's quoting. */
function formatMap(map: Readonly<Record<string, string>> | undefined): string {
  return Object.entries(map ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .join('\n');
}

/** `limits.cpu` and its like in units of the divisor, rounded up. Limits that are not set are the node's own. */
export function resourceValue(self: Self, selector: ResourceFieldSelector, container: Container | undefined): string {
  const owner = selector.containerName
    ? [...self.pod.spec.containers, ...(self.pod.spec.initContainers ?? [])].find(
        (c) => c.name === selector.containerName,
      )
    : container;
  if (!owner) throw new BadContainerConfig({ message: `container ${selector.containerName ?? ''} not found` });
  const [kind, name = ''] = selector.resource.split(/\.(.*)/);
  const limits = owner.resources?.limits ?? {};
  const requests = owner.resources?.requests ?? {};
  const set = kind === 'requests' ? (requests[name] ?? limits[name]) : limits[name];
  const nano = set === undefined ? (kind === 'limits' ? nodeNano(self, name) : 0n) : nanoOf(set);
  const divisor = nanoOf(selector.divisor === undefined || selector.divisor === '0' ? '1' : selector.divisor);
  return String((nano + divisor - 1n) / divisor);
}

function nodeNano(self: Self, name: string): bigint {
  const { cpuMilli, memoryBytes, ephemeralBytes } = self.allocatable;
  if (name === 'cpu') return BigInt(cpuMilli) * 1_000_000n;
  if (name === 'memory') return BigInt(memoryBytes) * 1_000_000_000n;
  return name === 'ephemeral-storage' ? BigInt(ephemeralBytes) * 1_000_000_000n : 0n;
}
