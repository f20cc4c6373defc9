import { dockerTime } from '#engine/api/docker/time.ts';
import { oldLinks } from '#engine/core/links.ts';
import type { ContainerRecord, EndpointRecord, MountRecord, Phase } from '#engine/core/record.ts';
import { isRunning } from '#engine/core/record.ts';
import { OUR_RUNTIME } from '#engine/core/runtimes.ts';
import type { ContainerSpec, IpcMode } from '#engine/core/spec.ts';
import type {
  Bodies,
  ContainerConfig,
  ContainerInspectResponse,
  ContainerState,
  EndpointSettings,
  HostConfig,
  MountPoint,
  NetworkSettings,
  PortMap,
} from '#spec/docker/types.gen.ts';

/** What of a container's inspection is not in its record. */
export interface InspectPlaces {
  logPath: string;
  hostsPath: string;
  hostnamePath: string;
  resolvConfPath: string;
  execIds: string[];
  /** Of the joined container or the sandbox of its own. */
  sandboxKey: string;
  graph: { LowerDir: string; UpperDir: string; WorkDir: string; MergedDir: string } | undefined;
  sizes?: { rw: number; root: number };
}

/** `GET /containers/{id}/json`. Pure. */
export function inspectContainer(record: ContainerRecord, places: InspectPlaces): ContainerInspectResponse {
  const [path = '', ...args] = record.process.argv;
  return {
    Id: record.id,
    Created: dockerTime(record.createdAtMs),
    Path: path,
    Args: args,
    State: stateOf(record),
    Image: record.image.id,
    ResolvConfPath: places.resolvConfPath,
    HostnamePath: places.hostnamePath,
    HostsPath: places.hostsPath,
    LogPath: places.logPath,
    Name: `/${record.name}`,
    RestartCount: record.state.restartCount,
    Driver: 'overlay2',
    Platform: 'linux',
    MountLabel: '',
    ProcessLabel: '',
    AppArmorProfile: '',
    ExecIDs: places.execIds.length > 0 ? places.execIds : null,
    HostConfig: hostConfigOf(record),
    GraphDriver: { Name: 'overlay2', Data: places.graph ?? {} },
    ...(places.sizes ? { SizeRw: places.sizes.rw, SizeRootFs: places.sizes.root } : {}),
    Mounts: record.mounts.map(mountPoint),
    Config: configOf(record),
    NetworkSettings: networkSettings(record, places.sandboxKey),
  };
}

const STATUS: Readonly<Record<Phase, string>> = {
  creating: 'created',
  created: 'created',
  starting: 'running',
  running: 'running',
  paused: 'paused',
  restarting: 'restarting',
  exited: 'exited',
  removing: 'removing',
  dead: 'dead',
};

export function statusOf(phase: Phase): string {
  return STATUS[phase];
}

function stateOf({ state }: ContainerRecord): ContainerState {
  return {
    Status: STATUS[state.phase],
    // Docker counts a container that waits for its restart as running.
    Running: isRunning(state) || state.phase === 'restarting',
    Paused: state.phase === 'paused',
    Restarting: state.phase === 'restarting',
    OOMKilled: state.oomKilled,
    Dead: state.phase === 'dead',
    Pid: isRunning(state) ? state.pid : 0,
    ExitCode: state.exitCode,
    Error: state.error,
    StartedAt: dockerTime(state.startedAtMs),
    FinishedAt: dockerTime(state.finishedAtMs),
    ...(state.health
      ? {
          Health: {
            Status: state.health.status,
            FailingStreak: state.health.failingStreak,
            Log: state.health.log.map((r) => ({
              Start: dockerTime(r.startMs),
              End: dockerTime(r.endMs),
              ExitCode: r.exitCode,
              Output: r.output,
            })),
          },
        }
      : {}),
  };
}

