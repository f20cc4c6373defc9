import {
  DEFAULT_NETWORK,
  DEFAULT_SHM_BYTES,
  hasPlainPaths,
  linksOf,
  namespaceWord,
  published,
  quoted,
  type Unsaid,
  unsaidOfDocker,
  userWord,
  variables,
  when,
} from '#engine/core/insight/show-parts.ts';
import type { ContainerRecord } from '#engine/core/record.ts';
import type { ContainerSpec, DeviceRate, EndpointSpec, IpcMode, MountSpec } from '#engine/core/spec.ts';

export interface DockerRun extends Unsaid {
  options: string[];
  /** The image and its arguments. */
  words: string[];
}

/** A `docker run`. What is as by default is left out. */
export function dockerRun(record: ContainerRecord): DockerRun {
  const { spec, name } = record;
  const options = [
    // Attached, a client that keeps standard input open closes it when it leaves.
    ...flag('--detach', !(spec.process.stdin && spec.process.stdinOnce)),
    `--name=${name}`,
    ...processFlags(spec),
    ...spec.mounts.map(mountFlag),
    ...networkFlags(spec),
    ...resourceFlags(spec),
    ...securityFlags(spec),
    ...lifeFlags(spec),
  ];
  const words = [record.image.reference, ...(spec.process.entrypoint?.slice(1) ?? []), ...(spec.process.args ?? [])];
  return { options, words, unsaid: unsaidOf(spec), ours: ourFlags(spec) };
}

function processFlags(spec: ContainerSpec): string[] {
  const { process, namespaces } = spec;
  return [
    ...flag('--interactive', process.stdin),
    ...flag('--tty', process.tty),
    ...flag('--init', spec.init),
    ...option('--platform', spec.platform),
    ...option('--hostname', spec.hostname),
    ...option('--domainname', spec.domainname),
    ...option('--user', process.user),
    ...option('--workdir', process.cwd),
    ...process.groups.map((group) => `--group-add=${group}`),
    ...variables(process).map((entry) => `--env=${entry}`),
    ...Object.entries(spec.labels).map(([key, value]) => `--label=${key}=${value}`),
    ...Object.entries(spec.annotations).map(([key, value]) => `--annotation=${key}=${value}`),
    // An empty one takes the image's away.
    ...(process.entrypoint ? [`--entrypoint=${process.entrypoint[0] ?? ''}`] : []),
    ...namespaceFlag('--pid', namespaces.pid),
    ...namespaceFlag('--ipc', namespaces.ipc),
    ...namespaceFlag('--uts', namespaces.uts),
    ...namespaceFlag('--cgroupns', namespaces.cgroup),
  ];
}

function namespaceFlag(name: string, mode: IpcMode): string[] {
  return option(name, namespaceWord(mode));
}

type Bind = MountSpec & { type: 'bind' };
type Volume = MountSpec & { type: 'volume' };

function mountFlag(mount: MountSpec): string {
  switch (mount.type) {
    case 'tmpfs':
      return `--tmpfs=${joined(mount.target, [...mount.options, ...flag('ro', mount.readonly !== false)])}`;
    case 'bind':
      return isShortBind(mount) ? shortBind(mount) : `--mount=${longBind(mount)}`;
    case 'volume':
      return isShortVolume(mount) ? shortVolume(mount) : `--mount=${longVolume(mount)}`;
  }
}

function joined(path: string, options: readonly string[]): string {
  return options.length > 0 ? `${path}:${options.join(',')}` : path;
}

/** `--volume` makes a source that is missing, and has our owners; `--mount` has the rest, and takes any path. */
function isShortBind({ source, target, owner, createSource, recursive, readonly }: Bind): boolean {
  if (`${source}${target}`.includes(':')) return false;
  return owner !== undefined || (createSource && recursive && (readonly === false || readonly === 'recursive'));
}

function shortBind({ source, target, readonly, propagation, recursive, owner }: Bind): string {
  return `--volume=${source}:${joined(target, [
    ...flag('ro', readonly !== false),
    ...(propagation ? [propagation] : []),
    ...flag('bind-nonrecursive', !recursive),
    ...ownerOptions(owner),
  ])}`;
}

