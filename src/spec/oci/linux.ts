import {
  array,
  boolean,
  fail,
  integer,
  type Out,
  object,
  oneOf,
  optional,
  record,
  type Shape,
  text,
} from '#base/shape.ts';
import { absolutePath, idList, idMappings, int32, optionalTexts, texts, uint16, uint32 } from '#spec/oci/fields.ts';
import { int64, uint64 } from '#spec/oci/json.ts';

// The `linux` section (config-linux.md, schema/config-linux.json). Names are the specification's own.

export const NAMESPACE_TYPES = ['pid', 'network', 'mount', 'ipc', 'uts', 'user', 'cgroup', 'time'] as const;

const Namespace = object({ type: oneOf(...NAMESPACE_TYPES), path: optional(text()) });

/** A type twice is an error; a path must be absolute. An empty path means a new namespace, as runc takes it. */
function namespaces(): Shape<Out<typeof Namespace>[]> {
  const list = array(Namespace);
  return (value, path) => {
    const parsed = list(value, path);
    parsed.forEach((ns, i) => {
      const first = parsed.findIndex((other) => other.type === ns.type);
      if (first < i) fail(`${path}[${i}].type`, ns.type, `is there twice, first at ${path}[${first}]`);
      if (ns.path !== undefined && ns.path !== '' && !ns.path.startsWith('/'))
        fail(`${path}[${i}].path`, ns.path, 'must be an absolute path');
    });
    return parsed;
  };
}

export const DEVICE_TYPES = ['c', 'b', 'u', 'p'] as const;

/** `major` and `minor` stay away only for a FIFO. */
export const Device = withRule(
  object({
    type: oneOf(...DEVICE_TYPES),
    path: absolutePath(),
    major: optional(integer({ min: 0, max: 0xfff })),
    minor: optional(integer({ min: 0, max: 0xf_ffff })),
    fileMode: optional(integer({ min: 0, max: 0o177777 })),
    uid: optional(uint32()),
    gid: optional(uint32()),
  }),
  (device, path) => {
    if (device.type === 'p') return;
    for (const side of ['major', 'minor'] as const)
      if (device[side] === undefined) fail(`${path}.${side}`, undefined, `is required for type "${device.type}"`);
  },
);

/** −1 and a missing number both mean all. */
export const DeviceRule = object({
  allow: boolean(),
  type: optional(oneOf('a', 'c', 'b', 'u', 'p', '')),
  major: optional(integer({ min: -1, max: 0xfff })),
  minor: optional(integer({ min: -1, max: 0xf_ffff })),
  access: optional(text()),
});

const checkedDeviceRule = withRule(DeviceRule, (rule, path) => {
  // `a` for all is in nobody's specification, but in configurations that runc took: it adds nothing.
  if (rule.access !== undefined && !/^[rwma]*$/.test(rule.access))
    fail(`${path}.access`, rule.access, 'is not made of r, w and m');
});

const Throttle = object({ major: integer({ min: 0 }), minor: integer({ min: 0 }), rate: uint64() });
const Weight = object({
  major: integer({ min: 0 }),
  minor: integer({ min: 0 }),
  weight: optional(uint16()),
  leafWeight: optional(uint16()),
});

export const Resources = object({
  unified: optional(record(text(), unifiedKey())),
  devices: optional(array(checkedDeviceRule)),
  pids: optional(object({ limit: optional(int64()) })),
  blockIO: optional(
    object({
      weight: optional(uint16()),
      leafWeight: optional(uint16()),
      weightDevice: optional(array(Weight)),
      throttleReadBpsDevice: optional(array(Throttle)),
      throttleWriteBpsDevice: optional(array(Throttle)),
      throttleReadIOPSDevice: optional(array(Throttle)),
      throttleWriteIOPSDevice: optional(array(Throttle)),
    }),
  ),
  cpu: optional(
    object({
      shares: optional(uint64()),
      quota: optional(int64()),
      burst: optional(uint64()),
      period: optional(uint64()),
      realtimeRuntime: optional(int64()),
      realtimePeriod: optional(uint64()),
      cpus: optional(idList()),
      mems: optional(idList()),
      idle: optional(int64()),
    }),
  ),
  memory: optional(
    object({
      limit: optional(int64()),
      reservation: optional(int64()),
      swap: optional(int64()),
      kernel: optional(int64()),
      kernelTCP: optional(int64()),
      swappiness: optional(uint64()),
      disableOOMKiller: optional(boolean()),
      useHierarchy: optional(boolean()),
      checkBeforeUpdate: optional(boolean()),
    }),
  ),
  hugepageLimits: optional(
    array(
      object({
        pageSize: text1({ match: /^[1-9][0-9]*[KMG]B$/, says: 'is not a page size such as 2MB' }),
        limit: uint64(),
      }),
    ),
  ),
  network: optional(
    object({
      classID: optional(uint32()),
      priorities: optional(array(object({ name: text(), priority: uint32() }))),
    }),
  ),
  rdma: optional(record(object({ hcaHandles: optional(uint32()), hcaObjects: optional(uint32()) }))),
});

