import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { EstibaError, messageOf } from '#base/errors.ts';
import { ExecutorFailed, type StepFailure } from '#kernel/plan/errors.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import {
  decodeResults,
  type ExitStatus,
  exitStatus,
  planFailed,
  type ResultRecord,
  stepFailure,
} from '#kernel/plan/result.ts';
import { encodePlan } from '#kernel/plan/wire.ts';

//   this process                       estiba-init run PLAN_FD RESULT_FD
//     ── plan, then end of file ─────▶    validates all of it, then runs it
//     ◀──────────── result records ──    done | failed | exited, then ends

export interface RunOptions {
  /** Path of estiba-init; `findExecutor()` when absent. */
  executor?: string;
  /** What fds 0, 1 and 2 of the container's process are: this process's own (default), nothing, or fds. */
  stdio?: 'inherit' | 'ignore' | readonly [number, number, number];
  /** Fds 3 up to this many of ours are handed on under the same numbers (runc's --preserve-fds). */
  preserveFds?: number;
  env?: Readonly<Record<string, string>>;
  /** Called at `ready`, while the rest of the plan runs on. */
  onReady?: (pid: number) => void;
}

export interface PlanResult {
  /** The container's process; 0 when the plan makes none. */
  pid: number;
  /** Of a plan with `waitInit`. */
  exited?: ExitStatus;
  /** Undos that failed, as far as a later success let them pass. */
  warnings: StepFailure[];
  /** Netlink messages that were answers and not acknowledgements. */
  data: Buffer;
}

/** Runs a plan in a process of its own; throws PlanFailed when a step fails. Every finished step has then been taken back. */
export async function runPlan(plan: Plan, options: RunOptions = {}): Promise<PlanResult> {
  const executor = options.executor ?? findExecutor();
  const preserve = options.preserveFds ?? 0;
  const [planFd, resultFd] = [3 + preserve, 4 + preserve];
  const bytes = encodePlan(plan);
  const child = spawn(executor, ['run', String(planFd), String(resultFd)], {
    stdio: [
      ...(typeof options.stdio === 'object' ? options.stdio : Array(3).fill(options.stdio ?? 'inherit')),
      ...Array.from({ length: preserve }, (_, i) => 3 + i),
      'pipe',
      'pipe',
    ],
    ...(options.env === undefined ? {} : { env: options.env }),
  });
  const input = child.stdio[planFd] as Duplex | undefined;
  const output = child.stdio[resultFd] as Duplex | undefined;

  const collected = new Results(plan, options.onReady);
  output?.on('data', (chunk: Buffer) => collected.take(chunk));
  // The executor closes its end before it has read all when the plan is bad; its record says why.
  input?.on('error', () => undefined);
  input?.end(bytes);

  const ended = await new Promise<{ code: number | null; signal: string | null }>((resolve, reject) => {
    child.once('error', (error) => reject(new ExecutorFailed({ path: executor, reason: messageOf(error) })));
    child.once('close', (code, signal) => resolve({ code, signal }));
  });
  const result = collected.finish();
  if (result) return result;
  const how = ended.signal === null ? `ended with status ${ended.code}` : `was ended by ${ended.signal}`;
  throw new ExecutorFailed({ path: executor, reason: `${how} before it answered` });
}

/** Gathers records into the one answer. Also used for plans that a spawner ran. */
export class Results {
  readonly #plan: Plan;
  readonly #onReady: ((pid: number) => void) | undefined;
  readonly #records: ResultRecord[] = [];
  #rest: Buffer = Buffer.alloc(0);
  #broken: unknown;

  constructor(plan: Plan, onReady?: (pid: number) => void) {
    this.#plan = plan;
    this.#onReady = onReady;
  }

  take(chunk: Buffer): void {
    if (this.#broken !== undefined) return;
    try {
      const { records, rest } = decodeResults(Buffer.concat([this.#rest, chunk]));
      this.#rest = rest;
      for (const record of records) {
        this.#records.push(record);
        if (record.kind === 'done') this.#onReady?.(record.pid);
      }
    } catch (error) {
      this.#broken = error;
    }
  }

  /** The answer, or undefined when none came; throws what the executor reported. */
  finish(): PlanResult | undefined {
    if (this.#broken instanceof EstibaError) throw this.#broken;
    const failed = this.#records.find((r) => r.kind === 'failed');
    if (failed) throw planFailed(this.#plan, failed);
    const done = this.#records.find((r) => r.kind === 'done');
    const exited = this.#records.find((r) => r.kind === 'exited');
    const last = done ?? exited;
    if (!last) return undefined;
    return {
      pid: last.pid,
      ...(exited === undefined ? {} : { exited: exitStatus(exited.status) }),
      warnings: this.#records.filter((r) => r.kind === 'undoFailed').map((r) => stepFailure(this.#plan, r)),
      data: done?.detail ?? Buffer.alloc(0),
    };
  }
}

/** `ESTIBA_INIT`, else `native/build/estiba-init` or `estiba-init` beside or above this file (sources and bundle). */
export function findExecutor(env: Readonly<Record<string, string | undefined>> = process.env): string {
  const named = env['ESTIBA_INIT'];
  if (named !== undefined && named !== '') return named;
  const here = dirname(fileURLToPath(import.meta.url));
  for (let dir = here; ; dir = dirname(dir)) {
    for (const name of ['native/build/estiba-init', 'estiba-init']) {
      const path = join(dir, name);
      if (existsSync(path)) return path;
    }
    if (dir === dirname(dir)) throw new ExecutorFailed({ path: 'estiba-init', reason: `is not above ${here}` });
  }
}
