import { mkdirSync, unlinkSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Writable } from 'node:stream';
import { Chores } from '#base/chores.ts';
import type { Clock } from '#base/clock.ts';
import { errnoOf, isCode } from '#base/errors.ts';
import type {
  Attached,
  CgroupWish,
  CreatedProcess,
  ExecProcess,
  ExitStatus,
  IoWish,
  ProcessSource,
  RunningProcess,
} from '#engine/core/parts.ts';
import { type CgroupPlace, dirOf, placeOf, unifiedPlace } from '#kernel/cgroup/place.ts';
import { type CgroupPlan, planCgroup, planUpdate } from '#kernel/cgroup/plan.ts';
import type { Files } from '#kernel/files.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import type { Vocabulary } from '#kernel/plan/vocabulary.ts';
import { encodePlan } from '#kernel/plan/wire.ts';
import type { SeccompCache } from '#kernel/seccomp/cache.ts';
import { freeze } from '#runtime/freeze.ts';
import type { Host } from '#runtime/host.ts';
import { planCreate } from '#runtime/plan-create.ts';
import { planForget, planKillAll, planRemove } from '#runtime/plan-delete.ts';
import { namespacesToJoin, planExec } from '#runtime/plan-exec.ts';
import { type ContainerRecord, type ProcessIdentity, paths } from '#runtime/state.ts';
import { type Container, isAlive, loadContainer } from '#runtime/store.ts';
import { namesHome } from '#runtime/users.ts';
import type { Attachment, Exit, ShimOptions } from '#shim/shim.ts';
import { readExecExit, Shim } from '#shim/shim.ts';
import type { Spawner } from '#shim/spawner.ts';
import { readInitStart } from '#shim/state.ts';
import type { OciConfig, OciProcess } from '#spec/oci/config.ts';
import type { LinuxResources } from '#spec/oci/linux.ts';

export interface ShimProcessesOptions {
  spawner: Spawner;
  /** `R/shims`: one directory a container, by id. */
  shims: string;
  /** `R/oci`: the runtime's state, as `estiba-oci --root` reads it. */
  root: string;
  host: () => Host;
  files: Files;
  seccomp: SeccompCache;
  clock: Clock;
}

/** Containers' processes behind shims: config.json → plan → shim. Nothing here is held that a restart could not find again. */
export class ShimProcesses implements ProcessSource {
  readonly #o: ShimProcessesOptions;
  /** Those that this daemon made or found, with what it takes to remove them: of others only their files tell that. */
  readonly #ours = new Map<string, Ours>();

  constructor(options: ShimProcessesOptions) {
    this.#o = options;
  }

  async create(id: string, config: OciConfig, io: IoWish, how: { cgroups?: CgroupPlan } = {}): Promise<CreatedProcess> {
    const { spawner } = this.#o;
    const dir = this.#dir(id);
    const { plan, record } = this.#plan(id, config, how);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    try {
      if (io.log.format !== 'none') mkdirSync(dirname(io.log.path), { recursive: true, mode: 0o700 });
      const oomCgroup = oomGroup(record);
      const shim = await spawner.create(plan, {
        dir,
        terminal: io.terminal,
        stdin: io.stdin,
        ...logOptions(io),
        ...(oomCgroup ? { oomCgroup } : {}),
      });
      const init = { pid: shim.pid, startTime: (await readInitStart(dir)) ?? 0n };
      this.#ours.set(id, oursOf(shim, record, init));
      return new ShimProcess(this.#o, shim, { record, config, init });
    } catch (error) {
      await rm(dir, { recursive: true, force: true });
      throw error;
    }
  }

