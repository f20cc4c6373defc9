import { posix } from 'node:path';
import { type CgroupPlace, dirOf } from '#kernel/cgroup/place.ts';
import { execDir } from '#kernel/cgroup/plan.ts';
import type { Files } from '#kernel/files.ts';
import { parseIdMap } from '#kernel/idmap.ts';
import { CLONE_INTO_CGROUP, NAMESPACES, type NamespaceRow } from '#kernel/linux/namespaces.ts';
import { NO_SLOT } from '#kernel/plan/ops.ts';
import type { Op, Plan } from '#kernel/plan/plan.ts';
import { OWN_VOCABULARY, type Vocabulary } from '#kernel/plan/vocabulary.ts';
import { O_CLOEXEC, O_DIRECTORY, O_PATH, O_WRONLY, PlanBuilder, utf8 } from '#runtime/builder.ts';
import { bornInside, entranceFor, needsMiddle } from '#runtime/entrance.ts';
import { BadExecCgroup } from '#runtime/errors.ts';
import type { Host } from '#runtime/host.ts';
import {
  type ProcessContext,
  planAffinity,
  planExecve,
  planLabels,
  planLimits,
  planStdioOutside,
  planUser,
} from '#runtime/process.ts';
import type { ContainerRecord, ProcessIdentity } from '#runtime/state.ts';
import { environmentOf } from '#runtime/users.ts';
import type { OciConfig, OciProcess } from '#spec/oci/config.ts';

export interface ExecOptions {
  init: ProcessIdentity;
  /** Where `process` comes from, for errors: `flags` or the file of `-p`. */
  path: string;
  pidFile?: string;
  consoleSocket?: string;
  preserveFds?: number;
  extraEnv?: readonly string[];
  /** `--cgroup`: PATH, or CONTROLLERS:PATH, relative to the container's cgroup. */
  cgroups?: readonly string[];
  foreground?: boolean;
  seccomp?: ProcessContext['seccomp'];
  /** `namespacesToJoin`, when it has been asked already: of a container, it does not change. */
  joins?: readonly NamespaceRow[];
  /** What the executor knows that carries the plan out: a shim may be of an older build. Absent: as this build's. */
  knows?: Vocabulary;
}

export interface ExecPlan {
  plan: Plan;
  warnings: readonly string[];
}

/** Those of the container that are not ours as well. */
export function namespacesToJoin(init: ProcessIdentity, host: Host): NamespaceRow[] {
  return NAMESPACES.filter(({ proc }) => !host.sameFile(`/proc/${init.pid}/ns/${proc}`, `/proc/self/ns/${proc}`));
}

/** Another process in a container that runs (or is created): into its cgroups and namespaces, then as `process` says. */
export function planExec(
  record: ContainerRecord,
  config: OciConfig,
  process: OciProcess,
  options: ExecOptions,
  host: Host,
  files: Files,
): ExecPlan {
  const b = new PlanBuilder();
  const { init, path } = options;
  const proc = `/proc/${init.pid}`;
  const others = options.joins ?? namespacesToJoin(init, host);
  const userns = others.some((row) => row.type === 'user');
  const context: ProcessContext = {
    process,
    path,
    config,
    host,
    facts: { id: record.id, bundle: record.bundle, annotations: config.annotations ?? {} },
    userns,
    groupsDenied: userns && files.read(`${proc}/setgroups`)?.startsWith('deny') === true,
    env: [...environmentOf(process, host, `${proc}/root`), ...(options.extraEnv ?? [])],
    preserveFds: options.preserveFds ?? 0,
    ...(options.seccomp ? { seccomp: options.seccomp } : {}),
  };

  const knows = options.knows ?? OWN_VOCABULARY;
  const middle = needsMiddle(others, host, knows);
  const entrance = (middle ? entranceFor(host, knows) : bornInside)(b, init, others);
  entrance.open();
  const cgroup = planExecCgroups(b, record.cgroups, options, files, proc);
  const flags = cgroup === NO_SLOT ? 0n : CLONE_INTO_CGROUP;
  // Who is born in the container, by the executor itself, enters cgroups by files that were opened outside. A middle process opens them
  // where it enters them, but for the pids controller's: it would need a place of its own beside init's, and an exec into the last
  // free one would fail. Moving in is never refused (kernel: cgroup-v1/pids.rst), so even a full container can be entered, and what
  // fills it be killed.
  const joins = v1Joins(record.cgroups, options.cgroups ?? []);
  const outside = joins
    .filter((join) => !middle || join.counts)
    .map((join) => {
      const [slot, file] = [b.slot(), `${join.dir}/tasks`];
      b.host(join.because, { op: 'open', into: slot, path: file, flags: O_WRONLY | O_CLOEXEC, mode: 0 });
      return { ...join, slot };
    });
  const oomScoreAdj = (): Op => ({
    op: 'writeProc',
    file: 'oom_score_adj',
    data: utf8(String(process.oomScoreAdj)),
  });
  if (middle) {
    b.host('default', { op: 'fork' });
    planAffinity(b, 'middle', process.execCPUAffinity?.initial, `${path}.execCPUAffinity.initial`);
    for (const { dir, because, counts } of joins)
      if (!counts) b.middle(because, { op: 'joinCgroup', path: dir, slot: NO_SLOT });
    // Its child has it too, and need not wait for the host to write it.
    if (process.oomScoreAdj !== undefined) b.middle(`${path}.oomScoreAdj`, oomScoreAdj());
    if (userns) planStdioOutside(b, context, parseIdMap(files.read(`${proc}/uid_map`) ?? ''));
    entrance.clone(flags, cgroup)();
  } else {
    const first = entrance.clone(flags, cgroup);
    if (process.oomScoreAdj !== undefined) b.host(`${path}.oomScoreAdj`, oomScoreAdj());
    first();
    planAffinity(b, 'init', process.execCPUAffinity?.initial, `${path}.execCPUAffinity.initial`);
  }
  for (const { dir, because, slot } of outside) {
    b.init(because, { op: 'joinCgroup', path: dir, slot });
    b.close('init', 'default', slot);
  }
  b.close('init', 'default', cgroup);

  if (userns) {
    if (maps(files, `${proc}/gid_map`)) b.init('default', { op: 'setgid', gid: 0 });
    if (maps(files, `${proc}/uid_map`)) b.init('default', { op: 'setuid', uid: 0 });
  }
  b.init('default', { op: 'setsid' });
  if (!record.noNewKeyring) b.init('default', { op: 'keyring', name: `_ses.${record.id}` });
  planAffinity(b, 'init', process.execCPUAffinity?.final, `${path}.execCPUAffinity.final`);
  planLimits(b, context);
  if (process.terminal) {
    const { height = 0, width = 0 } = process.consoleSize ?? {};
    b.init(`${path}.terminal`, {
      op: 'console',
      socket: options.consoleSocket ?? '',
      rows: height,
      cols: width,
      bind: 0,
    });
  }
  planLabels(b, context, 'container');
  planUser(b, context);
  if (options.pidFile)
    b.host(
      'flag --pid-file',
      { op: 'writePid', path: options.pidFile, withStart: 0 },
      { op: 'unlink', path: options.pidFile },
    );
  planExecve(b, context);
  b.host('default', { op: 'ready' });
  if (options.foreground) b.host('default', { op: 'waitInit', timeoutMs: 0 });
  return { plan: b.finish(), warnings: b.warnings };
}