/** A unified key names a file of the cgroup: no slash leads out of it. */
function unifiedKey(): Shape<string> {
  return text1({ match: /^[^/]+$/, says: 'must be a file name of a cgroup, without a slash' });
}

function text1(rule: { match: RegExp; says: string }): Shape<string> {
  const base = text({ nonEmpty: true });
  return (value, path) => {
    const parsed = base(value, path);
    return rule.match.test(parsed) ? parsed : fail(path, value, rule.says);
  };
}

export const SECCOMP_ACTIONS = [
  'SCMP_ACT_KILL',
  'SCMP_ACT_KILL_PROCESS',
  'SCMP_ACT_KILL_THREAD',
  'SCMP_ACT_TRAP',
  'SCMP_ACT_ERRNO',
  'SCMP_ACT_TRACE',
  'SCMP_ACT_ALLOW',
  'SCMP_ACT_LOG',
  'SCMP_ACT_NOTIFY',
] as const;

export const SECCOMP_OPERATORS = [
  'SCMP_CMP_NE',
  'SCMP_CMP_LT',
  'SCMP_CMP_LE',
  'SCMP_CMP_EQ',
  'SCMP_CMP_GE',
  'SCMP_CMP_GT',
  'SCMP_CMP_MASKED_EQ',
] as const;

export const SECCOMP_FLAGS = [
  'SECCOMP_FILTER_FLAG_TSYNC',
  'SECCOMP_FILTER_FLAG_LOG',
  'SECCOMP_FILTER_FLAG_SPEC_ALLOW',
  'SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV',
] as const;

const SyscallRule = object({
  names: array(text({ nonEmpty: true })),
  action: oneOf(...SECCOMP_ACTIONS),
  errnoRet: optional(uint32()),
  args: optional(
    array(
      object({
        index: integer({ min: 0, max: 5 }),
        value: uint64(),
        valueTwo: optional(uint64()),
        op: oneOf(...SECCOMP_OPERATORS),
      }),
    ),
  ),
});

/** Architectures stay strings here: which of them this build has tables for is the compiler's to say. */
export const Seccomp = withRule(
  object({
    defaultAction: oneOf(...SECCOMP_ACTIONS),
    defaultErrnoRet: optional(uint32()),
    architectures: optional(array(text1({ match: /^SCMP_ARCH_[A-Z0-9_]+$/, says: 'is no SCMP_ARCH_ name' }))),
    flags: optional(array(oneOf(...SECCOMP_FLAGS))),
    listenerPath: optional(text()),
    listenerMetadata: optional(text()),
    syscalls: optional(array(SyscallRule)),
  }),
  (seccomp, path) => {
    if (seccomp.listenerMetadata && !seccomp.listenerPath)
      fail(`${path}.listenerMetadata`, seccomp.listenerMetadata, 'needs listenerPath, which is not set');
    seccomp.syscalls?.forEach((rule, i) => {
      if (rule.names.length === 0) fail(`${path}.syscalls[${i}].names`, rule.names, 'must name at least one call');
    });
  },
);

export const MEMORY_POLICY_MODES = [
  'MPOL_DEFAULT',
  'MPOL_PREFERRED',
  'MPOL_BIND',
  'MPOL_INTERLEAVE',
  'MPOL_LOCAL',
  'MPOL_PREFERRED_MANY',
  'MPOL_WEIGHTED_INTERLEAVE',
] as const;

export const MEMORY_POLICY_FLAGS = ['MPOL_F_NUMA_BALANCING', 'MPOL_F_RELATIVE_NODES', 'MPOL_F_STATIC_NODES'] as const;

const noNewline = (start = '') =>
  text1({
    match: new RegExp(`^${start}[^\\n]*$`),
    says: `must ${start ? `start with ${start} and ` : ''}have no newline`,
  });

const IntelRdt = object({
  closID: optional(text1({ match: /^(\/|(?!\.{1,2}$)[^/\n]+)$/, says: 'must be "/" or one directory name' })),
  schemata: optional(array(noNewline())),
  l3CacheSchema: optional(noNewline()),
  memBwSchema: optional(noNewline('MB:')),
  enableMonitoring: optional(boolean()),
});

