import { posix } from 'node:path';
import { fail } from '#base/shape.ts';
import { dirOf } from '#kernel/cgroup/place.ts';
import type { CgroupPlan } from '#kernel/cgroup/plan.ts';
import {
  MOUNT_ATTR_RDONLY,
  MS_BIND,
  MS_PRIVATE,
  MS_REC,
  MS_SHARED,
  MS_SLAVE,
  MS_UNBINDABLE,
} from '#kernel/linux/mount-options.ts';
import { CLONE_INTO_CGROUP, NAMESPACES, namespaceRow } from '#kernel/linux/namespaces.ts';
import { MKDIR_MAY_EXIST, MKDIR_PARENTS, NO_SLOT } from '#kernel/plan/ops.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import {
  O_CLOEXEC,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_PATH,
  O_RDONLY,
  O_WRONLY,
  PlanBuilder,
  S_IFIFO,
  utf8,
} from '#runtime/builder.ts';
import { planDevices } from '#runtime/devices.ts';
import { Unsupported } from '#runtime/errors.ts';
import { planHooks, type StateFacts } from '#runtime/hooks.ts';
import type { Host } from '#runtime/host.ts';
import {
  bindsDev,
  idMapText,
  type MountContext,
  type PlannedMount,
  planMounts,
  planReadOnlyTmpfs,
  planTrees,
  readMounts,
} from '#runtime/mounts.ts';
import {
  joinedNamespaces,
  needsMapTool,
  needsMiddle,
  planTimeNamespace,
  planVisits,
  type UserNamespace,
  usernsKind,
} from '#runtime/namespaces.ts';
import { type NetDevice, planNetDevices } from '#runtime/net-devices.ts';
import {
  type ProcessContext,
  planExecve,
  planLabels,
  planLimits,
  planStdioOutside,
  planUser,
} from '#runtime/process.ts';
import { type ContainerRecord, type ProcessIdentity, paths, RECORD_VERSION } from '#runtime/state.ts';
import { checkSysctls, planSysctls } from '#runtime/sysctl.ts';
import { environmentOf } from '#runtime/users.ts';
import { hasNamespace, hasNewNamespace, type OciConfig, type OciProcess } from '#spec/oci/config.ts';
import { stringifyJson } from '#spec/oci/json.ts';

export interface CreateOptions {
  id: string;
  /** Absolute. */
  bundle: string;
  /** `--root`, absolute. */
  root: string;
  /** RFC 3339; written into the record. */
  created: string;
  owner: { uid: number; name: string };
  /** Who creates: as long as that process lives and there is no pid, the container is `creating`. */
  creator?: ProcessIdentity;
  pidFile?: string;
  /** Absolute path of the socket that takes the terminal's master; '' keeps it with the executor (foreground). */
  consoleSocket?: string;
  noPivot?: boolean;
  noNewKeyring?: boolean;
  /** How many descriptors from 3 on the container's process keeps. */
  preserveFds?: number;
  /** LISTEN_FDS and the like, which go to the process beside `process.env`. */
  extraEnv?: readonly string[];
  /** Cgroups to make and to join; `planCgroups` of the kernel layer, chosen by the caller. */
  cgroups?: CgroupPlan;
  /**
   * `later` waits at a fifo in the state directory, `word` for the shim's word. `now` is `run`: `ready` is answered when the
   * program runs; `foreground` also waits for its end.
   */
  start?: 'later' | 'word' | 'now' | 'foreground';
  seccomp?: ProcessContext['seccomp'];
  /** What `readNetDevices` has found for `linux.netDevices`. */
  netDevices?: readonly NetDevice[];
}

export interface CreatePlan {
  /** Runs to `created` (the op `ready`) and on, through `awaitStart`, to the container's program. */
  plan: Plan;
  record: ContainerRecord;
  /** What the specification says to warn of. */
  warnings: readonly string[];
}

const MNT_DETACH = 2;

const NO_CGROUPS: CgroupPlan = { places: [], create: [], join: [], warnings: [] };

