import type { Live } from '#cluster/client/resources.ts';
import type { Job, Pod, PodFailurePolicyRule } from '#spec/kubernetes/types.gen.ts';

export const INDEX = 'batch.kubernetes.io/job-completion-index';
export const INDEX_FAILURES = 'batch.kubernetes.io/job-index-failure-count';

export function indexOf(pod: Pod): number | undefined {
  const text = pod.metadata.annotations?.[INDEX];
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}

/** `1,3-5,7` as a set. */
export function parseIndexes(text: string | undefined): Set<number> {
  const out = new Set<number>();
  for (const part of (text ?? '').split(',')) {
    const [, from, to] = /^(\d+)(?:-(\d+))?$/.exec(part) ?? [];
    if (from === undefined) continue;
    for (let i = Number(from); i <= Number(to ?? from); i++) out.add(i);
  }
  return out;
}

export function formatIndexes(indexes: Iterable<number>): string {
  const sorted = [...indexes].sort((a, b) => a - b);
  const runs: string[] = [];
  for (let i = 0; i < sorted.length; ) {
    let end = i;
    while (sorted[end + 1] === (sorted[end] ?? 0) + 1) end++;
    runs.push(end === i ? `${sorted[i]}` : `${sorted[i]}-${sorted[end]}`);
    i = end + 1;
  }
  return runs.join(',');
}

export type FailureAction = 'Count' | 'Ignore' | 'FailJob' | 'FailIndex';

/** The first rule that matches a failed pod decides; without one the failure counts. */
export function failureAction(job: Job, pod: Pod): { action: FailureAction; why: string } {
  for (const [i, rule] of (job.spec?.podFailurePolicy?.rules ?? []).entries()) {
    const why = matchRule(rule, pod, i);
    if (why) return { action: rule.action as FailureAction, why };
  }
  return { action: 'Count', why: '' };
}

function matchRule(rule: PodFailurePolicyRule, pod: Pod, index: number): string | undefined {
  const name = `${pod.metadata.namespace}/${pod.metadata.name}`;
  const codes = rule.onExitCodes;
  if (codes) {
    const statuses = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])];
    for (const { name: container, state } of statuses) {
      const code = state?.terminated?.exitCode;
      if (code === undefined || code === 0 || (codes.containerName && codes.containerName !== container)) continue;
      if (codes.values.includes(code) === (codes.operator === 'In'))
        return `Container ${container} for pod ${name} failed with exit code ${code} matching ${rule.action} rule at index ${index}`;
    }
    return undefined;
  }
  for (const wanted of rule.onPodConditions ?? []) {
    const found = pod.status?.conditions?.find((c) => c.type === wanted.type && c.status === (wanted.status ?? 'True'));
    if (found) return `Pod ${name} has condition ${wanted.type} matching ${rule.action} rule at index ${index}`;
  }
  return undefined;
}

/** The rule of the success policy that the succeeded indexes satisfy, as text. */
export function successMet(job: Live<Job>, succeeded: ReadonlySet<number>): string | undefined {
  for (const [i, rule] of (job.spec.successPolicy?.rules ?? []).entries()) {
    const wanted = rule.succeededIndexes === undefined ? undefined : parseIndexes(rule.succeededIndexes);
    const have = wanted ? [...succeeded].filter((n) => wanted.has(n)).length : succeeded.size;
    const need = rule.succeededCount ?? wanted?.size ?? Number.POSITIVE_INFINITY;
    if (have >= need) return `Matched rules at index ${i}`;
  }
  return undefined;
}

// After the first failure ten seconds, then twice as long each time, at most six minutes.
const BACKOFF_MS = { base: 10_000, max: 360_000 };

/** How long to wait before replacing failed pods, from the failures since the last success. */
export function backoffLeftMs(pods: readonly Pod[], nowMs: number): number {
  const finished = pods
    .filter((p) => p.status?.phase === 'Failed' || p.status?.phase === 'Succeeded')
    .map((p) => ({ failed: p.status?.phase === 'Failed', atMs: finishedAt(p, nowMs) }))
    .sort((a, b) => b.atMs - a.atMs);
  let failures = 0;
  while (finished[failures]?.failed) failures++;
  if (failures === 0) return 0;
  const delayMs = Math.min(BACKOFF_MS.max, BACKOFF_MS.base * 2 ** Math.min(failures - 1, 16));
  return Math.max(0, (finished[0]?.atMs ?? nowMs) + delayMs - nowMs);
}

function finishedAt(pod: Pod, nowMs: number): number {
  const times = (pod.status?.containerStatuses ?? []).map((c) => Date.parse(c.state?.terminated?.finishedAt ?? ''));
  const known = times.filter((t) => !Number.isNaN(t));
  if (known.length > 0) return Math.max(...known);
  const changed = Date.parse(pod.status?.conditions?.find((c) => c.type === 'Ready')?.lastTransitionTime ?? '');
  return Number.isNaN(changed) ? nowMs : changed;
}
