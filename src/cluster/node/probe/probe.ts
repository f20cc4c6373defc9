import type { Probe } from '#spec/kubernetes/types.gen.ts';

/** The three probes of a container, as pure decisions over time. */
export type ProbeKind = 'startup' | 'readiness' | 'liveness';

export interface ProbeState {
  /** Like results in a row. */
  streak: number;
  last: boolean | undefined;
  verdict: 'unknown' | 'success' | 'failure';
  /** Probes made so far. */
  count: number;
}

export const PROBE_START: ProbeState = { streak: 0, last: undefined, verdict: 'unknown', count: 0 };

// While a container comes up it is asked more often than its period says: those failures do not count, since nobody waits longer for them.
const EARLY_MS = [50, 100, 200, 400, 800];

export function afterProbe(probe: Probe, kind: ProbeKind, state: ProbeState, ok: boolean): ProbeState {
  const count = state.count + 1;
  if (!ok && isEarly(probe, kind, state)) return { ...state, count };
  const streak = state.last === ok ? state.streak + 1 : 1;
  const threshold = ok ? (probe.successThreshold ?? 1) : (probe.failureThreshold ?? 3);
  const verdict = streak >= threshold ? (ok ? 'success' : 'failure') : state.verdict;
  return { streak, last: ok, verdict, count };
}

/** Time from the end of one probe to the next. */
export function nextProbeMs(probe: Probe, kind: ProbeKind, state: ProbeState): number {
  const periodMs = (probe.periodSeconds ?? 10) * 1000;
  return isEarly(probe, kind, state) ? Math.min(periodMs, EARLY_MS[state.count - 1] ?? periodMs) : periodMs;
}

/** Before its first success, and only where a failure means "not yet". */
function isEarly(probe: Probe, kind: ProbeKind, state: ProbeState): boolean {
  const periodMs = (probe.periodSeconds ?? 10) * 1000;
  return (
    kind !== 'liveness' &&
    state.last === undefined &&
    state.count < EARLY_MS.length &&
    (EARLY_MS[state.count] ?? 0) < periodMs
  );
}
