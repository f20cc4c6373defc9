import { type Live, timestamp } from '#cluster/client/resources.ts';
import type { HostFacts, NodeSettings } from '#cluster/node/seams.ts';
import type { ContainerImage, Node, NodeCondition, NodeStatus } from '#spec/kubernetes/types.gen.ts';

/** What kubectl calls the kubelet's version: the API's, so that clients know what the node can do. */
const KUBELET_VERSION = 'v1.36.0';
const MOST_IMAGES = 50;

/** Labels every node has. Pure. */
export function nodeLabels(settings: Pick<NodeSettings, 'name' | 'labels'>, facts: HostFacts): Record<string, string> {
  return {
    'kubernetes.io/hostname': settings.name,
    'kubernetes.io/os': 'linux',
    'kubernetes.io/arch': facts.architecture,
    'beta.kubernetes.io/os': 'linux',
    'beta.kubernetes.io/arch': facts.architecture,
    ...settings.labels,
  };
}

/** Pure. Conditions keep the time of their last change. */
export function nodeStatus(
  known: NodeStatus | undefined,
  settings: Pick<NodeSettings, 'name' | 'maxPods'>,
  facts: HostFacts,
  images: readonly { names: string[]; sizeBytes: number }[],
  nowMs: number,
): NodeStatus {
  const resources = {
    cpu: String(facts.cpus),
    memory: `${Math.floor(facts.memoryBytes / 1024)}Ki`,
    'ephemeral-storage': `${Math.floor(facts.diskBytes / 1024)}Ki`,
    'hugepages-1Gi': '0',
    'hugepages-2Mi': '0',
    pods: String(settings.maxPods),
  };
  return {
    ...known,
    capacity: resources,
    allocatable: resources,
    addresses: [
      { type: 'InternalIP', address: facts.address },
      { type: 'Hostname', address: settings.name },
    ],
    conditions: conditions(known, nowMs),
    daemonEndpoints: { kubeletEndpoint: { Port: 0 } },
    images: images.slice(0, MOST_IMAGES).map(({ names, sizeBytes }): ContainerImage => ({ names, sizeBytes })),
    nodeInfo: {
      architecture: facts.architecture,
      bootID: facts.bootId,
      machineID: facts.machineId,
      systemUUID: facts.machineId,
      kernelVersion: facts.kernelVersion,
      osImage: facts.osImage,
      operatingSystem: 'linux',
      containerRuntimeVersion: `estiba://${facts.version}`,
      kubeletVersion: KUBELET_VERSION,
      kubeProxyVersion: '',
    },
  };
}

const HEALTHY: Omit<NodeCondition, 'lastTransitionTime' | 'lastHeartbeatTime'>[] = [
  {
    type: 'MemoryPressure',
    status: 'False',
    reason: 'KubeletHasSufficientMemory',
    message: 'kubelet has sufficient memory available',
  },
  {
    type: 'DiskPressure',
    status: 'False',
    reason: 'KubeletHasNoDiskPressure',
    message: 'kubelet has no disk pressure',
  },
  {
    type: 'PIDPressure',
    status: 'False',
    reason: 'KubeletHasSufficientPID',
    message: 'kubelet has sufficient PID available',
  },
  { type: 'Ready', status: 'True', reason: 'KubeletReady', message: 'kubelet is posting ready status' },
];

function conditions(known: NodeStatus | undefined, nowMs: number): NodeCondition[] {
  const now = timestamp(nowMs);
  const own = HEALTHY.map((condition): NodeCondition => {
    const had = known?.conditions?.find((c) => c.type === condition.type);
    const lastTransitionTime = had?.status === condition.status ? (had.lastTransitionTime ?? now) : now;
    return { ...condition, lastHeartbeatTime: now, lastTransitionTime };
  });
  return [...(known?.conditions ?? []).filter((c) => !own.some((o) => o.type === c.type)), ...own];
}

export function newNode(settings: NodeSettings, facts: HostFacts): Node {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: settings.name, labels: nodeLabels(settings, facts) },
    spec: { podCIDR: settings.podCidr, podCIDRs: [settings.podCidr] },
  };
}

/** Labels of a node that another release has registered: ours are brought up to date, others kept. */
export function relabelled(node: Live<Node>, labels: Readonly<Record<string, string>>): Live<Node> | undefined {
  const missing = Object.entries(labels).some(([key, value]) => node.metadata.labels?.[key] !== value);
  return missing
    ? { ...node, metadata: { ...node.metadata, labels: { ...node.metadata.labels, ...labels } } }
    : undefined;
}
