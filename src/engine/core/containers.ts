import type { Clock } from '#base/clock.ts';
import { describeChain, messageOf } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { KeyedSerial } from '#base/queue.ts';
import { newId, type Random } from '#base/random.ts';
import { Undo } from '#base/undo.ts';
import { parseSizeBytes } from '#base/units.ts';
import { AlreadyThere, BadSignal, exitCodeOf, WrongPhase } from '#engine/core/errors.ts';
import type { Events } from '#engine/core/events.ts';
import { Execs } from '#engine/core/exec.ts';
import { HEALTH_START } from '#engine/core/health.ts';
import { HealthWatch } from '#engine/core/health-watch.ts';
import { applyImage } from '#engine/core/image-defaults.ts';
import { inventName } from '#engine/core/names.ts';
import { type OciHost, ociConfig } from '#engine/core/oci.ts';
import { limits } from '#engine/core/oci-resources.ts';
import type { CreatedProcess, ExitStatus, FoundImage, IoWish, NodeParts, RunningProcess } from '#engine/core/parts.ts';
import { type ContainerRecord, type ContainerState, FRESH_STATE, isRunning } from '#engine/core/record.ts';
import type { ContainerRegistry } from '#engine/core/registry.ts';
import { afterExit, startsWithDaemon } from '#engine/core/restart.ts';
import type { ContainerSpec, ResourceSpec, RestartPolicy } from '#engine/core/spec.ts';
import { type ResolvedUser, resolveUser } from '#engine/core/user.ts';
import { signalNumber } from '#kernel/linux/names.ts';
import type { LinuxDevice } from '#spec/oci/linux.ts';

export interface ContainersOptions {
  parts: NodeParts;
  registry: ContainerRegistry;
  events: Events;
  clock: Clock;
  random: Random;
  log: Logger;
  host: OciHost;
  settings: {
    /** Parent of all our cgroups, `/estiba`. */
    cgroupParent: string;
    /** `${logDirectory}/ID/ID-json.log`, by id. */
    logPath: (id: string) => string;
    /** All that was logged, with what a log stands in: when the container goes. */
    removeLogs: (id: string) => Promise<void>;
    stopGraceMs: number;
    /** Where execs that run are kept for the next daemon; absent: they are not. */
    execs?: string;
    devices: (spec: ContainerSpec) => Promise<LinuxDevice[]>;
  };
}

export type WaitCondition = 'not-running' | 'next-exit' | 'removed';

export interface WaitResult {
  exitCode: number;
  error?: string;
}

const SIGKILL = 9;
/** A killed process is gone in milliseconds, unless the kernel holds it in a system call. */
const KILL_WAIT_MS = 10_000;

/** A container of this node while it runs, or waits to run again. */
interface Live {
  process: RunningProcess;
  /** Ends the watching of this run. */
  health?: HealthWatch;
}

/**
 * The life of the node's containers. Each container has one owner: requests that change it queue up behind each other, in
 * `#queue`; `kill` alone goes past the queue, since it is what ends a `stop` that waits.
 */
export class Containers {
  readonly execs: Execs;
  readonly #o: ContainersOptions;
  readonly #queue = new KeyedSerial<string>('container');
  readonly #live = new Map<string, Live>();
  readonly #restarts = new Map<string, () => void>();
  readonly #waiters = new Map<string, Set<(result: WaitResult, removed: boolean) => void>>();
  readonly #attaching = new Map<string, Set<(process: CreatedProcess) => Promise<void>>>();

  constructor(options: ContainersOptions) {
    this.#o = options;
    this.execs = new Execs({
      running: (id) => this.running(id),
      record: (id) => this.find(id),
      user: (record, wish) => this.#user(record, wish ?? record.process.user),
      bounding: options.host.bounding,
      random: options.random,
      clock: options.clock,
      exit: (containerId, id) => options.parts.processes.execExit(containerId, id),
      directory: options.settings.execs,
      tell: (record, action, attributes) => this.#tell(record, action, attributes),
    });
  }

  find(wish: string): ContainerRecord {
    return this.#o.registry.find(wish);
  }

