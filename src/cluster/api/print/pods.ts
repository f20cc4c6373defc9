import { isObject, type JsonObject } from '../codec/json.ts';
import { age, at, countOf, listOf, textOf } from './text.ts';

/** The STATUS, READY and RESTARTS cells of a pod: one word for what holds it up, found in its containers' states. */
export interface PodCells {
  ready: string;
  status: string;
  restarts: string;
}

export function podCells(pod: JsonObject, nowMs: number): PodCells {
  const statuses = listOf(at(pod, 'status.containerStatuses'));
  const sidecars = listOf(at(pod, 'spec.initContainers'))
    .filter((c) => c['restartPolicy'] === 'Always')
    .map((c) => c['name']);
  const inits = listOf(at(pod, 'status.initContainerStatuses'));
  const readySidecars = inits.filter((c) => sidecars.includes(c['name']) && c['ready'] === true).length;
  const total = listOf(at(pod, 'spec.containers')).length + sidecars.length;
  const ready = statuses.filter((c) => c['ready'] === true && isObject(at(c, 'state.running'))).length + readySidecars;
  return {
    ready: `${ready}/${total}`,
    status: statusWord(pod, statuses, inits),
    restarts: restartsText([...statuses, ...inits.filter((c) => sidecars.includes(c['name']))], nowMs),
  };
}

function statusWord(pod: JsonObject, statuses: readonly JsonObject[], inits: readonly JsonObject[]): string {
  let word = textOf(at(pod, 'status.reason')) || textOf(at(pod, 'status.phase'), 'Unknown');
  const gated = listOf(at(pod, 'status.conditions')).find(
    (c) => c['type'] === 'PodScheduled' && c['reason'] === 'SchedulingGated',
  );
  if (gated) word = 'SchedulingGated';
  const init = initWord(pod, inits);
  if (init !== undefined) word = init;
  else {
    let running = false;
    for (const container of [...statuses].reverse()) {
      const why = textOf(at(container, 'state.waiting.reason')) || endWord(container);
      if (why !== '') word = why;
      else if (container['ready'] === true && at(container, 'state.running') !== undefined) running = true;
    }
    if (word === 'Completed' && running) word = podIsReady(pod) ? 'Running' : 'NotReady';
  }
  if (at(pod, 'metadata.deletionTimestamp') !== undefined) {
    const ended = at(pod, 'status.phase') === 'Succeeded' || at(pod, 'status.phase') === 'Failed';
    if (at(pod, 'status.reason') === 'NodeLost') return 'Unknown';
    if (!ended) return 'Terminating';
  }
  return word;
}

function initWord(pod: JsonObject, inits: readonly JsonObject[]): string | undefined {
  const specs = listOf(at(pod, 'spec.initContainers'));
  for (const [i, container] of inits.entries()) {
    const ended = at(container, 'state.terminated');
    if (isObject(ended) && ended['exitCode'] === 0) continue;
    const spec = specs.find((s) => s['name'] === container['name']);
    if (spec?.['restartPolicy'] === 'Always' && container['started'] === true) continue;
    if (isObject(ended)) return `Init:${endWord(container)}`;
    const waiting = textOf(at(container, 'state.waiting.reason'));
    return waiting !== '' && waiting !== 'PodInitializing' ? `Init:${waiting}` : `Init:${i}/${specs.length}`;
  }
  return undefined;
}

function endWord(container: JsonObject): string {
  const ended = at(container, 'state.terminated');
  if (!isObject(ended)) return '';
  if (textOf(ended['reason']) !== '') return String(ended['reason']);
  return countOf(ended['signal']) !== 0
    ? `Signal:${countOf(ended['signal'])}`
    : `ExitCode:${countOf(ended['exitCode'])}`;
}

function podIsReady(pod: JsonObject): boolean {
  return listOf(at(pod, 'status.conditions')).some((c) => c['type'] === 'Ready' && c['status'] === 'True');
}

function restartsText(statuses: readonly JsonObject[], nowMs: number): string {
  const restarts = statuses.reduce((sum, c) => sum + countOf(c['restartCount']), 0);
  const last = statuses
    .map((c) => textOf(at(c, 'lastState.terminated.finishedAt')))
    .sort()
    .at(-1);
  return restarts > 0 && last ? `${restarts} (${age(last, nowMs)} ago)` : `${restarts}`;
}
