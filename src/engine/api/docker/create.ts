import { isIP } from 'node:net';
import { fail } from '#base/shape.ts';
import { parseSizeBytes } from '#base/units.ts';
import { mountOf, parseBind } from '#engine/api/docker/binds.ts';
import { isTagTemplate } from '#engine/api/docker/log-details.ts';
import { securityOf } from '#engine/api/docker/security.ts';
import { NotSupported } from '#engine/api/errors.ts';
import { NoSuchLogDriver } from '#engine/core/errors.ts';
import { ID_RANGE_SIZE } from '#engine/core/id-ranges.ts';
import { isLogFlag, logFilesOf, wantsPacked } from '#engine/core/log-files.ts';
import { isUlimit, parseDeviceRule } from '#engine/core/oci-resources.ts';
import type {
  ContainerSpec,
  EndpointSpec,
  HealthSpec,
  MountSpec,
  NamespaceMode,
  NamespaceSpec,
  NetworkSpec,
  Origin,
  ResourceSpec,
  RestartPolicy,
} from '#engine/core/spec.ts';
import type { Bodies, EndpointSettings, HealthConfig, HostConfig } from '#spec/docker/types.gen.ts';

/**
 * `POST /containers/create` → what the container is asked to be. Pure. Every field of the request either ends in the spec, or
 * has no effect by its nature (said beside it), or is refused by its path.
 */
export interface CreateRequest {
  spec: ContainerSpec;
  /** `container[:ro]`: their mounts are added when the container is made. */
  volumesFrom: string[];
  warnings: string[];
}

const DEFAULT_SHM_BYTES = 64 * 1024 * 1024;
const MIN_MEMORY_BYTES = 6 * 1024 * 1024; // Docker's own floor: less cannot start a process

export function createRequest(body: Bodies['ContainerCreate'], origin: Origin['by'] = 'docker'): CreateRequest {
  const host = hostConfigOf(body);
  const warnings: string[] = [];
  refuseUnsupported(host);
  if (host.KernelMemory || host.KernelMemoryTCP)
    warnings.push('Kernel memory limits are gone from Linux; the limit was left out.');
  const image = body.Image ?? '';
  if (image === '') fail('$.Image', body.Image, 'must name an image');
  const health = body.Healthcheck ? healthOf(body.Healthcheck) : undefined;
  const spec: ContainerSpec = {
    image,
    origin: { by: originOf(body.Labels ?? {}, origin), request: body },
    labels: body.Labels ?? {},
    annotations: host.Annotations ?? {},
    process: {
      ...(body.Entrypoint
        ? { entrypoint: body.Entrypoint.length === 1 && body.Entrypoint[0] === '' ? [] : body.Entrypoint }
        : {}),
      ...(body.Cmd ? { args: body.Cmd } : {}),
      env: body.Env ?? [],
      ...(body.WorkingDir ? { cwd: workingDir(body.WorkingDir) } : {}),
      ...(body.User ? { user: body.User } : {}),
      groups: host.GroupAdd ?? [],
      tty: body.Tty ?? false,
      ...consoleSize(host),
      stdin: body.OpenStdin ?? false,
      stdinOnce: body.StdinOnce ?? false,
      ...(body.Shell?.length ? { shell: body.Shell } : {}),
    },
    ...(body.Hostname ? { hostname: body.Hostname } : {}),
    ...(body.Domainname ? { domainname: body.Domainname } : {}),
    stop: {
      ...(body.StopSignal ? { signal: body.StopSignal } : {}),
      ...(typeof body.StopTimeout === 'number' ? { timeoutSeconds: body.StopTimeout } : {}),
    },
    init: host.Init ?? false,
    namespaces: namespacesOf(host, body.NetworkDisabled ?? false),
    mounts: mountsOf(body, host),
    resources: resourcesOf(host),
    security: securityOf(host),
    devices: (host.Devices ?? []).map((d, i) => ({
      hostPath: d.PathOnHost || fail(`$.HostConfig.Devices[${i}].PathOnHost`, d.PathOnHost, 'must name a device'),
      path: d.PathInContainer || d.PathOnHost || '',
      access: d.CgroupPermissions || 'rwm',
    })),
    deviceRules: host.DeviceCgroupRules ?? [],
    sysctls: host.Sysctls ?? {},
    ulimits: (host.Ulimits ?? []).map((u, i) =>
      ulimit(u.Name ?? '', u.Soft ?? 0, u.Hard ?? 0, `$.HostConfig.Ulimits[${i}]`),
    ),
    oomScoreAdj: inRange(host.OomScoreAdj ?? 0, -1000, 1000, '$.HostConfig.OomScoreAdj'),
    shmBytes: host.ShmSize || DEFAULT_SHM_BYTES,
    network: networkOf(body, host),
    restart: restartOf(host.RestartPolicy ?? {}, body.Labels ?? {}, '$.HostConfig.RestartPolicy'),
    ...(health ? { health } : {}),
    logging: loggingOf(host),
    autoRemove: host.AutoRemove ?? false,
    ...(host.Runtime ? { runtime: host.Runtime } : {}),
  };
  checkTogether(spec, host);
  for (const [i, rule] of spec.deviceRules.entries()) parseDeviceRule(rule, `$.HostConfig.DeviceCgroupRules[${i}]`);
  return { spec, volumesFrom: host.VolumesFrom ?? [], warnings };
}

