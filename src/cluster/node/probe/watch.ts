import type { Clock } from '#base/clock.ts';
import { afterProbe, nextProbeMs, PROBE_START, type ProbeKind, type ProbeState } from '#cluster/node/probe/probe.ts';
import type { Container, Probe } from '#spec/kubernetes/types.gen.ts';

export interface ProbeOutcome {
  ok: boolean;
  output: string;
}

export interface ProbeWatchOptions {
  container: Container;
  clock: Clock;
  startedAtMs: number;
  /** Found again after a restart of ours, as it was reported last: it goes on from there. */
  adopted: { started: boolean; ready: boolean } | undefined;
  run: (probe: Probe, kind: ProbeKind) => Promise<ProbeOutcome>;
  /** A verdict is another than before. */
  changed: () => void;
  /** A probe failed that counts. */
  failed: (kind: ProbeKind, outcome: ProbeOutcome) => void;
}

/**
 * Probes one run of a container until it is closed. Liveness and readiness begin when the startup probe has succeeded; each
 * probe is asked again a period after its last answer.
 */
export class ProbeWatch {
  readonly #o: ProbeWatchOptions;
  readonly #states = new Map<ProbeKind, ProbeState>();
  readonly #timers = new Map<ProbeKind, () => void>();
  #closed = false;

  constructor(options: ProbeWatchOptions) {
    this.#o = options;
    const { container, adopted } = options;
    if (container.startupProbe && !adopted?.started) this.#begin('startup', container.startupProbe);
    else this.#beginOthers();
  }

  started(): boolean {
    const { adopted, container } = this.#o;
    return adopted?.started === true || !container.startupProbe || this.#verdict('startup') === 'success';
  }

  ready(): boolean {
    return this.started() && (!this.#o.container.readinessProbe || this.#verdict('readiness') === 'success');
  }

  /** Why the container has to be ended, with the grace its probe asks for. */
  condemned(): { why: string; graceSeconds: number | undefined } | undefined {
    const { container } = this.#o;
    for (const kind of ['startup', 'liveness'] as const) {
      if (this.#verdict(kind) !== 'failure') continue;
      const probe = kind === 'startup' ? container.startupProbe : container.livenessProbe;
      return {
        why: `Container ${container.name} failed ${kind} probe, will be restarted`,
        graceSeconds: probe?.terminationGracePeriodSeconds,
      };
    }
    return undefined;
  }

  close(): void {
    this.#closed = true;
    for (const cancel of this.#timers.values()) cancel();
  }

  #beginOthers(): void {
    const { livenessProbe, readinessProbe } = this.#o.container;
    if (readinessProbe) this.#begin('readiness', readinessProbe);
    if (livenessProbe) this.#begin('liveness', livenessProbe);
  }

  #begin(kind: ProbeKind, probe: Probe): void {
    const wasReady = kind === 'readiness' && this.#o.adopted?.ready === true;
    this.#states.set(kind, wasReady ? { ...PROBE_START, verdict: 'success', last: true } : PROBE_START);
    const delayMs = (probe.initialDelaySeconds ?? 0) * 1000 - (this.#o.clock.now() - this.#o.startedAtMs);
    this.#schedule(kind, probe, Math.max(0, delayMs));
  }

  #schedule(kind: ProbeKind, probe: Probe, delayMs: number): void {
    if (this.#closed) return;
    this.#timers.set(
      kind,
      this.#o.clock.after(delayMs, () => void this.#probe(kind, probe)),
    );
  }

  async #probe(kind: ProbeKind, probe: Probe): Promise<void> {
    const outcome = await this.#o.run(probe, kind);
    if (this.#closed) return;
    const before = this.#states.get(kind) ?? PROBE_START;
    const after = afterProbe(probe, kind, before, outcome.ok);
    this.#states.set(kind, after);
    if (!outcome.ok && after.last === false) this.#o.failed(kind, outcome);
    if (after.verdict !== before.verdict) {
      if (kind === 'startup' && after.verdict === 'success') this.#beginOthers();
      this.#o.changed();
    }
    // A startup probe has said its last word; a container condemned is not asked any more.
    const over = after.verdict !== 'unknown' && kind === 'startup';
    if (!over && !(kind === 'liveness' && after.verdict === 'failure'))
      this.#schedule(kind, probe, nextProbeMs(probe, kind, after));
  }

  #verdict(kind: ProbeKind): ProbeState['verdict'] {
    return this.#states.get(kind)?.verdict ?? 'unknown';
  }
}