  async find(id: string): Promise<RunningProcess | undefined> {
    const { root, files } = this.#o;
    try {
      const { record, config, init } = loadContainer(root, id, files);
      if (!init) return undefined;
      const shim = await Shim.connect(this.#dir(id));
      await shim.startIfNobodyHas();
      this.#ours.set(id, oursOf(shim, record, init));
      return new ShimProcess(this.#o, shim, { record, config, init });
    } catch (error) {
      // Killed with its shim, or swept away with a reboot: either way nothing runs.
      if (isCode(error, 'SHIM_VANISHED', 'CONTAINER_NOT_FOUND', 'STATE_UNREADABLE')) return undefined;
      throw error;
    }
  }

  async list(): Promise<string[]> {
    try {
      return await readdir(this.#o.shims);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
  }

  async execExit(id: string, exec: string): Promise<ExitStatus | undefined> {
    const exit = await readExecExit(this.#dir(id), exec);
    return exit && exitStatus(exit);
  }

  async end(id: string): Promise<void> {
    const { root, files, spawner } = this.#o;
    const ours = this.#ours.get(id);
    if (ours && (ours.over || !isAlive(ours.init, files))) return;
    if (files.exists(this.#dir(id)) && !files.exists(paths(root, id).pid)) await endShim(this.#dir(id), this.#o);
    const known = this.#load(id);
    if (known && known.status !== 'stopped') await spawner.run(planKillAll(known.record, known.config, known.init));
  }

  /**
   * The cgroup, the runtime's state and the shim's directory go in this order, in one request; what the container had mounted is
   * nobody's then.
   */
  async remove(id: string): Promise<void> {
    const { root, files, spawner } = this.#o;
    const dir = this.#dir(id);
    await this.end(id);
    await this.#ours.get(id)?.gone;
    const made = this.#ours.get(id)?.made ?? this.#load(id)?.record;
    this.#ours.delete(id);
    if (!made && !files.exists(dir) && !files.exists(paths(root, id).dir)) return;
    const because = 'it has ended, and how is on record';
    await spawner.run({
      steps: [
        ...(made ? planRemove(made).steps : []),
        ...planForget(root, id).steps,
        { op: 'removeTree', where: 'host', because, path: dir },
      ],
    });
  }

  /** By what the runtime keeps of it; undefined when that is not there, or not whole. */
  #load(id: string): Container | undefined {
    const { root, files } = this.#o;
    if (!files.exists(paths(root, id).dir)) return undefined;
    try {
      return loadContainer(root, id, files);
    } catch (error) {
      if (!isCode(error, 'CONTAINER_NOT_FOUND', 'STATE_UNREADABLE')) throw error;
      return undefined;
    }
  }

  /** The kernel operations by which the container was made, decided anew from its configuration; undefined when it does not run. */
  plan(id: string): Plan | undefined {
    try {
      const { root, files } = this.#o;
      const { config } = loadContainer(root, id, files);
      const cgroups = this.planCgroups(id, cgroupWish(config), { files: withoutOwn(files, id), host: this.#o.host() });
      return this.#plan(id, config, { cgroups }).plan;
    } catch (error) {
      if (isCode(error, 'CONTAINER_NOT_FOUND', 'STATE_UNREADABLE')) return undefined;
      throw error;
    }
  }

  /** The kernel operations that would make it, with nothing made; `seen` is the host as it would be then. */
  foresee(id: string, config: OciConfig, seen: (host: Host) => Host): Plan {
    return this.#plan(id, config, { host: seen(this.#o.host()) }).plan;
  }

  planCgroups(
    id: string,
    { bounding, ...wish }: CgroupWish,
    { files, host }: { files: Files; host: Host } = { files: this.#o.files, host: this.#o.host() },
  ): CgroupPlan {
    // Who may mount can show itself the hierarchy beside v1, and finds the host's cgroups there unless it has one of its own.
    const unified = !host.rootless && bounding.includes('CAP_SYS_ADMIN');
    return planCgroup({ id, rootless: host.rootless, unified, ...wish }, host.cgroups, files);
  }

  #plan(
    id: string,
    config: OciConfig,
    {
      host = this.#o.host(),
      cgroups = this.planCgroups(id, cgroupWish(config)),
    }: { host?: Host; cgroups?: CgroupPlan },
  ): ReturnType<typeof planCreate> {
    const { root, clock, seccomp } = this.#o;
    return planCreate(
      config,
      {
        id,
        bundle: this.#dir(id),
        root,
        created: new Date(clock.now()).toISOString(),
        owner: { uid: host.uid, name: 'root' },
        cgroups,
        start: 'word',
        seccomp: (profile) => seccomp.compile(profile),
      },
      host,
    );
  }

  #dir(id: string): string {
    return join(this.#o.shims, id);
  }
}

const SHOWS_WITHIN_MS = 500;
const LOOK_EVERY_MS = 5;

/** A daemon that was killed leaves shims that go on making their container: without this one would live on, and nobody would know it. */
export async function endShim(dir: string, world: Pick<ShimProcessesOptions, 'clock' | 'files'>): Promise<void> {
  await untilItShows(dir, world);
  try {
    await (await Shim.connect(dir)).shutdown();
  } catch (error) {
    if (!isCode(error, 'SHIM_VANISHED', 'CONNECTION_LOST')) throw error;
  }
}

/** A shim that was asked for just before the daemon was killed has not opened its door yet; it does within moments, or never: or it has gone. */
async function untilItShows(
  dir: string,
  { clock, files }: Pick<ShimProcessesOptions, 'clock' | 'files'>,
): Promise<void> {
  const signs = ['shim.sock', 'pid', 'exit'].map((name) => join(dir, name));
  const giveUpMs = clock.monotonic() + SHOWS_WITHIN_MS;
  while (files.exists(dir) && !signs.some((path) => files.exists(path)) && clock.monotonic() < giveUpMs)
    await new Promise<void>((done) => clock.after(LOOK_EVERY_MS, done));
}

/** The host as it was before the container was: its own cgroups are not there yet. */
function withoutOwn(files: Files, id: string): Files {
  const own = (path: string): boolean => path.split('/').includes(id);
  return {
    ...files,
    read: (path) => (own(path) ? undefined : files.read(path)),
    list: (path) => (own(path) ? undefined : files.list(path)),
    exists: (path) => !own(path) && files.exists(path),
  };
}

function cgroupWish({ linux, process }: OciConfig): CgroupWish {
  const { cgroupsPath, resources } = linux ?? {};
  const bounding = process?.capabilities?.bounding ?? [];
  return { bounding, ...(cgroupsPath ? { cgroupsPath } : {}), ...(resources ? { resources } : {}) };
}

interface Ours {
  init: ProcessIdentity;
  made: Parameters<typeof planRemove>[0];
  gone: Promise<void>;
  /** Its shim has told of its end: nobody has to look for it. */
  over: boolean;
}

function oursOf(shim: Shim, { cgroups, rootfs, ownsRootMount }: ContainerRecord, init: ProcessIdentity): Ours {
  const ours: Ours = { init, made: { cgroups, rootfs, ownsRootMount }, gone: shim.gone, over: false };
  shim.wait().then(
    () => (ours.over = true),
    () => undefined, // it was killed, and knows nothing
  );
  return ours;
}

/** What the runtime keeps of a container in its file, and processes in it are made by. */
interface Made extends Pick<Container, 'record' | 'config'> {
  /** The plan of the last exec, and what it was made from: probes and scripts ask for the same again and again. */
  exec?: { of: string; knows: Vocabulary; plan: Plan; encoded: Uint8Array };
}

interface Known extends Made {
  init: ProcessIdentity;
}

class ShimProcess implements CreatedProcess {
  readonly pid: number;
  readonly startTicks: number;
  readonly cgroups: readonly CgroupPlace[];
  readonly #o: ShimProcessesOptions;
  readonly #shim: Shim;
  readonly #id: string;
  readonly #init: ProcessIdentity;
  readonly #terminal: boolean;
  /** Twenty KiB that only execs ask for: held until the memory is wanted, then read again. */
  #made: WeakRef<Made>;
  #joins: ReturnType<typeof namespacesToJoin> | undefined;
  /** Made by the first exec. */
  #chores: Chores | undefined;

  constructor(options: ShimProcessesOptions, shim: Shim, { init, record, config }: Known) {
    this.#o = options;
    this.#shim = shim;
    this.#id = record.id;
    this.#init = init;
    this.#terminal = config.process?.terminal ?? false;
    this.#made = new WeakRef({ record, config });
    this.pid = init.pid;
    this.startTicks = Number(init.startTime);
    this.cgroups = record.cgroups;
  }

  start(): Promise<void> {
    return this.#shim.start();
  }

  wait(): Promise<ExitStatus> {
    return exitOf(this.#shim, this.#o.clock);
  }

  /** One that has just ended needs no signal any more; `wait` tells of its end. */
  async signal(signal: number): Promise<void> {
    try {
      await this.#shim.signal(signal);
    } catch (error) {
      if (!isCode(error, 'CONNECTION_LOST', 'SHIM_VANISHED')) throw error;
    }
  }

  resize(rows: number, columns: number): Promise<void> {
    return this.#shim.resize({ rows, cols: columns });
  }

  pause(): Promise<void> {
    return this.#freeze(true);
  }

  resume(): Promise<void> {
    return this.#freeze(false);
  }

  async update(resources: LinuxResources): Promise<void> {
    const steps = planUpdate(this.cgroups, resources, this.#o.files, 'update');
    if (steps.length > 0) await this.#o.spawner.run({ steps });
  }

  async attach(wish: { stdin: boolean }): Promise<Attached> {
    return attached(await this.#shim.attach({ stdin: wish.stdin, terminal: this.#terminal }));
  }

  async exec(id: string, process: OciProcess, io: Omit<IoWish, 'log'>): Promise<ExecProcess> {
    const { plan, encoded } = this.#execPlan(process);
    const attachment = await this.#shim.exec(plan, { name: id, terminal: io.terminal, stdin: io.stdin, encoded });
    // Told to whoever waits here; the file is for those who come later, and a container may see a million execs.
    this.#chores ??= new Chores(this.#o.clock);
    const chores = this.#chores;
    const forget = (): void => void chores.add(async () => tidyExec(join(this.#shim.dir, `exec.${id}`)));
    return new ShimExec(attachment, forget);
  }

  #execPlan(process: OciProcess): { plan: Plan; encoded: Uint8Array } {
    const { files, seccomp } = this.#o;
    const made = this.#load();
    const { record, config } = made;
    const host = this.#o.host();
    // Of what else a plan depends on, only init's place in the unified hierarchy and the image's users may change while it runs.
    const of = JSON.stringify([process, unifiedPlace(record.cgroups) && files.read(`/proc/${this.#init.pid}/cgroup`)]);
    const { knows } = this.#shim; // it is told a moment after a daemon has found the shim
    if (made.exec?.of === of && made.exec.knows === knows) return made.exec;
    this.#joins ??= namespacesToJoin(this.#init, host);
    const { plan } = planExec(
      record,
      config,
      process,
      {
        init: this.#init,
        path: 'exec',
        joins: this.#joins,
        knows,
        seccomp: (profile) => seccomp.compile(profile),
      },
      host,
      files,
    );
    const exec = { of, knows, plan, encoded: encodePlan(plan) };
    if (namesHome(process)) made.exec = exec;
    return exec;
  }

  #load(): Made {
    const held = this.#made.deref();
    if (held) return held;
    const { record, config } = loadContainer(this.#o.root, this.#id, this.#o.files);
    const made: Made = { record, config };
    this.#made = new WeakRef(made);
    return made;
  }

  #freeze(frozen: boolean): Promise<void> {
    const { clock, files, spawner } = this.#o;
    return freeze(this.cgroups, frozen, { clock, files, run: (plan) => spawner.run(plan) });
  }
}

function tidyExec(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Another who waited has removed it, or it goes with the shim's directory.
  }
}

/** Runs already when it comes here: its streams wait until they are read. */
export class ShimExec implements ExecProcess {
  readonly pid: number;
  readonly streams: Attached;
  readonly #attachment: Attachment;
  readonly #forget: () => void;

  constructor(attachment: Attachment, forget: () => void) {
    this.#attachment = attachment;
    this.#forget = forget;
    this.pid = attachment.pid;
    // A client that detaches leaves the exec running and its exit code to be asked for: bytes go nowhere, the line stays.
    this.streams = {
      ...attached(attachment),
      detach: () => {
        attachment.stdout.destroy();
        attachment.stderr.destroy();
      },
    };
  }

  start(): Promise<void> {
    return Promise.resolve();
  }

  async wait(): Promise<ExitStatus> {
    const exit = await this.#attachment.wait();
    this.#forget();
    return exitStatus(exit);
  }

  signal(signal: number): Promise<void> {
    return this.#attachment.signal(signal);
  }

  resize(rows: number, columns: number): Promise<void> {
    return this.#attachment.resize({ rows, cols: columns });
  }
}

export function attached(attachment: Attachment): Attached {
  const stdin = new Writable({
    write: (chunk: Buffer, _encoding, done) => void attachment.write(chunk).then(() => done(), done),
    final: (done) => {
      attachment.end();
      done();
    },
  });
  return { stdin, stdout: attachment.stdout, stderr: attachment.stderr, detach: () => attachment.close() };
}

export function logOptions({ log: { format, path, maxBytes, maxFiles } }: IoWish): Pick<ShimOptions, 'log'> {
  return format === 'none'
    ? {}
    : { log: { driver: format === 'json' ? 'json-file' : 'cri', path, maxBytes, maxFiles } };
}

/** A shim that was killed takes its container's exit status with it: 255, as Docker says for an end nobody saw. */
export async function exitOf(shim: Shim, clock: Clock): Promise<ExitStatus> {
  try {
    return exitStatus(await shim.wait());
  } catch (error) {
    if (!isCode(error, 'SHIM_VANISHED')) throw error;
    return { code: 255, oomKilled: false, atMs: clock.now() };
  }
}

function exitStatus(exit: Exit): ExitStatus {
  return { code: exit.code, oomKilled: exit.oomKilled, atMs: exit.atMs };
}

function oomGroup(record: ContainerRecord): string | undefined {
  const place = placeOf(record.cgroups, 'memory') ?? unifiedPlace(record.cgroups);
  return place && dirOf(place);
}
