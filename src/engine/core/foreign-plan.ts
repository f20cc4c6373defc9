import { isDeepStrictEqual } from 'node:util';
import { array, boolean, object, string } from '#base/shape.ts';
import type { ForeignRuntime } from '#engine/core/runtimes.ts';
import type { CgroupLayout } from '#kernel/cgroup/layout.ts';
import { detectLayout } from '#kernel/cgroup/layout.ts';
import { type CgroupPlace, dirOf, hierarchiesFor, placeOf, placesFor, unifiedPlace } from '#kernel/cgroup/place.ts';
import { removeOps } from '#kernel/cgroup/plan.ts';
import type { Files } from '#kernel/files.ts';
import { MKDIR_MAY_EXIST, MKDIR_PARENTS } from '#kernel/plan/ops.ts';
import type { Op, Plan, Step } from '#kernel/plan/plan.ts';
import type { OciConfig } from '#spec/oci/config.ts';
import type { LinuxResources } from '#spec/oci/linux.ts';

/**
 * A container that another OCI runtime makes. What it does inside its steps is its own: a plan of ours names the command, and no more.
 *
 *   R/bundles/ID/record.json         this, before anything exists: what a crash leaves is found and swept by it
 *   R/bundles/ID/config.json         for the runtime, as ours would carry it out
 *   R/bundles/ID/VERB.log            what the runtime said at its last VERB
 *   R/bundles/ID/pid                 of the container
 *   R/bundles/ID/exec-NAME.{json,pid,log}   of an exec, while it starts
 *   R/oci-NAME/                      the runtime's own state, `--root`
 */
export interface ForeignContainer {
  id: string;
  runtime: ForeignRuntime;
  /** `R/bundles/ID`. */
  bundle: string;
  /** `R/oci-NAME`. */
  root: string;
  searchPath: string;
  terminal: boolean;
  /** Everything of it ends with its first process. */
  ownPids: boolean;
  cgroupsPath: string;
}

/** record.json. */
export const ForeignContainer = object({
  id: string(),
  runtime: object({ name: string(), path: string(), args: array(string()) }),
  bundle: string(),
  root: string(),
  searchPath: string(),
  terminal: boolean(),
  ownPids: boolean(),
  cgroupsPath: string(),
});

/** An OCI runtime takes a tenth of a second; one that hangs must not hold a container for ever. */
const RUNTIME_TIMEOUT_MS = 60_000;
const BECAUSE = 'its runtime, whose steps are its own';

type ProgramOp = Extract<Op, { op: 'program' }>;

/**
 * config.json in the words of the first version of the specification, which runtimes of all ages take: crun before 1.9 refuses a later
 * one, and runc before 1.2 passes over `domainname`, which the sysctl sets as well.
 */
export function foreignConfig({ domainname, ...config }: OciConfig): OciConfig {
  const sysctl = { ...config.linux?.sysctl, ...(domainname ? { 'kernel.domainname': domainname } : {}) };
  return { ...config, ociVersion: '1.0.2', linux: { ...config.linux, sysctl } };
}

/** One command of the runtime's; `log` names the file of its words. */
export function runtimeOp(container: ForeignContainer, log: string, args: readonly string[], pidFile = ''): ProgramOp {
  const { runtime, root, searchPath } = container;
  const logs = ['--log', logPath(container, log), '--log-format', 'json'];
  return {
    op: 'program',
    path: runtime.path,
    argv: [runtime.path, ...runtime.args, '--root', root, ...logs, ...args],
    env: [`PATH=${searchPath}`],
    timeoutMs: RUNTIME_TIMEOUT_MS,
    pidFile,
  };
}

export function logPath({ bundle }: Pick<ForeignContainer, 'bundle'>, log: string): string {
  return `${bundle}/${log}.log`;
}

function hostStep(op: Op, ...undo: Op[]): Step {
  return { ...op, where: 'host', because: BECAUSE, ...(undo.length > 0 ? { undo } : {}) };
}

/** create, and after the shim's word start. What a failure leaves goes by the runtime's own delete. */
export function planForeignCreate(container: ForeignContainer): Plan {
  const { id, bundle, root, terminal } = container;
  const pidFile = `${bundle}/pid`;
  const console = terminal ? ['--console-socket', '{console}'] : [];
  const create = ['create', '--bundle', bundle, '--pid-file', pidFile, ...console, id];
  const mkdir = { op: 'mkdir', path: root, mode: 0o700, flags: MKDIR_PARENTS | MKDIR_MAY_EXIST } as const;
  return {
    steps: [
      hostStep(mkdir, runtimeOp(container, 'delete', ['delete', '--force', id])),
      hostStep(runtimeOp(container, 'create', create, pidFile)),
      hostStep({ op: 'ready' }),
      hostStep(runtimeOp(container, 'start', ['start', id])),
    ],
  };
}

