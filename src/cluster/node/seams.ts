import type { Duplex } from 'node:stream';
import type { Containers } from '#engine/core/containers.ts';
import type { Events } from '#engine/core/events.ts';
import type { FoundImage, SandboxSource } from '#engine/core/parts.ts';

/** What the node agent needs of its surroundings. Chosen in `app`; replaced in tests. */
export interface NodeEngine {
  containers: Pick<
    Containers,
    'create' | 'start' | 'stop' | 'remove' | 'list' | 'get' | 'running' | 'execs' | 'wait' | 'kill'
  >;
  sandboxes: SandboxSource;
  events: Pick<Events, 'subscribe'>;
  /** Bytes a container wrote into its own files. */
  writtenBytes(id: string): Promise<number>;
  /** Where a container's log is. */
  logPath(id: string): string;
  logFiles: number;
}

export interface NodeImages {
  /** Undefined when the node does not have it. */
  find(reference: string): Promise<FoundImage | undefined>;
  /** With the first of the credentials that the registry takes; none is an anonymous try. */
  pull(reference: string, credentials: readonly Credential[]): Promise<{ bytes: number }>;
  /** For the node's status: names and sizes. */
  list(): Promise<{ names: string[]; sizeBytes: number }[]>;
}

export interface Credential {
  username: string;
  password: string;
}

/** The few things an agent does to its host itself. */
export interface NodeHost {
  mountTmpfs(path: string, wish: { sizeBytes?: number }): Promise<void>;
  /** Absent is fine. */
  unmount(path: string): Promise<void>;
  /**
   * Binds a part of a directory, made when it is missing, at `target`: what is bound is what was found without a link that leads out,
   * whatever the pods that write there do meanwhile. BAD_SUBPATH when there is no such thing.
   */
  bindSubPath(directory: string, path: string, target: string): Promise<void>;
  /** Limits of all containers of a pod together; the cgroup is made when it is not there. */
  setPodCgroup(path: string, limits: { memoryBytes?: number; cpuQuotaUs?: number; cpuShares: number }): Promise<void>;
  /** Absent is fine. */
  removePodCgroup(path: string): Promise<void>;
  /** Of a cgroup; `/` is the whole machine. Undefined: there is none. */
  usage(path: string): Usage | undefined;
  /** Bytes on disk of a file or a whole tree; what is not there has none. */
  diskBytes(path: string): Promise<number>;
  facts(): HostFacts;
  /**
   * A stream to a port of a pod, as a program inside would have it: also to what listens on its loopback alone. `signal` gives up
   * while there is none yet.
   */
  connect(
    place: { netns: string | undefined; ip: string | undefined },
    port: number,
    signal: AbortSignal,
  ): Promise<Duplex>;
}

export interface Usage {
  cpuNs: number;
  /** Without what the kernel could take back at once. */
  workingSetBytes: number;
}

export interface HostFacts {
  cpus: number;
  memoryBytes: number;
  diskBytes: number;
  address: string;
  hostname: string;
  kernelVersion: string;
  osImage: string;
  machineId: string;
  bootId: string;
  architecture: string;
  version: string;
  /** Own value of oom_score_adj: without CAP_SYS_RESOURCE nobody gets below it. */
  lowestOomScoreAdj: number;
}

/** Tells when nobody sends new connections to a pod any more: before that, its programs are not asked to end. */
export interface PodDrain {
  drained(pod: { namespace: string; name: string; uid: string; ips: readonly string[] }): Promise<void>;
}

export interface NodeSettings {
  name: string;
  /** Durable; `pods/UID` below it. */
  dataDir: string;
  /** On a tmpfs: what is secret is never written to a disk. */
  runDir: string;
  cgroupParent: string;
  podNetwork: string;
  podCidr: string;
  maxPods: number;
  clusterDomain: string;
  /** Address of the cluster's DNS; undefined: pods get the host's resolvers. */
  clusterDns: string | undefined;
  labels: Readonly<Record<string, string>>;
}