/** docker-py writes the runtime beside HostConfig, and clients of Docker's first years its other fields: they count where it is silent. */
function hostConfigOf({ HostConfig, Runtime, Dns }: Bodies['ContainerCreate']): HostConfig {
  return { ...(Runtime ? { Runtime } : {}), ...(Dns ? { Dns } : {}), ...withoutEmpty(HostConfig ?? {}) };
}

/** Go's clients write out what they do not wish. */
function withoutEmpty(host: HostConfig): HostConfig {
  const { Runtime, Dns, ...rest } = host;
  return { ...rest, ...(Runtime ? { Runtime } : {}), ...(Dns?.length ? { Dns } : {}) };
}

const LOG_DRIVERS: readonly string[] = ['json-file', 'local', 'none'];
/**
 * What our drivers act on, and the rule of each. `labels`, `env` and `tag` say what `docker logs --details` shows. A program waits while
 * its log is written (`blocking`).
 */
const LOG_OPTIONS: Readonly<Record<string, { is: (value: string) => boolean; otherwise: string }>> = {
  'max-size': { is: (value) => Boolean(parseSizeBytes(value)), otherwise: 'is no size such as 10m' },
  'max-file': { is: (value) => /^[1-9]\d{0,3}$/.test(value), otherwise: 'is not a number of files from 1 to 9999' },
  labels: { is: () => true, otherwise: '' },
  'labels-regex': { is: isRegex, otherwise: 'is no regular expression' },
  env: { is: () => true, otherwise: '' },
  'env-regex': { is: isRegex, otherwise: 'is no regular expression' },
  tag: {
    is: isTagTemplate,
    otherwise: 'has more than {{.ID}}, {{.FullID}}, {{.Name}}, {{.ImageID}} and {{.ImageName}}',
  },
  mode: { is: (value) => value === 'blocking', otherwise: 'is not blocking: no line is dropped here' },
  compress: { is: isLogFlag, otherwise: 'is neither true nor false' },
};

function isRegex(value: string): boolean {
  try {
    return new RegExp(value) instanceof RegExp;
  } catch {
    return false; // SyntaxError is the answer
  }
}

function loggingOf(host: HostConfig): ContainerSpec['logging'] {
  const driver = host.LogConfig?.Type || 'json-file';
  const options = host.LogConfig?.Config ?? {};
  const at = '$.HostConfig.LogConfig';
  if (!LOG_DRIVERS.includes(driver)) throw new NoSuchLogDriver({ driver });
  for (const [name, value] of Object.entries(options)) {
    const path = `${at}.Config[${JSON.stringify(name)}]`;
    const option = Object.hasOwn(LOG_OPTIONS, name) ? LOG_OPTIONS[name] : undefined;
    if (!option) fail(path, value, `is no option here; known are ${Object.keys(LOG_OPTIONS).join(', ')}`);
    else if (!option.is(value)) fail(path, value, option.otherwise);
  }
  const { compress } = options;
  if (compress !== undefined && wantsPacked({ driver, options }) && logFilesOf({ driver, options }) < 2)
    fail(`${at}.Config["compress"]`, compress, 'contradicts a max-file of 1: it packs turned files, and none is kept');
  return { driver, options };
}

