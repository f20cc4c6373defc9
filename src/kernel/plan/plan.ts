import type { ArgTypes, OPS } from '#kernel/plan/ops.ts';

/**
 * A plan is a list of typed kernel operations, run top to bottom. Three actors share it:
 *
 *   host     the executor itself: cgroups, id maps, hooks of the runtime namespace, pid file
 *   middle   made by `fork` when namespaces that exist have to be entered before new ones are made, and the executor cannot do that
 *            itself and return
 *   init     made by `clone` or `cloneInto`: the container's first process (or the process of an exec)
 *
 * However many run, a step starts only after every step above it is done: where the list passes from one actor to
 * another, the first hands the other a token and waits. So the printed plan is the order of events.
 *
 *   host ── steps ──▶ clone ── token ──▶ init ── steps ──▶ token ──▶ host ── id maps ──▶ token ──▶ init ── … ── exec
 *
 * A step that fails stops the plan: the container's process is killed, the undo of every finished step runs in reverse on
 * the host, and the caller learns step, operation, errno and a detail.
 */
export type OpName = keyof typeof OPS;

export type Op<N extends OpName = OpName> = N extends OpName
  ? { op: N } & { [A in keyof (typeof OPS)[N]['args']]: ArgTypes[(typeof OPS)[N]['args'][A] & keyof ArgTypes] }
  : never;

export type Where = 'host' | 'middle' | 'init';

export type Step = Op & {
  where: Where;
  /** Which wish made it: `$.mounts[3]`, `flag --memory`, `default`, a section of a specification. */
  because: string;
  /** Takes the step back, on the host, last-in first-out with those of the other steps. */
  undo?: readonly Op[];
};

export interface Plan {
  steps: readonly Step[];
}
