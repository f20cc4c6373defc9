import {
  compact,
  DEFAULT_NETWORK,
  DEFAULT_SHM_BYTES,
  hasPlainPaths,
  linksOf,
  namespaceWord,
  published,
  type Unsaid,
  unsaidOfDocker,
  userWord,
  variables,
  when,
} from '#engine/core/insight/show-parts.ts';
import type { ContainerRecord } from '#engine/core/record.ts';
import type { ContainerSpec, EndpointSpec, MountSpec } from '#engine/core/spec.ts';

export interface ComposeFile {
  services: Record<string, object>;
  volumes?: Record<string, object>;
  networks?: Record<string, object>;
}

/** One service of a Compose file (compose-spec, "Services"), with the volumes and networks it names. */
export function composeService(record: ContainerRecord): Unsaid & { file: ComposeFile } {
  const { spec, name } = record;
  const service = compact({
    image: record.image.reference,
    container_name: name,
    platform: spec.platform,
    ...processKeys(spec),
    volumes: spec.mounts.flatMap((m) => (m.type === 'tmpfs' ? [] : [volumeEntry(m)])),
    tmpfs: spec.mounts.flatMap((m) => (m.type === 'tmpfs' ? [tmpfsEntry(m)] : [])),
    ...networkKeys(spec),
    ...resourceKeys(spec),
    ...securityKeys(spec),
    ...lifeKeys(spec),
  });
  // Compose takes an empty list for the wish to have none of the image's.
  if (spec.process.entrypoint) service['entrypoint'] = spec.process.entrypoint;
  const volumes = spec.mounts.flatMap((m) => (m.type === 'volume' && m.name !== '' ? [m.name] : []));
  const networks = joined(spec).map((e) => e.network);
  const external = (names: readonly string[]): Record<string, object> =>
    Object.fromEntries(names.map((n) => [n, { external: true }]));
  return {
    file: {
      services: { [name]: literal(service) as object },
      ...(volumes.length > 0 ? { volumes: external([...new Set(volumes)]) } : {}),
      ...(networks.length > 0 ? { networks: external(networks) } : {}),
    },
    unsaid: unsaidOf(spec),
    ours: when(spec.namespaces.user.kind === 'private', `userns_mode: ${userWord(spec.namespaces.user)}`),
  };
}

/** Compose would put a variable in the place of a dollar, wherever a value stands (compose-spec, "Interpolation"). */
function literal(value: unknown): unknown {
  if (typeof value === 'string') return value.replaceAll('$', '$$$$');
  if (Array.isArray(value)) return value.map(literal);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, literal(inner)]));
}

function processKeys({ process, hostname, domainname, labels, annotations, init, namespaces }: ContainerSpec): object {
  return {
    hostname,
    domainname,
    command: process.args,
    user: process.user,
    working_dir: process.cwd,
    group_add: process.groups,
    environment: variables(process),
    labels,
    annotations,
    stdin_open: process.stdin || undefined,
    tty: process.tty || undefined,
    init: init || undefined,
    pid: namespaceWord(namespaces.pid),
    ipc: namespaceWord(namespaces.ipc),
    uts: namespaceWord(namespaces.uts),
    cgroup: namespaceWord(namespaces.cgroup),
    userns_mode: userWord(namespaces.user),
  };
}

type Bind = MountSpec & { type: 'bind' };
type Volume = MountSpec & { type: 'volume' };
type Tmpfs = MountSpec & { type: 'tmpfs' };

function volumeEntry(mount: Bind | Volume): object | string {
  if (mount.type === 'bind') return isShort(mount) ? shortBind(mount) : longBind(mount);
  return compact({
    type: 'volume',
    source: mount.name,
    target: mount.target,
    read_only: mount.readonly !== false || undefined,
    volume: compact({ nocopy: mount.noCopy || undefined, subpath: mount.subpath, labels: mount.labels }),
  });
}

