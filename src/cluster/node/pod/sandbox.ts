import { join } from 'node:path';
import type { Live } from '#cluster/client/resources.ts';
import type { AgentDeps } from '#cluster/node/deps.ts';
import type { Self } from '#cluster/node/pod/fields.ts';
import { podFiles, podNames, readHostFiles, writePodFiles } from '#cluster/node/pod/files.ts';
import { podCgroup, podLimits, qosClass } from '#cluster/node/pod/resources.ts';
import type { ReadyVolume } from '#cluster/node/volumes/volumes.ts';
import type { SandboxRecord } from '#engine/core/parts.ts';
import type { Container, Pod } from '#spec/kubernetes/types.gen.ts';

/** Everything a pod's containers share, in place. */
export interface ReadyPod {
  /** Names this incarnation: containers of an earlier one count as ended with it. */
  sandbox: string;
  volumes: ReadonlyMap<string, ReadyVolume>;
  files: ReadonlyMap<string, string>;
  shm: string;
}

const SHM_BYTES = 64 << 20;

/**
 * Objects looked up → volumes and namespaces beside each other → the files that need the pod's address. Called again it finds
 * what is there already.
 */
export async function makeSandbox(deps: AgentDeps, self: Self): Promise<ReadyPod> {
  const { settings, objects, volumes, host } = deps;
  const { pod } = self;
  const { uid } = pod.metadata;
  await objects.follow(pod);
  const [ready, sandbox] = await Promise.all([
    volumes.prepare(self),
    sandboxOf(deps, pod),
    host.setPodCgroup(podCgroup(settings.cgroupParent, qosClass(pod.spec), uid), podLimits(pod.spec)),
  ]);
  const ips = pod.spec.hostNetwork ? [host.facts().address] : sandbox.ips;
  const dir = join(settings.runDir, 'pods', uid, 'etc');
  const files = writePodFiles(dir, podFiles(pod, ips, settings, readHostFiles()));
  return { sandbox: sandbox.incarnation, volumes: ready, files, shm: sandbox.shm };
}

async function sandboxOf({ engine, settings }: AgentDeps, pod: Live<Pod>): Promise<SandboxRecord> {
  const { spec, metadata } = pod;
  if (engine.sandboxes.list().includes(metadata.uid)) return engine.sandboxes.find(metadata.uid);
  return engine.sandboxes.create(metadata.uid, {
    name: `${metadata.namespace}/${metadata.name}`,
    hostname: podNames(pod, settings.clusterDomain).hostname,
    network: spec.hostNetwork ? undefined : { name: settings.podNetwork, ports: hostPorts(pod) },
    ipc: spec.hostIPC ? 'host' : 'private',
    pid: spec.hostPID ? 'host' : spec.shareProcessNamespace ? 'shared' : 'private',
    shmBytes: SHM_BYTES,
    sysctls: Object.fromEntries((spec.securityContext?.sysctls ?? []).map(({ name, value }) => [name, value])),
  });
}

type HostPort = { protocol: 'tcp' | 'udp' | 'sctp'; containerPort: number; hostIp: string; hostPort: string };

function hostPorts({ spec }: Pod): HostPort[] {
  const all: Container[] = [...(spec.initContainers ?? []), ...spec.containers];
  return all.flatMap((container) =>
    (container.ports ?? []).flatMap((port) =>
      port.hostPort
        ? [
            {
              protocol: (port.protocol ?? 'TCP').toLowerCase() as HostPort['protocol'],
              containerPort: port.containerPort,
              hostIp: port.hostIP ?? '',
              hostPort: String(port.hostPort),
            },
          ]
        : [],
    ),
  );
}

/** The network and cgroup go; records of containers stay, so that their logs can be read. */
export async function releaseSandbox(deps: AgentDeps, pod: Live<Pod>): Promise<void> {
  await deps.engine.sandboxes.remove(pod.metadata.uid);
  await deps.host.removePodCgroup(podCgroup(deps.settings.cgroupParent, qosClass(pod.spec), pod.metadata.uid));
}

/** What this node will never run: it says so instead of running something else. */
export function refusal({ spec }: Pod): { reason: string; message: string } | undefined {
  const refuse = (what: string): { reason: string; message: string } => ({
    reason: 'UnsupportedPodSpec',
    message: `this node cannot run it: ${what}`,
  });
  if (spec.os && spec.os.name !== 'linux')
    return { reason: 'PodOSNotSupported', message: "Failed to admit pod as the OS field doesn't match node OS" };
  if (spec.hostUsers === false) return refuse('hostUsers: false (a user namespace of its own)');
  if (spec.resourceClaims?.length) return refuse('resourceClaims (devices are not allocated)');
  if (spec.securityContext?.supplementalGroupsPolicy === 'Strict')
    return {
      reason: 'SupplementalGroupsPolicyNotSupported',
      message: 'SupplementalGroupsPolicy=Strict is not supported in this node',
    };
  if (spec.runtimeClassName) return refuse(`runtimeClassName: ${spec.runtimeClassName}`);
  const all = [...spec.containers, ...(spec.initContainers ?? [])];
  if (all.some((c) => (c.volumeDevices ?? []).length > 0)) return refuse('volumeDevices (raw block devices)');
  if (all.some((c) => c.securityContext?.appArmorProfile?.type === 'Localhost'))
    return refuse('a local AppArmor profile');
  return undefined;
}
