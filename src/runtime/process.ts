import { fail } from '#base/shape.ts';
import { type IdMapping, toHostId } from '#kernel/idmap.ts';
import { LANDLOCK_PREFIX, landlockOp } from '#kernel/landlock.ts';
import { capabilityNames, capabilityNumber, rlimitNumber } from '#kernel/linux/names.ts';
import { CHDIR_IF_NOT_YET, CHDIR_INSIDE, CHDIR_OR_LATER } from '#kernel/plan/ops.ts';
import type { Op } from '#kernel/plan/plan.ts';
import { compileSeccomp, type SeccompProgram } from '#kernel/seccomp/compile.ts';
import { O_WRONLY, type PlanBuilder, utf8 } from '#runtime/builder.ts';
import {
  encodeCpuMask,
  encodeIoPriority,
  encodeMemoryNodes,
  encodeScheduler,
  MEMORY_POLICY,
  PERSONALITY,
} from '#runtime/encode.ts';
import { Unsupported } from '#runtime/errors.ts';
import { cutPids, ociState, PID_MARK, type StateFacts } from '#runtime/hooks.ts';
import type { Host } from '#runtime/host.ts';
import { OCI_VERSION, type OciConfig, type OciProcess } from '#spec/oci/config.ts';
import { stringifyJson } from '#spec/oci/json.ts';

const PR_SET_KEEPCAPS = 8;
const PR_SET_NO_NEW_PRIVS = 38;

export interface ProcessContext {
  process: OciProcess;
  /** Where `process` stands: `$.process`, or `flag` and file for an exec. */
  path: string;
  config: OciConfig;
  host: Host;
  facts: StateFacts;
  /** In a user namespace that is not ours, where root has every capability over what is in it. */
  userns: boolean;
  /** setgroups(2) is denied there (rootless without newgidmap). */
  groupsDenied: boolean;
  env: readonly string[];
  preserveFds: number;
  /** Compiles, or takes from a cache. */
  seccomp?: (profile: NonNullable<NonNullable<OciConfig['linux']>['seccomp']>) => SeccompProgram;
}

/**
 * The standard streams of a process that enters a user namespace, given to its user by somebody who is still the host's root: root in
 * there has no right over what belongs to an id that the namespace does not have.
 */
export function planStdioOutside(b: PlanBuilder, { process }: ProcessContext, map: readonly IdMapping[]): void {
  const uid = toHostId(map, process.user.uid);
  if (uid !== undefined && !process.terminal) b.middle('default', { op: 'ownStdio', uid });
}

/** Limits and marks of the process that need rights its user will not have. */
export function planLimits(b: PlanBuilder, context: ProcessContext): void {
  const { process, path, config } = context;
  process.rlimits?.forEach((limit, i) => {
    const resource = rlimitOrFail(limit.type, `${path}.rlimits[${i}].type`);
    // CAP_SYS_RESOURCE counts in the first user namespace only: the host sets the limit of an init in another one.
    const where = context.userns ? 'host' : 'init';
    b.at(where, `${path}.rlimits[${i}]`, {
      op: 'rlimit',
      resource,
      soft: BigInt(limit.soft),
      hard: BigInt(limit.hard),
    });
  });
  const personality = config.linux?.personality;
  if (personality) b.init('$.linux.personality', { op: 'personality', value: PERSONALITY[personality.domain] });
  const policy = config.linux?.memoryPolicy;
  if (policy)
    b.init('$.linux.memoryPolicy', {
      op: 'memoryPolicy',
      mode: MEMORY_POLICY.encode(policy.mode, policy.flags ?? []),
      nodes: encodeMemoryNodes(policy.nodes ?? ''),
    });
  if (process.scheduler) b.init(`${path}.scheduler`, { op: 'scheduler', attr: encodeScheduler(process.scheduler) });
  if (process.ioPriority)
    b.init(`${path}.ioPriority`, { op: 'ioPriority', value: encodeIoPriority(process.ioPriority) });
  if (process.user.umask !== undefined) b.init(`${path}.user.umask`, { op: 'umask', mask: process.user.umask });
}

export function planAffinity(
  b: PlanBuilder,
  where: 'middle' | 'init',
  list: string | undefined,
  because: string,
): void {
  if (list) b.at(where, because, { op: 'affinity', mask: encodeCpuMask(list) });
}

