import type { Clock } from '#base/clock.ts';
import type { NodeParts, RunningProcess } from '#engine/core/parts.ts';
import { type ContainerRecord, phaseAtRest } from '#engine/core/record.ts';
import type { ContainerRegistry } from '#engine/core/registry.ts';
import { startsWithDaemon } from '#engine/core/restart.ts';

/** What a recovery asks of the life of containers. */
export interface RecoveryHands {
  parts: Pick<NodeParts, 'processes'>;
  registry: ContainerRegistry;
  clock: Clock;
  /** What a run held is given back. */
  release: (id: string) => Promise<void>;
  watch: (id: string, process: RunningProcess) => void;
  remove: (record: ContainerRecord, removeAnonymous: boolean) => Promise<void>;
  runAgain: (record: ContainerRecord) => Promise<void>;
}

/** One container after a start of the daemon: it runs on and is watched, or what a crash left half done is finished or taken back. In line. */
export async function recoverContainer(hands: RecoveryHands, record: ContainerRecord): Promise<void> {
  const { parts, registry, clock, release, watch, remove, runAgain } = hands;
  const { id, spec, state } = record;
  const { phase } = state;
  if (phase === 'creating' || phase === 'removing') return remove(record, phase === 'creating');
  if (phase === 'created' || phase === 'dead') return;
  const wantsToRun = startsWithDaemon(spec.restart, state);
  if (phase === 'exited' || phase === 'restarting') {
    await release(id); // its end was recorded first
    if (spec.autoRemove) await remove(record, true);
    else if (wantsToRun) await runAgain(record);
    else if (phase === 'restarting') await registry.saveState(record, { phase: 'exited' });
    return;
  }
  // The program of one that was being started has not run: its start is taken back, as if it had failed.
  const process = phase === 'starting' ? undefined : await parts.processes.find(id);
  if (process) {
    watch(id, process);
    const { pid, startTicks } = process;
    await registry.saveState(record, { phase: phase === 'paused' ? 'paused' : 'running', pid, startTicks });
    return;
  }
  await release(id);
  const ended = { phase: 'exited' as const, pid: 0, exitCode: 255, finishedAtMs: clock.now(), error: '' };
  await registry.saveState(record, phase === 'starting' ? { phase: phaseAtRest(state), pid: 0 } : ended);
  if (spec.autoRemove) await remove(registry.find(id), true);
  else if (wantsToRun) await runAgain(registry.find(id));
}