/** Nothing is below that could be read-only where nothing below comes along. */
function longBind({ source, target, readonly, propagation, recursive }: Bind): string {
  const forced = recursive && readonly === 'force-recursive';
  const below = recursive ? { top: 'writable', 'force-recursive': 'readonly' }[String(readonly)] : 'disabled';
  return fields([
    'type=bind',
    `source=${source}`,
    `target=${target}`,
    ...flag('readonly', readonly !== false),
    // Docker wants the default said beside `readonly`.
    ...option('bind-propagation', propagation ?? (forced ? 'rprivate' : undefined)),
    ...option('bind-recursive', below),
  ]);
}

function isShortVolume({ name, target, owner, subpath, driver, labels }: Volume): boolean {
  const plain = subpath === undefined && driver === undefined && Object.keys(labels).length === 0;
  return owner !== undefined && plain && name !== '' && !target.includes(':');
}

function shortVolume({ name, target, readonly, noCopy, owner }: Volume): string {
  return `--volume=${name}:${joined(target, [
    ...flag('ro', readonly !== false),
    ...flag('nocopy', noCopy),
    ...ownerOptions(owner),
  ])}`;
}

function longVolume({ name, target, readonly, noCopy, subpath, driver, labels }: Volume): string {
  return fields([
    'type=volume',
    ...option('source', name),
    ...option('volume-subpath', subpath),
    ...flag('volume-nocopy', noCopy),
    ...option('volume-driver', driver?.name),
    ...Object.entries(driver?.options ?? {}).map(([key, value]) => `volume-opt=${key}=${value}`),
    ...Object.entries(labels).map(([key, value]) => `volume-label=${key}=${value}`),
    ...flag('readonly', readonly !== false),
    `target=${target}`,
  ]);
}

