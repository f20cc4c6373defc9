import { defineError, isCode } from '#base/errors.ts';
import type { StepFailure } from '#kernel/plan/errors.ts';
import type { PlanResult } from '#kernel/plan/execute.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { planToJson, printPlan, sayOp } from '#kernel/plan/print.ts';
import type { Command, ExecuteOptions, Outcome } from '#runtime/cli/context.ts';
import { WrongState } from '#runtime/errors.ts';

/** A command failed; the text begins as runc's does, which engines look at. */
export const CommandFailed = defineError('COMMAND_FAILED', (d: { message: string }) => ({ message: d.message }));

export function showPlan(c: Command, plan: Plan): Outcome {
  c.stdout(c.plan === 'json' ? `${JSON.stringify(planToJson(plan), null, 2)}\n` : printPlan(plan));
  return 0;
}

/** Runs a plan for a command. With --debug every step is logged, and the stages that runc's own log names. */
export async function carryOut(
  c: Command,
  command: string,
  plan: Plan,
  options: ExecuteOptions = {},
): Promise<PlanResult> {
  if (c.debug) logSteps(c, plan);
  try {
    const result = await c.execute(plan, options);
    for (const warning of result.warnings) c.log.warn(`undo ${warning.says}: ${warning.errno} ${warning.detail}`);
    return result;
  } catch (error) {
    if (!isCode(error, 'PLAN_FAILED')) throw error;
    const failure = error.data as unknown as StepFailure;
    const prefix = command === 'exec' ? 'exec failed' : `runc ${command} failed`;
    throw new CommandFailed(
      { message: `${prefix}: unable to start container process: ${explain(failure, plan)}` },
      { cause: error },
    );
  }
}

// Scripts and runc's own tests look for these three stages in a debug log; they stand where the stage begins here too.
function logSteps(c: Command, plan: Plan): void {
  let cloned = false;
  plan.steps.forEach((step, i) => {
    if (step.op === 'clone' || step.op === 'cloneInto') c.log.debug('nsexec container setup');
    if (step.where === 'init' && !cloned) c.log.debug('child process in init()');
    cloned ||= step.where === 'init';
    if (step.op === 'exec') c.log.debug('setns_init: about to exec');
    if (step.op === 'ready') c.log.debug('init: closing the pipe to signal completion');
    c.log.debug(`step ${i + 1}: ${step.where} ${sayOp(step)} (${step.because})`);
  });
}

const ERRNO_TEXTS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or directory',
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
  EBUSY: 'device or resource busy',
  ENOTDIR: 'not a directory',
  EISDIR: 'is a directory',
  EINVAL: 'invalid argument',
};

/** A failed step in the words that callers of runc match, then our own, which name the step. */
export function explain(failure: StepFailure, plan: Plan): string {
  const step = plan.steps[failure.step];
  const errno = ERRNO_TEXTS[failure.errno] ?? failure.errno;
  const own = new PlanText(failure).text;
  if (step?.op === 'lookup' || step?.op === 'exec') {
    const name = JSON.stringify(step.path);
    const missing = failure.errno === 'ENOENT';
    if (missing && !step.path.includes('/')) return `exec: ${name}: executable file not found in $PATH (${own})`;
    return `exec: ${name}: ${missing ? `stat ${step.path}: ` : ''}${errno} (${own})`;
  }
  if (step?.op === 'hook') return `error running hook: ${hookText(failure)} (${own})`;
  if (step?.op === 'seccomp' && step.listener !== '')
    return `failed to connect with seccomp agent or to install the filter: ${own}`;
  if (step?.op === 'joinCgroup' || (step?.op === 'open' && step.because === 'flag --cgroup')) {
    const dir = step.path.replace(/\/tasks$/, '');
    return `adding pid to cgroups: adding pid 0 to ${dir}/cgroup.procs: ${errno} (${own})`;
  }
  return own;
}

function hookText(failure: StepFailure): string {
  // SIGSYS, in Go's words: a hook that the container's own seccomp filter ended.
  return failure.detail.replace(/signal 31\b/, 'signal: bad system call');
}

class PlanText {
  readonly text: string;
  constructor({ step, steps, says, errno, detail, because }: StepFailure) {
    const why = [errno, detail].filter(Boolean).join(', ');
    this.text = `step ${step + 1} of ${steps}, ${says}: ${why}, wanted by ${because}`;
  }
}

export function wrongState(id: string, message: string): Error {
  return new WrongState({ id, message });
}