function configOf(record: ContainerRecord): ContainerConfig {
  const { spec, process } = record;
  const request = dockerRequest(spec);
  const entrypoint = spec.process.entrypoint ?? (request ? null : undefined);
  return {
    Hostname: record.hostname,
    Domainname: spec.domainname ?? '',
    User: process.user,
    AttachStdin: request?.AttachStdin ?? false,
    AttachStdout: request?.AttachStdout ?? false,
    AttachStderr: request?.AttachStderr ?? false,
    ...(process.exposedPorts.length > 0
      ? { ExposedPorts: Object.fromEntries(process.exposedPorts.map((p) => [p, {}])) }
      : {}),
    Tty: spec.process.tty,
    OpenStdin: spec.process.stdin,
    StdinOnce: spec.process.stdinOnce,
    Env: ownEnvFirst(spec.process.env, process.env),
    Cmd: spec.process.args ?? process.argv.slice(spec.process.entrypoint?.length ?? 0),
    ...(process.health
      ? {
          Healthcheck: {
            Test: process.health.test,
            Interval: process.health.intervalNs,
            Timeout: process.health.timeoutNs,
            Retries: process.health.retries,
            StartPeriod: process.health.startPeriodNs,
            StartInterval: process.health.startIntervalNs,
          },
        }
      : {}),
    Image: record.image.reference,
    Volumes:
      request?.Volumes ?? (process.volumes.length > 0 ? Object.fromEntries(process.volumes.map((v) => [v, {}])) : null),
    WorkingDir: process.cwd === '/' ? (spec.process.cwd ?? '') : process.cwd,
    Entrypoint: entrypoint ?? null,
    OnBuild: request?.OnBuild ?? null,
    Labels: process.labels,
    ...(spec.stop.signal ? { StopSignal: spec.stop.signal } : {}),
    ...(spec.stop.timeoutSeconds === undefined ? {} : { StopTimeout: spec.stop.timeoutSeconds }),
    ...(spec.process.shell ? { Shell: spec.process.shell } : {}),
  };
}

/** Docker's own objects show the request again; those of other front ends are said in Docker's words. */
function hostConfigOf(record: ContainerRecord): HostConfig {
  const { spec } = record;
  return {
    ...defaultHostConfig(spec),
    ...withoutNulls(dockerRequest(spec)?.HostConfig ?? {}),
    // The driver that was left to us is shown by its name.
    LogConfig: { Type: spec.logging.driver, Config: spec.logging.options },
    ...linksShown(record),
    ...liveLimits(spec),
  };
}

/** Docker tells an old link by both its ends: `/db:/web/store`. */
function linksShown({ name, spec }: ContainerRecord): { Links?: string[] } {
  const links = oldLinks(spec);
  return links.length === 0 ? {} : { Links: links.map(({ target, alias }) => `/${target}:/${name}/${alias}`) };
}

/** What was asked for as it was asked (`NAME` alone takes a variable away), then what the image adds. */
function ownEnvFirst(own: readonly string[], all: readonly string[]): string[] {
  const nameOf = (entry: string): string => entry.split('=')[0] ?? '';
  const named = new Set(own.map(nameOf));
  return [...own, ...all.filter((entry) => !named.has(nameOf(entry)))];
}

function dockerRequest(spec: ContainerSpec): Bodies['ContainerCreate'] | undefined {
  return spec.origin.by === 'docker' || spec.origin.by === 'compose'
    ? (spec.origin.request as Bodies['ContainerCreate'] | undefined)
    : undefined;
}