/** One record of CSV (RFC 4180): a value may have commas of its own (`o=addr=192.0.2.1,rw`). */
function fields(list: readonly string[]): string {
  return list.map((field) => (/[",\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field)).join(',');
}

function ownerOptions(owner: Bind['owner']): string[] {
  return [...option('uid', owner?.uid), ...option('gid', owner?.gid)];
}

function networkFlags({ network, namespaces }: ContainerSpec): string[] {
  const joins = namespaces.network.kind === 'private';
  const mode = joins && network.endpoints.length === 0 ? 'none' : namespaceWord(namespaces.network);
  return [
    ...option('--network', mode),
    ...(joins ? network.endpoints.flatMap((e) => endpointFlag(e, network.endpoints.length === 1)) : []),
    ...Object.entries(network.ports).flatMap(([port, bindings]) =>
      bindings.length === 0 ? [`--expose=${port}`] : bindings.map((b) => `--publish=${published(b, port)}`),
    ),
    ...flag('--publish-all', network.publishAll),
    ...option('--mac-address', network.mac),
    ...network.dns.map((server) => `--dns=${server}`),
    ...network.dnsSearch.map((domain) => `--dns-search=${domain}`),
    ...network.dnsOptions.map((word) => `--dns-option=${word}`),
    ...network.extraHosts.map((line) => `--add-host=${line}`),
    ...linksOf(network).map((link) => `--link=${link}`),
  ];
}

function endpointFlag(e: EndpointSpec, alone: boolean): string[] {
  const more = [
    ...e.aliases.map((alias) => `alias=${alias}`),
    ...option('ip', e.ipv4),
    ...option('ip6', e.ipv6),
    ...option('mac-address', e.mac),
    ...(e.linkLocal ?? []).map((ip) => `link-local-ip=${ip}`),
    ...option('gw-priority', e.gwPriority || undefined),
    ...Object.entries(e.driverOptions).map(([key, value]) => `driver-opt=${key}=${value}`),
  ];
  if (e.network === DEFAULT_NETWORK && alone && more.length === 0) return [];
  return [`--network=${more.length === 0 ? e.network : fields([`name=${e.network}`, ...more])}`];
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
    ...option('--cpu-rt-period', r.cpuRealtimePeriodUs),
    ...option('--cpu-rt-runtime', r.cpuRealtimeRuntimeUs),
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

function securityFlags({ security, devices, deviceRules, sysctls, namespaces, oomScoreAdj }: ContainerSpec): string[] {
  return [
    ...flag('--privileged', security.privileged),
    ...security.capAdd.map((name) => `--cap-add=${name}`),
    ...security.capDrop.map((name) => `--cap-drop=${name}`),
    ...flag('--security-opt=no-new-privileges', security.noNewPrivileges),
    ...flag('--security-opt=seccomp=unconfined', security.seccomp === 'unconfined'),
    ...flag('--security-opt=systempaths=unconfined', hasPlainPaths(security)),
    ...flag('--read-only', security.readonlyRoot),
    ...devices.map((d) => `--device=${d.hostPath}:${d.path}:${d.access}`),
    ...deviceRules.map((rule) => `--device-cgroup-rule=${rule}`),
    ...Object.entries(sysctls).map(([key, value]) => `--sysctl=${key}=${value}`),
    ...option('--userns', userWord(namespaces.user)),
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
  const [kind, ...words] = health.test;
  if (kind === 'NONE') return ['--no-healthcheck'];
  const line = kind === 'CMD' ? words.map(quoted).join(' ') : words.join(' ');
  const seconds = (name: string, ns: number): string[] => option(name, ns > 0 ? `${ns / 1e9}s` : undefined);
  return [
    ...option('--health-cmd', line),
    ...seconds('--health-interval', health.intervalNs),
    ...seconds('--health-timeout', health.timeoutNs),
    ...seconds('--health-start-period', health.startPeriodNs),
    ...seconds('--health-start-interval', health.startIntervalNs),
    ...option('--health-retries', health.retries || undefined),
  ];
}

function unsaidOf(spec: ContainerSpec): string[] {
  const { health, mounts } = spec;
  return [
    ...unsaidOfDocker(spec),
    ...when(health?.test[0] === 'CMD', 'a health check without a shell: --health-cmd is a line for one'),
    ...mounts.flatMap((m) => {
      if (m.type === 'tmpfs') return [];
      if (m.type === 'volume')
        return when(m.owner !== undefined && !isShortVolume(m), `owners of the files at ${m.target}`);
      return isShortBind(m) ? unsaidOfShort(m) : unsaidOfLong(m);
    }),
  ];
}

function unsaidOfShort({ source, target, createSource, readonly }: Bind): string[] {
  const below = { top: 'may be written', 'force-recursive': 'must not be written' }[String(readonly)];
  return [
    ...when(!createSource, `${source} has to be there: --volume makes it`),
    ...when(below !== undefined, `what is mounted below ${target} ${below}`),
  ];
}

function unsaidOfLong({ source, target, createSource, owner }: Bind): string[] {
  return [
    ...when(createSource, `${source} is made where it is missing`),
    ...when(owner !== undefined, `owners of the files at ${target}`),
  ];
}

/** What docker's command line refuses, or dockerd. */
function ourFlags({ labels, namespaces, network, mounts }: ContainerSpec): string[] {
  const named = network.endpoints.map((e) => e.network);
  return [
    ...Object.keys(labels).flatMap((key) =>
      when(/\s/.test(key), `a label with a space in its name, ${JSON.stringify(key)}`),
    ),
    ...when(named.length > 1 && named.includes(DEFAULT_NETWORK), `the network ${DEFAULT_NETWORK} beside others`),
    ...option('--userns', userWord(namespaces.user)),
    ...mounts.flatMap((m) => {
      const owner = m.type === 'tmpfs' ? undefined : m.owner;
      return owner ? [mountFlag(m)].filter((said) => said.startsWith('--volume=')) : [];
    }),
  ];
}

function flag(name: string, on: boolean): string[] {
  return on ? [name] : [];
}

function option(name: string, value: string | number | undefined): string[] {
  return value === undefined || value === '' ? [] : [`${name}=${value}`];
}
