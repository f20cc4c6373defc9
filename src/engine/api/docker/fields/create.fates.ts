import {
  all,
  asDockerd,
  type Fates,
  proved,
  refused,
  together,
  works,
  worksAt,
} from '#engine/api/docker/fields/fates.ts';

const WINDOWS = asDockerd('it is for Windows');
/** Clients send an inspected endpoint back: what a daemon has decided is decided anew. */
const DECIDED = asDockerd('the daemon decides it and tells it in inspect');

export const ENDPOINT: Fates = {
  'IPAMConfig.IPv4Address': works('10.1.0.7'),
  'IPAMConfig.IPv6Address': works('fd00::7'),
  'IPAMConfig.LinkLocalIPs[]': works('169.254.7.7'),
  'Links[]': works('db:base'),
  MacAddress: works('02:00:00:00:00:07'),
  'Aliases[]': works('web'),
  ...all(
    '',
    [
      'NetworkID',
      'EndpointID',
      'Gateway',
      'IPAddress',
      'IPPrefixLen',
      'IPv6Gateway',
      'GlobalIPv6Address',
      'GlobalIPv6PrefixLen',
      'DNSNames[]',
    ],
    DECIDED,
  ),
  'DriverOpts{}': works('on'),
  GwPriority: works(7),
};

export function below(prefix: string, fates: Fates): Fates {
  return Object.fromEntries(Object.entries(fates).map(([name, fate]) => [`${prefix}${name}`, fate]));
}

const MOUNT = { HostConfig: { Mounts: [{ Type: 'bind', Source: '/a', Target: '/b' }] } };
const VOLUME = { HostConfig: { Mounts: [{ Type: 'volume', Source: 'vol', Target: '/b' }] } };
const MEMORY = { HostConfig: { Mounts: [{ Type: 'tmpfs', Target: '/b' }] } };
const READ_ONLY = { HostConfig: { Mounts: [{ Type: 'bind', Source: '/a', Target: '/b', ReadOnly: true }] } };

/** Of ContainerConfig. */
const CONFIG: Fates = {
  Hostname: works('h'),
  Domainname: works('d'),
  User: works('7'),
  ...all('', ['AttachStdin', 'AttachStdout', 'AttachStderr'], asDockerd('clients read it again, from inspect')),
  'ExposedPorts{}': worksAt('80/tcp', {}),
  Tty: works(true),
  OpenStdin: works(true),
  StdinOnce: works(true),
  'Env[]': works('A=b'),
  'Cmd[]': works('ls'),
  'Healthcheck.Test[]': works('NONE'),
  ...all('Healthcheck.', ['Interval', 'Timeout', 'StartPeriod', 'StartInterval'], works(7_000_000)),
  'Healthcheck.Retries': works(7),
  ArgsEscaped: WINDOWS,
  Image: works('other'),
  'Volumes{}': worksAt('/v', {}),
  WorkingDir: works('/w'),
  'Entrypoint[]': works('/entry'),
  NetworkDisabled: works(true),
  MacAddress: works('02:00:00:00:00:07'),
  'OnBuild[]': asDockerd('of a container it is shown in inspect; only an image has a next build'),
  'Labels{}': works('v'),
  StopSignal: works('SIGINT'),
  StopTimeout: works(7),
  'Shell[]': works('/bin/bash'),
};

const PUBLISHED = { HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '80' }] } } };
const RATE = { Path: ['/dev/a', '/dev/b'], Rate: [1, 2] } as const;

/** What `update` sets anew as `create` sets it. */
export const LIMITS: Fates = {
  CpuShares: works(7),
  Memory: works(64_000_000),
  BlkioWeight: works(100),
  CpuPeriod: works(50_000),
  CpuQuota: works(50_000),
  CpuRealtimePeriod: works(7),
  CpuRealtimeRuntime: works(7),
  CpusetCpus: works('0'),
  CpusetMems: works('0'),
  MemoryReservation: works(64_000_000),
  MemorySwap: works(-1),
  NanoCpus: works(500_000_000),
  PidsLimit: works(7),
};

/** Of Resources: what `update` has too, if only to refuse it. */
const RESOURCES: Fates = {
  ...LIMITS,
  CgroupParent: works('/p'),
  ...together('HostConfig.BlkioWeightDevice[].', { Path: ['/dev/a', '/dev/b'], Weight: [10, 20] }),
  ...together('HostConfig.BlkioDeviceReadBps[].', RATE),
  ...together('HostConfig.BlkioDeviceWriteBps[].', RATE),
  ...together('HostConfig.BlkioDeviceReadIOps[].', RATE),
  ...together('HostConfig.BlkioDeviceWriteIOps[].', RATE),
  ...together('HostConfig.Devices[].', {
    PathOnHost: ['/dev/a', '/dev/b'],
    PathInContainer: ['/dev/a', '/dev/c'],
    CgroupPermissions: ['r', 'rw'],
  }),
  'DeviceCgroupRules[]': works('c 1:3 r'),
  ...all('DeviceRequests[].', ['Driver', 'DeviceIDs[]', 'Capabilities[][]', 'Options{}'], refused('x', /--gpus/)),
  'DeviceRequests[].Count': refused(1, /--gpus/),
  MemorySwappiness: works(7),
  OomKillDisable: works(true),
  Init: works(true),
  ...together('HostConfig.Ulimits[].', { Name: ['nofile', 'nproc'], Soft: [1, 2], Hard: [8, 9] }),
  ...all(
    '',
    ['CpuCount', 'CpuPercent', 'IOMaximumIOps', 'IOMaximumBandwidth'],
    refused(1, /CpuCount, CpuPercent and IOMaximum is not supported/),
  ),
  ...all('', ['KernelMemory', 'KernelMemoryTCP'], works(64_000_000)), // a warning: Linux has none since 5.16
  DiskQuota: refused(1, /DiskQuota is not supported/),
};