function refuseUnsupported(host: HostConfig): void {
  const refuse = (what: string, instead: string): never => {
    throw new NotSupported({ what, instead });
  };
  if (host.Isolation && host.Isolation !== 'default')
    refuse(`isolation ${host.Isolation}`, 'it is for Windows; leave it away');
  if (host.DeviceRequests?.length) refuse('--gpus and other device requests', 'name the devices with --device');
  if (host.StorageOpt && Object.keys(host.StorageOpt).length > 0)
    refuse('--storage-opt', 'a sized volume bounds what a container may write: docker volume create --opt size=');
  if (host.Cgroup) refuse('HostConfig.Cgroup', 'use --cgroup-parent');
  if (host.DiskQuota) refuse('HostConfig.DiskQuota', 'it went with API 1.24; a sized volume bounds what is written');
  if (host.CpuCount || host.CpuPercent || host.IOMaximumIOps || host.IOMaximumBandwidth)
    refuse('CpuCount, CpuPercent and IOMaximum', 'they are for Windows; use --cpus and --device-read-bps');
}

/** What cannot hold at the same time. */
function checkTogether(spec: ContainerSpec, host: HostConfig): void {
  if (spec.autoRemove && spec.restart.name !== 'no')
    fail('$.HostConfig.AutoRemove', true, `contradicts the restart policy ${spec.restart.name}`);
  if (spec.hostname && spec.namespaces.uts.kind === 'host')
    fail('$.Hostname', spec.hostname, 'contradicts UTSMode host: it would rename the host');
  checkUserNamespace(spec, host);
  const { network } = spec.namespaces;
  if (network.kind === 'container') {
    const conflict = Object.values(spec.network.ports).some((b) => b.length > 0) || spec.network.publishAll;
    if (conflict)
      fail(
        '$.HostConfig.PortBindings',
        host.PortBindings,
        'contradicts NetworkMode container: publish the ports on that container',
      );
    if (spec.hostname)
      fail(
        '$.Hostname',
        spec.hostname,
        'contradicts NetworkMode container: the host name is that of the joined container',
      );
    if (spec.network.links.length > 0)
      fail('$.HostConfig.Links', spec.network.links, 'contradicts NetworkMode container');
    if (spec.network.dns.length > 0) fail('$.HostConfig.Dns', spec.network.dns, 'contradicts NetworkMode container');
  }
  const targets = new Map<string, number>();
  for (const mount of spec.mounts) targets.set(mount.target, (targets.get(mount.target) ?? 0) + 1);
  for (const [target, count] of targets)
    if (count > 1) fail('$.HostConfig.Binds', target, 'is the target of two mounts: Duplicate mount point');
}

/** Docker refuses the first three under its `userns-remap`: what belongs to the host's user namespace gives no right to root of another. */
function checkUserNamespace({ namespaces, security }: ContainerSpec, host: HostConfig): void {
  if (namespaces.user.kind === 'host') return;
  if (security.privileged)
    fail('$.HostConfig.Privileged', true, 'contradicts a user namespace of its own: --userns host gives it the host’s');
  const modes = { NetworkMode: namespaces.network, PidMode: namespaces.pid, IpcMode: namespaces.ipc };
  for (const [field, { kind }] of Object.entries(modes))
    if (kind === 'host' || kind === 'container')
      fail(
        `$.HostConfig.${field}`,
        host[field as keyof typeof modes],
        'contradicts a user namespace of its own, to which that namespace does not belong: leave away one of the two',
      );
}

function workingDir(path: string): string {
  return path.startsWith('/') ? path : fail('$.WorkingDir', path, 'is not an absolute path');
}