/** The short syntax makes a source that is missing, with every version; of the long one that is a newer word. */
function isShort({ source, target, createSource, recursive, readonly }: Bind): boolean {
  const plain = recursive && (readonly === false || readonly === 'recursive');
  return createSource && plain && !`${source}${target}`.includes(':');
}

function shortBind({ source, target, readonly, propagation }: Bind): string {
  const modes = [...when(readonly !== false, 'ro'), ...(propagation ? [propagation] : [])];
  return [source, target, ...when(modes.length > 0, modes.join(','))].join(':');
}

function longBind({ source, target, readonly, propagation, createSource, recursive }: Bind): object {
  const below = recursive ? { top: 'writable', 'force-recursive': 'readonly' }[String(readonly)] : 'disabled';
  return compact({
    type: 'bind',
    source,
    target,
    read_only: readonly !== false || undefined,
    bind: compact({ propagation, create_host_path: createSource, recursive: below }),
  });
}

function tmpfsEntry({ target, options, readonly }: Tmpfs): string {
  const all = [...options, ...when(readonly !== false, 'ro')];
  return all.length > 0 ? `${target}:${all.join(',')}` : target;
}

/** What it joins by `networks`; the default network is a mode. */
function joined({ namespaces, network }: ContainerSpec): EndpointSpec[] {
  return namespaces.network.kind === 'private' ? network.endpoints.filter((e) => e.network !== DEFAULT_NETWORK) : [];
}

function networkKeys(spec: ContainerSpec): object {
  const { network, namespaces } = spec;
  const endpoints = joined(spec);
  const [main] = network.endpoints;
  const isJoining = namespaces.network.kind === 'private';
  return {
    network_mode: isJoining
      ? endpoints.length > 0
        ? undefined
        : (main?.network ?? 'none')
      : namespaceWord(namespaces.network),
    networks: Object.fromEntries(
      endpoints.map((e, i) => [e.network, endpointEntry(e, endpoints.length - 1 - i)] as const),
    ),
    // The host's network publishes nothing, and Compose refuses to say so.
    ports: Object.entries(namespaces.network.kind === 'host' ? {} : network.ports).flatMap(([port, bindings]) =>
      bindings.map((b) => published(b, port)),
    ),
    expose: Object.entries(network.ports).flatMap(([port, bindings]) => when(bindings.length === 0, port)),
    mac_address: network.mac ?? (main?.network === DEFAULT_NETWORK ? main.mac : undefined),
    dns: network.dns,
    dns_search: network.dnsSearch,
    dns_opt: network.dnsOptions,
    extra_hosts: network.extraHosts,
    // `links` are to services of the file.
    external_links: linksOf(network),
  };
}

/** `priority`: the order in which networks are joined, the highest first. */
function endpointEntry(e: EndpointSpec, priority: number): object {
  return compact({
    aliases: e.aliases,
    ipv4_address: e.ipv4,
    ipv6_address: e.ipv6,
    link_local_ips: e.linkLocal,
    mac_address: e.mac,
    driver_opts: e.driverOptions,
    gw_priority: e.gwPriority || undefined,
    priority: priority || undefined,
  });
}

function resourceKeys({ resources: r, shmBytes, ulimits }: ContainerSpec): object {
  return {
    mem_limit: r.memoryBytes,
    mem_reservation: r.memoryReservationBytes,
    memswap_limit: r.memorySwapBytes,
    mem_swappiness: r.memorySwappiness,
    oom_kill_disable: r.oomKillDisable || undefined,
    cpus: r.nanoCpus ? r.nanoCpus / 1e9 : undefined,
    cpu_shares: r.cpuShares,
    cpu_period: r.cpuPeriodUs,
    cpu_quota: r.cpuQuotaUs,
    cpu_rt_period: r.cpuRealtimePeriodUs,
    cpu_rt_runtime: r.cpuRealtimeRuntimeUs,
    cpuset: r.cpusetCpus,
    pids_limit: r.pids,
    blkio_config: compact({
      weight: r.blkioWeight,
      weight_device: r.blkioWeightDevices,
      device_read_bps: r.readBps,
      device_write_bps: r.writeBps,
      device_read_iops: r.readIops,
      device_write_iops: r.writeIops,
    }),
    cgroup_parent: r.cgroupParent,
    shm_size: shmBytes === DEFAULT_SHM_BYTES ? undefined : shmBytes,
    ulimits: Object.fromEntries(ulimits.map((u) => [u.name, { soft: u.soft, hard: u.hard }])),
  };
}