const clockOffset = () =>
  object({ secs: optional(int64()), nanosecs: optional(integer({ min: 0, max: 999_999_999 })) });

/** An interface name as the kernel takes it (dev_valid_name): at most 15 bytes, no slash, colon or space. */
const linkName = () => text1({ match: /^(?!\.{1,2}$)[^/:\s]{1,15}$/, says: 'is not a name for a network device' });

export const LinuxSection = object({
  namespaces: optional(namespaces()),
  uidMappings: optional(idMappings()),
  gidMappings: optional(idMappings()),
  timeOffsets: optional(object({ boottime: optional(clockOffset()), monotonic: optional(clockOffset()) })),
  devices: optional(array(Device)),
  netDevices: optional(record(object({ name: optional(linkName()) }), linkName())),
  cgroupsPath: optional(text()),
  resources: optional(Resources),
  intelRdt: optional(IntelRdt),
  memoryPolicy: optional(
    object({
      mode: oneOf(...MEMORY_POLICY_MODES),
      nodes: optional(idList()),
      flags: optional(array(oneOf(...MEMORY_POLICY_FLAGS))),
    }),
  ),
  sysctl: optional(record(text(), text({ nonEmpty: true }))),
  seccomp: optional(Seccomp),
  rootfsPropagation: optional(
    // The r-forms are not in the specification; runc takes them and Docker writes them.
    oneOf('', 'shared', 'slave', 'private', 'unbindable', 'rshared', 'rslave', 'rprivate', 'runbindable'),
  ),
  maskedPaths: optional(array(absolutePath())),
  readonlyPaths: optional(array(absolutePath())),
  mountLabel: optional(text()),
  personality: optional(object({ domain: oneOf('LINUX', 'LINUX32'), flags: optional(texts()) })),
});

export type Linux = Out<typeof LinuxSection>;
export type LinuxResources = Out<typeof Resources>;
export type LinuxSeccomp = Out<typeof Seccomp>;
export type LinuxDevice = Out<typeof Device>;
export type LinuxDeviceRule = Out<typeof DeviceRule>;
export type LinuxNamespace = Out<typeof Namespace>;

export const SCHEDULER_POLICIES = [
  'SCHED_OTHER',
  'SCHED_FIFO',
  'SCHED_RR',
  'SCHED_BATCH',
  'SCHED_ISO',
  'SCHED_IDLE',
  'SCHED_DEADLINE',
] as const;

export const SCHEDULER_FLAGS = [
  'SCHED_FLAG_RESET_ON_FORK',
  'SCHED_FLAG_RECLAIM',
  'SCHED_FLAG_DL_OVERRUN',
  'SCHED_FLAG_KEEP_POLICY',
  'SCHED_FLAG_KEEP_PARAMS',
  'SCHED_FLAG_UTIL_CLAMP_MIN',
  'SCHED_FLAG_UTIL_CLAMP_MAX',
] as const;

/** The fields of `process` that only Linux has (config.md, "Linux Process"). */
export const LINUX_PROCESS = {
  apparmorProfile: optional(text()),
  capabilities: optional(
    object({
      bounding: optionalTexts(),
      effective: optionalTexts(),
      inheritable: optionalTexts(),
      permitted: optionalTexts(),
      ambient: optionalTexts(),
    }),
  ),
  noNewPrivileges: optional(boolean()),
  oomScoreAdj: optional(integer({ min: -1000, max: 1000 })),
  scheduler: optional(
    object({
      policy: oneOf(...SCHEDULER_POLICIES),
      nice: optional(integer({ min: -20, max: 19 })),
      priority: optional(int32()),
      flags: optional(array(oneOf(...SCHEDULER_FLAGS))),
      runtime: optional(uint64()),
      deadline: optional(uint64()),
      period: optional(uint64()),
    }),
  ),
  selinuxLabel: optional(text()),
  ioPriority: optional(
    object({
      class: oneOf('IOPRIO_CLASS_RT', 'IOPRIO_CLASS_BE', 'IOPRIO_CLASS_IDLE'),
      priority: optional(integer({ min: 0, max: 7 })),
    }),
  ),
  execCPUAffinity: optional(object({ initial: optional(idList()), final: optional(idList()) })),
};

/** A shape with a rule over several of its fields; `check` calls `fail` itself, since it knows the path. */
export function withRule<T>(shape: Shape<T>, check: (value: T, path: string) => void): Shape<T> {
  return (value, path) => {
    const parsed = shape(value, path);
    check(parsed, path);
    return parsed;
  };
}
