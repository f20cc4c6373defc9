// Made by tools/gen-docker.mjs; do not edit.
export type Address = {
  Addr?: string | null;
  PrefixLen?: number | null;
};
export type AttestationStatement = {
  Descriptor?: OCIDescriptor | null;
  PredicateType?: string | null;
  Statement?: unknown | null;
};
export type AuthConfig = {
  username?: string | null;
  password?: string | null;
  email?: string | null;
  serveraddress?: string | null;
  auth?: string | null;
  identitytoken?: string | null;
  registrytoken?: string | null;
};
export type AuthResponse = {
  Status?: string | null;
  IdentityToken?: string | null;
};
export type BuildCacheDiskUsage = {
  ActiveCount?: number | null;
  TotalCount?: number | null;
  Reclaimable?: number | null;
  TotalSize?: number | null;
  Items?: unknown[] | null;
};
export type BuildIdentity = {
  Ref?: string | null;
  CreatedAt?: string | null;
};
export type ChangeType = number;
export type ClusterInfo = {
  ID?: string | null;
  Version?: ObjectVersion | null;
  CreatedAt?: string | null;
  UpdatedAt?: string | null;
  Spec?: SwarmSpec | null;
  TLSInfo?: TLSInfo | null;
  RootRotationInProgress?: boolean | null;
  DataPathPort?: number | null;
  DefaultAddrPool?: string[] | null;
  SubnetSize?: number | null;
};
export type ClusterVolume = {
  ID?: string | null;
  Version?: ObjectVersion | null;
  CreatedAt?: string | null;
  UpdatedAt?: string | null;
  Spec?: ClusterVolumeSpec | null;
  Info?: {
    CapacityBytes?: number | null;
    VolumeContext?: Record<string, string> | null;
    VolumeID?: string | null;
    AccessibleTopology?: Topology[] | null;
  } | null;
  PublishStatus?: {
    NodeID?: string | null;
    State?: string | null;
    PublishContext?: Record<string, string> | null;
  }[] | null;
};
export type ClusterVolumeSpec = {
  Group?: string | null;
  AccessMode?: {
    Scope?: string | null;
    Sharing?: string | null;
    MountVolume?: unknown | null;
    Secrets?: {
      Key?: string | null;
      Secret?: string | null;
    }[] | null;
    AccessibilityRequirements?: {
      Requisite?: Topology[] | null;
      Preferred?: Topology[] | null;
    } | null;
    CapacityRange?: {
      RequiredBytes?: number | null;
      LimitBytes?: number | null;
    } | null;
    Availability?: string | null;
  } | null;
};
export type Commit = {
  ID?: string | null;
  Expected?: string | null;
};
export type ConfigReference = {
  Network?: string | null;
};
export type ContainerBlkioStatEntry = {
  major?: number | null;
  minor?: number | null;
  op?: string | null;
  value?: number | null;
};
export type ContainerBlkioStats = {
  io_service_bytes_recursive?: ContainerBlkioStatEntry[] | null;
  io_serviced_recursive?: ContainerBlkioStatEntry[] | null;
  io_queue_recursive?: ContainerBlkioStatEntry[] | null;
  io_service_time_recursive?: ContainerBlkioStatEntry[] | null;
  io_wait_time_recursive?: ContainerBlkioStatEntry[] | null;
  io_merged_recursive?: ContainerBlkioStatEntry[] | null;
  io_time_recursive?: ContainerBlkioStatEntry[] | null;
  sectors_recursive?: ContainerBlkioStatEntry[] | null;
};
export type ContainerCPUStats = {
  cpu_usage?: ContainerCPUUsage | null;
  system_cpu_usage?: number | null;
  online_cpus?: number | null;
  throttling_data?: ContainerThrottlingData | null;
};
export type ContainerCPUUsage = {
  total_usage?: number | null;
  percpu_usage?: number[] | null;
  usage_in_kernelmode?: number | null;
  usage_in_usermode?: number | null;
};
export type ContainerConfig = {
  Hostname?: string | null;
  Domainname?: string | null;
  User?: string | null;
  AttachStdin?: boolean | null;
  AttachStdout?: boolean | null;
  AttachStderr?: boolean | null;
  ExposedPorts?: Record<string, unknown> | null;
  Tty?: boolean | null;
  OpenStdin?: boolean | null;
  StdinOnce?: boolean | null;
  Env?: string[] | null;
  Cmd?: string[] | null;
  Healthcheck?: HealthConfig | null;
  ArgsEscaped?: boolean | null;
  Image?: string | null;
  Volumes?: Record<string, unknown> | null;
  WorkingDir?: string | null;
  Entrypoint?: string[] | null;
  NetworkDisabled?: boolean | null;
  MacAddress?: string | null;
  OnBuild?: string[] | null;
  Labels?: Record<string, string> | null;
  StopSignal?: string | null;
  StopTimeout?: number | null;
  Shell?: string[] | null;
};
export type ContainerCreateResponse = {
  Id?: string | null;
  Warnings?: string[] | null;
};
export type ContainerInspectResponse = {
  Id?: string | null;
  Created?: string | null;
  Path?: string | null;
  Args?: string[] | null;
  State?: ContainerState | null;
  Image?: string | null;
  ResolvConfPath?: string | null;
  HostnamePath?: string | null;
  HostsPath?: string | null;
  LogPath?: string | null;
  Name?: string | null;
  RestartCount?: number | null;
  Driver?: string | null;
  Platform?: string | null;
  ImageManifestDescriptor?: OCIDescriptor | null;
  MountLabel?: string | null;
  ProcessLabel?: string | null;
  AppArmorProfile?: string | null;
  ExecIDs?: string[] | null;
  HostConfig?: HostConfig | null;
  GraphDriver?: DriverData | null;
  Storage?: Storage | null;
  SizeRw?: number | null;
  SizeRootFs?: number | null;
  Mounts?: MountPoint[] | null;
  Config?: ContainerConfig | null;
  NetworkSettings?: NetworkSettings | null;
};
export type ContainerMemoryStats = {
  usage?: number | null;
  max_usage?: number | null;
  stats?: Record<string, number> | null;
  failcnt?: number | null;
  limit?: number | null;
  commitbytes?: number | null;
  commitpeakbytes?: number | null;
  privateworkingset?: number | null;
};
export type ContainerNetworkStats = {
  rx_bytes?: number | null;
  rx_packets?: number | null;
  rx_errors?: number | null;
  rx_dropped?: number | null;
  tx_bytes?: number | null;
  tx_packets?: number | null;
  tx_errors?: number | null;
  tx_dropped?: number | null;
  endpoint_id?: string | null;
  instance_id?: string | null;
};
export type ContainerPidsStats = {
  current?: number | null;
  limit?: number | null;
};
export type ContainerState = {
  Status?: string | null;
  Running?: boolean | null;
  Paused?: boolean | null;
  Restarting?: boolean | null;
  OOMKilled?: boolean | null;
  Dead?: boolean | null;
  Pid?: number | null;
  ExitCode?: number | null;
  Error?: string | null;
  StartedAt?: string | null;
  FinishedAt?: string | null;
  Health?: Health | null;
};
export type ContainerStatsResponse = {
  id?: string | null;
  name?: string | null;
  os_type?: string | null;
  read?: string | null;
  cpu_stats?: ContainerCPUStats | null;
  memory_stats?: ContainerMemoryStats | null;
  networks?: Record<string, ContainerNetworkStats> | null;
  pids_stats?: ContainerPidsStats | null;
  blkio_stats?: ContainerBlkioStats | null;
  num_procs?: number | null;
  storage_stats?: ContainerStorageStats | null;
  preread?: string | null;
  precpu_stats?: ContainerCPUStats | null;
};
export type ContainerStorageStats = {
  read_count_normalized?: number | null;
  read_size_bytes?: number | null;
  write_count_normalized?: number | null;
  write_size_bytes?: number | null;
};
export type ContainerSummary = {
  Id?: string | null;
  Names?: string[] | null;
  Image?: string | null;
  ImageID?: string | null;
  Command?: string | null;
  Created?: number | null;
  Ports?: PortSummary[] | null;
  SizeRw?: number | null;
  SizeRootFs?: number | null;
  Labels?: Record<string, string> | null;
  State?: string | null;
  Status?: string | null;
  HostConfig?: {
    NetworkMode?: string | null;
    Annotations?: Record<string, string> | null;
  } | null;
  NetworkSettings?: {
    Networks?: Record<string, EndpointSettings> | null;
  } | null;
  Mounts?: MountPoint[] | null;
  ImageManifestDescriptor?: OCIDescriptor | null;
  Health?: {
    Status?: string | null;
    FailingStreak?: number | null;
  } | null;
};
export type ContainerThrottlingData = {
  periods?: number | null;
  throttled_periods?: number | null;
  throttled_time?: number | null;
};
export type ContainerTopResponse = {
  Titles?: string[] | null;
  Processes?: string[][] | null;
};
export type ContainerUpdateResponse = {
  Warnings?: string[] | null;
};
export type ContainerWaitExitError = {
  Message?: string | null;
};
export type ContainerWaitResponse = {
  StatusCode?: number | null;
  Error?: ContainerWaitExitError | null;
};
export type ContainerdInfo = {
  Address?: string | null;
  Namespaces?: {
    Containers?: string | null;
    Plugins?: string | null;
  } | null;
};
export type ContainersDiskUsage = {
  ActiveCount?: number | null;
  TotalCount?: number | null;
  Reclaimable?: number | null;
  TotalSize?: number | null;
  Items?: unknown[] | null;
};
export type DeviceInfo = {
  Source?: string | null;
  ID?: string | null;
};
export type DeviceMapping = {
  PathOnHost?: string | null;
  PathInContainer?: string | null;
  CgroupPermissions?: string | null;
};
export type DeviceRequest = {
  Driver?: string | null;
  Count?: number | null;
  DeviceIDs?: string[] | null;
  Capabilities?: string[][] | null;
  Options?: Record<string, string> | null;
};
export type DistributionInspect = {
  Descriptor?: OCIDescriptor | null;
  Platforms?: OCIPlatform[] | null;
};
export type DriverData = {
  Name?: string | null;
  Data?: Record<string, string> | null;
};
export type EndpointIPAMConfig = {
  IPv4Address?: string | null;
  IPv6Address?: string | null;
  LinkLocalIPs?: string[] | null;
};
export type EndpointResource = {
  Name?: string | null;
  EndpointID?: string | null;
  MacAddress?: string | null;
  IPv4Address?: string | null;
  IPv6Address?: string | null;
};
export type EndpointSettings = {
  IPAMConfig?: EndpointIPAMConfig | null;
  Links?: string[] | null;
  MacAddress?: string | null;
  Aliases?: string[] | null;
  NetworkID?: string | null;
  EndpointID?: string | null;
  Gateway?: string | null;
  IPAddress?: string | null;
  IPPrefixLen?: number | null;
  IPv6Gateway?: string | null;
  GlobalIPv6Address?: string | null;
  GlobalIPv6PrefixLen?: number | null;
  DriverOpts?: Record<string, string> | null;
  DNSNames?: string[] | null;
  GwPriority?: number | null;
};
export type ErrorResponse = {
  message?: string | null;
};
export type EventActor = {
  ID?: string | null;
  Attributes?: Record<string, string> | null;
};
export type EventMessage = {
  Type?: string | null;
  Action?: string | null;
  Actor?: EventActor | null;
  scope?: string | null;
  time?: number | null;
  timeNano?: number | null;
};
export type FilesystemChange = {
  Path?: string | null;
  Kind?: ChangeType | null;
};
export type FirewallInfo = {
  Driver?: string | null;
  Info?: string[][] | null;
};
export type GenericResources = {
  NamedResourceSpec?: {
    Kind?: string | null;
    Value?: string | null;
  } | null;
  DiscreteResourceSpec?: {
    Kind?: string | null;
    Value?: number | null;
  } | null;
}[];
export type Health = {
  Status?: string | null;
  FailingStreak?: number | null;
  Log?: HealthcheckResult[] | null;
};
export type HealthConfig = {
  Test?: string[] | null;
  Interval?: number | null;
  Timeout?: number | null;
  Retries?: number | null;
  StartPeriod?: number | null;
  StartInterval?: number | null;
};
export type HealthcheckResult = {
  Start?: string | null;
  End?: string | null;
  ExitCode?: number | null;
  Output?: string | null;
};
export type HostConfig = Resources & {
  Binds?: string[] | null;
  ContainerIDFile?: string | null;
  LogConfig?: {
    Type?: string | null;
    Config?: Record<string, string> | null;
  } | null;
  NetworkMode?: string | null;
  PortBindings?: PortMap | null;
  RestartPolicy?: RestartPolicy | null;
  AutoRemove?: boolean | null;
  VolumeDriver?: string | null;
  VolumesFrom?: string[] | null;
  Mounts?: Mount[] | null;
  ConsoleSize?: number[] | null;
  Annotations?: Record<string, string> | null;
  CapAdd?: string[] | null;
  CapDrop?: string[] | null;
  CgroupnsMode?: string | null;
  Dns?: string[] | null;
  DnsOptions?: string[] | null;
  DnsSearch?: string[] | null;
  ExtraHosts?: string[] | null;
  GroupAdd?: string[] | null;
  IpcMode?: string | null;
  Cgroup?: string | null;
  Links?: string[] | null;
  OomScoreAdj?: number | null;
  PidMode?: string | null;
  Privileged?: boolean | null;
  PublishAllPorts?: boolean | null;
  ReadonlyRootfs?: boolean | null;
  SecurityOpt?: string[] | null;
  StorageOpt?: Record<string, string> | null;
  Tmpfs?: Record<string, string> | null;
  UTSMode?: string | null;
  UsernsMode?: string | null;
  ShmSize?: number | null;
  Sysctls?: Record<string, string> | null;
  Runtime?: string | null;
  Isolation?: string | null;
  MaskedPaths?: string[] | null;
  ReadonlyPaths?: string[] | null;
};
export type IDResponse = {
  Id?: string | null;
};
export type IPAM = {
  Driver?: string | null;
  Config?: IPAMConfig[] | null;
  Options?: Record<string, string> | null;
};
export type IPAMConfig = {
  Subnet?: string | null;
  IPRange?: string | null;
  Gateway?: string | null;
  AuxiliaryAddresses?: Record<string, string> | null;
};
export type IPAMStatus = {
  Subnets?: Record<string, SubnetStatus> | null;
};
export type Identity = {
  Signature?: SignatureIdentity[] | null;
  Pull?: PullIdentity[] | null;
  Build?: BuildIdentity[] | null;
};
export type ImageConfig = {
  Hostname?: string | null;
  Domainname?: string | null;
  User?: string | null;
  AttachStdin?: boolean | null;
  AttachStdout?: boolean | null;
  AttachStderr?: boolean | null;
  ExposedPorts?: Record<string, unknown> | null;
  Tty?: boolean | null;
  OpenStdin?: boolean | null;
  StdinOnce?: boolean | null;
  Env?: string[] | null;
  Cmd?: string[] | null;
  Healthcheck?: HealthConfig | null;
  ArgsEscaped?: boolean | null;
  Image?: string | null;
  Volumes?: Record<string, unknown> | null;
  WorkingDir?: string | null;
  Entrypoint?: string[] | null;
  NetworkDisabled?: boolean | null;
  MacAddress?: string | null;
  OnBuild?: string[] | null;
  Labels?: Record<string, string> | null;
  StopSignal?: string | null;
  StopTimeout?: number | null;
  Shell?: string[] | null;
};
export type ImageDeleteResponseItem = {
  Untagged?: string | null;
  Deleted?: string | null;
};
export type ImageHistoryResponseItem = {
  Id?: string | null;
  Created?: number | null;
  CreatedBy?: string | null;
  Tags?: string[] | null;
  Size?: number | null;
  Comment?: string | null;
};
export type ImageInspect = {
  Id?: string | null;
  RepoTags?: string[] | null;
  RepoDigests?: string[] | null;
  Parent?: string | null;
  Comment?: string | null;
  Created?: string | null;
  Container?: string | null;
  ContainerConfig?: ContainerConfig | null;
  DockerVersion?: string | null;
  Author?: string | null;
  Config?: ImageConfig | null;
  Architecture?: string | null;
  Variant?: string | null;
  Os?: string | null;
  OsVersion?: string | null;
  Size?: number | null;
  GraphDriver?: DriverData | null;
  RootFS?: {
    Type?: string | null;
    Layers?: string[] | null;
  } | null;
  Metadata?: {
    LastTagTime?: string | null;
  } | null;
  Descriptor?: OCIDescriptor | null;
  Manifests?: ImageManifestSummary[] | null;
  Identity?: Identity | null;
};
export type ImageManifestSummary = {
  ID?: string | null;
  Descriptor?: OCIDescriptor | null;
  Available?: boolean | null;
  Size?: {
    Total?: number | null;
    Content?: number | null;
  } | null;
  Kind?: string | null;
  ImageData?: {
    Platform?: OCIPlatform | null;
    Identity?: Identity | null;
    Containers?: string[] | null;
    Size?: {
      Unpacked?: number | null;
    } | null;
  } | null;
  AttestationData?: {
    For?: string | null;
  } | null;
};
export type ImageSummary = {
  Id?: string | null;
  ParentId?: string | null;
  RepoTags?: string[] | null;
  RepoDigests?: string[] | null;
  Created?: number | null;
  Size?: number | null;
  SharedSize?: number | null;
  Labels?: Record<string, string> | null;
  Containers?: number | null;
  Manifests?: ImageManifestSummary[] | null;
  Descriptor?: OCIDescriptor | null;
};
export type ImagesDiskUsage = {
  ActiveCount?: number | null;
  TotalCount?: number | null;
  Reclaimable?: number | null;
  TotalSize?: number | null;
  Items?: unknown[] | null;
};
export type IndexInfo = {
  Name?: string | null;
  Mirrors?: string[] | null;
  Secure?: boolean | null;
  Official?: boolean | null;
};
export type KnownSignerIdentity = string;
export type LocalNodeState = string;
export type Mount = {
  Target?: string | null;
  Source?: string | null;
  Type?: MountType | null;
  ReadOnly?: boolean | null;
  Consistency?: string | null;
  BindOptions?: {
    Propagation?: string | null;
    NonRecursive?: boolean | null;
    CreateMountpoint?: boolean | null;
    ReadOnlyNonRecursive?: boolean | null;
    ReadOnlyForceRecursive?: boolean | null;
  } | null;
  VolumeOptions?: {
    NoCopy?: boolean | null;
    Labels?: Record<string, string> | null;
    DriverConfig?: {
      Name?: string | null;
      Options?: Record<string, string> | null;
    } | null;
    Subpath?: string | null;
  } | null;
  TmpfsOptions?: {
    SizeBytes?: number | null;
    Mode?: number | null;
    Options?: string[][] | null;
  } | null;
  ImageOptions?: {
    Subpath?: string | null;
  } | null;
};
export type MountPoint = {
  Type?: MountType | null;
  Name?: string | null;
  Source?: string | null;
  Destination?: string | null;
  Driver?: string | null;
  Mode?: string | null;
  RW?: boolean | null;
  Propagation?: string | null;
};
export type MountType = string;
export type NRIInfo = {
  Info?: string[][] | null;
};
export type Network = {
  Name?: string | null;
  Id?: string | null;
  Created?: string | null;
  Scope?: string | null;
  Driver?: string | null;
  EnableIPv6?: boolean | null;
  IPAM?: IPAM | null;
  Internal?: boolean | null;
  Attachable?: boolean | null;
  Ingress?: boolean | null;
  ConfigFrom?: ConfigReference | null;
  ConfigOnly?: boolean | null;
  Containers?: Record<string, NetworkContainer> | null;
  Options?: Record<string, string> | null;
  Labels?: Record<string, string> | null;
  Peers?: PeerInfo[] | null;
  EnableIPv4?: boolean | null;
};
export type NetworkConnectRequest = {
  Container?: string | null;
  EndpointConfig?: EndpointSettings | null;
};
export type NetworkContainer = {
  Name?: string | null;
  EndpointID?: string | null;
  MacAddress?: string | null;
  IPv4Address?: string | null;
  IPv6Address?: string | null;
};
export type NetworkCreateResponse = {
  Id?: string | null;
  Warning?: string | null;
};
export type NetworkDisconnectRequest = {
  Container?: string | null;
  Force?: boolean | null;
};
export type NetworkInspect = Network;
export type NetworkSettings = {
  Bridge?: string | null;
  SandboxID?: string | null;
  HairpinMode?: boolean | null;
  LinkLocalIPv6Address?: string | null;
  LinkLocalIPv6PrefixLen?: number | null;
  Ports?: PortMap | null;
  SandboxKey?: string | null;
  SecondaryIPAddresses?: Address[] | null;
  SecondaryIPv6Addresses?: Address[] | null;
  EndpointID?: string | null;
  Gateway?: string | null;
  GlobalIPv6Address?: string | null;
  GlobalIPv6PrefixLen?: number | null;
  IPAddress?: string | null;
  IPPrefixLen?: number | null;
  IPv6Gateway?: string | null;
  MacAddress?: string | null;
  Networks?: Record<string, EndpointSettings> | null;
};
export type NetworkStatus = {
  IPAM?: IPAMStatus | null;
};
export type NetworkSummary = Network;
export type NetworkingConfig = {
  EndpointsConfig?: Record<string, EndpointSettings> | null;
};
export type OCIDescriptor = {
  mediaType?: string | null;
  digest?: string | null;
  size?: number | null;
  urls?: string[] | null;
  annotations?: Record<string, string> | null;
  data?: string | null;
  platform?: OCIPlatform | null;
  artifactType?: string | null;
};
export type OCIPlatform = {
  architecture?: string | null;
  os?: string | null;
  "os.version"?: string | null;
  "os.features"?: string[] | null;
  variant?: string | null;
};
export type ObjectVersion = {
  Index?: number | null;
};
export type PeerInfo = {
  Name?: string | null;
  IP?: string | null;
};
export type PeerNode = {
  NodeID?: string | null;
  Addr?: string | null;
};
export type PluginsInfo = {
  Volume?: string[] | null;
  Network?: string[] | null;
  Authorization?: string[] | null;
  Log?: string[] | null;
};
export type PortBinding = {
  HostIp?: string | null;
  HostPort?: string | null;
};
export type PortMap = Record<string, PortBinding[]>;
export type PortSummary = {
  IP?: string | null;
  PrivatePort?: number | null;
  PublicPort?: number | null;
  Type?: string | null;
};
export type ProcessConfig = {
  privileged?: boolean | null;
  user?: string | null;
  tty?: boolean | null;
  entrypoint?: string | null;
  arguments?: string[] | null;
};
export type PullIdentity = {
  Repository?: string | null;
};
export type RegistryServiceConfig = {
  AllowNondistributableArtifactsCIDRs?: string[] | null;
  AllowNondistributableArtifactsHostnames?: string[] | null;
  InsecureRegistryCIDRs?: string[] | null;
  IndexConfigs?: Record<string, IndexInfo> | null;
  Mirrors?: string[] | null;
};
export type Resources = {
  CpuShares?: number | null;
  Memory?: number | null;
  CgroupParent?: string | null;
  BlkioWeight?: number | null;
  BlkioWeightDevice?: {
    Path?: string | null;
    Weight?: number | null;
  }[] | null;
  BlkioDeviceReadBps?: ThrottleDevice[] | null;
  BlkioDeviceWriteBps?: ThrottleDevice[] | null;
  BlkioDeviceReadIOps?: ThrottleDevice[] | null;
  BlkioDeviceWriteIOps?: ThrottleDevice[] | null;
  CpuPeriod?: number | null;
  CpuQuota?: number | null;
  CpuRealtimePeriod?: number | null;
  CpuRealtimeRuntime?: number | null;
  CpusetCpus?: string | null;
  CpusetMems?: string | null;
  Devices?: DeviceMapping[] | null;
  DeviceCgroupRules?: string[] | null;
  DeviceRequests?: DeviceRequest[] | null;
  KernelMemoryTCP?: number | null;
  MemoryReservation?: number | null;
  MemorySwap?: number | null;
  MemorySwappiness?: number | null;
  NanoCpus?: number | null;
  OomKillDisable?: boolean | null;
  Init?: boolean | null;
  PidsLimit?: number | null;
  Ulimits?: {
    Name?: string | null;
    Soft?: number | null;
    Hard?: number | null;
  }[] | null;
  CpuCount?: number | null;
  CpuPercent?: number | null;
  IOMaximumIOps?: number | null;
  IOMaximumBandwidth?: number | null;
  KernelMemory?: number | null;
  DiskQuota?: number | null;
};
export type RestartPolicy = {
  Name?: string | null;
  MaximumRetryCount?: number | null;
};
export type RootFSStorage = {
  Snapshot?: RootFSStorageSnapshot | null;
};
export type RootFSStorageSnapshot = {
  Name?: string | null;
};
export type Runtime = {
  path?: string | null;
  runtimeArgs?: string[] | null;
  status?: Record<string, string> | null;
};
export type SignatureIdentity = {
  Name?: string | null;
  Timestamps?: SignatureTimestamp[] | null;
  KnownSigner?: KnownSignerIdentity | null;
  DockerReference?: string | null;
  Signer?: SignerIdentity | null;
  SignatureType?: SignatureType | null;
  Error?: string | null;
  Warnings?: string[] | null;
};
export type SignatureTimestamp = {
  Type?: SignatureTimestampType | null;
  URI?: string | null;
  Timestamp?: string | null;
};
export type SignatureTimestampType = string;
export type SignatureType = string;
export type SignerIdentity = {
  CertificateIssuer?: string | null;
  SubjectAlternativeName?: string | null;
  Issuer?: string | null;
  BuildSignerURI?: string | null;
  BuildSignerDigest?: string | null;
  RunnerEnvironment?: string | null;
  SourceRepositoryURI?: string | null;
  SourceRepositoryDigest?: string | null;
  SourceRepositoryRef?: string | null;
  SourceRepositoryIdentifier?: string | null;
  SourceRepositoryOwnerURI?: string | null;
  SourceRepositoryOwnerIdentifier?: string | null;
  BuildConfigURI?: string | null;
  BuildConfigDigest?: string | null;
  BuildTrigger?: string | null;
  RunInvocationURI?: string | null;
  SourceRepositoryVisibilityAtSigning?: string | null;
};
export type Storage = {
  RootFS?: RootFSStorage | null;
};
export type SubnetStatus = {
  IPsInUse?: number | null;
  DynamicIPsAvailable?: number | null;
};
export type SwarmInfo = {
  NodeID?: string | null;
  NodeAddr?: string | null;
  LocalNodeState?: LocalNodeState | null;
  ControlAvailable?: boolean | null;
  Error?: string | null;
  RemoteManagers?: PeerNode[] | null;
  Nodes?: number | null;
  Managers?: number | null;
  Cluster?: ClusterInfo | null;
};
export type SwarmSpec = {
  Name?: string | null;
  Labels?: Record<string, string> | null;
  Orchestration?: {
    TaskHistoryRetentionLimit?: number | null;
  } | null;
  Raft?: {
    SnapshotInterval?: number | null;
    KeepOldSnapshots?: number | null;
    LogEntriesForSlowFollowers?: number | null;
    ElectionTick?: number | null;
    HeartbeatTick?: number | null;
  } | null;
  Dispatcher?: {
    HeartbeatPeriod?: number | null;
  } | null;
  CAConfig?: {
    NodeCertExpiry?: number | null;
    ExternalCAs?: {
      Protocol?: string | null;
      URL?: string | null;
      Options?: Record<string, string> | null;
      CACert?: string | null;
    }[] | null;
    SigningCACert?: string | null;
    SigningCAKey?: string | null;
    ForceRotate?: number | null;
  } | null;
  EncryptionConfig?: {
    AutoLockManagers?: boolean | null;
  } | null;
  TaskDefaults?: {
    LogDriver?: {
      Name?: string | null;
      Options?: Record<string, string> | null;
    } | null;
  } | null;
};
export type SystemInfo = {
  ID?: string | null;
  Containers?: number | null;
  ContainersRunning?: number | null;
  ContainersPaused?: number | null;
  ContainersStopped?: number | null;
  Images?: number | null;
  Driver?: string | null;
  DriverStatus?: string[][] | null;
  DockerRootDir?: string | null;
  Plugins?: PluginsInfo | null;
  MemoryLimit?: boolean | null;
  SwapLimit?: boolean | null;
  KernelMemoryTCP?: boolean | null;
  CpuCfsPeriod?: boolean | null;
  CpuCfsQuota?: boolean | null;
  CPUShares?: boolean | null;
  CPUSet?: boolean | null;
  PidsLimit?: boolean | null;
  OomKillDisable?: boolean | null;
  IPv4Forwarding?: boolean | null;
  BridgeNfIptables?: boolean | null;
  BridgeNfIp6tables?: boolean | null;
  Debug?: boolean | null;
  NFd?: number | null;
  NGoroutines?: number | null;
  SystemTime?: string | null;
  LoggingDriver?: string | null;
  CgroupDriver?: string | null;
  CgroupVersion?: string | null;
  NEventsListener?: number | null;
  KernelVersion?: string | null;
  OperatingSystem?: string | null;
  OSVersion?: string | null;
  OSType?: string | null;
  Architecture?: string | null;
  NCPU?: number | null;
  MemTotal?: number | null;
  IndexServerAddress?: string | null;
  RegistryConfig?: RegistryServiceConfig | null;
  GenericResources?: GenericResources | null;
  HttpProxy?: string | null;
  HttpsProxy?: string | null;
  NoProxy?: string | null;
  Name?: string | null;
  Labels?: string[] | null;
  ExperimentalBuild?: boolean | null;
  ServerVersion?: string | null;
  Runtimes?: Record<string, Runtime> | null;
  DefaultRuntime?: string | null;
  Swarm?: SwarmInfo | null;
  LiveRestoreEnabled?: boolean | null;
  Isolation?: string | null;
  InitBinary?: string | null;
  ContainerdCommit?: Commit | null;
  RuncCommit?: Commit | null;
  InitCommit?: Commit | null;
  SecurityOptions?: string[] | null;
  ProductLicense?: string | null;
  DefaultAddressPools?: {
    Base?: string | null;
    Size?: number | null;
  }[] | null;
  Warnings?: string[] | null;
  CDISpecDirs?: string[] | null;
  FirewallBackend?: FirewallInfo | null;
  DiscoveredDevices?: DeviceInfo[] | null;
  NRI?: NRIInfo | null;
  Containerd?: ContainerdInfo | null;
};
export type SystemVersion = {
  Platform?: {
    Name?: string | null;
  } | null;
  Components?: {
    Name?: string | null;
    Version?: string | null;
    Details?: unknown | null;
  }[] | null;
  Version?: string | null;
  ApiVersion?: string | null;
  MinAPIVersion?: string | null;
  GitCommit?: string | null;
  GoVersion?: string | null;
  Os?: string | null;
  Arch?: string | null;
  KernelVersion?: string | null;
  Experimental?: boolean | null;
  BuildTime?: string | null;
};
export type TLSInfo = {
  TrustRoot?: string | null;
  CertIssuerSubject?: string | null;
  CertIssuerPublicKey?: string | null;
};
export type ThrottleDevice = {
  Path?: string | null;
  Rate?: number | null;
};
export type Topology = {
  Segments?: Record<string, string> | null;
};
export type Volume = {
  Name?: string | null;
  Driver?: string | null;
  Mountpoint?: string | null;
  CreatedAt?: string | null;
  Status?: Record<string, unknown> | null;
  Labels?: Record<string, string> | null;
  Scope?: string | null;
  ClusterVolume?: ClusterVolume | null;
  Options?: Record<string, string> | null;
  UsageData?: {
    Size?: number | null;
    RefCount?: number | null;
  } | null;
};
export type VolumeCreateRequest = {
  Name?: string | null;
  Driver?: string | null;
  DriverOpts?: Record<string, string> | null;
  Labels?: Record<string, string> | null;
  ClusterVolumeSpec?: ClusterVolumeSpec | null;
};
export type VolumeListResponse = {
  Volumes?: Volume[] | null;
  Warnings?: string[] | null;
};
export type VolumesDiskUsage = {
  ActiveCount?: number | null;
  TotalCount?: number | null;
  Reclaimable?: number | null;
  TotalSize?: number | null;
  Items?: unknown[] | null;
};