/** Docker's API says [height, width]. */
function consoleSize(host: HostConfig): { consoleSize?: { rows: number; columns: number } } {
  const [rows = 0, columns = 0] = host.ConsoleSize ?? [];
  return rows > 0 && columns > 0 ? { consoleSize: { rows, columns } } : {};
}

function namespacesOf(host: HostConfig, networkDisabled: boolean): NamespaceSpec {
  const ipc = host.IpcMode ?? '';
  return {
    network: networkDisabled ? { kind: 'private' } : networkMode(host.NetworkMode ?? ''),
    pid: mode(host.PidMode ?? '', '$.HostConfig.PidMode', ['host', 'container']),
    ipc:
      ipc === 'none'
        ? { kind: 'none' }
        : ipc === 'shareable' || ipc === 'private'
          ? { kind: ipc }
          : mode(ipc, '$.HostConfig.IpcMode', ['host', 'container']),
    uts: mode(host.UTSMode ?? '', '$.HostConfig.UTSMode', ['host']),
    cgroup: mode(host.CgroupnsMode === 'private' ? '' : (host.CgroupnsMode ?? ''), '$.HostConfig.CgroupnsMode', [
      'host',
    ]),
    user: userMode(host.UsernsMode ?? ''),
  };
}

function networkMode(text: string): NamespaceMode {
  if (text === 'host') return { kind: 'host' };
  if (text.startsWith('container:')) return mode(text, '$.HostConfig.NetworkMode', ['container']);
  return { kind: 'private' }; // a network's name, `default`, `bridge` or `none`: which one is said by the endpoints
}

function mode(text: string, path: string, allowed: readonly ('host' | 'container')[]): NamespaceMode {
  if (text === '') return { kind: 'private' };
  if (text === 'host' && allowed.includes('host')) return { kind: 'host' };
  const id = /^container:(.+)$/.exec(text)?.[1];
  if (id !== undefined && allowed.includes('container')) return { kind: 'container', id };
  return fail(
    path,
    text,
    `is none of ${['""', ...allowed.map((a) => (a === 'container' ? 'container:NAME' : a))].join(', ')}`,
  );
}

/**
 * `private` is ours: a user namespace for this container alone, over a range of ids that no other has, or over the one that is named.
 * Docker knows `host` only, for a daemon that remaps.
 */
function userMode(text: string): NamespaceSpec['user'] {
  if (text === '' || text === 'host') return { kind: 'host' };
  if (text === 'private') return { kind: 'private', mappings: [] };
  const [, first, count] = /^private:(\d{1,10}):(\d{1,10})$/.exec(text) ?? [];
  if (first === undefined || count === undefined)
    return fail('$.HostConfig.UsernsMode', text, 'is none of host, private, private:FIRST:COUNT');
  const [hostId, size] = [Number(first), Number(count)];
  if (size < ID_RANGE_SIZE) fail('$.HostConfig.UsernsMode', text, `has ${size} ids, and images use ${ID_RANGE_SIZE}`);
  // An id is either one inside or one outside, and the host's own users are nobody's.
  if (hostId < size || hostId + size > IDS_END)
    fail('$.HostConfig.UsernsMode', text, 'has to begin above as many ids as it has, and to end below 4294967295');
  return { kind: 'private', mappings: [{ containerId: 0, hostId, size }] };
}

/** (uid_t) −1 is no id. */
const IDS_END = 0xffff_ffff;

function mountsOf(body: Bodies['ContainerCreate'], host: HostConfig): MountSpec[] {
  const binds = (host.Binds ?? []).map((text, i) =>
    parseBind(text, `$.HostConfig.Binds[${i}]`, host.VolumeDriver || undefined),
  );
  const mounts = (host.Mounts ?? []).map((mount, i) => mountOf(mount, `$.HostConfig.Mounts[${i}]`));
  const tmpfs = Object.entries(host.Tmpfs ?? {}).map(([target, options]): MountSpec => {
    if (!target.startsWith('/')) fail('$.HostConfig.Tmpfs', target, 'is not an absolute path');
    const list = options.split(',').filter(Boolean);
    return {
      type: 'tmpfs',
      target,
      options: list.filter((o) => o !== 'ro' && o !== 'rw'),
      readonly: list.includes('ro') ? 'top' : false,
    };
  });
  const named = [...binds, ...mounts, ...tmpfs];
  const anonymous = Object.keys(body.Volumes ?? {})
    .filter((target) => !named.some((m) => m.target === target))
    .map((target, i) => parseBind(target, `$.Volumes[${i}]`, host.VolumeDriver || undefined));
  return [...named, ...anonymous];
}

