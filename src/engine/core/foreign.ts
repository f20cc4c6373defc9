import { mkdirSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { isCode, messageOf } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { RuntimeFailed } from '#engine/core/errors.ts';
import {
  execFiles,
  ForeignContainer,
  foreignConfig,
  lastComplaint,
  logPath,
  memoryGroup,
  notUpdated,
  planForeignCreate,
  planForeignExec,
  planForeignForget,
  planVerb,
  shownPlaces,
  wishedPlaces,
} from '#engine/core/foreign-plan.ts';
import type { Attached, CreatedProcess, ExecProcess, ExitStatus, IoWish, RunningProcess } from '#engine/core/parts.ts';
import { attached, endShim, exitOf, logOptions, ShimExec, type ShimProcessesOptions } from '#engine/core/processes.ts';
import type { ForeignRuntime, Runtimes } from '#engine/core/runtimes.ts';
import type { CgroupPlace } from '#kernel/cgroup/place.ts';
import { freezerState } from '#kernel/cgroup/state.ts';
import type { Files } from '#kernel/files.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import type { ProcessIdentity } from '#runtime/state.ts';
import { isAlive } from '#runtime/store.ts';
import { Shim } from '#shim/shim.ts';
import { readInitStart } from '#shim/state.ts';
import { hasNewNamespace, type OciConfig, type OciProcess } from '#spec/oci/config.ts';
import { stringifyJson } from '#spec/oci/json.ts';
import type { LinuxResources } from '#spec/oci/linux.ts';

export interface ForeignProcessesOptions
  extends Pick<ShimProcessesOptions, 'spawner' | 'shims' | 'files' | 'clock' | 'host'> {
  /** `R`: `R/bundles` and `R/oci-NAME` are below it. */
  runRoot: string;
  runtimes: Runtimes;
  log: Logger;
}

/**
 * Containers that another OCI runtime makes, behind the same shims: a shim has it make the container as its own child, and takes it
 * from there. Signals, pause, limits and the end go by the runtime's verbs, since it keeps a state of its own.
 */
export class ForeignProcesses {
  readonly #o: ForeignProcessesOptions;
  readonly #known: Set<string>;
  /** Of those that this daemon made or found. */
  readonly #inits = new Map<string, ProcessIdentity>();

  constructor(options: ForeignProcessesOptions) {
    this.#o = options;
    this.#known = new Set(options.files.list(join(options.runRoot, 'bundles')) ?? []);
  }

  has(id: string): boolean {
    return this.#known.has(id);
  }

  list(): string[] {
    return [...this.#known];
  }

  async create(id: string, config: OciConfig, io: IoWish, runtime: ForeignRuntime): Promise<CreatedProcess> {
    const { spawner, host } = this.#o;
    const container = this.#container(id, config, runtime);
    const shims = this.#shim(id);
    this.#known.add(id);
    try {
      this.#writeIntent(container, config);
      mkdirSync(shims, { recursive: true, mode: 0o700 });
      if (io.log.format !== 'none') mkdirSync(dirname(io.log.path), { recursive: true, mode: 0o700 });
      const oomCgroup = memoryGroup(wishedPlaces(container, host().cgroups));
      const shim = await told(this.#o.files, container, 'create', 'create', () =>
        spawner.create(planForeignCreate(container), {
          dir: shims,
          terminal: io.terminal,
          stdin: io.stdin,
          ...logOptions(io),
          ...(oomCgroup ? { oomCgroup } : {}),
        }),
      );
      return await this.#process(container, shim);
    } catch (error) {
      // Its shim has gone with a create that failed; any other error says nothing of it.
      if (isCode(error, 'RUNTIME_FAILED')) await this.#forget(container);
      else await this.remove(id);
      throw error;
    }
  }

  async find(id: string): Promise<RunningProcess | undefined> {
    const container = this.#load(id);
    if (!container) return undefined;
    try {
      const shim = await Shim.connect(this.#shim(id));
      await shim.startIfNobodyHas();
      return await this.#process(container, shim);
    } catch (error) {
      if (isCode(error, 'SHIM_VANISHED')) return undefined; // killed with its shim, or swept away with a reboot
      throw error;
    }
  }

  async end(id: string): Promise<void> {
    const container = this.#load(id);
    const init = this.#inits.get(id);
    if (!container || (init && container.ownPids && !isAlive(init, this.#o.files))) return;
    await endShim(this.#shim(id), this.#o);
    await this.#delete(container); // and with it what outlived its shim, or its first process
  }

  async remove(id: string): Promise<void> {
    await this.end(id);
    const container = this.#load(id);
    if (container) return this.#forget(container);
    // Cut off before its record was whole: no runtime has heard of it.
    rmSync(join(this.#o.runRoot, 'bundles', id), { recursive: true, force: true });
    this.#known.delete(id);
  }

  /** What made it, or undefined when it is not there. */
  plan(id: string): Plan | undefined {
    const container = this.#load(id);
    return container && planForeignCreate(container);
  }

  /** What would make it. */
  foresee(id: string, config: OciConfig, runtime: ForeignRuntime): Plan {
    return planForeignCreate(this.#container(id, config, runtime));
  }

  async #forget(container: ForeignContainer): Promise<void> {
    const { spawner, host } = this.#o;
    const { id } = container;
    await this.#delete(container);
    await spawner.run(planForeignForget(container, this.#shim(id), wishedPlaces(container, host().cgroups)));
    this.#inits.delete(id);
    this.#known.delete(id);
  }

  #container(id: string, config: OciConfig, runtime: ForeignRuntime): ForeignContainer {
    const { runRoot, runtimes } = this.#o;
    return {
      id,
      runtime: { ...runtime, args: [...runtime.args] },
      bundle: join(runRoot, 'bundles', id),
      root: join(runRoot, `oci-${runtime.name}`),
      searchPath: runtimes.searchPath,
      terminal: config.process?.terminal ?? false,
      ownPids: hasNewNamespace(config, 'pid'),
      cgroupsPath: config.linux?.cgroupsPath ?? `/${id}`,
    };
  }

  /** On disk before anything exists. */
  #writeIntent(container: ForeignContainer, config: OciConfig): void {
    const { bundle } = container;
    mkdirSync(bundle, { recursive: true, mode: 0o700 });
    writeFileSync(join(bundle, 'record.json'), JSON.stringify(container), { mode: 0o600 });
    writeFileSync(join(bundle, 'config.json'), stringifyJson(foreignConfig(config)), { mode: 0o600 });
  }

  #load(id: string): ForeignContainer | undefined {
    if (!this.#known.has(id)) return undefined;
    const text = this.#o.files.read(join(this.#o.runRoot, 'bundles', id, 'record.json'));
    if (!text) return undefined;
    try {
      return ForeignContainer(JSON.parse(text), '$');
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      return undefined; // cut off while it was written: nothing was asked of the runtime yet
    }
  }

  async #process(container: ForeignContainer, shim: Shim): Promise<ForeignProcess> {
    const init = { pid: shim.pid, startTime: (await readInitStart(shim.dir)) ?? 0n };
    this.#inits.set(container.id, init);
    return new ForeignProcess(this.#o, container, shim, init);
  }

  /** A runtime that fails here, or is gone from this host, must not keep what is dead: then the rest is taken away beside it. */
  async #delete(container: ForeignContainer): Promise<void> {
    const { spawner, files, log } = this.#o;
    const { id, runtime } = container;
    try {
      await told(files, container, 'delete', 'delete', () =>
        spawner.run(planVerb(container, 'delete', ['--force', id])),
      );
    } catch (error) {
      const init = this.#inits.get(id);
      if (init && isAlive(init, files)) throw error;
      log.warn('the runtime could not delete a container; its files go without it', {
        id,
        runtime: runtime.name,
        error: messageOf(error),
      });
    }
  }

  #shim(id: string): string {
    return join(this.#o.shims, id);
  }
}

const SIGKILL = 9;

class ForeignProcess implements CreatedProcess {
  readonly pid: number;
  readonly startTicks: number;
  readonly cgroups: readonly CgroupPlace[];
  readonly #o: ForeignProcessesOptions;
  readonly #container: ForeignContainer;
  readonly #shim: Shim;
  readonly #init: ProcessIdentity;

  constructor(options: ForeignProcessesOptions, container: ForeignContainer, shim: Shim, init: ProcessIdentity) {
    this.#o = options;
    this.#container = container;
    this.#shim = shim;
    this.#init = init;
    this.pid = init.pid;
    this.startTicks = Number(init.startTime);
    this.cgroups = shownPlaces(container.id, init.pid, options.files);
  }

  async start(): Promise<void> {
    await told(this.#o.files, this.#container, 'start', 'start', () => this.#shim.start());
  }

  wait(): Promise<ExitStatus> {
    return exitOf(this.#shim, this.#o.clock);
  }

  /** One that has ended meanwhile needs no signal any more. SIGKILL comes through in any case: its runtime may be gone. */
  async signal(signal: number): Promise<void> {
    const moot = (): boolean => signal === SIGKILL || !this.#lives();
    await this.#verb('kill', [this.#container.id, String(signal)], moot);
    if (signal === SIGKILL && this.#lives()) await this.#killByPid();
  }

  resize(rows: number, columns: number): Promise<void> {
    return this.#shim.resize({ rows, cols: columns });
  }

  async pause(): Promise<void> {
    await this.#verb('pause', [this.#container.id]);
  }

  /** A runtime that kills a frozen container has thawed it. */
  async resume(): Promise<void> {
    const thawed = (): boolean => freezerState(this.cgroups, this.#o.files) === 'thawed';
    await this.#verb('resume', [this.#container.id], () => !this.#lives() || thawed());
  }

  async update(resources: LinuxResources): Promise<void> {
    const { id, bundle, runtime } = this.#container;
    const { linux } = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8')) as OciConfig;
    const left = notUpdated(linux?.resources ?? {}, resources);
    if (left !== undefined)
      throw new RuntimeFailed({ runtime: runtime.name, verb: 'update', says: `it changes no ${left} of what runs` });
    const wish = join(bundle, 'update.json');
    writeFileSync(wish, stringifyJson(resources), { mode: 0o600 });
    await this.#verb('update', ['--resources', wish, id]);
  }

  async attach(wish: { stdin: boolean }): Promise<Attached> {
    return attached(await this.#shim.attach({ stdin: wish.stdin, terminal: this.#container.terminal }));
  }

  async exec(name: string, process: OciProcess, io: Omit<IoWish, 'log'>): Promise<ExecProcess> {
    const files = execFiles(this.#container.bundle, name);
    const plan = planForeignExec(this.#container, name, io.terminal);
    writeFileSync(files.process, stringifyJson(process), { mode: 0o600 });
    try {
      const attachment = await told(this.#o.files, this.#container, 'exec', `exec-${name}`, () =>
        this.#shim.exec(plan, { name, terminal: io.terminal, stdin: io.stdin }),
      );
      return new ShimExec(attachment, () => unlinkSync(join(this.#shim.dir, `exec.${name}`)));
    } finally {
      for (const path of Object.values(files)) rmSync(path, { force: true });
    }
  }

  /** `moot`: asked when it fails; then there was nothing left to do. */
  async #verb(verb: string, args: readonly string[], moot: () => boolean = () => false): Promise<void> {
    try {
      await told(this.#o.files, this.#container, verb, verb, () =>
        this.#o.spawner.run(planVerb(this.#container, verb, args)),
      );
    } catch (error) {
      if (!moot()) throw error;
    }
  }

  async #killByPid(): Promise<void> {
    try {
      await this.#shim.signal(SIGKILL);
    } catch (error) {
      if (!isCode(error, 'CONNECTION_LOST', 'SHIM_VANISHED', 'SHIM_REFUSED')) throw error; // it has ended meanwhile
    }
  }

  #lives(): boolean {
    return isAlive(this.#init, this.#o.files);
  }
}

/** A step that fails does so by the runtime: its own words say why, from its log, or else what it wrote as it went. */
async function told<T>(
  files: Files,
  container: ForeignContainer,
  verb: string,
  log: string,
  run: () => Promise<T>,
): Promise<T> {
  const path = logPath(container, log);
  rmSync(path, { force: true });
  try {
    return await run();
  } catch (error) {
    if (!isCode(error, 'PLAN_FAILED')) throw error;
    const says = lastComplaint(files.read(path) ?? '');
    const runtime = container.runtime.name;
    if (says !== undefined) throw new RuntimeFailed({ runtime, verb, says });
    const { detail } = error.data as { detail?: string };
    throw new RuntimeFailed({ runtime, verb, says: detail || messageOf(error) }, { cause: error });
  }
}
