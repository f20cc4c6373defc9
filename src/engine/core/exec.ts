import { unlinkSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#base/clock.ts';
import { defineError } from '#base/errors.ts';
import { newId, type Random } from '#base/random.ts';
import { containerCapabilities } from '#engine/core/capabilities.ts';
import { exitCodeOf, WrongPhase } from '#engine/core/errors.ts';
import type { ExecProcess, ExitStatus, RunningProcess } from '#engine/core/parts.ts';
import type { ContainerRecord } from '#engine/core/record.ts';
import type { ResolvedUser } from '#engine/core/user.ts';
import type { OciProcess } from '#spec/oci/config.ts';

/** A second program in a running container: what is asked for. */
export interface ExecSpec {
  argv: string[];
  env: string[];
  /** Absent: the container's. */
  cwd?: string;
  user?: string;
  tty: boolean;
  consoleSize?: { rows: number; columns: number };
  privileged: boolean;
  attach: { stdin: boolean; stdout: boolean; stderr: boolean };
  detachKeys?: string;
}

export interface ExecRecord {
  id: string;
  containerId: string;
  spec: ExecSpec;
  pid: number;
  running: boolean;
  /** Once it has ended. */
  exitCode?: number;
}

export const NoSuchExec = defineError('NO_SUCH_EXEC', (d: { id: string }) => ({
  message: `No such exec instance: ${d.id}`,
}));

/** `process` of an exec: the container's own settings, with what was asked for over them. Pure. */
export function execProcess(
  record: ContainerRecord,
  spec: ExecSpec,
  user: ResolvedUser,
  bounding: readonly string[],
): OciProcess {
  const security = { ...record.spec.security, privileged: record.spec.security.privileged || spec.privileged };
  const capabilities = containerCapabilities(security, bounding);
  const active = user.uid === 0 ? capabilities : [];
  const env = [
    ...(record.linkEnv ?? []),
    ...record.process.env,
    ...(spec.tty && !spec.env.some((e) => e.startsWith('TERM=')) ? ['TERM=xterm'] : []),
    ...spec.env,
  ];
  return {
    terminal: spec.tty,
    ...(spec.consoleSize ? { consoleSize: { height: spec.consoleSize.rows, width: spec.consoleSize.columns } } : {}),
    cwd: spec.cwd || record.process.cwd,
    env: [
      ...new Map(
        [`HOSTNAME=${record.hostname}`, `HOME=${user.home}`, ...env].map((e) => [e.split('=')[0], e]),
      ).values(),
    ],
    args: spec.argv,
    user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
    capabilities: { bounding: capabilities, permitted: active, effective: active, inheritable: [], ambient: [] },
    noNewPrivileges: record.spec.security.noNewPrivileges,
    rlimits: record.spec.ulimits.map((u) => ({ type: `RLIMIT_${u.name.toUpperCase()}`, soft: u.soft, hard: u.hard })),
    oomScoreAdj: record.spec.oomScoreAdj,
  };
}

export interface ExecHost {
  running: (containerId: string) => RunningProcess;
  record: (containerId: string) => ContainerRecord;
  user: (record: ContainerRecord, wish: string | undefined) => Promise<ResolvedUser>;
  bounding: readonly string[];
  random: Random;
  clock: Clock;
  /** How one ended that was started by an earlier daemon. */
  exit: (containerId: string, id: string) => Promise<ExitStatus | undefined>;
  /** `R/execs`: one file for each that runs, so that the next daemon knows it. A reboot ends them all. */
  directory?: string | undefined;
  tell: (record: ContainerRecord, action: string, attributes: Record<string, string>) => void;
}

const SIGHUP = 1;
/** Ended execs are kept this many to be asked for their exit code. */
const KEPT = 1_000;

/** The execs of this daemon's life, made and then started: Docker's two steps. */
export class Execs {
  readonly #host: ExecHost;
  readonly #records = new Map<string, ExecRecord>();
  readonly #processes = new Map<string, ExecProcess>();
  readonly #ends = new Map<string, Promise<void>>();

  constructor(host: ExecHost) {
    this.#host = host;
  }

  find(id: string): ExecRecord {
    const record = this.#records.get(id);
    if (!record) throw new NoSuchExec({ id });
    return record;
  }

  of(containerId: string): string[] {
    return [...this.#records.values()]
      .filter((r) => r.containerId === containerId && r.exitCode === undefined)
      .map((r) => r.id);
  }

  create(containerId: string, spec: ExecSpec): ExecRecord {
    const container = this.#host.record(containerId);
    if (container.state.phase === 'paused')
      throw new WrongPhase({ message: `Container ${container.name} is paused, unpause the container before exec` });
    this.#host.running(container.id);
    const record: ExecRecord = {
      id: newId(this.#host.random),
      containerId: container.id,
      spec,
      pid: 0,
      running: false,
    };
    this.#records.set(record.id, record);
    this.#forgetOld();
    this.#host.tell(container, `exec_create: ${spec.argv.join(' ')}`, { execID: record.id });
    return record;
  }

  /** Those of an earlier daemon: they run on, and their exit codes are asked for. */
  async recover(): Promise<void> {
    const { directory } = this.#host;
    if (directory === undefined) return;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    for (const id of await readdir(directory)) {
      const text = await readFile(join(directory, id), 'utf8');
      if (text === '') continue; // cut off while it was written: its program never ran
      this.#records.set(id, JSON.parse(text) as ExecRecord);
    }
  }

  /** Resolves when its exit code is known here: a client that saw the end of the output asks for it next. */
  async ended(id: string): Promise<void> {
    await this.#ends.get(id);
  }

  /** As `find`, with the end of one that nobody watched looked up. */
  async look(id: string): Promise<ExecRecord> {
    const record = this.find(id);
    if (!record.running || this.#processes.has(id)) return record;
    const exit = await this.#host.exit(record.containerId, id);
    if (exit) this.#ended(record, exit.code);
    return record;
  }

  /** Refuses what `start` would refuse before it does anything. */
  check(id: string): void {
    const record = this.find(id);
    if (record.running || record.exitCode !== undefined)
      throw new WrongPhase({ message: `exec ${id} has been started already` });
    this.#host.running(record.containerId);
  }

  /** `join` gets the streams before the program runs. Resolves when it runs; its end is awaited with `wait`. */
  async start(id: string, join: (process: ExecProcess) => void): Promise<void> {
    this.check(id);
    const record = this.find(id);
    record.running = true;
    this.#keep(record);
    try {
      const process = await this.launch(record.containerId, record.id, record.spec);
      record.pid = process.pid;
      this.#processes.set(id, process);
      join(process);
      await process.start();
      this.#host.tell(this.#host.record(record.containerId), `exec_start: ${record.spec.argv.join(' ')}`, {
        execID: id,
      });
      const end = process.wait().then(({ code }) => this.#ended(record, code));
      this.#ends.set(id, end);
    } catch (error) {
      this.#ended(record, exitCodeOf(error));
      throw error;
    }
  }

  /** Without a record: health checks. */
  async launch(containerId: string, id: string, spec: ExecSpec): Promise<ExecProcess> {
    const container = this.#host.record(containerId);
    const user = await this.#host.user(container, spec.user);
    const process = execProcess(container, spec, user, this.#host.bounding);
    return this.#host
      .running(container.id)
      .exec(id, process, { terminal: spec.tty, stdin: spec.attach.stdin, stdinOnce: spec.attach.stdin });
  }

  async wait(id: string): Promise<number> {
    const process = this.#processes.get(id);
    return process ? (await process.wait()).code : (this.find(id).exitCode ?? 0);
  }

  async resize(id: string, rows: number, columns: number): Promise<void> {
    const process = this.#processes.get(id);
    if (!process) throw new WrongPhase({ message: `exec ${this.find(id).id} is not running` });
    await process.resize(rows, columns);
  }

  /** The terminal it ran in is gone: programs end as when a line is cut, or have asked not to (nohup). */
  async hangUp(id: string): Promise<void> {
    await this.#processes.get(id)?.signal(SIGHUP);
  }

  #ended(record: ExecRecord, exitCode: number): void {
    record.running = false;
    record.exitCode = exitCode;
    this.#processes.delete(record.id);
    this.#ends.delete(record.id);
    // Whoever waits for the end hears of it first. The shim's own file of it goes later still: a record without it would run for ever.
    setImmediate(() => this.#forget(record.id));
    try {
      this.#host.tell(this.#host.record(record.containerId), 'exec_die', {
        execID: record.id,
        exitCode: String(exitCode),
      });
    } catch {
      // The container is gone with its exec: there is nobody left to tell it of.
    }
  }

  /** By this thread, as is its removal: a small file in memory, where a turn through others costs ten times the call. */
  #keep(record: ExecRecord): void {
    const { directory } = this.#host;
    if (directory !== undefined) writeFileSync(join(directory, record.id), JSON.stringify(record), { mode: 0o600 });
  }

  #forget(id: string): void {
    const { directory } = this.#host;
    if (directory === undefined) return;
    try {
      unlinkSync(join(directory, id));
    } catch {
      // Left behind it is only found ended by the next daemon; of one that never ran there is none.
    }
  }

  #forgetOld(): void {
    for (const [id, record] of this.#records) {
      if (this.#records.size <= KEPT) return;
      if (!record.running) this.#records.delete(id);
    }
  }
}
