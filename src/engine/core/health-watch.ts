import type { Clock } from '#base/clock.ts';
import { messageOf } from '#base/errors.ts';
import { execToEnd } from '#engine/core/exec-output.ts';
import { afterProbe, HEALTH_START, probeArgv, probeDelayMs } from '#engine/core/health.ts';
import type { ExecProcess } from '#engine/core/parts.ts';
import type { ContainerRecord, HealthResult, HealthState } from '#engine/core/record.ts';
import type { HealthSpec } from '#engine/core/spec.ts';

export interface HealthWatchOptions {
  clock: Clock;
  record: () => ContainerRecord;
  /** A probe's program in the container, not yet running. */
  launch: (id: string, argv: string[]) => Promise<ExecProcess>;
  /** `became` is set when the status is another than before. */
  changed: (health: HealthState, became: HealthState['status'] | undefined) => Promise<void>;
}

const OUTPUT_BYTES = 4096;

/** Probes one run of a container until it is closed: one probe at a time, the next one after the last has ended. */
export class HealthWatch {
  readonly #o: HealthWatchOptions;
  #cancel: () => void = () => undefined;
  #closed = false;

  constructor(options: HealthWatchOptions) {
    this.#o = options;
    const check = options.record().process.health;
    if (!check) return;
    void options.changed(HEALTH_START, undefined).then(() => this.#schedule(check, HEALTH_START));
  }

  close(): void {
    this.#closed = true;
    this.#cancel();
  }

  #schedule(check: HealthSpec, state: HealthState): void {
    if (this.#closed) return;
    const delayMs = probeDelayMs(check, state, this.#sinceStartMs());
    this.#cancel = this.#o.clock.after(delayMs, () => void this.#probe(check, state));
  }

  async #probe(check: HealthSpec, before: HealthState): Promise<void> {
    const result = await this.#run(check);
    if (this.#closed) return;
    const after = afterProbe(check, before, result, this.#sinceStartMs());
    await this.#o.changed(after, after.status === before.status ? undefined : after.status);
    this.#schedule(check, after);
  }

  async #run(check: HealthSpec): Promise<HealthResult> {
    const { clock, launch } = this.#o;
    const startMs = clock.now();
    const done = (exitCode: number, output: string): HealthResult => ({
      startMs,
      endMs: clock.now(),
      exitCode,
      output,
    });
    try {
      const exec = await launch('health', probeArgv(check));
      const { code, output, late } = await execToEnd(exec, {
        clock,
        timeoutMs: check.timeoutNs / 1e6,
        outputBytes: OUTPUT_BYTES,
      });
      return late
        ? done(-1, `Health check exceeded timeout (${check.timeoutNs / 1e9}s): ${output}`)
        : done(code, output);
    } catch (error) {
      return done(-1, messageOf(error));
    }
  }

  #sinceStartMs(): number {
    return this.#o.clock.now() - this.#o.record().state.startedAtMs;
  }
}