function rlimitOrFail(type: string, path: string): number {
  try {
    return rlimitNumber(type);
  } catch {
    return fail(path, type, 'is no resource limit of Linux');
  }
}

/**
 * AppArmor's and SELinux's labels count from exec on. A machine without them cannot keep the promise: an error. The file is
 * the writer's own, in whatever proc it sees: a create writes while that is the host's; an exec sees the container's only, and
 * makes sure that it is one (CVE-2025-52881: a file of the image in its place swallows the label).
 */
export function planLabels(b: PlanBuilder, context: ProcessContext, proc: 'host' | 'container'): void {
  const { process, path, host, config } = context;
  if (process.apparmorProfile && !host.apparmor)
    throw new Unsupported({ path: `${path}.apparmorProfile`, what: 'this kernel runs without AppArmor' });
  if (process.selinuxLabel && !host.selinux)
    throw new Unsupported({ path: `${path}.selinuxLabel`, what: 'this kernel runs without SELinux' });
  // A label for files says nothing where nobody reads labels; one for the process is a promise of confinement.
  if (config.linux?.mountLabel && !host.selinux)
    b.warn('$.linux.mountLabel has no effect: this kernel runs without SELinux');
  const write = (because: string, file: string, label: string): void => {
    if (proc === 'container') b.init(because, { op: 'checkProc', path: file });
    b.init(because, { op: 'write', path: file, data: utf8(label), flags: O_WRONLY, mode: 0 });
  };
  if (process.apparmorProfile)
    write(`${path}.apparmorProfile`, '/proc/self/attr/apparmor/exec', `exec ${process.apparmorProfile}`);
  if (process.selinuxLabel) write(`${path}.selinuxLabel`, '/proc/self/attr/exec', process.selinuxLabel);
}

/**
 * From root of the container to its user. The order is the kernel's: the bounding set needs CAP_SETPCAP, groups before
 * gid before uid, keepcaps across the change of uid, ambient last since it must lie in permitted and inheritable.
 */
export function planUser(b: PlanBuilder, context: ProcessContext): void {
  const { process, path } = context;
  const { user, cwd } = process;
  const noNewPrivs = process.noNewPrivileges === true;
  // CVE-2024-21626: a directory of the host left open is a way out of the container. Before the filter, which may not
  // know close_range(2).
  b.init('default', { op: 'closeFds', from: 3 + context.preserveFds });
  if (noNewPrivs) b.init(`${path}.noNewPrivileges`, prctl(PR_SET_NO_NEW_PRIVS, 1n));
  const sets = capabilitySets(b, context);
  const because = `${path}.capabilities`;
  b.init(because, { op: 'capBounding', keep: sets.bounding });
  b.init(because, prctl(PR_SET_KEEPCAPS, 1n));
  b.init('default', { op: 'ownStdio', uid: user.uid });
  b.init(`${path}.cwd`, { op: 'chdir', path: cwd, inside: CHDIR_INSIDE | CHDIR_OR_LATER });
  const gids = user.additionalGids ?? [];
  if (!context.groupsDenied) b.init(`${path}.user.additionalGids`, { op: 'setgroups', gids });
  else if (gids.length > 0) fail(`${path}.user.additionalGids`, gids, 'cannot be set: setgroups is denied here');
  b.init(`${path}.user.gid`, { op: 'setgid', gid: user.gid });
  // Without no_new_privs only CAP_SYS_ADMIN may install a filter: here it is about to go. Not earlier: what comes above
  // may need calls that the filter forbids.
  if (!noNewPrivs) planSeccomp(b, context);
  b.init(`${path}.user.uid`, { op: 'setuid', uid: user.uid });
  b.init(because, prctl(PR_SET_KEEPCAPS, 0n));
  const inside = CHDIR_INSIDE | CHDIR_IF_NOT_YET;
  b.init(`${path}.cwd`, { op: 'chdir', path: cwd, inside });
  const { effective, permitted, inheritable, ambient } = sets;
  b.init(because, { op: 'capset', effective, permitted, inheritable });
  b.init(because, { op: 'capAmbient', set: ambient });
  b.init(`${path}.args`, { op: 'lookup', path: process.args?.[0] ?? '', env: context.env });
  if (noNewPrivs) planSeccomp(b, context);
}

