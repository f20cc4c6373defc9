import type { ConditionalProfile } from '#kernel/seccomp/docker.ts';

export type { ConditionalProfile };

/**
 * What a container is asked to be, whoever asks: the Docker API, the CRI, a pod or the command line all end here. It says
 * what is wished; nothing is looked up yet (images, users, addresses). Sizes in bytes, times in the unit of the name.
 */
export interface ContainerSpec {
  image: string;
  /** `linux/arm64`: the image must have it; `undefined`: what the name points to. */
  platform?: string;
  origin: Origin;
  labels: Record<string, string>;
  annotations: Record<string, string>;
  process: ProcessSpec;
  hostname?: string;
  domainname?: string;
  stop: { signal?: string; timeoutSeconds?: number };
  /** A reaper as PID 1 (`--init`). */
  init: boolean;
  namespaces: NamespaceSpec;
  mounts: MountSpec[];
  resources: ResourceSpec;
  security: SecuritySpec;
  devices: DeviceSpec[];
  /** Rules in the kernel's words: `c 13:* rwm`. */
  deviceRules: string[];
  sysctls: Record<string, string>;
  ulimits: { name: string; soft: number; hard: number }[];
  oomScoreAdj: number;
  shmBytes: number;
  network: NetworkSpec;
  restart: RestartPolicy;
  /** `undefined`: as the image says. `{ test: ['NONE'] }`: none. */
  health?: HealthSpec;
  logging: { driver: string; options: Record<string, string> };
  autoRemove: boolean;
  /** Name of an OCI runtime; `undefined` is ours. */
  runtime?: string;
}

/** Which front end made it; each shows the others' objects where its language allows. */
export interface Origin {
  by: 'docker' | 'compose' | 'kubernetes' | 'cri' | 'cli';
  /** The request as it came, so that its front end can show it again word for word. */
  request?: unknown;
}

export interface ProcessSpec {
  /** `undefined`: the image's. An empty list takes the image's away. */
  entrypoint?: string[];
  args?: string[];
  env: string[];
  cwd?: string;
  /** `user[:group]`, names or numbers; `undefined`: the image's. */
  user?: string;
  groups: string[];
  tty: boolean;
  consoleSize?: { rows: number; columns: number };
  stdin: boolean;
  /** Standard input closes with the first client that leaves. */
  stdinOnce: boolean;
  /** Of health checks that are a line (`CMD-SHELL`); `undefined`: the image's. */
  shell?: string[];
}

export type NamespaceMode =
  | { kind: 'private' }
  | { kind: 'host' }
  | { kind: 'container'; id: string }
  | { kind: 'sandbox'; id: string };

/** `shareable`: others may join, and share its `/dev/shm`. */
export type IpcMode = NamespaceMode | { kind: 'none' } | { kind: 'shareable' };

export interface NamespaceSpec {
  network: NamespaceMode;
  pid: NamespaceMode;
  ipc: IpcMode;
  uts: NamespaceMode;
  cgroup: NamespaceMode;
  user: { kind: 'host' } | { kind: 'private'; mappings: IdMap[] };
  timeOffsets?: { monotonicSeconds: number; boottimeSeconds: number };
}

export interface IdMap {
  containerId: number;
  hostId: number;
  size: number;
}

export type Propagation = 'private' | 'rprivate' | 'shared' | 'rshared' | 'slave' | 'rslave';

export type MountSpec =
  | {
      type: 'bind';
      source: string;
      target: string;
      readonly: ReadonlyMode;
      propagation?: Propagation;
      recursive: boolean;
      createSource: boolean;
      owner?: OwnerWish;
    }
  | {
      type: 'volume';
      /** Empty for an anonymous volume. */
      name: string;
      target: string;
      readonly: ReadonlyMode;
      /** Nothing of the image is copied into an empty volume. */
      noCopy: boolean;
      subpath?: string;
      driver?: { name: string; options: Record<string, string> };
      labels: Record<string, string>;
      owner?: OwnerWish;
    }
  | { type: 'tmpfs'; target: string; options: string[]; readonly: ReadonlyMode };

/** `recursive`: mounts below become read-only too, where the kernel can (5.12). `force`: fail where it cannot. */
export type ReadonlyMode = false | 'top' | 'recursive' | 'force-recursive';

/** Files show as owned by these ids inside, whoever owns them outside (idmapped mount). */
export interface OwnerWish {
  uid?: number;
  gid?: number;
}

export interface ResourceSpec {
  memoryBytes?: number;
  memoryReservationBytes?: number;
  /** Memory and swap together; −1 is unlimited. */
  memorySwapBytes?: number;
  memorySwappiness?: number;
  oomKillDisable: boolean;
  nanoCpus?: number;
  cpuShares?: number;
  cpuPeriodUs?: number;
  cpuQuotaUs?: number;
  cpuRealtimePeriodUs?: number;
  cpuRealtimeRuntimeUs?: number;
  cpusetCpus?: string;
  cpusetMems?: string;
  pids?: number;
  blkioWeight?: number;
  blkioWeightDevices: { path: string; weight: number }[];
  readBps: DeviceRate[];
  writeBps: DeviceRate[];
  readIops: DeviceRate[];
  writeIops: DeviceRate[];
  hugepages: { pageSize: string; bytes: number }[];
  /** Parent below the daemon's own group; absolute paths are outside it. */
  cgroupParent?: string;
}

export interface DeviceRate {
  path: string;
  rate: number;
}

export interface SecuritySpec {
  privileged: boolean;
  capAdd: string[];
  capDrop: string[];
  noNewPrivileges: boolean;
  seccomp: 'default' | 'unconfined' | { profile: ConditionalProfile };
  readonlyRoot: boolean;
  /** `undefined`: the defaults. Privileged containers have none. */
  maskedPaths?: string[];
  readonlyPaths?: string[];
}

export interface DeviceSpec {
  hostPath: string;
  path: string;
  /** `rwm` in any part. */
  access: string;
}

export interface NetworkSpec {
  endpoints: EndpointSpec[];
  /** `80/tcp` → where it is published. Exposed ports without a binding have an empty list. */
  ports: Record<string, { hostIp: string; hostPort: string }[]>;
  publishAll: boolean;
  dns: string[];
  dnsOptions: string[];
  dnsSearch: string[];
  /** `name:address`; `host-gateway` as the address is the host. */
  extraHosts: string[];
  /** Old links of the default bridge: `container:alias`. */
  links: string[];
  mac?: string;
}

export interface EndpointSpec {
  network: string;
  aliases: string[];
  ipv4?: string;
  ipv6?: string;
  mac?: string;
  /** Further addresses, in 169.254.0.0/16 or fe80::/10. */
  linkLocal?: string[];
  links: string[];
  /** The network of the highest has the default route; of equals the first. Absent is 0. */
  gwPriority?: number;
  driverOptions: Record<string, string>;
}

export interface RestartPolicy {
  name: 'no' | 'always' | 'unless-stopped' | 'on-failure';
  /** For `on-failure`; 0 is without end. */
  maxRetries: number;
  /** Our own wish (label `estiba.restart-on-unhealthy`): a container whose health check fails starts again. */
  onUnhealthy: boolean;
}

export interface HealthSpec {
  /** `['NONE']`, `['CMD', …]`, `['CMD-SHELL', line]`; empty inherits. */
  test: string[];
  intervalNs: number;
  timeoutNs: number;
  startPeriodNs: number;
  startIntervalNs: number;
  retries: number;
  /** What a `CMD-SHELL` line is given to; absent is `/bin/sh -c`. */
  shell?: string[];
}