/** What the chapters below share. */
interface Create {
  b: PlanBuilder;
  config: OciConfig;
  process: OciProcess;
  options: CreateOptions;
  host: Host;
  facts: StateFacts;
  rootfs: string;
  cgroups: CgroupPlan;
  mounts: readonly PlannedMount[];
  mountContext: MountContext;
  processContext: ProcessContext;
  /** No mount namespace: the container's mounts are the host's, below its root, and chroot(2) is all that holds it. */
  sharesMounts: boolean;
  /** A process of its own enters what exists, before init is made: see `needsMiddle`. */
  forks: boolean;
  /** A new user namespace, or an existing one to join: init is root there and nowhere else. */
  userns: UserNamespace;
  files: ReturnType<typeof paths>;
  /** Slots that stay open into init; `joinSlots` in the order of `cgroups.join`. */
  joinSlots: number[];
  /** Of what was entered: init closes them first of all. */
  entered: number[];
  fifo: number;
  root: number;
}

/**
 * A container from nothing to `created`, as steps. Pure: what is seen of the machine comes in through `host`. Errors are
 * `InvalidValue` and `Unsupported`, with the JSON path. Each line is a chapter.
 */
export function planCreate(config: OciConfig, options: CreateOptions, host: Host): CreatePlan {
  const c = prepare(config, options, host);
  const record = writeIntent(c);
  makeCgroups(c);
  openWhatInitCannotReach(c);
  enterNamespaces(c);
  mapIds(c);
  takeIds(c);
  joinCgroupsAndSession(c);
  buildRoot(c);
  runCreateHooks(c);
  changeRoot(c);
  finishContainer(c);
  becomeUser(c);
  answerAndWaitForStart(c);
  return { plan: c.b.finish(), record, warnings: c.b.warnings };
}

function prepare(config: OciConfig, options: CreateOptions, host: Host): Create {
  const process = config.process ?? fail('$.process', undefined, 'is required to start a container');
  checkSysctls(config);
  checkUnsupported(config, host);
  const rootfs = posix.resolve(options.bundle, config.root?.path ?? 'rootfs');
  if (host.look(rootfs) === undefined) fail('$.root.path', config.root?.path, `does not exist: ${rootfs}`);
  const userns = usernsKind(config, host);
  const cgroups = options.cgroups ?? NO_CGROUPS;
  const facts = { id: options.id, bundle: options.bundle, annotations: config.annotations ?? {} };
  const b = new PlanBuilder();
  const mountContext: MountContext = {
    config,
    bundle: options.bundle,
    rootfs,
    host,
    userns: userns !== 'none',
    cgroupns: hasNewNamespace(config, 'cgroup'),
    cgroups: cgroups.places,
  };
  const processContext: ProcessContext = {
    process,
    path: '$.process',
    config,
    host,
    facts,
    userns: userns !== 'none',
    groupsDenied: userns === 'new' && host.rootless && !needsMapTool(config, host),
    env: [...environmentOf(process, host, rootfs), ...(options.extraEnv ?? [])],
    preserveFds: options.preserveFds ?? 0,
    ...(options.seccomp ? { seccomp: options.seccomp } : {}),
  };
  return {
    b,
    config,
    process,
    options,
    host,
    facts,
    rootfs,
    cgroups,
    mounts: readMounts(mountContext),
    mountContext,
    processContext,
    userns,
    files: paths(options.root, options.id),
    sharesMounts: !hasNamespace(config, 'mount'),
    forks: needsMiddle(config, host),
    joinSlots: [],
    entered: [],
    fifo: NO_SLOT,
    root: NO_SLOT,
  };
}

function checkUnsupported(config: OciConfig, host: Host): void {
  const rdt = config.linux?.intelRdt;
  if (!rdt) return;
  const what =
    host.resctrl() === undefined
      ? 'no resctrl file system is mounted (config-linux.md, "IntelRdt")'
      : 'Intel RDT is not built in';
  throw new Unsupported({ path: '$.linux.intelRdt', what });
}

