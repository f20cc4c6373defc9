import type { ContainerRecord } from '#engine/core/record.ts';
import type { ContainerSpec, DeviceRate, IpcMode, MountSpec } from '#engine/core/spec.ts';

/** Options of `docker run`, then the image and its arguments. What is as by default is left out. */
export function dockerRun(record: ContainerRecord): { options: string[]; words: string[] } {
  const { spec, name } = record;
  const options = [
    ...flag('--detach', !spec.process.tty && !spec.process.stdin),
    `--name=${name}`,
    ...processFlags(spec),
    ...spec.mounts.flatMap(mountFlags),
    ...networkFlags(spec),
    ...resourceFlags(spec),
    ...securityFlags(spec),
    ...lifeFlags(spec),
  ];
  const words = [record.image.reference, ...(spec.process.entrypoint?.slice(1) ?? []), ...(spec.process.args ?? [])];
  return { options, words };
}

function processFlags({
  process,
  hostname,
  domainname,
  labels,
  annotations,
  init,
  namespaces,
}: ContainerSpec): string[] {
  return [
    ...flag('--interactive', process.stdin),
    ...flag('--tty', process.tty),
    ...flag('--init', init),
    ...option('--hostname', hostname),
    ...option('--domainname', domainname),
    ...option('--user', process.user),
    ...option('--workdir', process.cwd),
    ...process.groups.map((group) => `--group-add=${group}`),
    ...process.env.map((entry) => `--env=${entry}`),
    ...Object.entries(labels).map(([key, value]) => `--label=${key}=${value}`),
    ...Object.entries(annotations).map(([key, value]) => `--annotation=${key}=${value}`),
    ...option('--entrypoint', process.entrypoint?.[0]),
    ...namespaceFlag('--pid', namespaces.pid),
    ...namespaceFlag('--ipc', namespaces.ipc),
    ...namespaceFlag('--uts', namespaces.uts),
    ...namespaceFlag('--cgroupns', namespaces.cgroup),
  ];
}

function namespaceFlag(name: string, mode: IpcMode): string[] {
  if (mode.kind === 'private') return [];
  return [`${name}=${mode.kind === 'container' ? `container:${mode.id}` : mode.kind}`];
}

function mountFlags(mount: MountSpec): string[] {
  const readonly = mount.readonly ? [',readonly'] : [];
  switch (mount.type) {
    case 'tmpfs':
      return [`--tmpfs=${mount.target}${mount.options.length > 0 ? `:${mount.options.join(',')}` : ''}`];
    case 'bind': {
      const options = [
        ...(mount.readonly ? ['ro'] : []),
        ...(mount.propagation ? [mount.propagation] : []),
        ...ownerOptions(mount.owner),
      ];
      return [`--volume=${mount.source}:${mount.target}${options.length > 0 ? `:${options.join(',')}` : ''}`];
    }
    case 'volume': {
      const driver = mount.driver
        ? [
            `,volume-driver=${mount.driver.name}`,
            ...Object.entries(mount.driver.options).map(([k, v]) => `,volume-opt=${k}=${v}`),
          ]
        : [];
      const more = [
        ...(mount.name === '' ? [] : [`,source=${mount.name}`]),
        ...(mount.subpath ? [`,volume-subpath=${mount.subpath}`] : []),
        ...(mount.noCopy ? [',volume-nocopy'] : []),
        ...driver,
        ...readonly,
      ];
      return [`--mount=type=volume${more.join('')},target=${mount.target}`];
    }
  }
}

function ownerOptions(owner: { uid?: number; gid?: number } | undefined): string[] {
  return [
    ...(owner?.uid === undefined ? [] : [`uid=${owner.uid}`]),
    ...(owner?.gid === undefined ? [] : [`gid=${owner.gid}`]),
  ];
}

function networkFlags({ network, namespaces }: ContainerSpec): string[] {
  const mode = namespaces.network;
  if (mode.kind === 'host') return ['--network=host'];
  if (mode.kind === 'container') return [`--network=container:${mode.id}`];
  return [
    ...network.endpoints.flatMap((e) => {
      const more = [
        ...e.aliases.map((alias) => `,alias=${alias}`),
        ...option(',ip', e.ipv4),
        ...option(',ip6', e.ipv6),
        ...option(',mac-address', e.mac),
        ...(e.linkLocal ?? []).map((ip) => `,link-local-ip=${ip}`),
        ...option(',gw-priority', e.gwPriority || undefined),
        ...Object.entries(e.driverOptions).map(([key, value]) => `,driver-opt=${key}=${value}`),
      ];
      if (e.network === 'bridge' && more.length === 0) return [];
      return [more.length === 0 ? `--network=${e.network}` : `--network=name=${e.network}${more.join('')}`];
    }),
    ...Object.entries(network.ports).flatMap(([port, bindings]) =>
      bindings.length === 0 ? [`--expose=${port}`] : bindings.map((b) => `--publish=${published(b, port)}`),
    ),
    ...flag('--publish-all', network.publishAll),
    ...option('--mac-address', network.mac),
    ...network.dns.map((server) => `--dns=${server}`),
    ...network.dnsSearch.map((domain) => `--dns-search=${domain}`),
    ...network.dnsOptions.map((word) => `--dns-option=${word}`),
    ...network.extraHosts.map((line) => `--add-host=${line}`),
    ...network.links.map((link) => `--link=${link}`),
  ];
}

