import type { Clock } from '#base/clock.ts';
import { describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { WrongPhase } from '#engine/core/errors.ts';
import { HealthWatch } from '#engine/core/health-watch.ts';
import type { ExecProcess, ExitStatus, RunningProcess } from '#engine/core/parts.ts';
import type { ContainerRecord, HealthState } from '#engine/core/record.ts';

export interface RunsOptions {
  clock: Clock;
  log: Logger;
  record: (id: string) => ContainerRecord;
  /** A health probe's program in the container, not yet running. */
  probe: (id: string, exec: string, argv: string[]) => Promise<ExecProcess>;
  /** `became` is set when the status is another than before. */
  health: (id: string, health: HealthState, became: HealthState['status'] | undefined) => Promise<void>;
  /** Runs the work in line with all other changes of the container. */
  inLine: <T>(id: string, work: () => Promise<T>) => Promise<T>;
  /** What follows the end of a run: called once for each, in line. */
  ended: (id: string, status: ExitStatus) => Promise<void>;
}

/** A container of this node while it runs. */
export interface Run {
  readonly process: RunningProcess;
  /** Ends the watching of this run's health. */
  health?: HealthWatch;
}

const SIGKILL = 9;
/** A killed process is gone in milliseconds, unless the kernel holds it in a system call. */
const KILL_WAIT_MS = 10_000;

/** What runs on this node, each run watched until its end: that end is told once, by whoever is first, a `stop` or the watch. */
export class Runs {
  readonly #o: RunsOptions;
  readonly #runs = new Map<string, Run>();

  constructor(options: RunsOptions) {
    this.#o = options;
  }

  get(id: string): Run | undefined {
    return this.#runs.get(id);
  }

  /** From here the run is ours to watch: its end, and its health. */
  watch(id: string, process: RunningProcess): void {
    const run: Run = { process };
    this.#runs.set(id, run);
    if (this.#o.record(id).process.health) run.health = this.#watchHealth(id, run);
    void this.#untilEnd(id, run).catch((error) =>
      this.#o.log.error('the end of a container could not be recorded', { id, error: describeChain(error) }),
    );
  }

  /** The signal, the grace, SIGKILL, each told by `sent`; then its end is recorded. `graceMs` −1 waits without end. To be called in line. */
  async stop(id: string, how: { signal: number; graceMs: number; sent: (signal: number) => void }): Promise<void> {
    const run = this.#runs.get(id);
    if (!run) return;
    await run.process.signal(how.signal);
    how.sent(how.signal);
    if (!(await this.#endsWithin(run, how.graceMs))) {
      await run.process.signal(SIGKILL);
      how.sent(SIGKILL);
      if (!(await this.#endsWithin(run, KILL_WAIT_MS)))
        throw new WrongPhase({
          message: `container ${id} does not end`,
          hint: 'a system call holds it: see /proc/PID/stack',
        });
    }
    await this.#finish(id, run, await run.process.wait());
  }

  /** After SIGKILL, past the line: who asks for the state next finds it ended. The stop that holds the line writes it, or we do. */
  async killed(id: string, run: Run): Promise<void> {
    if (await this.#endsWithin(run, KILL_WAIT_MS)) await this.#untilEnd(id, run);
  }

  /** Containers run on; nobody probes their health any more. */
  close(): void {
    for (const run of this.#runs.values()) run.health?.close();
  }

  #watchHealth(id: string, run: Run): HealthWatch {
    return new HealthWatch({
      clock: this.#o.clock,
      record: () => this.#o.record(id),
      launch: (exec, argv) => this.#o.probe(id, exec, argv),
      changed: async (health, became) => {
        if (this.#runs.get(id) === run) await this.#o.health(id, health, became);
      },
    });
  }

  /** Whether the process ends within the time; −1 waits without end. */
  async #endsWithin(run: Run, withinMs: number): Promise<boolean> {
    let cancel: () => void = () => undefined;
    const late = new Promise<false>((resolve) => {
      if (withinMs >= 0) cancel = this.#o.clock.after(withinMs, () => resolve(false));
    });
    const ended = run.process.wait().then(() => true as const);
    try {
      return await Promise.race([ended, late]);
    } finally {
      cancel();
    }
  }

  async #untilEnd(id: string, run: Run): Promise<void> {
    const status = await run.process.wait();
    await this.#o.inLine(id, () => this.#finish(id, run, status));
  }

  async #finish(id: string, run: Run, status: ExitStatus): Promise<void> {
    if (this.#runs.get(id) !== run) return;
    this.#runs.delete(id);
    run.health?.close();
    await this.#o.ended(id, status);
  }
}