/** Request bodies by operation id. */
export interface Bodies {
  ContainerCreate: ContainerConfig & {
    HostConfig?: HostConfig | null;
    NetworkingConfig?: NetworkingConfig | null;
  } & {
    name?: string | null;
    Runtime?: string | null;
    Dns?: string[] | null;
  };
  ContainerUpdate: Resources & {
    RestartPolicy?: RestartPolicy | null;
  };
  SystemAuth: AuthConfig;
  ImageCommit: ContainerConfig & {
    comment?: string | null;
    author?: string | null;
    repo?: string | null;
    tag?: string | null;
    container?: string | null;
  };
  ContainerExec: {
    AttachStdin?: boolean | null;
    AttachStdout?: boolean | null;
    AttachStderr?: boolean | null;
    ConsoleSize?: number[] | null;
    DetachKeys?: string | null;
    Tty?: boolean | null;
    Env?: string[] | null;
    Cmd?: string[] | null;
    Privileged?: boolean | null;
    User?: string | null;
    WorkingDir?: string | null;
  } & {
    Detach?: boolean | null;
    Container?: string | null;
  };
  ExecStart: {
    Detach?: boolean | null;
    Tty?: boolean | null;
    ConsoleSize?: number[] | null;
  } & {
    hijack?: boolean | null;
    stdin?: boolean | null;
  };
  VolumeCreate: VolumeCreateRequest & {
    Mountpoint?: string | null;
  };
  VolumeUpdate: {
    Spec?: ClusterVolumeSpec | null;
  };
  NetworkCreate: {
    Name?: string | null;
    CheckDuplicate?: boolean | null;
    Driver?: string | null;
    Scope?: string | null;
    Internal?: boolean | null;
    Attachable?: boolean | null;
    Ingress?: boolean | null;
    ConfigOnly?: boolean | null;
    ConfigFrom?: ConfigReference | null;
    IPAM?: IPAM | null;
    EnableIPv6?: boolean | null;
    Options?: Record<string, string> | null;
    Labels?: Record<string, string> | null;
    EnableIPv4?: boolean | null;
  };
  NetworkConnect: NetworkConnectRequest;
  NetworkDisconnect: NetworkDisconnectRequest;
}
