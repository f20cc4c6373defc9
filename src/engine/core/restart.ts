import type { ContainerState } from '#engine/core/record.ts';
import type { RestartPolicy } from '#engine/core/spec.ts';

/** What follows a container's end, by its policy. Pure: facts in, decision with its reason out. */
export type AfterExit = { restart: false; why: string } | { restart: true; afterMs: number; why: string };

const FIRST_DELAY_MS = 100;
const MAX_DELAY_MS = 60_000;
/** A run this long counts as a good one: the delay starts over. */
const GOOD_RUN_MS = 10_000;

export function afterExit(
  policy: RestartPolicy,
  state: ContainerState,
  exit: { code: number; ranMs: number },
): AfterExit {
  if (state.stoppedByHand) return { restart: false, why: 'somebody stopped it' };
  switch (policy.name) {
    case 'no':
      return { restart: false, why: 'restart policy no' };
    case 'on-failure':
      if (exit.code === 0) return { restart: false, why: 'it ended with 0, and the policy is on-failure' };
      if (policy.maxRetries > 0 && state.restartCount >= policy.maxRetries) {
        return {
          restart: false,
          why: `it has been restarted ${state.restartCount} times, and the policy allows ${policy.maxRetries}`,
        };
      }
      break;
    case 'always':
    case 'unless-stopped':
      break;
  }
  const afterMs = restartDelayMs(state.restartCount, exit.ranMs);
  return { restart: true, afterMs, why: `restart policy ${policy.name}, ended with ${exit.code}` };
}

/** 100 ms, doubled with each restart in a row up to a minute. */
export function restartDelayMs(restartsInARow: number, ranMs: number): number {
  if (ranMs >= GOOD_RUN_MS) return FIRST_DELAY_MS;
  return Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(restartsInARow, 20));
}

/** When the daemon comes up and finds the container not running: did it want to be? */
export function startsWithDaemon(policy: RestartPolicy, state: ContainerState): boolean {
  switch (policy.name) {
    case 'always':
      return state.phase !== 'created';
    case 'unless-stopped':
      return state.phase !== 'created' && !state.stoppedByHand;
    case 'on-failure':
      // The machine went down under it: nobody asked it to end, and it did not end by itself.
      return isUnfinished(state);
    case 'no':
      return false;
  }
}

function isUnfinished(state: ContainerState): boolean {
  return (
    state.phase === 'running' || state.phase === 'paused' || state.phase === 'restarting' || state.phase === 'starting'
  );
}
