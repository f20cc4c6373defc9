import { array, boolean, fail, integer, type Out, object, optional, record, type Shape, text } from '#base/shape.ts';
import { absolutePath, environment, type IdMapping, idMappings, texts, uint32 } from '#spec/oci/fields.ts';
import { parseJson, uint64 } from '#spec/oci/json.ts';
import { LINUX_PROCESS, LinuxSection, withRule } from '#spec/oci/linux.ts';

/** The version of the runtime specification that this code implements, and the least it accepts. */
export const OCI_VERSION = '1.3.0';
export const OCI_VERSION_MIN = '1.0.0';

/** A document is bounded before it is parsed: bundles come from strangers. runc's largest known ones are ~200 KiB. */
export const CONFIG_MAX_BYTES = 16 * 1024 * 1024;

const SEMVER = /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/;

/** SemVer; compatible within a major version (config.md, "Specification version"). Drafts 0.x are taken as 1.0 was. */
function ociVersion(): Shape<string> {
  return (value, path) => {
    const version = text()(value, path);
    const major = SEMVER.exec(version)?.[1];
    if (major === undefined) return fail(path, value, 'is not a SemVer version such as 1.3.0');
    return Number(major) <= 1 ? version : fail(path, value, 'is of a later major version than 1, which is supported');
  };
}

const Mount = withRule(
  object({
    destination: text({ nonEmpty: true }),
    type: optional(text()),
    source: optional(text()),
    options: optional(texts()),
    uidMappings: optional(idMappings()),
    gidMappings: optional(idMappings()),
  }),
  (mount, path) => {
    for (const [one, other] of [
      ['uidMappings', 'gidMappings'],
      ['gidMappings', 'uidMappings'],
    ] as const)
      if (mount[one] !== undefined && mount[other] === undefined)
        fail(`${path}.${other}`, undefined, `is required beside ${one}`);
  },
);

const RLIMIT = /^RLIMIT_[A-Z]+$/;
const Rlimit = withRule(object({ type: text({ nonEmpty: true }), soft: uint64(), hard: uint64() }), (limit, path) => {
  if (!RLIMIT.test(limit.type)) fail(`${path}.type`, limit.type, 'is not a name such as RLIMIT_NOFILE');
  if (BigInt(limit.soft) > BigInt(limit.hard)) fail(`${path}.soft`, limit.soft, `is above hard, ${limit.hard}`);
});

const ConsoleSize = object({ height: integer({ min: 0 }), width: integer({ min: 0 }) });

const User = object({
  uid: integer({ min: 0, max: 0xffff_fffe }),
  gid: integer({ min: 0, max: 0xffff_fffe }),
  umask: optional(integer({ min: 0, max: 0o777 })),
  additionalGids: optional(array(uint32())),
  username: optional(text()),
});

/** `process` of config.json, and the file that `exec --process` reads. */
export const Process = withRule(
  object({
    terminal: optional(boolean()),
    consoleSize: optional(ConsoleSize),
    cwd: absolutePath(),
    env: optional(environment()),
    args: optional(texts()),
    user: withFallback(User, { uid: 0, gid: 0 }),
    rlimits: optional(array(Rlimit)),
    ...LINUX_PROCESS,
  }),
  (process, path) => {
    if (process.args === undefined || process.args.length === 0)
      fail(`${path}.args`, process.args, 'must have at least one entry');
    process.rlimits?.forEach((limit, i, all) => {
      const first = all.findIndex((other) => other.type === limit.type);
      if (first < i)
        fail(`${path}.rlimits[${i}].type`, limit.type, `is there twice, first at ${path}.rlimits[${first}]`);
    });
  },
);

/** The executor counts in milliseconds and 32 bits. */
const HOOK_TIMEOUT_MAX_S = 2_147_483;

const Hook = object({
  path: absolutePath(),
  args: optional(texts()),
  env: optional(environment()),
  timeout: optional(integer({ min: 1, max: HOOK_TIMEOUT_MAX_S })),
});

/** The six points, in the order in which they come (config.md, "POSIX-platform Hooks"). */
export const HOOK_POINTS = [
  'prestart',
  'createRuntime',
  'createContainer',
  'startContainer',
  'poststart',
  'poststop',
] as const;
export type HookPoint = (typeof HOOK_POINTS)[number];

const hooks = () => optional(array(Hook));

