import { describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { KeyedSerial } from '#base/queue.ts';
import type { Random } from '#base/random.ts';
import { AlreadyThere, WrongPhase } from '#engine/core/errors.ts';
import type { Events } from '#engine/core/events.ts';
import { Execs } from '#engine/core/exec.ts';
import { type Holdings, type Joiner, Launcher, type LaunchOptions } from '#engine/core/launch.ts';
import {
  clearContainer,
  draftContainer,
  type Makings,
  makeContainer,
  sharesWhatItHolds,
  signalOf,
  unmakeContainer,
} from '#engine/core/making.ts';
import { limits } from '#engine/core/oci-resources.ts';
import type { ExitStatus, FoundImage, RunningProcess } from '#engine/core/parts.ts';
import { type ContainerRecord, type ContainerState, type HealthState, isRunning } from '#engine/core/record.ts';
import { type RecoveryHands, recoverContainer } from '#engine/core/recovery.ts';
import { afterExit } from '#engine/core/restart.ts';
import { type Run, Runs } from '#engine/core/runs.ts';
import type { Runtimes } from '#engine/core/runtimes.ts';
import type { ContainerSpec, ResourceSpec, RestartPolicy } from '#engine/core/spec.ts';
import type { ResolvedUser } from '#engine/core/user.ts';
import { type WaitCondition, Waiters, type WaitResult } from '#engine/core/waiters.ts';
import { signalNumber } from '#kernel/linux/names.ts';
import type { OciConfig } from '#spec/oci/config.ts';

export interface ContainersOptions extends LaunchOptions {
  events: Events;
  random: Random;
  log: Logger;
  settings: LaunchOptions['settings'] & {
    /** See Makings. */
    logLeavings: Makings['logLeavings'];
    stopGraceMs: number;
    /** Beside ours; absent: there is none. */
    runtimes?: Runtimes;
    /** Where execs that run are kept for the next daemon; absent: they are not. */
    execs?: string;
  };
}

const SIGKILL = 9;

/**
 * The life of the node's containers. Each container has one owner: requests that change it queue up behind each other, in
 * `#queue`; `kill` alone goes past the queue, since it is what ends a `stop` that waits.
 *
 *     making.ts    what it holds from its creation to its removal
 *     launch.ts    what a run of it holds, from start to end; joining.ts: what it shares with others
 *     runs.ts      what runs now, watched until it ends
 *     waiters.ts   who waits for that
 *     recovery.ts  what becomes of it when the daemon starts
 */
export class Containers {
  readonly execs: Execs;
  readonly #o: ContainersOptions;
  readonly #makings: Makings;
  readonly #launcher: Launcher;
  readonly #runs: Runs;
  readonly #waiters = new Waiters();
  readonly #queue = new KeyedSerial<string>('container');
  /** Ends on their way to the disk: who hears of one waits for that, and for nothing that is written behind it. */
  readonly #ending = new Map<string, Promise<void>>();
  /** Restarts by policy that wait for their time. */
  readonly #restarts = new Map<string, () => void>();

  constructor(options: ContainersOptions) {
    const { parts, registry, random, clock, log, host, settings } = options;
    this.#o = options;
    this.#makings = { parts, registry, logLeavings: settings.logLeavings };
    this.#launcher = new Launcher(options);
    this.#runs = new Runs({
      clock,
      log,
      record: (id) => this.find(id),
      probe: (id, exec, argv) => this.#probe(id, exec, argv),
      health: (id, health, became) => this.#healthChanged(id, health, became),
      inLine: (id, work) => this.#queue.run(id, work),
      ended: (id, status) => this.#ended(id, status),
    });
    this.execs = new Execs({
      running: (id) => this.running(id),
      record: (id) => this.find(id),
      user: (record, wish) => this.#launcher.user(record, wish ?? record.process.user),
      bounding: host.bounding,
      random,
      clock,
      exit: (containerId, id) => parts.processes.execExit(containerId, id),
      directory: settings.execs,
      tell: (record, action, attributes) => this.tell(record, action, attributes),
    });
  }

  find(wish: string): ContainerRecord {
    return this.#o.registry.find(wish);
  }

  list(): ContainerRecord[] {
    return this.#o.registry.list();
  }

  /** By its whole id. */
  get(id: string): ContainerRecord | undefined {
    return this.#o.registry.get(id);
  }

  /** Whom its programs run as. Its root has to be mounted. */
  user(record: ContainerRecord): Promise<ResolvedUser> {
    return this.#launcher.user(record, record.process.user);
  }

  /** Something was done with a container: all who listen hear of it. */
  tell(record: ContainerRecord, action: string, extra: Record<string, string> = {}): void {
    const attributes = { ...record.process.labels, image: record.image.reference, name: record.name, ...extra };
    this.#o.events.publish({ type: 'container', action, id: record.id, attributes });
  }

  /** The running process, for exec, attach and statistics. */
  running(id: string): RunningProcess {
    const run = this.#runs.get(id);
    const { state } = this.find(id);
    if (!run || !isRunning(state))
      throw new WrongPhase({ message: `container ${id} is not running`, ...hintIfLost(state) });
    return run.process;
  }

  /** See `draftContainer`. */
  async draft(
    wishedName: string | undefined,
    wish: ContainerSpec,
  ): Promise<{ record: ContainerRecord; image: FoundImage }> {
    const spec = this.#o.settings.runtimes?.settle(wish) ?? wish;
    return draftContainer(this.#o, wishedName, spec);
  }

  async create(wishedName: string | undefined, spec: ContainerSpec): Promise<ContainerRecord> {
    const { record, image } = await this.draft(wishedName, spec);
    // In line from the first: its name is known before it is whole, and who starts it by that name has to wait.
    return this.#queue.run(record.id, async () => {
      const created = await makeContainer(this.#makings, record, image);
      this.tell(created, 'create');
      return created;
    });
  }

  start(wish: string): Promise<void> {
    const { id } = this.find(wish);
    return this.#queue.run(id, async () => {
      const record = this.find(id);
      if (isRunning(record.state)) {
        this.#runOf(record);
        throw new AlreadyThere({ id, phase: record.state.phase });
      }
      this.#cancelRestart(id);
      try {
        await this.#run({ ...record, state: { ...record.state, stoppedByHand: false, restartCount: 0 } });
      } catch (error) {
        // Whoever waits for its removal (`docker run --rm`) would wait for ever: a container that never ran never ends.
        if (record.spec.autoRemove) await this.#remove(this.find(id), true);
        throw error;
      }
      this.tell(this.find(id), 'start');
    });
  }

  /** SIGTERM (or the image's signal), the grace, SIGKILL. `graceMs` −1 waits without end. */
  stop(wish: string, how: { signal?: string; graceMs?: number } = {}): Promise<void> {
    const { id } = this.find(wish);
    return this.#queue.run(id, async () => {
      const record = this.find(id);
      const waiting = this.#cancelRestart(id);
      if (!isRunning(record.state)) {
        if (!waiting) throw new AlreadyThere({ id, phase: record.state.phase });
        await this.#o.registry.saveState(record, { phase: 'exited', stoppedByHand: true });
        return;
      }
      await this.#stop(record, how);
      this.tell(this.find(id), 'stop');
    });
  }

  restart(wish: string, how: { signal?: string; graceMs?: number } = {}): Promise<void> {
    const { id } = this.find(wish);
    return this.#queue.run(id, async () => {
      this.#cancelRestart(id);
      const record = this.find(id);
      if (isRunning(record.state)) {
        await this.#stop(record, how);
        this.tell(this.find(id), 'stop');
      }
      const stopped = this.find(id);
      await this.#run({ ...stopped, state: { ...stopped.state, stoppedByHand: false } });
      // Proxies that watch for starts know no other word for it.
      for (const action of ['start', 'restart']) this.tell(this.find(id), action);
    });
  }

  /** One change of a container by a file of its own (networks, say), in line with all others; what it answers is recorded. */
  change(wish: string, work: (record: ContainerRecord) => Promise<ContainerRecord>): Promise<ContainerRecord> {
    const { id } = this.find(wish);
    return this.#queue.run(id, async () => {
      const changed = await work(this.find(id));
      await this.#o.registry.save({ ...changed, state: this.find(id).state });
      return changed;
    });
  }

  /** Past the queue: it must reach a container that a `stop` waits for. */
  async kill(wish: string, signal = 'SIGKILL'): Promise<void> {
    const record = this.find(wish);
    const number = signalOf(signal);
    if (record.state.phase === 'paused' && number !== SIGKILL)
      throw new WrongPhase({
        message: `Container ${record.id} is paused. Unpause the container before stopping or killing`,
      });
    const run = this.#runs.get(record.id);
    if (!run || !isRunning(record.state)) {
      const message = `Cannot kill container: ${wish}: container ${record.id} is not running`;
      throw new WrongPhase({ message, ...hintIfLost(record.state) });
    }
    if (number === SIGKILL || number === signalNumber(record.process.stopSignal))
      await this.#o.registry.amendState(record.id, { stoppedByHand: true });
    await run.process.signal(number);
    // A frozen process of cgroup v1 dies only once it is thawed (cgroup-v1/freezer-subsystem.rst).
    if (record.state.phase === 'paused') await this.#thaw(record.id, run);
    this.tell(record, 'kill', { signal: String(number) });
    if (number === SIGKILL) await this.#runs.killed(record.id, run);
  }

  async #thaw(id: string, run: Run): Promise<void> {
    try {
      await run.process.resume();
    } catch (error) {
      if (this.#runs.get(id) === run) throw error; // else it has ended meanwhile, and its cgroup with it
    }
  }

  pause(wish: string): Promise<void> {
    return this.#change(wish, async (record, process) => {
      if (record.state.phase === 'paused')
        throw new WrongPhase({ message: `Container ${record.id} is already paused` });
      await process.pause();
      await this.#o.registry.amendState(record.id, { phase: 'paused' }, { lazy: true });
      this.tell(record, 'pause');
    });
  }

  unpause(wish: string): Promise<void> {
    return this.#change(wish, async (record, process) => {
      if (record.state.phase !== 'paused') throw new WrongPhase({ message: `Container ${record.id} is not paused` });
      await process.resume();
      await this.#o.registry.amendState(record.id, { phase: 'running' });
      this.tell(record, 'unpause');
    });
  }

  /** New limits and restart policy: kernel first, record after, so that the record never promises what does not hold. */
  update(
    wish: string,
    change: { resources: Partial<ResourceSpec>; restart?: Omit<RestartPolicy, 'onUnhealthy'> },
  ): Promise<void> {
    const { id } = this.find(wish);
    return this.#queue.run(id, async () => {
      const record = this.find(id);
      const resources = { ...record.spec.resources, ...change.resources };
      if (isRunning(record.state) && Object.keys(change.resources).length > 0)
        await this.#runOf(record).process.update(limits(resources, this.#o.host.deviceNumbers));
      const spec = {
        ...record.spec,
        resources,
        ...(change.restart ? { restart: { ...record.spec.restart, ...change.restart } } : {}),
      };
      await this.#o.registry.save({ ...this.find(id), spec });
      this.tell(record, 'update');
    });
  }

  rename(wish: string, name: string): Promise<void> {
    const { id } = this.find(wish);
    return this.#queue.run(id, async () => {
      const record = this.find(id);
      const renamed = await this.#o.registry.rename(record, name.replace(/^\//, ''));
      this.tell(renamed, 'rename', { oldName: `/${record.name}` });
    });
  }

  async remove(wish: string, how: { force: boolean; volumes: boolean }): Promise<void> {
    const { id } = this.find(wish);
    const run = this.#runs.get(id);
    if (how.force && run && isRunning(this.find(id).state)) await run.process.signal(SIGKILL); // also ends a stop that holds the queue
    await this.#queue.run(id, async () => {
      const record = this.#o.registry.get(id);
      if (!record) return; // it was to be removed at its end, which the signal was
      const { phase } = record.state;
      if (!how.force && (isRunning(record.state) || phase === 'restarting')) {
        const state = phase === 'starting' ? 'running' : phase;
        const advice = `${phase === 'paused' ? 'Unpause and then stop' : 'Stop'} the container before attempting removal or force remove`;
        throw new WrongPhase({ message: `You cannot remove a ${state} container ${id}. ${advice}` });
      }
      if (isRunning(record.state)) {
        if (this.#runs.get(id)) await this.#stop(record, { signal: 'SIGKILL', graceMs: 0 });
        else await this.#launcher.release(id); // lost (see #runOf): what it still holds goes, its processes first
      }
      const left = this.#o.registry.get(id); // gone when it was to be removed at its end
      if (left) await this.#remove(left, how.volumes);
    });
  }

  /** The end of a run, the next end, or the removal; `signal` ends the waiting. */
  async wait(wish: string, condition: WaitCondition, signal?: AbortSignal): Promise<WaitResult> {
    const record = this.find(wish);
    const result = this.#waiters.wait(record, condition, signal);
    if (!isRunning(record.state)) await this.#ending.get(record.id); // it may have ended this very moment
    return result;
  }

  /** See Launcher. */
  sharedNetwork(record: ContainerRecord): ReturnType<Launcher['sharedNetwork']> {
    return this.#launcher.sharedNetwork(record);
  }

  /** See Launcher. */
  configOf(record: ContainerRecord, holdings: Holdings): Promise<OciConfig> {
    return this.#launcher.configOf(record, holdings);
  }

  /** See Launcher. */
  onNextStart(id: string, join: Joiner): () => void {
    return this.#launcher.onNextStart(id, join);
  }

  /** After a start of the daemon: finds what runs, finishes what a crash left half done, starts what wants to run. */
  async recover(): Promise<void> {
    const known = new Set(this.list().map((r) => r.id));
    for (const orphan of (await this.#o.parts.processes.list()).filter((id) => !known.has(id))) {
      this.#o.log.warn('removing a process that no container owns', { id: orphan });
      await this.#o.parts.processes.remove(orphan);
    }
    // One that cannot be brought back must not keep all others from it: it stays as it is recorded, until the next start or `rm -f`.
    const failed =
      ({ id, name }: ContainerRecord) =>
      (error: unknown): void =>
        this.#o.log.error('a container could not be recovered', { id, name, error: describeChain(error) });
    const hands: RecoveryHands = {
      ...this.#o,
      release: (id) => this.#launcher.release(id),
      watch: (id, process) => this.#runs.watch(id, process),
      remove: (record, removeAnonymous) => this.#remove(record, removeAnonymous),
      runAgain: (record) => this.#runAgain(record),
    };
    await Promise.all(
      this.list().map((record) =>
        this.#queue.run(record.id, () => recoverContainer(hands, record)).catch(failed(record)),
      ),
    );
    await this.#launcher.allReleased();
    await this.execs.recover();
  }

  /** Nothing of runs that have ended and containers that were removed is still to be given back. */
  atRest(): Promise<void> {
    return this.#launcher.allReleased();
  }

  /** Ends timers; containers run on. */
  async close(): Promise<void> {
    for (const id of [...this.#restarts.keys()]) this.#cancelRestart(id);
    this.#runs.close();
    await this.#launcher.allReleased();
  }

  /** The end of a run: its record says how it ended, what it held goes, and its policy says what follows. */
  async #ended(id: string, status: ExitStatus): Promise<void> {
    const record = this.find(id);
    const ranMs = status.atMs - record.state.startedAtMs;
    const next = afterExit(record.spec.restart, record.state, { code: status.code, ranMs });
    // Before anything goes: how it ended is written in its shim's directory until then, and from here on in the record, which a
    // kill of ours leaves. The disk has it while the rest goes.
    const ended = {
      phase: next.restart ? ('restarting' as const) : ('exited' as const),
      pid: 0,
      exitCode: status.code,
      oomKilled: status.oomKilled,
      finishedAtMs: status.atMs,
      ...(next.restart ? { restartCount: record.state.restartCount + 1 } : {}),
    };
    const noted = this.#o.registry.amendState(id, ended, { lazy: true });
    const recorded = noted.then(() => this.#o.registry.settled());
    recorded.catch(() => undefined); // thrown below
    this.#ending.set(id, recorded);
    try {
      await noted;
      await Promise.all([recorded, this.#launcher.release(id)]);
    } finally {
      this.#ending.delete(id);
    }
    if (status.oomKilled) this.tell(record, 'oom');
    this.tell(record, 'die', { exitCode: String(status.code), execDuration: String(Math.floor(ranMs / 1000)) });
    this.#o.log.debug('container ended', { id, code: status.code, next: next.why });
    this.#waiters.ended(id, status.code);
    if (next.restart)
      this.#restarts.set(
        id,
        this.#o.clock.after(next.afterMs, () => void this.#restartLater(id)),
      );
    else if (record.spec.autoRemove) await this.#remove(this.find(id), true);
  }

  async #run(record: ContainerRecord): Promise<void> {
    this.#runs.watch(record.id, await this.#launcher.launch(record));
  }

  async #stop(record: ContainerRecord, how: { signal?: string; graceMs?: number }): Promise<void> {
    const { id, spec, process } = record;
    const run = this.#runOf(record);
    await this.#o.registry.amendState(id, { stoppedByHand: true }, { lazy: true }); // durable with the record of its end
    const { timeoutSeconds } = spec.stop;
    const graceMs =
      how.graceMs ?? (timeoutSeconds === undefined ? this.#o.settings.stopGraceMs : timeoutSeconds * 1000);
    if (record.state.phase === 'paused') await run.process.resume();
    const sent = (signal: number): void => this.tell(record, 'kill', { signal: String(signal) });
    await this.#runs.stop(id, { signal: signalOf(how.signal ?? process.stopSignal), graceMs, sent });
  }

  async #remove(record: ContainerRecord, removeAnonymous: boolean): Promise<void> {
    const { id } = record;
    this.#cancelRestart(id);
    if (sharesWhatItHolds(record)) await this.#launcher.released(id);
    await unmakeContainer(this.#makings, record, removeAnonymous);
    this.#launcher.clear(id, (turn) => clearContainer(this.#makings, id, turn));
    this.tell(record, 'destroy');
    this.#waiters.removed(id, record.state.exitCode);
    this.#launcher.forget(id);
  }

  #probe(id: string, exec: string, argv: string[]): ReturnType<Execs['launch']> {
    const attach = { stdin: false, stdout: true, stderr: true };
    return this.execs.launch(id, exec, { argv, env: [], tty: false, privileged: false, attach });
  }

  async #healthChanged(id: string, health: HealthState, became: HealthState['status'] | undefined): Promise<void> {
    await this.#o.registry.amendState(id, { health }, { lazy: true }); // probed anew after a boot
    if (!became) return;
    const record = this.find(id);
    this.tell(record, `health_status: ${became}`);
    if (became !== 'unhealthy' || !record.spec.restart.onUnhealthy) return;
    this.#o.log.info('restarting a container that is unhealthy', { id });
    void this.restart(id).catch((error) => this.#failedRestart(id, error));
  }

  async #restartLater(id: string): Promise<void> {
    this.#restarts.delete(id);
    await this.#queue.run(id, async () => {
      const record = this.#o.registry.get(id);
      if (record?.state.phase !== 'restarting') return;
      await this.#runAgain(record);
    });
  }

  /** A start that nobody waits for: its failure is logged, and the record says why. */
  async #runAgain(record: ContainerRecord): Promise<void> {
    try {
      await this.#run(record);
      this.tell(this.find(record.id), 'start');
    } catch (error) {
      this.#failedRestart(record.id, error);
    }
  }

  #failedRestart(id: string, error: unknown): void {
    this.#o.log.error('a container could not be started again', { id, error: describeChain(error) });
  }

  /**
   * In line, what is recorded as running has a run, unless it could not be taken over at the daemon's start or its end not be recorded.
   * Whether its program still runs is not known then, so a stop must not say that it was stopped.
   */
  #runOf({ id, state }: ContainerRecord): Run {
    const run = this.#runs.get(id);
    if (run) return run;
    const message = `container ${id} is recorded as ${state.phase}, and this daemon has no hold of it`;
    throw new WrongPhase({ message, ...hintIfLost(state) });
  }

  #cancelRestart(id: string): boolean {
    const cancel = this.#restarts.get(id);
    cancel?.();
    return this.#restarts.delete(id);
  }

  #change(wish: string, work: (record: ContainerRecord, process: RunningProcess) => Promise<void>): Promise<void> {
    const { id } = this.find(wish);
    return this.#queue.run(id, () => work(this.find(id), this.running(id)));
  }
}

function hintIfLost({ phase }: ContainerState): { hint?: string } {
  if (phase !== 'running' && phase !== 'paused') return {};
  return { hint: `the daemon's log says why it lost hold of a container; \`rm -f\` ends and removes it` };
}