/** What will exist is on disk before it exists: a later command can finish or remove it. */
function writeIntent({ b, options, config, host, files, rootfs, cgroups }: Create): ContainerRecord {
  const record: ContainerRecord = {
    version: RECORD_VERSION,
    id: options.id,
    bundle: options.bundle,
    rootfs,
    created: options.created,
    owner: options.owner,
    ...(options.creator ? { creator: options.creator } : {}),
    rootless: host.rootless,
    cgroups: cgroups.places,
    ownsRootMount: !hasNamespace(config, 'mount'),
    config,
    noNewKeyring: options.noNewKeyring ?? false,
  };
  const because = 'runtime.md, "Create"';
  b.host(because, { op: 'mkdir', path: options.root, mode: 0o700, flags: MKDIR_PARENTS | MKDIR_MAY_EXIST });
  b.host(because, { op: 'mkdir', path: files.dir, mode: 0o711, flags: 0 }, { op: 'removeTree', path: files.dir });
  const data = utf8(stringifyJson(record));
  b.host(because, { op: 'write', path: files.record, data, flags: O_WRONLY | O_CREAT | O_EXCL, mode: 0o600 });
  return record;
}

function makeCgroups({ b, cgroups }: Create): void {
  for (const warning of cgroups.warnings) b.warn(warning);
  for (const step of cgroups.create) b.step(step);
}

function openWhatInitCannotReach(c: Create): void {
  const { b, files } = c;
  // Also under `run`, where nobody waits at it: it tells `state` that the program does not run yet. A shim tells that itself.
  if (c.options.start !== 'word')
    b.host('runtime.md, "Start"', { op: 'mknod', path: files.fifo, mode: S_IFIFO | 0o622, device: 0n });
  if ((c.options.start ?? 'later') === 'later') {
    c.fifo = b.slot();
    b.host('runtime.md, "Start"', { op: 'open', into: c.fifo, path: files.fifo, flags: O_PATH | O_CLOEXEC, mode: 0 });
  }
  planTrees(b, c.mountContext, c.mounts);
  if (c.userns !== 'new' || c.forks) return;
  for (const place of c.cgroups.places.filter((p) => p.version === 1)) {
    const into = b.slot();
    const path = posix.join(dirOf(place), 'tasks');
    b.host('$.linux.cgroupsPath', { op: 'open', into, path, flags: O_WRONLY | O_CLOEXEC, mode: 0 });
    c.joinSlots.push(into);
  }
}

/**
 * Into namespaces that exist, then `clone` into new ones. The order of entering is NAMESPACES'. A time namespace takes
 * its offsets only while it is empty, so it is made before the clone, by a process of its own (time_namespaces(7)).
 */