function resourcesOf(host: HostConfig): ResourceSpec {
  const memory = host.Memory || undefined;
  if (memory !== undefined && memory < MIN_MEMORY_BYTES)
    fail('$.HostConfig.Memory', memory, 'is below the minimum memory limit of 6MB');
  const swap = host.MemorySwap || undefined;
  if (swap !== undefined && swap > 0) {
    if (memory === undefined) fail('$.HostConfig.MemorySwap', swap, 'needs a memory limit: set both at the same time');
    if (swap < (memory ?? 0))
      fail('$.HostConfig.MemorySwap', swap, 'is below the memory limit: it counts memory and swap together');
  }
  const reservation = host.MemoryReservation || undefined;
  if (reservation !== undefined && memory !== undefined && reservation > memory)
    fail('$.HostConfig.MemoryReservation', reservation, 'is above the memory limit');
  const swappiness = host.MemorySwappiness ?? -1;
  if (swappiness !== -1) inRange(swappiness, 0, 100, '$.HostConfig.MemorySwappiness');
  if (host.NanoCpus && (host.CpuPeriod || host.CpuQuota))
    fail('$.HostConfig.NanoCpus', host.NanoCpus, 'contradicts CpuPeriod and CpuQuota: use one of the two ways');
  if (host.CpuPeriod) inRange(host.CpuPeriod, 1_000, 1_000_000, '$.HostConfig.CpuPeriod');
  if (host.CpuQuota && host.CpuQuota > 0 && host.CpuQuota < 1_000)
    fail('$.HostConfig.CpuQuota', host.CpuQuota, 'is below 1000 (1 ms)');
  if (host.BlkioWeight) inRange(host.BlkioWeight, 10, 1_000, '$.HostConfig.BlkioWeight');
  const pids = host.PidsLimit ?? 0;
  const rates = (list: HostConfig['BlkioDeviceReadBps']): { path: string; rate: number }[] =>
    (list ?? []).map((d) => ({ path: d.Path ?? '', rate: d.Rate ?? 0 }));
  const wish = {
    memoryBytes: memory,
    memoryReservationBytes: reservation,
    memorySwapBytes: swap,
    memorySwappiness: swappiness === -1 ? undefined : swappiness,
    nanoCpus: host.NanoCpus || undefined,
    cpuShares: host.CpuShares || undefined,
    cpuPeriodUs: host.CpuPeriod || undefined,
    cpuQuotaUs: host.CpuQuota || undefined,
    cpuRealtimePeriodUs: host.CpuRealtimePeriod || undefined,
    cpuRealtimeRuntimeUs: host.CpuRealtimeRuntime || undefined,
    cpusetCpus: host.CpusetCpus || undefined,
    cpusetMems: host.CpusetMems || undefined,
    pids: pids > 0 ? pids : undefined,
    blkioWeight: host.BlkioWeight || undefined,
    cgroupParent: host.CgroupParent || undefined,
  };
  return {
    ...(Object.fromEntries(Object.entries(wish).filter(([, v]) => v !== undefined)) as Partial<ResourceSpec>),
    oomKillDisable: host.OomKillDisable ?? false,
    blkioWeightDevices: (host.BlkioWeightDevice ?? []).map((d) => ({ path: d.Path ?? '', weight: d.Weight ?? 0 })),
    readBps: rates(host.BlkioDeviceReadBps),
    writeBps: rates(host.BlkioDeviceWriteBps),
    readIops: rates(host.BlkioDeviceReadIOps),
    writeIops: rates(host.BlkioDeviceWriteIOps),
    hugepages: [],
  };
}