export function published({ hostIp, hostPort }: { hostIp: string; hostPort: string }, port: string): string {
  const ip = hostIp.includes(':') ? `[${hostIp}]:` : hostIp === '' ? '' : `${hostIp}:`;
  return `${ip}${hostPort}${ip !== '' || hostPort !== '' ? ':' : ''}${port.replace(/\/tcp$/, '')}`;
}

function resourceFlags({ resources: r, shmBytes, ulimits }: ContainerSpec): string[] {
  const rates = (name: string, list: readonly DeviceRate[]): string[] => list.map((d) => `${name}=${d.path}:${d.rate}`);
  return [
    ...option('--memory', r.memoryBytes),
    ...option('--memory-reservation', r.memoryReservationBytes),
    ...option('--memory-swap', r.memorySwapBytes),
    ...option('--memory-swappiness', r.memorySwappiness),
    ...flag('--oom-kill-disable', r.oomKillDisable),
    ...option('--cpus', r.nanoCpus ? r.nanoCpus / 1e9 : undefined),
    ...option('--cpu-shares', r.cpuShares),
    ...option('--cpu-period', r.cpuPeriodUs),
    ...option('--cpu-quota', r.cpuQuotaUs),
    ...option('--cpuset-cpus', r.cpusetCpus),
    ...option('--cpuset-mems', r.cpusetMems),
    ...option('--pids-limit', r.pids),
    ...option('--blkio-weight', r.blkioWeight),
    ...r.blkioWeightDevices.map((d) => `--blkio-weight-device=${d.path}:${d.weight}`),
    ...rates('--device-read-bps', r.readBps),
    ...rates('--device-write-bps', r.writeBps),
    ...rates('--device-read-iops', r.readIops),
    ...rates('--device-write-iops', r.writeIops),
    ...option('--cgroup-parent', r.cgroupParent),
    ...option('--shm-size', shmBytes === DEFAULT_SHM_BYTES ? undefined : shmBytes),
    ...ulimits.map((u) => `--ulimit=${u.name}=${u.soft}:${u.hard}`),
  ];
}

export const DEFAULT_SHM_BYTES = 64 * 1024 * 1024;

function securityFlags({ security, devices, deviceRules, sysctls, namespaces, oomScoreAdj }: ContainerSpec): string[] {
  return [
    ...flag('--privileged', security.privileged),
    ...security.capAdd.map((name) => `--cap-add=${name}`),
    ...security.capDrop.map((name) => `--cap-drop=${name}`),
    ...flag('--security-opt=no-new-privileges', security.noNewPrivileges),
    ...flag('--security-opt=seccomp=unconfined', security.seccomp === 'unconfined'),
    ...flag('--security-opt=systempaths=unconfined', security.maskedPaths?.length === 0),
    ...flag('--read-only', security.readonlyRoot),
    ...devices.map((d) => `--device=${d.hostPath}:${d.path}:${d.access}`),
    ...deviceRules.map((rule) => `--device-cgroup-rule=${rule}`),
    ...Object.entries(sysctls).map(([key, value]) => `--sysctl=${key}=${value}`),
    ...flag('--userns=private', namespaces.user.kind === 'private'),
    ...option('--oom-score-adj', oomScoreAdj === 0 ? undefined : oomScoreAdj),
  ];
}

function lifeFlags({ restart, stop, health, logging, autoRemove, runtime }: ContainerSpec): string[] {
  const retries = restart.maxRetries > 0 ? `:${restart.maxRetries}` : '';
  return [
    ...option('--restart', restart.name === 'no' ? undefined : `${restart.name}${retries}`),
    ...option('--stop-signal', stop.signal),
    ...option('--stop-timeout', stop.timeoutSeconds),
    ...flag('--rm', autoRemove),
    ...option('--runtime', runtime),
    ...healthFlags(health),
    ...option('--log-driver', logging.driver === 'json-file' ? undefined : logging.driver),
    ...Object.entries(logging.options).map(([key, value]) => `--log-opt=${key}=${value}`),
  ];
}

function healthFlags(health: ContainerSpec['health']): string[] {
  if (!health) return [];
  if (health.test[0] === 'NONE') return ['--no-healthcheck'];
  const seconds = (name: string, ns: number): string[] => option(name, ns > 0 ? `${ns / 1e9}s` : undefined);
  return [
    ...option('--health-cmd', health.test.slice(1).join(' ') || undefined),
    ...seconds('--health-interval', health.intervalNs),
    ...seconds('--health-timeout', health.timeoutNs),
    ...seconds('--health-start-period', health.startPeriodNs),
    ...seconds('--health-start-interval', health.startIntervalNs),
    ...option('--health-retries', health.retries || undefined),
  ];
}

function flag(name: string, on: boolean): string[] {
  return on ? [name] : [];
}

function option(name: string, value: string | number | undefined): string[] {
  return value === undefined || value === '' ? [] : [`${name}=${value}`];
}
