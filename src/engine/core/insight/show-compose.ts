import { DEFAULT_SHM_BYTES, published } from '#engine/core/insight/show-docker.ts';
import type { ContainerRecord } from '#engine/core/record.ts';
import type { ContainerSpec, IpcMode, MountSpec } from '#engine/core/spec.ts';

export interface ComposeFile {
  services: Record<string, object>;
  volumes?: Record<string, object>;
  networks?: Record<string, object>;
}

/** One service of a Compose file (compose-spec, "Services"), with the volumes and networks it names. */
export function composeService(record: ContainerRecord): { file: ComposeFile; unsaid: string[] } {
  const { spec, name } = record;
  const service = compact({
    image: record.image.reference,
    container_name: name,
    ...processKeys(spec),
    volumes: spec.mounts.filter((m) => m.type !== 'tmpfs').map(volumeEntry),
    tmpfs: spec.mounts.flatMap((m) => (m.type === 'tmpfs' ? [tmpfsEntry(m)] : [])),
    ...networkKeys(spec),
    ...resourceKeys(spec),
    ...securityKeys(spec),
    ...lifeKeys(spec),
  });
  const volumes = spec.mounts.flatMap((m) => (m.type === 'volume' && m.name !== '' ? [m.name] : []));
  const networks = networkNames(spec);
  const external = (names: readonly string[]): Record<string, object> =>
    Object.fromEntries(names.map((n) => [n, { external: true }]));
  return {
    file: {
      services: { [name]: service },
      ...(volumes.length > 0 ? { volumes: external([...new Set(volumes)]) } : {}),
      ...(networks.length > 0 ? { networks: external(networks) } : {}),
    },
    unsaid: spec.autoRemove ? ['--rm: a service stays until it is taken down'] : [],
  };
}

function processKeys({ process, hostname, domainname, labels, init, namespaces }: ContainerSpec): object {
  return {
    hostname,
    domainname,
    entrypoint: process.entrypoint,
    command: process.args?.map(escapeDollar),
    user: process.user,
    working_dir: process.cwd,
    group_add: process.groups,
    environment: process.env.map(escapeDollar),
    labels,
    stdin_open: process.stdin || undefined,
    tty: process.tty || undefined,
    init: init || undefined,
    pid: namespaceKey(namespaces.pid),
    ipc: namespaceKey(namespaces.ipc),
    uts: namespaceKey(namespaces.uts),
  };
}

/** Compose would put a variable in its place. */
function escapeDollar(text: string): string {
  return text.replaceAll('$', '$$$$');
}

function namespaceKey(mode: IpcMode): string | undefined {
  if (mode.kind === 'private') return undefined;
  return mode.kind === 'container' ? `container:${mode.id}` : mode.kind;
}

function volumeEntry(mount: MountSpec): object | string {
  if (mount.type === 'bind')
    return compact({
      type: 'bind',
      source: mount.source,
      target: mount.target,
      read_only: mount.readonly !== false || undefined,
      bind: compact({ propagation: mount.propagation, create_host_path: mount.createSource || undefined }),
    });
  if (mount.type === 'volume')
    return compact({
      type: 'volume',
      source: mount.name || undefined,
      target: mount.target,
      read_only: mount.readonly !== false || undefined,
      volume: compact({ nocopy: mount.noCopy || undefined, subpath: mount.subpath }),
    });
  return tmpfsEntry(mount);
}

function tmpfsEntry({ target, options }: MountSpec & { type: 'tmpfs' }): string {
  return options.length > 0 ? `${target}:${options.join(',')}` : target;
}

function networkNames({ namespaces, network }: ContainerSpec): string[] {
  if (namespaces.network.kind !== 'private') return [];
  return network.endpoints.map((e) => e.network).filter((n) => n !== 'bridge' && n !== 'none');
}

function networkKeys(spec: ContainerSpec): object {
  const { network, namespaces } = spec;
  const named = network.endpoints.filter((e) => networkNames(spec).includes(e.network));
  const mode = namespaceKey(namespaces.network);
  return {
    network_mode: mode ?? (named.length === 0 ? (network.endpoints[0]?.network ?? 'none') : undefined),
    networks: Object.fromEntries(
      named.map((e) => [
        e.network,
        compact({ aliases: e.aliases, ipv4_address: e.ipv4, ipv6_address: e.ipv6, mac_address: e.mac }),
      ]),
    ),
    ports: Object.entries(network.ports).flatMap(([port, bindings]) => bindings.map((b) => published(b, port))),
    mac_address: network.mac,
    dns: network.dns,
    dns_search: network.dnsSearch,
    dns_opt: network.dnsOptions,
    extra_hosts: network.extraHosts,
    links: network.links,
  };
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
    cpuset: r.cpusetCpus,
    pids_limit: r.pids,
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
      ...(security.noNewPrivileges ? ['no-new-privileges:true'] : []),
      ...(security.seccomp === 'unconfined' ? ['seccomp:unconfined'] : []),
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
          test: health.test.map(escapeDollar),
          interval: seconds(health.intervalNs),
          timeout: seconds(health.timeoutNs),
          start_period: seconds(health.startPeriodNs),
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

/** Without what was not asked for: absent, empty lists and empty maps. */
export function compact(object: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(object).filter(([, value]) => {
      if (value === undefined || value === null || value === '') return false;
      if (Array.isArray(value)) return value.length > 0;
      return typeof value !== 'object' || Object.keys(value).length > 0;
    }),
  );
}