function defaultHostConfig(spec: ContainerSpec): HostConfig {
  const { resources, security } = spec;
  return {
    Binds: null,
    ContainerIDFile: '',
    LogConfig: { Type: spec.logging.driver, Config: spec.logging.options },
    NetworkMode: networkModeOf(spec),
    PortBindings: portBindings(spec),
    RestartPolicy: { Name: spec.restart.name, MaximumRetryCount: spec.restart.maxRetries },
    AutoRemove: spec.autoRemove,
    VolumeDriver: '',
    VolumesFrom: null,
    ConsoleSize: [0, 0],
    CapAdd: security.capAdd.length > 0 ? security.capAdd : null,
    CapDrop: security.capDrop.length > 0 ? security.capDrop : null,
    CgroupnsMode: spec.namespaces.cgroup.kind === 'host' ? 'host' : 'private',
    Dns: spec.network.dns,
    DnsOptions: spec.network.dnsOptions,
    DnsSearch: spec.network.dnsSearch,
    ExtraHosts: spec.network.extraHosts.length > 0 ? spec.network.extraHosts : null,
    GroupAdd: spec.process.groups.length > 0 ? spec.process.groups : null,
    IpcMode: modeOf(spec.namespaces.ipc, 'private'),
    Cgroup: '',
    Links: spec.network.links.length > 0 ? spec.network.links : null,
    OomScoreAdj: spec.oomScoreAdj,
    PidMode: modeOf(spec.namespaces.pid, ''),
    Privileged: security.privileged,
    PublishAllPorts: spec.network.publishAll,
    ReadonlyRootfs: security.readonlyRoot,
    SecurityOpt: null,
    UTSMode: modeOf(spec.namespaces.uts, ''),
    UsernsMode: spec.namespaces.user.kind === 'private' ? 'private' : '',
    ShmSize: spec.shmBytes,
    Runtime: spec.runtime ?? OUR_RUNTIME,
    Isolation: '',
    CpuShares: resources.cpuShares ?? 0,
    Memory: 0,
    NanoCpus: 0,
    CgroupParent: resources.cgroupParent ?? '',
    BlkioWeight: resources.blkioWeight ?? 0,
    BlkioWeightDevice: [],
    BlkioDeviceReadBps: [],
    BlkioDeviceWriteBps: [],
    BlkioDeviceReadIOps: [],
    BlkioDeviceWriteIOps: [],
    CpuPeriod: 0,
    CpuQuota: 0,
    CpuRealtimePeriod: 0,
    CpuRealtimeRuntime: 0,
    CpusetCpus: '',
    CpusetMems: '',
    Devices: spec.devices.map((d) => ({
      PathOnHost: d.hostPath,
      PathInContainer: d.path,
      CgroupPermissions: d.access,
    })),
    DeviceCgroupRules: spec.deviceRules.length > 0 ? spec.deviceRules : null,
    DeviceRequests: null,
    MemoryReservation: 0,
    MemorySwap: 0,
    MemorySwappiness: null,
    OomKillDisable: resources.oomKillDisable,
    PidsLimit: null,
    Ulimits: spec.ulimits.map((u) => ({ Name: u.name, Soft: u.soft, Hard: u.hard })),
    CpuCount: 0,
    CpuPercent: 0,
    IOMaximumIOps: 0,
    IOMaximumBandwidth: 0,
    MaskedPaths: security.privileged ? null : (security.maskedPaths ?? null),
    ReadonlyPaths: security.privileged ? null : (security.readonlyPaths ?? null),
  };
}

/** Limits and the restart policy change while a container lives; the spec has the present ones. */
function liveLimits(spec: ContainerSpec): HostConfig {
  const { resources, restart } = spec;
  const limits = {
    CpuShares: resources.cpuShares,
    Memory: resources.memoryBytes,
    MemoryReservation: resources.memoryReservationBytes,
    MemorySwap:
      resources.memorySwapBytes ?? (resources.memoryBytes === undefined ? undefined : resources.memoryBytes * 2),
    NanoCpus: resources.nanoCpus,
    CpuPeriod: resources.cpuPeriodUs,
    CpuQuota: resources.cpuQuotaUs,
    CpusetCpus: resources.cpusetCpus,
    CpusetMems: resources.cpusetMems,
    BlkioWeight: resources.blkioWeight,
    PidsLimit: resources.pids,
  };
  return { ...withoutUndefined(limits), RestartPolicy: { Name: restart.name, MaximumRetryCount: restart.maxRetries } };
}

function networkModeOf(spec: ContainerSpec): string {
  const { network } = spec.namespaces;
  if (network.kind === 'host') return 'host';
  if (network.kind === 'container' || network.kind === 'sandbox') return `container:${network.id}`;
  return spec.network.endpoints[0]?.network ?? 'none';
}

function modeOf(mode: IpcMode, whenPrivate: string): string {
  switch (mode.kind) {
    case 'private':
      return whenPrivate;
    case 'container':
    case 'sandbox':
      return `container:${mode.id}`;
    default:
      return mode.kind;
  }
}

