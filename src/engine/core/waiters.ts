import { type ContainerRecord, isRunning } from '#engine/core/record.ts';

export type WaitCondition = 'not-running' | 'next-exit' | 'removed';

export interface WaitResult {
  exitCode: number;
  error?: string;
}

type Settle = (result: WaitResult, removed: boolean) => void;

/** Clients that wait for the end of a container, or for its removal. */
export class Waiters {
  readonly #waiting = new Map<string, Set<Settle>>();

  /** Registers before it looks, so that no end is missed in between. */
  wait({ id, state }: ContainerRecord, condition: WaitCondition, signal?: AbortSignal): Promise<WaitResult> {
    return new Promise((resolve, reject) => {
      if (condition === 'not-running' && !isRunning(state) && state.phase !== 'restarting')
        return resolve({ exitCode: state.exitCode, ...(state.error ? { error: state.error } : {}) });
      const waiting = this.#waiting.get(id) ?? new Set();
      this.#waiting.set(id, waiting);
      const settle: Settle = (result, removed) => {
        if (condition === 'removed' && !removed) return;
        waiting.delete(settle);
        resolve(result);
      };
      waiting.add(settle);
      signal?.addEventListener('abort', () => {
        waiting.delete(settle);
        reject(signal.reason);
      });
    });
  }

  ended(id: string, exitCode: number): void {
    this.#settle(id, exitCode, false);
  }

  removed(id: string, exitCode: number): void {
    this.#settle(id, exitCode, true);
    this.#waiting.delete(id);
  }

  #settle(id: string, exitCode: number, removed: boolean): void {
    for (const settle of [...(this.#waiting.get(id) ?? [])]) settle({ exitCode }, removed);
  }
}
