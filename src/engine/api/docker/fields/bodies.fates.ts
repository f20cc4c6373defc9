import { below, COMMIT, CREATE, ENDPOINT, LIMITS } from '#engine/api/docker/fields/create.fates.ts';
import {
  all,
  asDockerd,
  type Fate,
  type Fates,
  proved,
  refused,
  together,
  works,
} from '#engine/api/docker/fields/fates.ts';

const fixed = (value: unknown): Fate => refused(value, /cannot change while a container lives/);

const UPDATE: Fates = {
  ...LIMITS,
  CgroupParent: fixed('/p'),
  'BlkioWeightDevice[].Path': fixed('/dev/a'),
  'BlkioWeightDevice[].Weight': fixed(10),
  ...Object.assign(
    {},
    ...['ReadBps', 'WriteBps', 'ReadIOps', 'WriteIOps'].map((kind) => ({
      [`BlkioDevice${kind}[].Path`]: fixed('/dev/a'),
      [`BlkioDevice${kind}[].Rate`]: fixed(1),
    })),
  ),
  ...all('Devices[].', ['PathOnHost', 'PathInContainer', 'CgroupPermissions'], fixed('/dev/a')),
  'DeviceCgroupRules[]': fixed('c 1:3 r'),
  ...all('DeviceRequests[].', ['Driver', 'DeviceIDs[]', 'Capabilities[][]', 'Options{}'], fixed('x')),
  'DeviceRequests[].Count': fixed(1),
  ...all('', ['KernelMemory', 'KernelMemoryTCP'], refused(1, /gone from Linux/)),
  MemorySwappiness: fixed(7),
  OomKillDisable: fixed(true),
  Init: fixed(true),
  'Ulimits[].Name': fixed('nofile'),
  'Ulimits[].Soft': fixed(1),
  'Ulimits[].Hard': fixed(1),
  ...all('', ['CpuCount', 'CpuPercent', 'IOMaximumIOps', 'IOMaximumBandwidth', 'DiskQuota'], fixed(1)),
  'RestartPolicy.Name': works('always'),
  'RestartPolicy.MaximumRetryCount': works(7, { RestartPolicy: { Name: 'on-failure' } }),
};

const NETWORK: Fates = {
  Name: works('other'),
  CheckDuplicate: asDockerd('two networks of one name are always refused, since API 1.44 there too'),
  Driver: works('macvlan'),
  Scope: refused('swarm', /there is no swarm/),
  Internal: works(true),
  Attachable: works(true),
  Ingress: refused(true, /ingress network/),
  ConfigOnly: refused(true, /only a configuration/),
  'ConfigFrom.Network': refused('c', /only a configuration/),
  'IPAM.Driver': refused('dhcp', /is not default/),
  ...together('IPAM.Config[].', {
    Subnet: ['10.1.0.0/16', '10.2.0.0/16'],
    IPRange: ['10.1.1.0/24', '10.1.2.0/24'],
    Gateway: ['10.1.0.1', '10.1.0.2'],
    'AuxiliaryAddresses{}': ['10.1.0.3', '10.1.0.4'],
  }),
  'IPAM.Options{}': works('v'), // inspect shows them; Docker's own address manager knows none
  EnableIPv6: works(true),
  'Options{}': works('v'), // create.ts of network refuses names that it does not know
  'Labels{}': works('v'),
  EnableIPv4: refused(false, /without IPv4/),
};

const CLUSTER_VOLUME = refused('x', /nodes of a swarm/);

/** By operation id; paths are those of the request's body. */
export const BODIES: Readonly<Record<string, Fates>> = {
  ContainerCreate: CREATE,
  ContainerUpdate: UPDATE,
  ImageCommit: COMMIT,
  SystemAuth: {
    username: works('ann'),
    password: works('x'),
    email: asDockerd('registries asked for it until 2016'),
    serveraddress: works('other.example'),
    auth: works('YW5uOng='),
    identitytoken: works('t'),
    registrytoken: works('t'),
  },
  ContainerExec: {
    AttachStdin: works(true),
    AttachStdout: works(true),
    AttachStderr: works(true),
    'ConsoleSize[]': works(30, { ConsoleSize: [24, 80] }),
    DetachKeys: works('ctrl-a'),
    Tty: works(true),
    'Env[]': works('A=b'),
    'Cmd[]': works('ls'),
    Privileged: works(true),
    User: works('7'),
    WorkingDir: works('/w'),
    Detach: asDockerd('the start of an exec says whether it is waited for'),
    Container: asDockerd('the path says which'),
  },
  ExecStart: {
    Detach: works(true),
    Tty: works(true),
    'ConsoleSize[]': proved('exec.ts: resized once it runs; docker-cli.test.ts'),
    ...all('', ['hijack', 'stdin'], asDockerd('dockerode tells itself how to connect')),
  },
  VolumeCreate: {
    Name: works('other'),
    Driver: works('local'),
    'DriverOpts{}': works('v'),
    'Labels{}': works('v'),
    ...all(
      'ClusterVolumeSpec.',
      [
        'Group',
        'AccessMode.Scope',
        'AccessMode.Sharing',
        'AccessMode.Secrets[].Key',
        'AccessMode.Secrets[].Secret',
        'AccessMode.AccessibilityRequirements.Requisite[].Segments{}',
        'AccessMode.AccessibilityRequirements.Preferred[].Segments{}',
        'AccessMode.Availability',
      ],
      CLUSTER_VOLUME,
    ),
    'ClusterVolumeSpec.AccessMode.MountVolume': refused({}, /nodes of a swarm/),
    'ClusterVolumeSpec.AccessMode.CapacityRange.RequiredBytes': refused(1, /nodes of a swarm/),
    'ClusterVolumeSpec.AccessMode.CapacityRange.LimitBytes': refused(1, /nodes of a swarm/),
    Mountpoint: asDockerd('the driver decides it and tells it in inspect'),
  },
  NetworkCreate: NETWORK,
  NetworkConnect: { Container: works('other'), ...below('EndpointConfig.', ENDPOINT) },
  NetworkDisconnect: { Container: works('other'), Force: works(true) },
};