export function planForeignExec(container: ForeignContainer, name: string, terminal: boolean): Plan {
  const { id, bundle } = container;
  const files = execFiles(bundle, name);
  const console = terminal ? ['--console-socket', '{console}'] : [];
  const args = ['exec', '--process', files.process, '--pid-file', files.pid, ...console, '--detach', id];
  return { steps: [hostStep(runtimeOp(container, `exec-${name}`, args, files.pid))] };
}

export function execFiles(bundle: string, name: string): { process: string; pid: string; log: string } {
  const at = `${bundle}/exec-${name}`;
  return { process: `${at}.json`, pid: `${at}.pid`, log: `${at}.log` };
}

export function planVerb(container: ForeignContainer, verb: string, args: readonly string[]): Plan {
  return { steps: [hostStep(runtimeOp(container, verb, [verb, ...args]))] };
}

/** What is left when the runtime knows nothing of it any more; absent is fine. */
export function planForeignForget(
  { id, bundle, root }: ForeignContainer,
  shim: string,
  places: readonly CgroupPlace[],
): Plan {
  const removals = [`${root}/${id}`, shim, bundle].map((path): Op => ({ op: 'removeTree', path }));
  return { steps: [...removeOps(places), ...removals].map((op) => ({ ...hostStep(op), because: 'it has ended' })) };
}

/** Where the runtime is asked to put it, in each hierarchy. */
export function wishedPlaces({ id, cgroupsPath }: ForeignContainer, layout: CgroupLayout): CgroupPlace[] {
  return placesFor(cgroupsPath, id, hierarchiesFor(layout, true));
}

/** Where the kernel shows it. A hierarchy in which the runtime made it no cgroup of its own is left out. */
export function shownPlaces(id: string, pid: number, files: Files): CgroupPlace[] {
  const { hierarchies } = detectLayout({
    mountinfo: files.read('/proc/self/mountinfo') ?? '',
    cgroup: files.read(`/proc/${pid}/cgroup`) ?? '',
    controllersOf: (mount) => files.read(`${mount}/cgroup.controllers`),
  });
  return hierarchies
    .filter(({ own }) => own.split('/').includes(id))
    .map(({ version, mount, own, controllers, name }) => ({
      version,
      mount,
      path: own,
      controllers,
      ...(name === undefined ? {} : { name }),
    }));
}

export function memoryGroup(places: readonly CgroupPlace[]): string | undefined {
  const place = placeOf(places, 'memory') ?? unifiedPlace(places);
  return place && dirOf(place);
}

/**
 * The first limit that differs and that `update` of runc's command line does not carry: it would say that all went well.
 * Undefined: there is none.
 */
export function notUpdated(made: LinuxResources, wished: LinuxResources): string | undefined {
  const fixed: Record<string, (of: LinuxResources) => unknown> = {
    'memory swappiness': ({ memory }) => memory?.swappiness,
    'the OOM killer': ({ memory }) => memory?.disableOOMKiller,
    'rates and weights of devices': ({ blockIO }) => ({ ...blockIO, weight: undefined }),
    hugepages: ({ hugepageLimits }) => hugepageLimits ?? [],
  };
  const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value ?? null));
  return Object.keys(fixed).find(
    (what) => !isDeepStrictEqual(plain(fixed[what]?.(made)), plain(fixed[what]?.(wished))),
  );
}

const LogLine = object({ level: string(), msg: string() });

/** The runtime's last complaint in its log of JSON lines; undefined when it made none. */
export function lastComplaint(log: string): string | undefined {
  const lines = log.split('\n').flatMap((text) => {
    const line = decodeLine(text);
    return line && ['error', 'fatal', 'panic'].includes(line.level) ? [line.msg] : [];
  });
  return lines.at(-1);
}

/** Others write these lines: one that is none is passed over. */
function decodeLine(text: string): ReturnType<typeof LogLine> | undefined {
  try {
    return LogLine(JSON.parse(text), '$');
  } catch {
    return undefined; // cut off, or plain text
  }
}