  /** By full id; undefined once it is gone. */
  peek(id: string): ContainerRecord | undefined {
    return this.#o.registry.get(id);
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
    return this.#user(record, record.process.user);
  }

  /** Something was done with a container that leaves it as it is. */
  tell(record: ContainerRecord, action: string, attributes: Record<string, string> = {}): void {
    this.#tell(record, action, attributes);
  }

  /** The running process, for exec, attach and statistics. */
  running(id: string): RunningProcess {
    const live = this.#live.get(id);
    const { state } = this.find(id);
    if (!live || !isRunning(state)) throw new WrongPhase({ message: `container ${id} is not running` });
    return live.process;
  }

  async create(wishedName: string | undefined, spec: ContainerSpec): Promise<ContainerRecord> {
    const { parts, registry, random, clock } = this.#o;
    const image = await parts.images.find(spec.image);
    const process = applyImage(spec, image.config);
    stopSignalOf(process.stopSignal);
    const id = newId(random);
    const name = wishedName?.replace(/^\//, '') ?? inventName(random, (taken) => registry.isTaken(taken));
    const record: ContainerRecord = {
      id,
      name,
      createdAtMs: clock.now(),
      spec,
      process,
      image: { id: image.id, reference: spec.image },
      hostname: spec.hostname ?? id.slice(0, 12),
      state: { ...FRESH_STATE },
      mounts: [],
      endpoints: {},
      ports: [],
    };
    // In line from the first: its name is known before it is whole, and who starts it by that name has to wait.
    return this.#queue.run(id, () => this.#make(record, image));
  }

  async #make(record: ContainerRecord, image: FoundImage): Promise<ContainerRecord> {
    await using undo = new Undo();
    const { parts, registry } = this.#o;
    const { id, spec, process } = record;
    await registry.add(record); // the intent: from here a crash is swept
    undo.add('record', () => registry.forget(id));
    const endpoints = await parts.network.reserve(id, spec);
    undo.add('addresses', () => parts.network.release(id));
    const mounts = await parts.volumes.resolve(id, [...spec.mounts, ...imageVolumes(spec, process.volumes)]);
    undo.add('volumes', () => parts.volumes.release(id, mounts, { removeAnonymous: true }));
    await parts.roots.prepare(id, image);
    undo.add('root', () => parts.roots.remove(id));
    await parts.volumes.populate(id, mounts, (use) => this.#withRoot(id, use));
    const created: ContainerRecord = { ...record, endpoints, mounts, state: { ...record.state, phase: 'created' } };
    await registry.save(created);
    undo.keep();
    this.#tell(created, 'create');
    return created;
  }

  start(wish: string): Promise<void> {
    const { id } = this.find(wish);
    return this.#queue.run(id, async () => {
      const record = this.find(id);
      if (isRunning(record.state)) throw new AlreadyThere({ id, phase: record.state.phase });
      this.#cancelRestart(id);
      try {
        await this.#run({ ...record, state: { ...record.state, stoppedByHand: false, restartCount: 0 } });
      } catch (error) {
        // Whoever waits for its removal (`docker run --rm`) would wait for ever: a container that never ran never ends.
        if (record.spec.autoRemove) await this.#remove(this.find(id), true);
        throw error;
      }
      this.#tell(this.find(id), 'start');
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
        await this.#save(record, { phase: 'exited', stoppedByHand: true });
        return;
      }
      await this.#stop(record, how);
      this.#tell(this.find(id), 'stop');
    });
  }

  restart(wish: string, how: { signal?: string; graceMs?: number } = {}): Promise<void> {
    const { id } = this.find(wish);
    return this.#queue.run(id, async () => {
      this.#cancelRestart(id);
      const record = this.find(id);
      if (isRunning(record.state)) await this.#stop(record, how);
      const stopped = this.find(id);
      await this.#run({ ...stopped, state: { ...stopped.state, stoppedByHand: false } });
      this.#tell(this.find(id), 'restart');
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
    const number = stopSignalOf(signal);
    if (record.state.phase === 'paused' && number !== SIGKILL)
      throw new WrongPhase({
        message: `Container ${record.id} is paused. Unpause the container before stopping or killing`,
      });
    const live = this.#live.get(record.id);
    if (!live || !isRunning(record.state))
      throw new WrongPhase({ message: `Cannot kill container: ${wish}: container ${record.id} is not running` });
    if (number === SIGKILL || number === signalNumber(record.process.stopSignal))
      await this.#save(record, { stoppedByHand: true });
    await live.process.signal(number);
    this.#tell(record, 'kill', { signal: String(number) });
    // Who asks for the state next finds it ended: the stop that holds the queue writes it, or we do.
    if (number === SIGKILL && (await this.#ended(live, KILL_WAIT_MS))) await this.#queueFinish(record.id, live);
  }

  pause(wish: string): Promise<void> {
    return this.#change(wish, async (record, process) => {
      if (record.state.phase === 'paused')
        throw new WrongPhase({ message: `Container ${record.id} is already paused` });
      await process.pause();
      await this.#save(record, { phase: 'paused' });
      this.#tell(record, 'pause');
    });
  }

  unpause(wish: string): Promise<void> {
    return this.#change(wish, async (record, process) => {
      if (record.state.phase !== 'paused') throw new WrongPhase({ message: `Container ${record.id} is not paused` });
      await process.resume();
      await this.#save(record, { phase: 'running' });
      this.#tell(record, 'unpause');
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
      const live = this.#live.get(id);
      if (live && isRunning(record.state) && Object.keys(change.resources).length > 0)
        await live.process.update(limits(resources, this.#o.host.deviceNumbers));
      const spec = {
        ...record.spec,
        resources,
        ...(change.restart ? { restart: { ...record.spec.restart, ...change.restart } } : {}),
      };
      await this.#o.registry.save({ ...this.find(id), spec });
      this.#tell(record, 'update');
    });
  }

  rename(wish: string, name: string): Promise<void> {
    const { id } = this.find(wish);
    return this.#queue.run(id, async () => {
      const record = this.find(id);
      const renamed = await this.#o.registry.rename(record, name.replace(/^\//, ''));
      this.#tell(renamed, 'rename', { oldName: `/${record.name}` });
    });
  }

  async remove(wish: string, how: { force: boolean; volumes: boolean }): Promise<void> {
    const { id } = this.find(wish);
    const live = this.#live.get(id);
    if (how.force && live && isRunning(this.find(id).state)) await live.process.signal(SIGKILL); // also ends a stop that holds the queue
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
        await this.#stop(record, { signal: 'SIGKILL', graceMs: 0 });
      }
      const left = this.#o.registry.get(id); // gone when it was to be removed at its end
      if (left) await this.#remove(left, how.volumes);
    });
  }

  /** Registers before it looks, so that no end is missed in between. */
  wait(wish: string, condition: WaitCondition, signal?: AbortSignal): Promise<WaitResult> {
    const record = this.find(wish);
    return new Promise((resolve, reject) => {
      if (condition === 'not-running' && !isRunning(record.state) && record.state.phase !== 'restarting') {
        return resolve({
          exitCode: record.state.exitCode,
          ...(record.state.error ? { error: record.state.error } : {}),
        });
      }
      const waiters = this.#waiters.get(record.id) ?? new Set();
      this.#waiters.set(record.id, waiters);
      const settle = (result: WaitResult, removed: boolean): void => {
        if (condition === 'removed' && !removed) return;
        waiters.delete(settle);
        resolve(result);
      };
      waiters.add(settle);
      signal?.addEventListener('abort', () => {
        waiters.delete(settle);
        reject(signal.reason);
      });
    });
  }

  /** A client that attaches before the start is there when the program's first byte comes. Returns what cancels it. */
  onNextStart(id: string, join: (process: CreatedProcess) => Promise<void>): () => void {
    const joins = this.#attaching.get(id) ?? new Set();
    this.#attaching.set(id, joins);
    joins.add(join);
    return () => joins.delete(join);
  }

  /** After a start of the daemon: finds what runs, finishes what a crash left half done, starts what wants to run. */
  async recover(): Promise<void> {
    const known = new Set(this.list().map((r) => r.id));
    for (const orphan of (await this.#o.parts.processes.list()).filter((id) => !known.has(id))) {
      this.#o.log.warn('removing a process that no container owns', { id: orphan });
      await this.#o.parts.processes.remove(orphan);
    }
    await Promise.all(this.list().map((record) => this.#queue.run(record.id, () => this.#recover(record))));
    await this.execs.recover();
  }

  /** Ends timers; containers run on. */
  close(): void {
    for (const id of [...this.#restarts.keys()]) this.#cancelRestart(id);
    for (const live of this.#live.values()) live.health?.close();
  }

  async #recover(record: ContainerRecord): Promise<void> {
    const { phase } = record.state;
    if (phase === 'creating' || phase === 'removing') return this.#remove(record, phase === 'creating');
    if (phase === 'created' || phase === 'dead') return;
    if (phase === 'exited') {
      if (startsWithDaemon(record.spec.restart, record.state)) await this.#runAgain(record);
      return;
    }
    const process = await this.#o.parts.processes.find(record.id);
    if (process) {
      this.#watch(record.id, process);
      await this.#save(record, {
        phase: phase === 'paused' ? 'paused' : 'running',
        pid: process.pid,
        startTicks: process.startTicks,
      });
      return;
    }
    const wantsToRun = startsWithDaemon(record.spec.restart, record.state);
    await this.#cleanUp(record);
    await this.#save(record, { phase: 'exited', pid: 0, exitCode: 255, finishedAtMs: this.#o.clock.now(), error: '' });
    if (wantsToRun) await this.#runAgain(this.find(record.id));
  }

  /** `run` from every front end ends here. Each line is a chapter. */
  async #run(record: ContainerRecord): Promise<void> {
    await using undo = new Undo((what, error) =>
      this.#o.log.error('undo of a start failed', { id: record.id, what, error: messageOf(error) }),
    );
    const { parts, clock } = this.#o;
    const { id } = record;
    try {
      await this.#save(record, { ...record.state, phase: 'starting', error: '' });
      const wish = {
        ...record,
        exposedPorts: record.process.exposedPorts,
        ...this.#sharedNetwork(record.spec),
      };
      // Neither needs the other; both are awaited, so that undo finds them at rest.
      const [root, network] = await Promise.allSettled([parts.roots.mount(id), parts.network.attach(id, wish)]);
      if (root.status === 'fulfilled') undo.add('root', () => parts.roots.unmount(id));
      if (network.status === 'fulfilled') undo.add('network', () => parts.network.detach(id));
      if (root.status === 'rejected') throw root.reason;
      if (network.status === 'rejected') throw network.reason;
      const [rootfs, net] = [root.value, network.value];
      undo.add('volumes', () => parts.volumes.detach(id));
      if (record.spec.namespaces.ipc.kind === 'shareable') {
        undo.add('shared memory', () => parts.roots.unshareMemory(id));
        await parts.roots.shareMemory(id, record.spec.shmBytes);
      }
      const config = await this.#config(record, rootfs, net);
      const process = await parts.processes.create(id, config, this.#io(record));
      undo.add('process', () => parts.processes.remove(id));
      for (const join of this.#attaching.get(id) ?? []) await join(process);
      this.#attaching.delete(id);
      const startedAtMs = clock.now();
      await this.#o.registry.save({
        ...this.find(id),
        endpoints: net.endpoints,
        ports: net.ports,
        state: {
          ...this.find(id).state,
          phase: 'running',
          pid: process.pid,
          startTicks: process.startTicks,
          exitCode: 0,
          oomKilled: false,
          startedAtMs,
          finishedAtMs: 0,
          ...(record.process.health ? { health: HEALTH_START } : {}),
        },
      });
      await process.start();
      undo.keep();
      this.#watch(id, process);
    } catch (error) {
      await undo.unwind();
      await this.#save(this.find(id), {
        phase: record.state.startedAtMs === 0 ? 'created' : 'exited',
        pid: 0,
        exitCode: exitCodeOf(error),
        error: describeChain(error),
        finishedAtMs: record.state.finishedAtMs,
      });
      throw error;
    }
  }

  async #withRoot<T>(id: string, use: (rootfs: string) => Promise<T>): Promise<T> {
    const { roots } = this.#o.parts;
    const rootfs = await roots.mount(id);
    try {
      return await use(rootfs);
    } finally {
      await roots.unmount(id);
    }
  }

  async #config(
    record: ContainerRecord,
    rootfs: string,
    net: { namespace: string | undefined; files: { path: string; source: string }[] },
  ): Promise<ReturnType<typeof ociConfig>> {
    const { parts, settings, host } = this.#o;
    const { id, spec, process } = record;
    const [user, devices, mounts] = await Promise.all([
      this.#user(record, process.user),
      settings.devices(spec),
      Promise.all(record.mounts.map((mount) => parts.volumes.attach(id, mount))),
    ]);
    const join = { ...this.#joined(spec), ...(net.namespace === undefined ? {} : { network: net.namespace }) };
    return ociConfig({
      id,
      spec,
      process,
      user,
      hostname: record.hostname,
      rootfs,
      mounts: mounts.sort((a, b) => (a.destination < b.destination ? -1 : 1)),
      files: net.files,
      join,
      ...this.#sharedMemory(record),
      cgroupsPath: `${spec.resources.cgroupParent ?? settings.cgroupParent}/${id}`,
      devices,
      host,
    });
  }

  /** Names mean what the container's own files say. */
  async #user({ id, spec }: ContainerRecord, wish: string): Promise<ResolvedUser> {
    const read = (path: string): Promise<string> => this.#o.parts.roots.readFile(id, path);
    const [passwd, group] = await Promise.all([read('/etc/passwd'), read('/etc/group')]);
    return resolveUser(wish, { passwd, group }, spec.process.groups);
  }

  /** Namespaces of sandboxes, and those of other containers by the pid that is theirs now. */
  #joined(spec: ContainerSpec): Partial<Record<'network' | 'pid' | 'ipc' | 'uts', string>> {
    const join: Partial<Record<'network' | 'pid' | 'ipc' | 'uts', string>> = {};
    for (const type of ['network', 'pid', 'ipc', 'uts'] as const) {
      const mode = spec.namespaces[type];
      if (mode.kind === 'sandbox') {
        const path = this.#o.parts.sandboxes.find(mode.id).namespaces[type];
        if (path !== undefined) join[type] = path;
      }
      // A shared network comes with the attachment, since its files do too.
      if (mode.kind === 'container' && type !== 'network')
        join[type] = `/proc/${this.#host(mode.id, type).state.pid}/ns/${type}`;
    }
    return join;
  }

  /** Where `/dev/shm` comes from when it is not the container's own: POSIX shared memory goes with the IPC namespace. */
  #sharedMemory({ id, spec }: ContainerRecord): { shmSource?: string } {
    const { ipc } = spec.namespaces;
    if (ipc.kind === 'host') return { shmSource: '/dev/shm' };
    if (ipc.kind === 'shareable') return { shmSource: this.#o.parts.roots.memoryOf(id) };
    if (ipc.kind !== 'container') return {};
    const donor = this.#host(ipc.id, 'ipc');
    const { kind } = donor.spec.namespaces.ipc;
    if (kind !== 'shareable' && kind !== 'host')
      throw new WrongPhase({
        message: `cannot join IPC namespace of container ${donor.name}: non-shareable IPC`,
        hint: 'start that one with --ipc shareable',
      });
    return this.#sharedMemory(donor);
  }

  #sharedNetwork({ namespaces: { network } }: ContainerSpec): { sharedWith?: { id: string; pid: number } } {
    if (network.kind !== 'container') return {};
    const { id, state } = this.#host(network.id, 'network');
    return { sharedWith: { id, pid: state.pid } };
  }

  /** The container whose namespace is to be joined; it must run. */
  #host(name: string, type: string): ContainerRecord {
    const other = this.find(name);
    if (!isRunning(other.state))
      throw new WrongPhase({ message: `cannot join ${type} namespace of a non running container: ${other.name}` });
    return other;
  }

  #io({ id, spec }: ContainerRecord): IoWish {
    const { driver, options } = spec.logging;
    const format = driver === 'none' ? 'none' : driver === 'local' ? 'cri' : 'json';
    const maxBytes = parseSizeBytes(options['max-size'] ?? '') ?? 20 * 1024 * 1024; // rotation is on by default: logs must never fill the disk
    const maxFiles = Number(options['max-file'] ?? 5);
    return {
      terminal: spec.process.tty,
      stdin: spec.process.stdin,
      stdinOnce: spec.process.stdinOnce,
      log: { format, path: this.#o.settings.logPath(id), maxBytes, maxFiles },
    };
  }

  /** From here the run is ours to watch: its end, and its health. */
  #watch(id: string, process: RunningProcess): void {
    const live: Live = { process };
    this.#live.set(id, live);
    const { health } = this.find(id).process;
    if (health) live.health = this.#watchHealth(id, live);
    void this.#queueFinish(id, live).catch((error) =>
      this.#o.log.error('the end of a container could not be recorded', { id, error: describeChain(error) }),
    );
  }

  #watchHealth(id: string, live: Live): HealthWatch {
    return new HealthWatch({
      clock: this.#o.clock,
      record: () => this.find(id),
      launch: (probe, argv) =>
        this.execs.launch(id, probe, {
          argv,
          env: [],
          tty: false,
          privileged: false,
          attach: { stdin: false, stdout: true, stderr: true },
        }),
      changed: async (health, became) => {
        if (this.#live.get(id) !== live) return;
        await this.#save(this.find(id), { health });
        if (!became) return;
        this.#tell(this.find(id), `health_status: ${became}`);
        if (became === 'unhealthy' && this.find(id).spec.restart.onUnhealthy) {
          this.#o.log.info('restarting a container that is unhealthy', { id });
          void this.restart(id).catch((error) => this.#failedRestart(id, error));
        }
      },
    });
  }

  async #stop(record: ContainerRecord, how: { signal?: string; graceMs?: number }): Promise<void> {
    const { id, spec, process } = record;
    const live = this.#live.get(id);
    if (!live) return;
    await this.#save(record, { stoppedByHand: true });
    const graceMs =
      how.graceMs ??
      (spec.stop.timeoutSeconds === undefined ? this.#o.settings.stopGraceMs : spec.stop.timeoutSeconds * 1000);
    if (record.state.phase === 'paused') await live.process.resume();
    await live.process.signal(stopSignalOf(how.signal ?? process.stopSignal));
    if (!(await this.#ended(live, graceMs))) {
      await live.process.signal(SIGKILL);
      if (!(await this.#ended(live, KILL_WAIT_MS)))
        throw new WrongPhase({
          message: `container ${id} does not end`,
          hint: 'a system call holds it: see /proc/PID/stack',
        });
    }
    await this.#finish(id, live, await live.process.wait());
  }

  /** Whether the process ends within the time; −1 waits without end. */
  async #ended(live: Live, withinMs: number): Promise<boolean> {
    let cancel: () => void = () => undefined;
    const late = new Promise<false>((resolve) => {
      if (withinMs >= 0) cancel = this.#o.clock.after(withinMs, () => resolve(false));
    });
    const ended = live.process.wait().then(() => true as const);
    try {
      return await Promise.race([ended, late]);
    } finally {
      cancel();
    }
  }

  async #queueFinish(id: string, live: Live): Promise<void> {
    const status = await live.process.wait();
    await this.#queue.run(id, () => this.#finish(id, live, status));
  }

  /** The end of a run, once: by whoever is first, the stop that waited or the watch. */
  async #finish(id: string, live: Live, status: ExitStatus): Promise<void> {
    if (this.#live.get(id) !== live) return;
    this.#live.delete(id);
    live.health?.close();
    const record = this.find(id);
    await this.#cleanUp(record);
    const ended = {
      phase: 'exited' as const,
      pid: 0,
      exitCode: status.code,
      oomKilled: status.oomKilled,
      finishedAtMs: status.atMs,
    };
    const next = afterExit(record.spec.restart, record.state, {
      code: status.code,
      ranMs: status.atMs - record.state.startedAtMs,
    });
    await this.#save(record, {
      ...ended,
      ...(next.restart ? { phase: 'restarting', restartCount: record.state.restartCount + 1 } : {}),
    });
    if (status.oomKilled) this.#tell(record, 'oom');
    this.#tell(record, 'die', {
      exitCode: String(status.code),
      execDuration: String(Math.floor((status.atMs - record.state.startedAtMs) / 1000)),
    });
    this.#o.log.debug('container ended', { id, code: status.code, next: next.why });
    this.#settle(id, { exitCode: status.code }, false);
    if (next.restart)
      this.#restarts.set(
        id,
        this.#o.clock.after(next.afterMs, () => void this.#restartLater(id)),
      );
    else if (record.spec.autoRemove) await this.#remove(this.find(id), true);
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
      this.#tell(this.find(record.id), 'start');
    } catch (error) {
      this.#failedRestart(record.id, error);
    }
  }

  #failedRestart(id: string, error: unknown): void {
    this.#o.log.error('a container could not be started again', { id, error: describeChain(error) });
  }

  #cancelRestart(id: string): boolean {
    const cancel = this.#restarts.get(id);
    cancel?.();
    return this.#restarts.delete(id);
  }

  /** What a run held: the process's leavings, the network, the mounted root. */
  async #cleanUp({ id }: ContainerRecord): Promise<void> {
    const { parts } = this.#o;
    const tried = async (what: string, release: () => Promise<void>): Promise<void> => {
      try {
        await release();
      } catch (error) {
        const why = { id, what, error: describeChain(error) };
        this.#o.log.error('cleaning up after a container failed; the next sweep tries again', why);
      }
    };
    await tried('process', () => parts.processes.remove(id)); // first: it may still use the others
    await Promise.all([
      tried('network', () => parts.network.detach(id)),
      tried('root', () => parts.roots.unmount(id)),
      tried('shared memory', () => parts.roots.unshareMemory(id)),
      tried('volumes', () => parts.volumes.detach(id)),
    ]);
  }

  async #remove(record: ContainerRecord, removeAnonymous: boolean): Promise<void> {
    const { parts, registry, settings } = this.#o;
    const { id } = record;
    this.#cancelRestart(id);
    await this.#save(record, { phase: 'removing' });
    await parts.processes.remove(id);
    await Promise.all([
      parts.network.release(id),
      parts.roots.remove(id),
      parts.volumes.release(id, record.mounts, { removeAnonymous }),
      settings.removeLogs(id),
    ]);
    await registry.forget(id);
    this.#tell(record, 'destroy');
    this.#settle(id, { exitCode: record.state.exitCode }, true);
    this.#waiters.delete(id);
    this.#attaching.delete(id);
  }

  #settle(id: string, result: WaitResult, removed: boolean): void {
    for (const settle of [...(this.#waiters.get(id) ?? [])]) settle(result, removed);
  }

  #change(wish: string, work: (record: ContainerRecord, process: RunningProcess) => Promise<void>): Promise<void> {
    const { id } = this.find(wish);
    return this.#queue.run(id, () => work(this.find(id), this.running(id)));
  }

  async #save(record: ContainerRecord, change: Partial<ContainerState>): Promise<void> {
    await this.#o.registry.save({ ...record, state: { ...record.state, ...change } });
  }

  #tell(record: ContainerRecord, action: string, extra: Record<string, string> = {}): void {
    const attributes = { ...record.process.labels, image: record.image.reference, name: record.name, ...extra };
    this.#o.events.publish({ type: 'container', action, id: record.id, attributes });
  }
}

/** Volumes of the image where nothing is mounted. */
function imageVolumes(spec: ContainerSpec, volumes: readonly string[]): ContainerSpec['mounts'] {
  const free = volumes.filter((target) => !spec.mounts.some((m) => m.target === target));
  return free.map((target) => ({ type: 'volume', name: '', target, readonly: false, noCopy: false, labels: {} }));
}

function stopSignalOf(text: string): number {
  try {
    return signalNumber(text);
  } catch (error) {
    throw new BadSignal({ signal: text }, { cause: error });
  }
}