function portBindings(spec: ContainerSpec): PortMap {
  const published = Object.entries(spec.network.ports).filter(([, bindings]) => bindings.length > 0);
  return Object.fromEntries(
    published.map(([port, bindings]) => [port, bindings.map((b) => ({ HostIp: b.hostIp, HostPort: b.hostPort }))]),
  );
}

export function mountPoint(mount: MountRecord): MountPoint {
  return {
    Type: mount.type,
    ...(mount.name === undefined ? {} : { Name: mount.name }),
    Source: mount.source,
    Destination: mount.target,
    ...(mount.driver === undefined ? {} : { Driver: mount.driver }),
    Mode: mount.mode,
    RW: !mount.readonly,
    Propagation: mount.propagation,
  };
}

function networkSettings(record: ContainerRecord, sandboxKey: string): NetworkSettings {
  const running = isRunning(record.state);
  const bridge = record.endpoints['bridge'];
  const networks = Object.entries(record.endpoints).map(([name, e]): [string, EndpointSettings] => [
    name,
    endpointSettings(e, running, record),
  ]);
  return {
    Bridge: '',
    SandboxID: running ? record.id : '',
    SandboxKey: running ? sandboxKey : '',
    Ports: portMap(record),
    HairpinMode: false,
    LinkLocalIPv6Address: '',
    LinkLocalIPv6PrefixLen: 0,
    SecondaryIPAddresses: null,
    SecondaryIPv6Addresses: null,
    EndpointID: bridge?.endpointId ?? '',
    Gateway: (running && bridge?.gateway4) || '',
    GlobalIPv6Address: (running && bridge?.ipv6) || '',
    GlobalIPv6PrefixLen: (running && bridge?.prefix6) || 0,
    IPAddress: (running && bridge?.ipv4) || '',
    IPPrefixLen: (running && bridge?.prefix4) || 0,
    IPv6Gateway: (running && bridge?.gateway6) || '',
    MacAddress: (running && bridge?.mac) || '',
    Networks: Object.fromEntries(networks),
  };
}

export function endpointSettings(
  e: EndpointRecord,
  running: boolean,
  record?: { id: string; name: string },
): EndpointSettings {
  return {
    IPAMConfig:
      e.asked?.ipv4 || e.asked?.ipv6 || e.asked?.linkLocal
        ? {
            ...(e.asked.ipv4 ? { IPv4Address: e.asked.ipv4 } : {}),
            ...(e.asked.ipv6 ? { IPv6Address: e.asked.ipv6 } : {}),
            ...(e.asked.linkLocal ? { LinkLocalIPs: e.asked.linkLocal } : {}),
          }
        : null,
    Links: e.links.length > 0 ? e.links : null,
    Aliases: e.aliases.length > 0 ? e.aliases : null,
    NetworkID: e.networkId,
    EndpointID: running ? e.endpointId : '',
    Gateway: (running && e.gateway4) || '',
    IPAddress: (running && e.ipv4) || '',
    IPPrefixLen: (running && e.prefix4) || 0,
    IPv6Gateway: (running && e.gateway6) || '',
    GlobalIPv6Address: (running && e.ipv6) || '',
    GlobalIPv6PrefixLen: (running && e.prefix6) || 0,
    MacAddress: (running && e.mac) || e.asked?.mac || '',
    GwPriority: e.gwPriority ?? 0,
    DriverOpts: Object.keys(e.driverOptions).length > 0 ? e.driverOptions : null,
    ...(record ? { DNSNames: [...new Set([record.name, ...e.aliases, record.id.slice(0, 12)])] } : {}),
  };
}

/** `NetworkSettings.Ports` of a running container: exposed ports are null, published ones say where. */
export function portMap(record: ContainerRecord): PortMap {
  const map: Record<string, { HostIp: string; HostPort: string }[] | null> = {};
  if (!isRunning(record.state)) return map as PortMap;
  for (const port of record.ports) {
    const key = `${port.containerPort}/${port.protocol}`;
    map[key] ??= null;
    if (port.hostPort !== undefined)
      map[key] = [...(map[key] ?? []), { HostIp: port.hostIp ?? '', HostPort: String(port.hostPort) }];
  }
  return map as PortMap;
}

function withoutUndefined<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

function withoutNulls<T extends object>(value: T): Partial<T> {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== null)) as Partial<T>;
}