export function planExecve(b: PlanBuilder, context: ProcessContext): void {
  const { process, path, env } = context;
  planLandlock(b, context);
  const argv = process.args ?? [];
  b.init(`${path}.args`, { op: 'exec', path: argv[0] ?? '', argv, env });
}

/**
 * Last of all: it would close the fifo that `start` opens, and the files of hooks. By then the capability that could do without
 * no_new_privs is gone, and the filter is on: the profile must know landlock_restrict_self(2) and the others, as Docker's does.
 */
function planLandlock(b: PlanBuilder, { process, path, config, host }: ProcessContext): void {
  const annotations = config.annotations ?? {};
  if (!Object.keys(annotations).some((key) => key.startsWith(LANDLOCK_PREFIX))) return;
  if (process.noNewPrivileges !== true)
    fail(`${path}.noNewPrivileges`, process.noNewPrivileges, `must be true with annotations ${LANDLOCK_PREFIX}*`);
  const op = landlockOp(annotations, host.landlock());
  if (op) b.init('$.annotations', op);
}

function prctl(option: number, value: bigint): Op {
  return { op: 'prctl', option, value };
}

type CapabilitySet = 'bounding' | 'effective' | 'inheritable' | 'permitted' | 'ambient';

/**
 * The five sets. A name the kernel lacks, or one we cannot grant, is a warning (config.md: "Runtimes SHOULD NOT fail if
 * the container configuration requests capabilities that cannot be granted").
 */
function capabilitySets(b: PlanBuilder, context: ProcessContext): Record<CapabilitySet, bigint> {
  const { process, host, userns } = context;
  const grantable = userns ? host.allCapabilities : host.capabilities;
  const refused = new Set<string>();
  const mask = (names: readonly string[] = []): bigint => {
    let bits = 0n;
    for (const name of names) {
      const bit = bitOf(name);
      if (bit === undefined || (bit & grantable) === 0n) refused.add(name);
      else bits |= bit;
    }
    return bits;
  };
  const wanted = process.capabilities ?? {};
  const sets = {
    bounding: mask(wanted.bounding),
    permitted: mask(wanted.permitted),
    effective: mask(wanted.effective),
    inheritable: mask(wanted.inheritable),
    ambient: mask(wanted.ambient),
  };
  if (refused.size > 0) b.warn(`ignoring unknown or unavailable capabilities: [${[...refused].sort().join(' ')}]`);
  const orphaned = sets.ambient & ~(sets.permitted & sets.inheritable);
  if (orphaned !== 0n)
    b.warn(`ambient capabilities must be permitted and inheritable: [${capabilityNames(orphaned).join(' ')}] left out`);
  // The kernel refuses effective beyond permitted with a bare EPERM (capabilities(7)).
  const beyond = sets.effective & ~sets.permitted;
  if (beyond !== 0n)
    b.warn(`effective capabilities must be permitted: [${capabilityNames(beyond).join(' ')}] left out`);
  return { ...sets, ambient: sets.ambient & ~orphaned, effective: sets.effective & ~beyond };
}

/** Undefined: no capability that this kernel, or anybody, knows by that name. */
function bitOf(name: string): bigint | undefined {
  try {
    return 1n << BigInt(capabilityNumber(name));
  } catch {
    return undefined;
  }
}

function planSeccomp(b: PlanBuilder, context: ProcessContext): void {
  const profile = context.config.linux?.seccomp;
  if (!profile) return;
  const compile = context.seccomp ?? ((p) => compileSeccomp(p, { native: context.host.arch }));
  const program = compile(profile);
  const { state, pidAt } = program.notify ? listenerState(context) : { state: new Uint8Array(), pidAt: [] };
  const listener = program.notify ? (profile.listenerPath ?? '') : '';
  b.init('$.linux.seccomp', { op: 'seccomp', filter: program.filter, flags: program.flags, listener, state, pidAt });
}

/** config-linux.md, "The Container Process State": what the agent reads beside the descriptor. */
function listenerState({ config, facts }: ProcessContext): { state: Uint8Array; pidAt: number[] } {
  const metadata = config.linux?.seccomp?.listenerMetadata;
  return cutPids(
    stringifyJson({
      ociVersion: OCI_VERSION,
      fds: ['seccompFd'],
      pid: PID_MARK,
      ...(metadata ? { metadata } : {}),
      state: ociState(facts, 'creating', PID_MARK),
    }),
  );
}
