import type { Where } from '#kernel/plan/plan.ts';
import { type PlanBuilder, utf8 } from '#runtime/builder.ts';
import { type HookPoint, OCI_VERSION, type OciConfig, type OciHook } from '#spec/oci/config.ts';
import { stringifyJson } from '#spec/oci/json.ts';
import type { OciState, Status } from '#spec/oci/state.ts';

/** What a state needs besides pid and status. */
export interface StateFacts {
  id: string;
  bundle: string;
  annotations?: Record<string, string>;
}

/** A document with gaps where the executor writes a pid, in decimal: it knows the number, we do not. */
export interface WithPid {
  state: Uint8Array;
  pidAt: number[];
}

export function ociState(facts: StateFacts, status: Status, pid: number): OciState {
  const { id, bundle, annotations = {} } = facts;
  return { ociVersion: OCI_VERSION, id, status, pid, bundle, annotations };
}

/** The state with a gap for the pid. In the container's namespaces the pid is the one seen there (runtime.md, "State"). */
export function stateWithPid(facts: StateFacts, status: Status): WithPid {
  return cutPids(stringifyJson(ociState(facts, status, PID_MARK)));
}

// No pid is that large (PID_MAX_LIMIT is 2^22), and no other number of these documents has 15 digits.
const PID_MARK = 111_222_333_444_555;

export function cutPids(marked: string): WithPid {
  const pieces = marked.split(`"pid":${PID_MARK}`);
  const pidAt: number[] = [];
  let text = '';
  for (const piece of pieces.slice(0, -1)) {
    text += `${piece}"pid":`;
    pidAt.push(utf8(text).length);
  }
  return { state: utf8(text + pieces.at(-1)), pidAt };
}

/** One step for each hook of a point, in the order listed (config.md, "Hooks MUST be called in the listed order"). */
export function planHooks(
  b: PlanBuilder,
  where: Where,
  config: OciConfig,
  point: HookPoint,
  facts: StateFacts,
  status: Status,
  pid?: number,
): void {
  (config.hooks?.[point] ?? []).forEach((hook, i) => {
    const { state, pidAt } =
      pid === undefined
        ? stateWithPid(facts, status)
        : { state: utf8(stringifyJson(ociState(facts, status, pid))), pidAt: [] };
    b.at(where, `$.hooks.${point}[${i}]`, { op: 'hook', ...hookProgram(hook), state, pidAt });
  });
}

export function hookProgram(hook: OciHook): { path: string; argv: string[]; env: string[]; timeoutMs: number } {
  const argv = hook.args?.length ? hook.args : [hook.path];
  return { path: hook.path, argv, env: hook.env ?? [], timeoutMs: (hook.timeout ?? 0) * 1000 };
}

export { PID_MARK };
