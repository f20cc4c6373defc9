import { Chores } from '#base/chores.ts';
import type { Clock } from '#base/clock.ts';
import { describeChain, messageOf } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { nextTurn } from '#base/queue.ts';
import { Undo } from '#base/undo.ts';
import { parseSizeBytes } from '#base/units.ts';
import { containerCapabilities } from '#engine/core/capabilities.ts';
import { exitCodeOf } from '#engine/core/errors.ts';
import { HEALTH_START } from '#engine/core/health.ts';
import { joinedNamespaces, type Neighbours, sharedMemory, sharedNetwork } from '#engine/core/joining.ts';
import { linkVariables, oldLinks } from '#engine/core/links.ts';
import { logFilesOf } from '#engine/core/log-files.ts';
import { type OciHost, ociConfig } from '#engine/core/oci.ts';
import { ociResources } from '#engine/core/oci-resources.ts';
import { withOwners } from '#engine/core/owner-map.ts';
import type { Attachment, CreatedProcess, IoWish, NodeParts, RunningProcess } from '#engine/core/parts.ts';
import { type ContainerRecord, phaseAtRest } from '#engine/core/record.ts';
import type { ContainerRegistry } from '#engine/core/registry.ts';
import { SeccompProfiles } from '#engine/core/seccomp-profiles.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';
import { type ResolvedUser, resolveUser } from '#engine/core/user.ts';
import type { CgroupPlan } from '#kernel/cgroup/plan.ts';
import type { OciConfig, OciMount } from '#spec/oci/config.ts';
import type { LinuxDevice } from '#spec/oci/linux.ts';

export interface LaunchOptions {
  parts: NodeParts;
  registry: ContainerRegistry;
  clock: Clock;
  log: Logger;
  host: OciHost;
  settings: {
    /** Parent of all our cgroups, `/estiba`. */
    cgroupParent: string;
    /** `${logDirectory}/ID/ID-json.log`, by id. */
    logPath: (id: string) => string;
    devices: (spec: ContainerSpec) => Promise<LinuxDevice[]>;
  };
}

/** What a run holds, as its configuration names it. */
export interface Holdings {
  rootfs: string;
  network: Pick<Attachment, 'namespace' | 'userNamespace' | 'files'>;
  user: ResolvedUser;
  mounts: OciMount[];
}

/** A client that is there when the program's first byte comes. */
export type Joiner = (process: CreatedProcess) => Promise<void>;

const LOG_MAX_BYTES = 20 * 1024 * 1024; // rotation is on by default: logs must never fill the disk

/** What is still to go; `hurry` has it go at once. It tells of its failures itself. */
interface Leaving {
  done: Promise<void>;
  hurry: () => void;
}

/** One run of a container: everything it holds taken at its start, and given back at its end. */
export class Launcher {
  readonly #o: LaunchOptions;
  readonly #joiners = new Map<string, Set<Joiner>>();
  readonly #profiles: SeccompProfiles;
  /** What goes behind the news of an end. */
  readonly #leaving = new Map<string, Leaving>();
  readonly #chores: Chores;

  constructor(options: LaunchOptions) {
    this.#o = options;
    this.#profiles = new SeccompProfiles(options.host);
    this.#chores = new Chores(options.clock);
  }

  /** `run` from every front end ends here. Each line is a chapter. */
  async launch(record: ContainerRecord): Promise<RunningProcess> {
    await using undo = new Undo((what, error) =>
      this.#o.log.error('undo of a start failed', { id: record.id, what, error: messageOf(error) }),
    );
    const { parts, registry } = this.#o;
    const { id } = record;
    try {
      this.#chores.stir();
      await this.released(id);
      await registry.noteState(record, { phase: 'starting', error: '' });
      const { rootfs, network, cgroups } = await this.#rootAndNetwork(record, undo);
      undo.add('volumes', () => parts.volumes.detach(id));
      if (record.spec.namespaces.ipc.kind === 'shareable') {
        undo.add('shared memory', () => parts.roots.unshareMemory(id));
        await parts.roots.shareMemory(id, record.spec.shmBytes);
      }
      const linkEnv = this.#linkEnv(record);
      const config = await this.#config({ ...record, linkEnv }, rootfs, network);
      if (namesLinks(record.spec)) await network.plug();
      // Made while its network is plugged: the namespace is there, and the program waits for the word.
      const { runtime } = record.spec;
      const how = { ...(runtime === undefined ? {} : { runtime }), ...(cgroups ? { cgroups } : {}) };
      const creating = parts.processes.create(id, config, this.#io(record), how);
      const [process] = await Promise.all([
        undo.acquire('process', creating, () => parts.processes.remove(id)),
        network.plug(),
      ]);
      for (const join of this.#joiners.get(id) ?? []) await join(process);
      this.#joiners.delete(id);
      await this.#recordRunning(id, process, { ...network, linkEnv });
      // The disk is asked first: it takes longer than the program's start, of which this process has no part.
      await Promise.all([registry.settled(), process.start()]);
      undo.keep();
      return process;
    } catch (error) {
      await undo.unwind();
      await registry.saveState(registry.find(id), {
        phase: phaseAtRest(record.state),
        pid: 0,
        exitCode: exitCodeOf(error),
        error: describeChain(error),
        finishedAtMs: record.state.finishedAtMs,
      });
      throw error;
    }
  }

  /**
   * What a run held: the process's leavings, the network, the mounted root. Every step is tried. Answers when its addresses and ports
   * are free for others; the rest goes behind that, since nobody but the container's own next run or removal asks for it, and those
   * wait in `released`. An unmount takes the kernel a millisecond, and as long as the disk where others write much.
   */
  async release(id: string): Promise<void> {
    const { parts } = this.#o;
    const tried = (what: string, release: () => Promise<void>): Promise<void> => this.#tried(id, what, release);
    await tried('process', () => parts.processes.end(id)); // first: it may still use the others
    const network = tried('network', () => parts.network.detach(id));
    this.#leaves(id, async (turn) => {
      await turn;
      // Its mounts hold the others until it is removed: a volume's file must not be mounted a second time beside itself.
      await tried('leavings of the process', () => parts.processes.remove(id));
      await Promise.all([
        network,
        tried('root', () => parts.roots.unmount(id)),
        tried('shared memory', () => parts.roots.unshareMemory(id)),
        tried('volumes', () => parts.volumes.detach(id)),
      ]);
    });
    await network;
  }