/** v2: the cgroup that the process is cloned into. */
function planExecCgroups(
  b: PlanBuilder,
  places: readonly CgroupPlace[],
  options: ExecOptions,
  files: Files,
  proc: string,
): number {
  const unified = places.find((place) => place.version === 2);
  if (!unified) return NO_SLOT;
  const wished = (options.cgroups ?? []).at(-1);
  const dir =
    wished === undefined || places.some((place) => place.version === 1)
      ? execDir(places, files.read(`${proc}/cgroup`) ?? '')
      : subCgroup(unified, wished);
  if (dir === undefined) return NO_SLOT;
  const into = b.slot();
  const because = wished === undefined ? 'the container’s cgroup' : 'flag --cgroup';
  b.host(because, { op: 'open', into, path: dir, flags: O_PATH | O_DIRECTORY | O_CLOEXEC, mode: 0 });
  return into;
}

interface Join {
  dir: string;
  because: string;
  /** Its processes are: the pids controller's. */
  counts: boolean;
}

function v1Joins(places: readonly CgroupPlace[], wishes: readonly string[]): Join[] {
  const paths = new Map<string, string>();
  let all: string | undefined;
  for (const wish of wishes) {
    const colon = wish.indexOf(':');
    if (colon < 0) {
      all = wish;
      continue;
    }
    for (const controller of wish.slice(0, colon).split(',')) {
      if (!places.some((p) => p.controllers.includes(controller) || p.name === controller))
        throw new BadExecCgroup({ message: `unknown controller ${controller} in ${wish}` });
      paths.set(controller, wish.slice(colon + 1));
    }
  }
  return places
    .filter((place) => place.version === 1)
    .map((place) => {
      const own =
        place.controllers.map((c) => paths.get(c)).find((p) => p !== undefined) ?? paths.get(place.name ?? '');
      const wished = own ?? all;
      const counts = place.controllers.includes('pids');
      return wished === undefined
        ? { dir: dirOf(place), because: 'the container’s cgroup', counts }
        : { dir: subCgroup(place, wished), because: 'flag --cgroup', counts };
    });
}

function subCgroup(place: CgroupPlace, wished: string): string {
  const path = posix.join(place.path, wished);
  if (path !== place.path && !path.startsWith(`${place.path}/`) && path !== `${place.path}/`)
    throw new BadExecCgroup({ message: `--cgroup: ${wished} is not a sub cgroup path` });
  return posix.join(place.mount, path);
}

/** Does the map say who root of the namespace is? */
function maps(files: Files, path: string): boolean {
  return (files.read(path) ?? '').split('\n').some((line) => /^\s*0\s/.test(line));
}