function enterNamespaces(c: Create): void {
  const { b, config, cgroups } = c;
  const list = config.linux?.namespaces ?? [];
  // Each file is opened before the first namespace is entered: /proc and /run may mean something else afterwards.
  const opened = joinedNamespaces(c.config, c.host).map((ns) => {
    const slot = b.slot();
    b.host(`${ns.because}.path`, { op: 'open', into: slot, path: ns.path, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
    return { ...ns, slot };
  });
  const cgroup = openCgroups(c);
  const own = c.forks ? [] : planVisits(b, opened);
  if (c.forks) {
    b.host('default', { op: 'fork' });
    // Here, since the host's cgroups may be out of sight or out of reach from where init lives.
    for (const step of cgroups.join) b.step({ ...step, where: 'middle' });
    if (c.userns === 'joined') planStdioOutside(b, c.processContext, config.linux?.uidMappings ?? []);
    for (const { slot, path, row, because } of opened) b.middle(because, { op: 'setns', slot, path, type: row.flag });
    const time = list.findIndex((ns) => ns.type === 'time' && !ns.path);
    if (time >= 0) planTimeNamespace(b, config, time);
  }
  const isNew = (type: string): boolean => list.some((ns) => ns.type === type && !ns.path);
  const rows = NAMESPACES.filter(({ type }) => type !== 'cgroup' && type !== 'time' && isNew(type));
  const flags = rows.reduce((bits, row) => bits | BigInt(row.flag), cgroup === NO_SLOT ? 0n : CLONE_INTO_CGROUP);
  b.at(c.forks ? 'middle' : 'host', '$.linux.namespaces', { op: 'clone', flags, cgroup, sibling: 0 });
  for (const { because, back } of own) b.host(because, back);
  c.entered = [...[...opened, ...own].map(({ slot }) => slot), cgroup];
}

/** v2's directory for CLONE_INTO_CGROUP: moving a process afterwards costs milliseconds. */
function openCgroups({ b, cgroups }: Create): number {
  if (cgroups.cloneInto === undefined) return NO_SLOT;
  const into = b.slot();
  const flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  b.host('$.linux.cgroupsPath', { op: 'open', into, path: cgroups.cloneInto, flags, mode: 0 });
  return into;
}

/**
 * The gate: init waits while the maps are written, since only now it has ids at all. No step of init's stands before these or between
 * them: each change of actors is a wait of one for the other.
 */
function mapIds(c: Create): void {
  const { b, config, host, userns } = c;
  const { oomScoreAdj } = c.process;
  // Before init changes its uid: from then on its files in /proc are root's (PR_SET_DUMPABLE in prctl(2)).
  if (oomScoreAdj !== undefined)
    b.host('$.process.oomScoreAdj', { op: 'writeProc', file: 'oom_score_adj', data: utf8(String(oomScoreAdj)) });
  if (userns === 'new') {
    const { uidMappings = [], gidMappings = [] } = config.linux ?? {};
    if (needsMapTool(config, host)) {
      const words = (mappings: typeof uidMappings): string[] =>
        mappings.flatMap((m) => [String(m.containerID), String(m.hostID), String(m.size)]);
      b.host('$.linux.uidMappings', { op: 'idMapTool', tool: 'newuidmap', map: words(uidMappings) });
      b.host('$.linux.gidMappings', { op: 'idMapTool', tool: 'newgidmap', map: words(gidMappings) });
    } else {
      b.host('$.linux.uidMappings', { op: 'writeProc', file: 'uid_map', data: utf8(idMapText(uidMappings)) });
      // "deny" goes to setgroups before gid_map is written: since Linux 3.19 an unprivileged writer otherwise gets EPERM
      // (user_namespaces(7)).
      if (host.uid !== 0) b.host('$.linux.gidMappings', { op: 'writeProc', file: 'setgroups', data: utf8('deny') });
      b.host('$.linux.gidMappings', { op: 'writeProc', file: 'gid_map', data: utf8(idMapText(gidMappings)) });
    }
  }
}

function takeIds({ b, config, userns, entered }: Create): void {
  for (const slot of entered) b.close('init', 'default', slot);
  if (userns === 'none') return;
  const maps = (mappings: readonly { containerID: number }[] | undefined): boolean =>
    userns === 'joined' || (mappings?.some((m) => m.containerID === 0) ?? false);
  if (maps(config.linux?.gidMappings)) b.init('default', { op: 'setgid', gid: 0 });
  if (maps(config.linux?.uidMappings)) b.init('default', { op: 'setuid', uid: 0 });
}

function joinCgroupsAndSession(c: Create): void {
  const { b, config, options } = c;
  b.init('default', { op: 'setsid' });
  if (!options.noNewKeyring) b.init('default', { op: 'keyring', name: `_ses.${options.id}` });
  joinCgroups(c);
  // After the joins: the namespace's root is the cgroup one is in when it is made.
  const i = config.linux?.namespaces?.findIndex((ns) => ns.type === 'cgroup' && !ns.path) ?? -1;
  if (i >= 0) b.init(`$.linux.namespaces[${i}]`, { op: 'unshare', flags: namespaceRow('cgroup').flag });
  planNetDevices(b, config, options.netDevices ?? []);
  planLimits(b, c.processContext);
}

function joinCgroups({ b, cgroups, forks, userns, joinSlots }: Create): void {
  if (forks) return;
  cgroups.join.forEach((step, i) => {
    const slot = joinSlots[i];
    // Root of a user namespace may not write the host's files; the descriptor carries the right of who opened it.
    if (userns === 'none' || slot === undefined) b.step(step);
    else {
      b.init(step.because, { op: 'joinCgroup', path: '', slot });
      b.close('init', 'default', slot);
    }
  });
}

const PROPAGATION: Readonly<Record<string, bigint>> = {
  shared: MS_SHARED,
  rshared: MS_SHARED | MS_REC,
  slave: MS_SLAVE,
  rslave: MS_SLAVE | MS_REC,
  private: MS_PRIVATE,
  rprivate: MS_PRIVATE | MS_REC,
  unbindable: MS_UNBINDABLE,
  runbindable: MS_UNBINDABLE | MS_REC,
};

function buildRoot(c: Create): void {
  const { b, config, rootfs, host, mounts, mountContext } = c;
  const wished = config.linux?.rootfsPropagation ?? '';
  const shared = wished.endsWith('shared');
  const because = wished ? '$.linux.rootfsPropagation' : 'default';
  // The whole tree stops sending mounts to the host, before the first one is made. With `shared` it keeps its peers, and
  // only the mount the root lies on is cut off: pivot_root(2) refuses a shared parent, and if it was not shared before, the
  // line above may have made it so.
  const remount = (target: string, flags: bigint): void =>
    b.init(because, { op: 'mount', source: '', target, type: '', flags, data: '' });
  const bind = { op: 'mount', source: rootfs, target: rootfs, type: '', flags: MS_BIND | MS_REC, data: '' } as const;
  if (c.sharesMounts) {
    // All that is mounted for the container hangs below this one mount of the host's: taking it away takes all.
    b.host('$.root.path', bind, { op: 'umount', target: rootfs, flags: MNT_DETACH });
    const flags = MS_PRIVATE | MS_REC;
    b.host(because, { op: 'mount', source: '', target: rootfs, type: '', flags, data: '' });
  } else {
    // An unbindable tree could not be bound just below; it becomes so at the end.
    const first = wished.endsWith('unbindable') ? 'rslave' : wished;
    remount('/', shared ? (PROPAGATION[first] ?? 0n) : (PROPAGATION[first] ?? MS_SLAVE) | MS_REC);
    if (shared) remount(host.mountOf(rootfs).point, MS_PRIVATE);
    b.init('$.root.path', bind);
  }
  c.root = b.slot();
  b.init('$.root.path', { op: 'open', into: c.root, path: rootfs, flags: O_PATH | O_DIRECTORY | O_CLOEXEC, mode: 0 });

  planMounts(b, mountContext, mounts, c.root);
  if (!bindsDev(mounts))
    planDevices(b, c.root, {
      devices: config.linux?.devices ?? [],
      bind: c.userns !== 'none' || host.rootless,
      kcore: host.look('/proc/kcore') !== undefined,
    });
}

function runCreateHooks(c: Create): void {
  const { b, config, facts, rootfs } = c;
  // `created`, in the words of the specification: step 2 of the lifecycle is done, these are steps 3 to 5.
  planHooks(b, 'host', config, 'prestart', facts, 'created');
  planHooks(b, 'host', config, 'createRuntime', facts, 'created');
  if (!config.hooks?.createContainer?.length) return;
  // runc's hooks of this point start in the root file system, and find what they change by relative paths.
  b.init('$.hooks.createContainer', { op: 'chdir', path: rootfs, inside: 0 });
  planHooks(b, 'init', config, 'createContainer', facts, 'created');
}

function changeRoot(c: Create): void {
  const { b, config, rootfs, options, mounts, root } = c;
  (config.linux?.readonlyPaths ?? []).forEach((path, i) => {
    b.init(`$.linux.readonlyPaths[${i}]`, { op: 'readonlyAt', root, path: posix.normalize(path) });
  });
  (config.linux?.maskedPaths ?? []).forEach((path, i) => {
    const label = config.linux?.mountLabel ?? '';
    b.init(`$.linux.maskedPaths[${i}]`, { op: 'maskAt', root, path: posix.normalize(path), label });
  });
  planSysctls(b, config);
  planLabels(b, c.processContext, 'host');
  if (c.sharesMounts) b.init('$.linux.namespaces', { op: 'chroot', root: rootfs });
  else if (options.noPivot) moveRoot(c);
  else b.init('default', { op: 'pivotRoot', root: rootfs });
  // Whoever swapped directories meanwhile (CVE-2021-30465) must not have a /proc of his own in its place.
  if (mounts.some((m) => m.target === '/proc' && m.mount.type === 'proc'))
    b.init('config-linux.md, "Default Filesystems"', { op: 'checkProc', path: '/proc' });
}

/**
 * Without pivot_root(2) the host's tree stays mounted below ours. Where a whole proc or sysfs is visible anywhere, a user
 * namespace made inside may mount a fresh one without our masks (mount_too_revealing in the kernel): they go first.
 */
function moveRoot({ b, rootfs, host, userns }: Create): void {
  const because = 'flag --no-pivot';
  const points = host.mountsOfType('proc', 'sysfs').filter((p) => p !== rootfs && !p.startsWith(`${rootfs}/`));
  for (const target of [...points].reverse()) {
    // What came with the mount namespace is locked there for a new user namespace: it is covered.
    if (userns === 'none') b.init(because, { op: 'umount', target, flags: MNT_DETACH });
    else b.init(because, { op: 'mount', source: 'tmpfs', target, type: 'tmpfs', flags: 0n, data: '' });
  }
  b.init(because, { op: 'moveRoot', root: rootfs });
}

function finishContainer(c: Create): void {
  const { b, config, process, options, mounts, root } = c;
  if (process.terminal) {
    const { height = 0, width = 0 } = process.consoleSize ?? {};
    b.init('$.process.terminal', {
      op: 'console',
      socket: options.consoleSocket ?? '',
      rows: height,
      cols: width,
      bind: 1,
    });
  }
  planReadOnlyTmpfs(b, mounts, root);
  b.close('init', 'default', root);
  b.init('$.process.cwd', { op: 'mkdir', path: process.cwd, mode: 0o755, flags: MKDIR_PARENTS | MKDIR_MAY_EXIST });
  const propagation = config.linux?.rootfsPropagation;
  if (propagation && !c.sharesMounts && !propagation.endsWith('slave') && !propagation.endsWith('private'))
    b.init('$.linux.rootfsPropagation', {
      op: 'mount',
      source: '',
      target: '/',
      type: '',
      flags: PROPAGATION[propagation] ?? 0n,
      data: '',
    });
  if (config.root?.readonly)
    b.init('$.root.readonly', {
      op: 'mountAttr',
      path: '/',
      recursive: 0,
      set: MOUNT_ATTR_RDONLY,
      clear: 0n,
      propagation: 0n,
    });
  if (config.hostname) b.init('$.hostname', { op: 'hostname', name: config.hostname });
  if (config.domainname) b.init('$.domainname', { op: 'domainname', name: config.domainname });
}

function becomeUser({ b, processContext }: Create): void {
  planUser(b, processContext);
}

function answerAndWaitForStart(c: Create): void {
  const { b, config, options, files, facts, fifo, processContext } = c;
  b.host('runtime.md, "State"', { op: 'writePid', path: files.pid, withStart: 1 });
  if (options.pidFile)
    b.host(
      'flag --pid-file',
      { op: 'writePid', path: options.pidFile, withStart: 0 },
      { op: 'unlink', path: options.pidFile },
    );
  const start = options.start ?? 'later';
  const startsLater = start === 'later' || start === 'word';
  if (startsLater) {
    b.host('runtime.md, "Create"', { op: 'ready' });
    b.init('runtime.md, "Start"', { op: 'awaitStart', fifo: '', slot: fifo });
  }
  planHooks(b, 'init', config, 'startContainer', facts, 'created');
  planExecve(b, processContext);
  if (startsLater) return;
  b.host('runtime.md, "Start"', { op: 'unlink', path: files.fifo });
  planHooks(b, 'host', config, 'poststart', facts, 'running');
  b.host('runtime.md, "Start"', { op: 'ready' });
  if (options.start === 'foreground') b.host('default', { op: 'waitInit', timeoutMs: 0 });
}
