import type { ContainerRow, PodRow } from '#web/wire.ts';

/** What belongs together in somebody's mind: pods of an app or a namespace, services of a compose project. */
export interface AppRow {
  name: string;
  pods: PodRow[];
  /** Those of its pods, and those that stand alone. */
  containers: ContainerRow[];
  ready: number;
  wanted: number;
  health: Health;
}

export type Health = 'good' | 'busy' | 'bad' | 'off';

/** Containers that belong to nothing stand under this name, last. */
export const LOOSE = 'Containers on their own';

/** Pure. */
export function appsOf(containers: readonly ContainerRow[], pods: readonly PodRow[]): AppRow[] {
  const apps = new Map<string, { pods: PodRow[]; containers: ContainerRow[] }>();
  const appNamed = (name: string): { pods: PodRow[]; containers: ContainerRow[] } => {
    const app = apps.get(name) ?? { pods: [], containers: [] };
    apps.set(name, app);
    return app;
  };
  const byKey = new Map(pods.map((pod) => [pod.key, pod]));
  for (const pod of pods) appNamed(pod.app).pods.push(pod);
  for (const container of containers) {
    const pod = container.pod && byKey.get(`${container.pod.namespace}/${container.pod.name}`);
    // A pod that is gone leaves containers for a moment: they are nobody's news.
    if (container.pod && !pod) continue;
    appNamed(pod?.app ?? container.app ?? LOOSE).containers.push(container);
  }
  return [...apps].map(([name, app]) => summed(name, app)).sort(byName);
}

function byName(a: AppRow, b: AppRow): number {
  return Number(a.name === LOOSE) - Number(b.name === LOOSE) || a.name.localeCompare(b.name);
}

function summed(name: string, { pods, containers }: { pods: PodRow[]; containers: ContainerRow[] }): AppRow {
  const lasting = pods.filter((pod) => pod.state !== 'Completed');
  const alone = containers.filter((c) => !c.pod);
  const healths = [...lasting.map(podHealth), ...alone.map(containerHealth)].filter((h) => h !== 'off');
  const ready = healths.filter((h) => h === 'good').length;
  const health = healths.includes('bad') ? 'bad' : healths.includes('busy') ? 'busy' : ready > 0 ? 'good' : 'off';
  return { name, pods, containers, ready, wanted: healths.length, health };
}

export function podHealth(pod: PodRow): Health {
  if (pod.state === 'Completed') return 'off';
  if (pod.state === 'Terminating') return 'busy';
  if (pod.phase === 'Failed' || /BackOff|Error|Err|OOM|Unschedulable|Unsupported|Invalid/.test(pod.state)) return 'bad';
  return pod.phase === 'Running' && pod.ready === pod.wanted ? 'good' : 'busy';
}

export function containerHealth(container: ContainerRow): Health {
  const { phase, health, exitCode, oomKilled } = container;
  if (phase === 'running') return health === 'unhealthy' ? 'bad' : health === 'starting' ? 'busy' : 'good';
  if (phase === 'restarting' || phase === 'dead') return 'bad';
  if (phase === 'removing' || phase === 'paused') return 'busy';
  // 143 and 137 are what a stop leaves behind: SIGTERM, and SIGKILL after the grace.
  return phase === 'exited' && (oomKilled || ![0, 137, 143].includes(exitCode)) ? 'bad' : 'off';
}

/** The youngest container of each of a pod's, by the container's name in the pod. */
export function containersOfPod(pod: PodRow, containers: readonly ContainerRow[]): Map<string, ContainerRow> {
  const found = new Map<string, ContainerRow>();
  for (const container of containers) {
    if (container.pod?.namespace !== pod.namespace || container.pod.name !== pod.name) continue;
    const known = found.get(container.pod.container);
    if (!known || known.createdAtMs < container.createdAtMs) found.set(container.pod.container, container);
  }
  return found;
}