  /** Behind the news that a container was removed `clear` takes away what is left of it, as soon as it is its turn. */
  clear(id: string, clear: (turn: Promise<void>) => Promise<void>): void {
    this.#leaves(id, (turn) => this.#tried(id, 'leavings of the container', () => clear(turn)));
  }

  /** Nothing that the last run held is left. */
  async released(id: string): Promise<void> {
    const leaving = this.#leaving.get(id);
    leaving?.hurry();
    await leaving?.done;
  }

  /** The same of all runs that have ended. */
  async allReleased(): Promise<void> {
    await Promise.all([...this.#leaving.keys()].map((id) => this.released(id)));
  }

  /** A client that attaches before the start is there when the program's first byte comes. Returns what cancels it. */
  onNextStart(id: string, join: Joiner): () => void {
    const joiners = this.#joiners.get(id) ?? new Set();
    this.#joiners.set(id, joiners);
    joiners.add(join);
    return () => joiners.delete(join);
  }

  /** The container is gone: whoever waited for its next start waits no more. */
  forget(id: string): void {
    this.#joiners.delete(id);
  }

  /** As whom a program runs: names mean what the container's own files say. Its root has to be mounted. */
  async user({ id, spec }: ContainerRecord, wish: string): Promise<ResolvedUser> {
    const read = (path: string): Promise<string> => this.#o.parts.roots.readFile(id, path);
    const [passwd, group] = await Promise.all([read('/etc/passwd'), read('/etc/group')]);
    return resolveUser(wish, { passwd, group }, spec.process.groups);
  }

  sharedNetwork({ spec }: ContainerRecord): ReturnType<typeof sharedNetwork> {
    return sharedNetwork(spec, this.#neighbours);
  }

  async #tried(id: string, what: string, release: () => Promise<void>): Promise<void> {
    try {
      await release();
    } catch (error) {
      const why = { id, what, error: describeChain(error) };
      this.#o.log.error('cleaning up after a container failed; the next sweep tries again', why);
    }
  }

  /** `leave` begins with its turn, which comes behind what is leaving of the same container already. */
  #leaves(id: string, leave: (turn: Promise<void>) => Promise<void>): void {
    const before = this.#leaving.get(id);
    let begin: () => void = () => undefined;
    const turn = new Promise<void>((resolve) => (begin = resolve));
    const done = leave(turn).then(() => {
      if (this.#leaving.get(id)?.done === done) this.#leaving.delete(id);
    });
    const hurry = this.#chores.add(async () => {
      before?.hurry();
      await before?.done;
      begin();
      await done;
    });
    this.#leaving.set(id, { done, hurry });
  }

