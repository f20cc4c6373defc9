import type { Live } from '#cluster/client/resources.ts';
import { expand } from '#cluster/node/pod/expand.ts';
import { containerResources, oomScoreAdj } from '#cluster/node/pod/resources.ts';
import { LABEL } from '#cluster/node/pod/runs.ts';
import type { Security } from '#cluster/node/pod/security.ts';
import { NO_NETWORK } from '#engine/core/plain-spec.ts';
import type { ContainerSpec, MountSpec, NamespaceMode } from '#engine/core/spec.ts';
import type { Container, Pod, VolumeMount } from '#spec/kubernetes/types.gen.ts';

/** Everything that has been looked up for one run of a container. */
export interface ContainerInputs {
  pod: Live<Pod>;
  container: Container;
  attempt: number;
  streak: number;
  sandbox: string;
  hostname: string;
  env: ReadonlyMap<string, string>;
  security: Security;
  mounts: MountSpec[];
  cgroupParent: string;
  host: { memoryBytes: number; lowestOomScoreAdj: number };
}

const LOG_MAX = { 'max-size': '10m', 'max-file': '5' }; // the kubelet's containerLogMaxSize and containerLogMaxFiles

/** A pod's container in the engine's words. Pure. */
export function containerSpec(inputs: ContainerInputs): ContainerSpec {
  const { pod, container, env, security, host } = inputs;
  const command = (container.command ?? []).map((part) => expand(part, env));
  const args = (container.args ?? []).map((part) => expand(part, env));
  return {
    image: container.image ?? '',
    origin: { by: 'kubernetes' },
    labels: labelsOf(inputs),
    annotations: {},
    process: {
      ...(command.length > 0 ? { entrypoint: command } : {}),
      ...(args.length > 0 ? { args } : {}),
      env: [...env].map(([name, value]) => `${name}=${value}`),
      ...(container.workingDir ? { cwd: container.workingDir } : {}),
      ...(security.user === undefined ? {} : { user: security.user }),
      groups: security.groups,
      tty: container.tty ?? false,
      stdin: container.stdin ?? false,
      stdinOnce: container.stdinOnce ?? false,
    },
    hostname: inputs.hostname,
    stop: container.lifecycle?.stopSignal ? { signal: container.lifecycle.stopSignal } : {},
    init: false,
    namespaces: namespacesOf(inputs),
    mounts: inputs.mounts,
    resources: containerResources(container, inputs.cgroupParent),
    security: security.spec,
    devices: [],
    deviceRules: [],
    sysctls: {},
    ulimits: [],
    oomScoreAdj: oomScoreAdj(pod.spec, container, {
      memoryBytes: host.memoryBytes,
      lowest: host.lowestOomScoreAdj,
    }),
    shmBytes: 0,
    network: NO_NETWORK, // the sandbox has it
    // When a pod's container runs again is the pod's decision, with its own back-off.
    restart: { name: 'no', maxRetries: 0, onUnhealthy: false },
    health: { test: ['NONE'], intervalNs: 0, timeoutNs: 0, startPeriodNs: 0, startIntervalNs: 0, retries: 0 },
    logging: { driver: 'json-file', options: LOG_MAX },
    autoRemove: false,
  };
}

/** As dockershim named them; what is too long for a name loses the pod's tail, the uid makes it unique. */
export function containerName(pod: Live<Pod>, container: string, attempt: number): string {
  const { name, namespace = '', uid } = pod.metadata;
  const tail = `_${namespace}_${uid}_${attempt}`;
  return `k8s_${container}_${name}`.slice(0, 255 - tail.length) + tail;
}

function labelsOf({ pod, container, attempt, streak, sandbox }: ContainerInputs): Record<string, string> {
  const { name, namespace = '', uid } = pod.metadata;
  return {
    [LABEL.pod]: name,
    [LABEL.namespace]: namespace,
    [LABEL.uid]: uid,
    [LABEL.container]: container.name,
    [LABEL.attempt]: String(attempt),
    [LABEL.streak]: String(streak),
    [LABEL.image]: container.image ?? '',
    [LABEL.sandbox]: sandbox,
  };
}

function namespacesOf({ pod: { spec, metadata } }: ContainerInputs): ContainerSpec['namespaces'] {
  const box: NamespaceMode = { kind: 'sandbox', id: metadata.uid };
  const host: NamespaceMode = { kind: 'host' };
  return {
    network: spec.hostNetwork ? host : box,
    uts: spec.hostNetwork ? host : box,
    ipc: spec.hostIPC ? host : box,
    pid: spec.hostPID ? host : spec.shareProcessNamespace ? box : { kind: 'private' },
    cgroup: { kind: 'private' },
    user: { kind: 'host' },
  };
}

const PROPAGATION = { None: 'rprivate', HostToContainer: 'rslave', Bidirectional: 'rshared' } as const;

/** One volume mount, its source known. */
export function volumeMount(mount: VolumeMount, source: string, volumeReadOnly: boolean): MountSpec {
  const readonly = mount.readOnly || volumeReadOnly;
  const recursive = mount.recursiveReadOnly === 'Enabled' ? 'force-recursive' : 'recursive';
  return {
    type: 'bind',
    source,
    target: mount.mountPath,
    readonly: readonly
      ? mount.recursiveReadOnly === undefined || mount.recursiveReadOnly === 'Disabled'
        ? 'top'
        : recursive
      : false,
    propagation: PROPAGATION[mount.mountPropagation ?? 'None'],
    recursive: true,
    createSource: false,
  };
}
