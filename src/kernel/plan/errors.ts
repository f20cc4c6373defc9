import { defineError } from '#base/errors.ts';

/** A plan that breaks a rule of plan.ts or ops.ts: a mistake in our own code, found before anything was done. */
export const BadPlan = defineError('BAD_PLAN', (d: { step: number; op?: string; arg?: string; rule: string }) => ({
  message: `step ${d.step + 1}${d.op === undefined ? '' : `, ${d.op}`}: ${d.arg === undefined ? '' : `${d.arg} `}${d.rule}`,
}));

export interface StepFailure {
  /** From 0. */
  step: number;
  steps: number;
  op: string;
  /** The step in words: `mount overlay on /…/merged`. */
  says: string;
  /** `EINVAL`; empty when no system call failed (a hook's exit status, a process that died). */
  errno: string;
  /** What the executor saw beside errno: the file system's own words, a hook's last output; may be empty. */
  detail: string;
  /** Which wish made the step. */
  because: string;
  hint?: string;
}

/** One step of a plan failed; every finished step has been taken back. */
export const PlanFailed = defineError('PLAN_FAILED', (d: StepFailure) => ({
  message:
    `step ${d.step + 1} of ${d.steps}, ${d.says}: ` +
    [d.errno, d.detail === '' ? '' : d.errno === '' ? d.detail : `because ${d.detail}`].filter(Boolean).join(', ') +
    ` (wanted by ${d.because})`,
  ...(d.hint === undefined ? {} : { hint: d.hint }),
}));

/** The executor itself ended before it answered: killed, out of memory, or not to be found. */
export const ExecutorFailed = defineError('EXECUTOR_FAILED', (d: { path: string; reason: string }) => ({
  message: `${d.path}: ${d.reason}`,
  hint: 'estiba-init is built by `make native`; ESTIBA_INIT names another one',
}));