  /**
   * Neither needs the other; both are awaited, so that undo finds them at rest. The mount takes longest, so it is asked for first, and
   * what can be decided without the root is decided meanwhile.
   */
  async #rootAndNetwork(
    record: ContainerRecord,
    undo: Undo,
  ): Promise<{ rootfs: string; network: Attachment; cgroups: CgroupPlan | undefined }> {
    const { parts } = this.#o;
    const { id } = record;
    const wish = {
      ...record,
      exposedPorts: record.process.exposedPorts,
      ...sharedNetwork(record.spec, this.#neighbours),
    };
    const [root, network, cgroups] = await Promise.allSettled([
      parts.roots.mount(id, { by: record.spec.origin.by, volatile: record.spec.autoRemove }),
      nextTurn().then(() => parts.network.attach(id, wish)),
      nextTurn().then(() => this.#cgroupsAhead(record)),
    ]);
    if (root.status === 'fulfilled') undo.add('root', () => parts.roots.unmount(id));
    if (network.status === 'fulfilled')
      undo.add('network', async () => {
        await Promise.allSettled([network.value.plug()]);
        await parts.network.detach(id);
      });
    if (root.status === 'rejected') throw root.reason;
    if (network.status === 'rejected') throw network.reason;
    return {
      rootfs: root.value,
      network: network.value,
      cgroups: cgroups.status === 'fulfilled' ? cgroups.value : undefined, // what is wrong is told with the whole configuration
    };
  }

  async #cgroupsAhead({ id, spec }: ContainerRecord): Promise<CgroupPlan> {
    const { parts, host, settings } = this.#o;
    return parts.processes.planCgroups(id, {
      cgroupsPath: this.#cgroupsPath(id, spec),
      bounding: containerCapabilities(spec.security, host.bounding),
      resources: ociResources({ spec, host, devices: await settings.devices(spec) }),
    });
  }

  #cgroupsPath(id: string, { resources }: ContainerSpec): string {
    return `${resources.cgroupParent ?? this.#o.settings.cgroupParent}/${id}`;
  }

  async #config(record: ContainerRecord, rootfs: string, network: Attachment): Promise<OciConfig> {
    const attaching = record.mounts.map((mount) => this.#o.parts.volumes.attach(record.id, mount));
    // All at rest before a failure is told: a volume attached after the undo that detaches it would be held by nobody, for good.
    const [user, mounts] = await Promise.all([this.user(record, record.process.user), Promise.all(attaching)]).finally(
      () => Promise.allSettled(attaching),
    );
    return this.configOf(record, { rootfs, network, user, mounts });
  }

  /** config.json of a run that holds these; nothing is made. */
  async configOf(record: ContainerRecord, { rootfs, network, user, mounts }: Holdings): Promise<OciConfig> {
    const { settings, host } = this.#o;
    const { id, spec, process } = record;
    const { namespace, userNamespace } = network;
    return ociConfig({
      id,
      spec,
      process: { ...process, env: [...(record.linkEnv ?? []), ...process.env] },
      user,
      hostname: record.hostname,
      rootfs,
      mounts: withOwners(mounts, record).sort((a, b) => (a.destination < b.destination ? -1 : 1)),
      files: network.files,
      join: {
        ...joinedNamespaces(spec, this.#neighbours),
        ...(namespace === undefined ? {} : { network: namespace }),
        ...(userNamespace === undefined ? {} : { user: userNamespace }),
      },
      ...sharedMemory(record, this.#neighbours),
      cgroupsPath: this.#cgroupsPath(id, spec),
      devices: await settings.devices(spec),
      profiles: this.#profiles,
      host,
    });
  }

  /** Of old links. Their targets run, or the network would not have taken them. */
  #linkEnv({ name, spec }: ContainerRecord): string[] {
    const { registry } = this.#o;
    return oldLinks(spec).flatMap(({ target, alias }) => linkVariables(name, alias, registry.find(target)));
  }

  #io({ id, spec }: ContainerRecord): IoWish {
    const { driver, options } = spec.logging;
    const format = driver === 'none' ? 'none' : driver === 'local' ? 'cri' : 'json';
    const maxBytes = parseSizeBytes(options['max-size'] ?? '') ?? LOG_MAX_BYTES;
    const maxFiles = logFilesOf(spec.logging);
    return {
      terminal: spec.process.tty,
      stdin: spec.process.stdin,
      stdinOnce: spec.process.stdinOnce,
      log: { format, path: this.#o.settings.logPath(id), maxBytes, maxFiles },
    };
  }

  /** Before the program runs: whoever hears of it by what it does finds it running. */
  async #recordRunning(
    id: string,
    process: RunningProcess,
    { endpoints, ports, linkEnv }: Pick<ContainerRecord, 'endpoints' | 'ports' | 'linkEnv'>,
  ): Promise<void> {
    const { registry, clock } = this.#o;
    const record = registry.find(id);
    await registry.noteState(
      { ...record, endpoints, ports, ...(linkEnv ? { linkEnv } : {}) },
      {
        phase: 'running',
        pid: process.pid,
        startTicks: process.startTicks,
        exitCode: 0,
        oomKilled: false,
        startedAtMs: clock.now(),
        finishedAtMs: 0,
        ...(record.process.health ? { health: HEALTH_START } : {}),
      },
    );
  }

  get #neighbours(): Neighbours {
    const { registry, parts } = this.#o;
    return {
      find: (name) => registry.find(name),
      sandbox: (id) => parts.sandboxes.find(id),
      memoryOf: (id) => parts.roots.memoryOf(id),
    };
  }
}

/** `net.ipv4.conf.eth0.forwarding` and its like are set while the container is made, and are there once the link is. */
function namesLinks({ sysctls }: ContainerSpec): boolean {
  return Object.keys(sysctls).some((name) => name.startsWith('net.'));
}