const Config = object({
  ociVersion: ociVersion(),
  root: optional(object({ path: text({ nonEmpty: true }), readonly: optional(boolean()) })),
  mounts: optional(array(Mount)),
  process: optional(Process),
  hostname: optional(text()),
  domainname: optional(text()),
  hooks: optional(
    object({
      prestart: hooks(),
      createRuntime: hooks(),
      createContainer: hooks(),
      startContainer: hooks(),
      poststart: hooks(),
      poststop: hooks(),
    }),
  ),
  annotations: optional(record(text(), text({ nonEmpty: true }))),
  linux: optional(LinuxSection),
});

export type OciConfig = Out<typeof Config>;
export type OciProcess = Out<typeof Process>;
export type OciMount = Out<typeof Mount>;
export type OciHook = Out<typeof Hook>;
export type { IdMapping };

/** A parsed config.json; `InvalidValue` with path, value and rule for the first thing that is wrong. Pure. */
export function parseConfig(source: string): OciConfig {
  if (source.length > CONFIG_MAX_BYTES) return fail('$', `${source.length} bytes`, 'is larger than 16 MiB');
  return checkConfig(parseJson(source));
}

/** The same for a value that is already an object, as the engine makes it. */
export function checkConfig(value: unknown): OciConfig {
  const config = Config(value, '$');
  for (const rule of RULES) rule(config);
  return config;
}

export function parseProcess(source: string): OciProcess {
  return Process(parseJson(source), '$');
}

// What several sections say together. Each rule names the section of the specification, or the kernel's reason.
const RULES: readonly ((config: OciConfig) => void)[] = [
  function rootIsRequiredOnLinux(config) {
    if (!config.root) fail('$.root', undefined, 'is required on Linux');
  },

  function namesNeedAUtsNamespace(config) {
    for (const name of ['hostname', 'domainname'] as const)
      if (config[name] && !hasNamespace(config, 'uts'))
        fail(`$.${name}`, config[name], 'needs a uts namespace in $.linux.namespaces: it would rename the host');
  },

  function mappingsAndUserNamespaceBelongTogether(config) {
    const { uidMappings, gidMappings } = config.linux ?? {};
    const own = config.linux?.namespaces?.find((ns) => ns.type === 'user');
    for (const [name, mappings] of [
      ['uidMappings', uidMappings],
      ['gidMappings', gidMappings],
    ] as const) {
      if (mappings?.length && !own) fail(`$.linux.${name}`, mappings, 'needs a user namespace in $.linux.namespaces');
      if (!mappings?.length && own && !own.path)
        fail(`$.linux.${name}`, mappings, 'is required for a new user namespace');
    }
  },

  function timeOffsetsNeedANewTimeNamespace(config) {
    const offsets = config.linux?.timeOffsets;
    if (offsets === undefined || Object.keys(offsets).length === 0) return;
    if (!hasNewNamespace(config, 'time'))
      fail('$.linux.timeOffsets', offsets, 'needs a new time namespace in $.linux.namespaces');
  },

  function memoryPolicyNodesFitTheMode(config) {
    const policy = config.linux?.memoryPolicy;
    if (!policy) return;
    const without = policy.mode === 'MPOL_DEFAULT' || policy.mode === 'MPOL_LOCAL';
    if (without && policy.nodes) fail('$.linux.memoryPolicy.nodes', policy.nodes, `must be empty for ${policy.mode}`);
    if (!without && policy.mode !== 'MPOL_PREFERRED' && !policy.nodes)
      fail('$.linux.memoryPolicy.nodes', policy.nodes, `is required for ${policy.mode}`);
  },

  function personalityHasNoFlags(config) {
    const flags = config.linux?.personality?.flags;
    if (flags?.length) fail('$.linux.personality.flags', flags, 'must be empty: no flag is supported');
  },
];

export function hasNamespace(config: OciConfig, type: string): boolean {
  return config.linux?.namespaces?.some((ns) => ns.type === type) ?? false;
}

export function hasNewNamespace(config: OciConfig, type: string): boolean {
  return config.linux?.namespaces?.some((ns) => ns.type === type && !ns.path) ?? false;
}

function withFallback<T>(shape: Shape<T>, fallback: T): Shape<T> {
  return (value, path) => (value === undefined || value === null ? fallback : shape(value, path));
}