function ulimit(name: string, soft: number, hard: number, path: string): { name: string; soft: number; hard: number } {
  if (!isUlimit(name)) return fail(`${path}.Name`, name, 'is no limit of setrlimit(2)');
  if (hard !== -1 && (soft > hard || soft === -1)) fail(`${path}.Soft`, soft, `is above the hard limit ${hard}`);
  return { name, soft, hard };
}

function networkOf(body: Bodies['ContainerCreate'], host: HostConfig): NetworkSpec {
  const ports: NetworkSpec['ports'] = {};
  for (const port of Object.keys(body.ExposedPorts ?? {})) ports[portKey(port, '$.ExposedPorts')] = [];
  for (const [port, bindings] of Object.entries(host.PortBindings ?? {})) {
    const key = portKey(port, '$.HostConfig.PortBindings');
    // An empty list publishes on a free port, as `-p 80` does.
    const list =
      bindings === null || (Array.isArray(bindings) && bindings.length === 0)
        ? [{}]
        : (bindings as { HostIp?: string | null; HostPort?: string | null }[]);
    ports[key] = list.map((b) => ({
      hostIp: b.HostIp ?? '',
      hostPort: hostPort(b.HostPort ?? '', `$.HostConfig.PortBindings["${port}"]`),
    }));
  }
  return {
    endpoints: endpointsOf(body, host),
    ports,
    publishAll: host.PublishAllPorts ?? false,
    dns: host.Dns ?? [],
    dnsOptions: host.DnsOptions ?? [],
    dnsSearch: host.DnsSearch ?? [],
    extraHosts: (host.ExtraHosts ?? []).map((entry, i) =>
      /^[^:\s]+:.+$/.test(entry) ? entry : fail(`$.HostConfig.ExtraHosts[${i}]`, entry, 'is not NAME:ADDRESS'),
    ),
    links: host.Links ?? [],
    ...(body.MacAddress ? { mac: body.MacAddress } : {}),
  };
}

/** The network of NetworkMode comes first; what the request says of it by the name `default` belongs to it too. */
function endpointsOf(body: Bodies['ContainerCreate'], host: HostConfig): EndpointSpec[] {
  const wished = body.NetworkingConfig?.EndpointsConfig ?? {};
  const modeName = host.NetworkMode ?? '';
  if (body.NetworkDisabled || modeName === 'none' || modeName === 'host' || modeName.startsWith('container:'))
    return [];
  const asked = modeName || 'default';
  const main = asked === 'default' ? 'bridge' : asked;
  const settings = new Map<string, EndpointSettings | null>([[main, wished[main] ?? wished[asked] ?? null]]);
  for (const [name, value] of Object.entries(wished)) if (name !== main && name !== asked) settings.set(name, value);
  return [...settings].map(([network, s]) => ({
    network,
    ...endpointOf(s ?? {}, `$.NetworkingConfig.EndpointsConfig[${JSON.stringify(network)}]`),
  }));
}

/** What a container asks of a network, from a create or a connect; `path` is where it stands in the body. */
export function endpointOf(s: EndpointSettings, path: string): Omit<EndpointSpec, 'network'> {
  const { IPv4Address, IPv6Address, LinkLocalIPs } = s.IPAMConfig ?? {};
  for (const [i, ip] of (LinkLocalIPs ?? []).entries())
    if (!isLinkLocal(ip))
      fail(`${path}.IPAMConfig.LinkLocalIPs[${i}]`, ip, 'is not an address of 169.254.0.0/16 or fe80::/10');
  return {
    aliases: s.Aliases ?? [],
    ...(IPv4Address ? { ipv4: IPv4Address } : {}),
    ...(IPv6Address ? { ipv6: IPv6Address } : {}),
    ...(s.MacAddress ? { mac: s.MacAddress } : {}),
    ...(LinkLocalIPs?.length ? { linkLocal: LinkLocalIPs } : {}),
    links: s.Links ?? [],
    ...(s.GwPriority ? { gwPriority: s.GwPriority } : {}),
    driverOptions: driverOptions(s.DriverOpts ?? {}, `${path}.DriverOpts`),
  };
}