function securityKeys({ security, devices, deviceRules, sysctls, oomScoreAdj }: ContainerSpec): object {
  return {
    privileged: security.privileged || undefined,
    cap_add: security.capAdd,
    cap_drop: security.capDrop,
    security_opt: [
      ...when(security.noNewPrivileges, 'no-new-privileges:true'),
      ...when(security.seccomp === 'unconfined', 'seccomp:unconfined'),
      ...when(hasPlainPaths(security), 'systempaths=unconfined'),
    ],
    read_only: security.readonlyRoot || undefined,
    devices: devices.map((d) => `${d.hostPath}:${d.path}:${d.access}`),
    device_cgroup_rules: deviceRules,
    sysctls,
    oom_score_adj: oomScoreAdj || undefined,
  };
}

function lifeKeys({ restart, stop, health, logging, runtime }: ContainerSpec): object {
  const retries = restart.maxRetries > 0 ? `:${restart.maxRetries}` : '';
  const seconds = (ns: number): string | undefined => (ns > 0 ? `${ns / 1e9}s` : undefined);
  return {
    restart: restart.name === 'no' ? undefined : `${restart.name}${retries}`,
    stop_signal: stop.signal,
    stop_grace_period: stop.timeoutSeconds === undefined ? undefined : `${stop.timeoutSeconds}s`,
    healthcheck: health
      ? compact({
          test: health.test,
          interval: seconds(health.intervalNs),
          timeout: seconds(health.timeoutNs),
          start_period: seconds(health.startPeriodNs),
          start_interval: seconds(health.startIntervalNs),
          retries: health.retries || undefined,
        })
      : undefined,
    logging:
      logging.driver === 'json-file' && Object.keys(logging.options).length === 0
        ? undefined
        : compact({ driver: logging.driver, options: logging.options }),
    runtime,
  };
}

function unsaidOf(spec: ContainerSpec): string[] {
  const { process, mounts, resources, network, namespaces, autoRemove } = spec;
  const isPublished = Object.values(network.ports).some((bindings) => bindings.length > 0);
  return [
    ...unsaidOfDocker(spec),
    ...when(process.stdin && process.stdinOnce, 'a standard input that closes with the first client that leaves'),
    ...unsaidOfNetworks(spec),
    ...when(namespaces.network.kind === 'host' && isPublished, 'published ports: the network of the host has none'),
    ...when(network.publishAll, 'ports of the image, published at any of the host'),
    ...mounts.flatMap((m) => {
      if (m.type === 'tmpfs') return [];
      const owner = when(m.owner !== undefined, `owners of the files at ${m.target}`);
      return m.type === 'bind'
        ? owner
        : [...owner, ...when(m.driver !== undefined, `the volume driver at ${m.target}: the volume has to be there`)];
    }),
    ...when(Boolean(resources.cpusetMems), `memory nodes ${resources.cpusetMems}`),
    ...when(autoRemove, '--rm: a service stays until it is taken down'),
  ];
}

/** The default network is a mode, which stands alone and has no settings but the MAC address. */
function unsaidOfNetworks(spec: ContainerSpec): string[] {
  const own = spec.network.endpoints.find((e) => e.network === DEFAULT_NETWORK);
  if (spec.namespaces.network.kind !== 'private' || !own) return [];
  const { network, links, mac, ...settings } = own;
  return [
    ...when(joined(spec).length > 0, `the network ${network} beside others`),
    ...when(
      Object.values(compact({ ...settings, gwPriority: own.gwPriority || '' })).length > 0,
      `what it is in the network ${network}: aliases, addresses, options`,
    ),
  ];
}
