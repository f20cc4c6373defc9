import type { HealthResult, HealthState } from '#engine/core/record.ts';
import type { HealthSpec } from '#engine/core/spec.ts';

/** The health of a container over time. Pure: the old state and one result give the new state and what to tell. */
export const HEALTH_START: HealthState = { status: 'starting', failingStreak: 0, log: [] };

const LOG_LENGTH = 5;
const OUTPUT_BYTES = 4096;

export function afterProbe(
  check: HealthSpec,
  state: HealthState,
  result: HealthResult,
  sinceStartMs: number,
): HealthState {
  const output = result.output.length > OUTPUT_BYTES ? `${result.output.slice(0, OUTPUT_BYTES)}…` : result.output;
  const log = [...state.log, { ...result, output }].slice(-LOG_LENGTH);
  if (result.exitCode === 0) return { status: 'healthy', failingStreak: 0, log };
  // Failures while the application still comes up do not count, until it has been healthy once.
  if (state.status === 'starting' && sinceStartMs < check.startPeriodNs / 1e6) return { ...state, log };
  const failingStreak = state.failingStreak + 1;
  return { status: failingStreak >= check.retries ? 'unhealthy' : state.status, failingStreak, log };
}

/** Time to the next probe: closer together while the application comes up. */
export function probeDelayMs(check: HealthSpec, state: HealthState, sinceStartMs: number): number {
  const starting = state.status === 'starting' && sinceStartMs < check.startPeriodNs / 1e6;
  return (starting ? check.startIntervalNs : check.intervalNs) / 1e6;
}

const SHELL = ['/bin/sh', '-c'];

/** The command of a probe; `CMD-SHELL` goes through the image's shell. */
export function probeArgv({ test, shell = SHELL }: Pick<HealthSpec, 'test' | 'shell'>): string[] {
  const [kind, ...rest] = test;
  return kind === 'CMD-SHELL' ? [...shell, rest.join(' ')] : rest;
}