const HOST: Fates = {
  'Binds[]': works('/a:/b'),
  ContainerIDFile: asDockerd('the client writes the file; inspect shows its name'),
  'LogConfig.Type': works('local'),
  'LogConfig.Config{}': works('1m', { HostConfig: { LogConfig: { Config: { 'max-size': '2m' } } } }),
  NetworkMode: works('host'),
  'PortBindings{}[].HostIp': works('127.0.0.1', PUBLISHED),
  'PortBindings{}[].HostPort': works('81', PUBLISHED),
  'RestartPolicy.Name': works('always'),
  'RestartPolicy.MaximumRetryCount': works(7, { HostConfig: { RestartPolicy: { Name: 'on-failure' } } }),
  AutoRemove: works(true),
  VolumeDriver: works('local', { HostConfig: { Binds: ['vol:/v'] } }),
  'VolumesFrom[]': works('other'),
  'Mounts[].Target': works('/c', MOUNT),
  'Mounts[].Source': works('/c', MOUNT),
  'Mounts[].Type': refused('npipe', /is none of/, MOUNT),
  'Mounts[].ReadOnly': works(true, MOUNT),
  'Mounts[].Consistency': asDockerd('it is for macOS, where binds are not the kernel’s own'),
  'Mounts[].BindOptions.Propagation': works('rslave', MOUNT),
  'Mounts[].BindOptions.NonRecursive': works(true, MOUNT),
  'Mounts[].BindOptions.CreateMountpoint': works(true, MOUNT),
  'Mounts[].BindOptions.ReadOnlyNonRecursive': works(true, READ_ONLY),
  'Mounts[].BindOptions.ReadOnlyForceRecursive': works(true, READ_ONLY),
  'Mounts[].VolumeOptions.NoCopy': works(true, VOLUME),
  'Mounts[].VolumeOptions.Labels{}': works('v', VOLUME),
  'Mounts[].VolumeOptions.DriverConfig.Name': works('local', VOLUME),
  'Mounts[].VolumeOptions.DriverConfig.Options{}': works('v', VOLUME),
  'Mounts[].VolumeOptions.Subpath': works('x', VOLUME),
  'Mounts[].TmpfsOptions.SizeBytes': works(4096, MEMORY),
  'Mounts[].TmpfsOptions.Mode': works(448, MEMORY),
  'Mounts[].TmpfsOptions.Options[][]': works('noexec', MEMORY),
  'Mounts[].ImageOptions.Subpath': refused('x', /has no meaning for a mount of type bind/, MOUNT),
  'ConsoleSize[]': works(30, { HostConfig: { ConsoleSize: [24, 80] } }),
  'Annotations{}': works('v'),
  'CapAdd[]': works('SYS_ADMIN'),
  'CapDrop[]': works('KILL'),
  CgroupnsMode: works('host'),
  'Dns[]': works('10.0.0.1'),
  'DnsOptions[]': works('ndots:2'),
  'DnsSearch[]': works('example'),
  'ExtraHosts[]': works('a:10.0.0.1'),
  'GroupAdd[]': works('7'),
  IpcMode: works('host'),
  Cgroup: refused('container:x', /Cgroup is not supported/),
  'Links[]': works('db:base'),
  OomScoreAdj: works(7),
  PidMode: works('host'),
  Privileged: works(true),
  PublishAllPorts: works(true),
  ReadonlyRootfs: works(true),
  'SecurityOpt[]': works('no-new-privileges'),
  'StorageOpt{}': refused('1g', /--storage-opt/),
  'Tmpfs{}': works('size=1m', { HostConfig: { Tmpfs: { '/t': '' } } }),
  UTSMode: works('host'),
  UsernsMode: works('private'),
  ShmSize: works(4096),
  'Sysctls{}': works('1'),
  Runtime: works('other'),
  Isolation: refused('hyperv', /isolation hyperv is not supported/),
  'MaskedPaths[]': works('/proc/x'),
  'ReadonlyPaths[]': works('/proc/x'),
};

const isWhole = (name: string): boolean => name.startsWith('HostConfig.');

export const CREATE: Fates = {
  ...CONFIG,
  ...Object.fromEntries(
    Object.entries({ ...RESOURCES, ...HOST }).map(([name, fate]) => [
      isWhole(name) ? name : `HostConfig.${name}`,
      fate,
    ]),
  ),
  ...below('NetworkingConfig.EndpointsConfig{}.', ENDPOINT),
  name: works('n'),
  Runtime: works('other'),
  'Dns[]': works('10.0.0.1'),
};

/** Of a commit's body, what an image has as well. */
export const COMMIT: Fates = {
  ...CONFIG,
  'Healthcheck.Test[]': works('NONE'),
  ...all(
    'Healthcheck.',
    ['Interval', 'Timeout', 'StartPeriod', 'StartInterval'],
    works(7_000_000, { Healthcheck: { Test: ['CMD', 'true'] } }),
  ),
  'Healthcheck.Retries': works(7, { Healthcheck: { Test: ['CMD', 'true'] } }),
  'OnBuild[]': works('RUN true'),
  ...all(
    '',
    [
      'Hostname',
      'Domainname',
      'Tty',
      'OpenStdin',
      'StdinOnce',
      'NetworkDisabled',
      'MacAddress',
      'StopTimeout',
      'Image',
    ],
    asDockerd('nothing that is made from an image reads it'),
  ),
  ...all('', ['comment', 'author', 'repo', 'tag', 'container'], proved('the query says the same: commit.ts')),
};