/** Docker hands options on to the network's driver, and shows them: its own have a meaning that would be missed. */
function driverOptions(options: Record<string, string>, path: string): Record<string, string> {
  for (const [name, value] of Object.entries(options))
    if (name.startsWith('com.docker.network.'))
      fail(`${path}[${JSON.stringify(name)}]`, value, 'is no option of the bridge driver here: use --sysctl');
  return options;
}

/** RFC 3927, 2.1; RFC 4291, 2.5.6. */
function isLinkLocal(text: string): boolean {
  return (isIP(text) === 4 && text.startsWith('169.254.')) || (isIP(text) === 6 && /^fe[89ab]/i.test(text));
}

const PORT_KEY = /^(\d{1,5})(?:\/(tcp|udp|sctp))?$/;

function portKey(text: string, path: string): string {
  const [, port = '', protocol = 'tcp'] = PORT_KEY.exec(text.toLowerCase()) ?? [];
  const number = Number(port);
  return port !== '' && number >= 1 && number <= 65_535
    ? `${number}/${protocol}`
    : fail(path, text, 'is no port such as 80/tcp');
}

function hostPort(text: string, path: string): string {
  const [, first, last] = /^(\d{0,5})(?:-(\d{1,5}))?$/.exec(text) ?? [];
  const bad =
    first === undefined ||
    Number(first) > 65_535 ||
    Number(last ?? 0) > 65_535 ||
    (last !== undefined && Number(last) < Number(first));
  return bad ? fail(path, text, 'is no host port (0 to 65535, or FIRST-LAST)') : text;
}

export function restartOf(
  policy: NonNullable<HostConfig['RestartPolicy']>,
  labels: Record<string, string>,
  path: string,
): RestartPolicy {
  const name = policy.Name || 'no';
  const maxRetries = policy.MaximumRetryCount ?? 0;
  if (name !== 'no' && name !== 'always' && name !== 'unless-stopped' && name !== 'on-failure') {
    return fail(`${path}.Name`, name, 'is none of no, always, unless-stopped, on-failure');
  }
  if (maxRetries < 0) fail(`${path}.MaximumRetryCount`, maxRetries, 'is below 0');
  if (maxRetries > 0 && name !== 'on-failure')
    fail(`${path}.MaximumRetryCount`, maxRetries, 'can only be used with on-failure');
  return { name, maxRetries, onUnhealthy: labels['estiba.restart-on-unhealthy'] === 'true' };
}

export function healthOf(check: HealthConfig): HealthSpec {
  const time = (name: 'Interval' | 'Timeout' | 'StartPeriod' | 'StartInterval'): number => {
    const ns = check[name] ?? 0;
    return ns !== 0 && ns < 1_000_000
      ? fail(`$.Healthcheck.${name}`, ns, 'is below one millisecond (times are in nanoseconds)')
      : ns;
  };
  const test = check.Test ?? [];
  if (test.length > 0 && !['', 'NONE', 'CMD', 'CMD-SHELL'].includes(test[0] ?? ''))
    fail('$.Healthcheck.Test', test, 'does not start with NONE, CMD or CMD-SHELL');
  const retries = check.Retries ?? 0;
  if (retries < 0) fail('$.Healthcheck.Retries', retries, 'is below 0');
  return {
    test: test[0] === '' ? [] : test,
    intervalNs: time('Interval'),
    timeoutNs: time('Timeout'),
    startPeriodNs: time('StartPeriod'),
    startIntervalNs: time('StartInterval'),
    retries,
  };
}

function originOf(labels: Record<string, string>, by: Origin['by']): Origin['by'] {
  return by === 'docker' && labels['com.docker.compose.project'] !== undefined ? 'compose' : by;
}

function inRange(value: number, min: number, max: number, path: string): number {
  return value >= min && value <= max ? value : fail(path, value, `is not between ${min} and ${max}`);
}
