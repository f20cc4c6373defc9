import type { ComposeProject, ComposeService } from '#spec/compose/model.ts';
import * as read from '#spec/compose/read.ts';
import { type MapTree, refuse, type Tree } from '#spec/compose/tree.ts';
import type { DeploymentStrategy, PodSpec, TopologySpreadConstraint } from '#spec/kubernetes/types.gen.ts';
import { annotationsOf, seconds } from '#up/compose/context.ts';
import { only } from '#up/compose/rest.ts';

export type WorkloadKind = 'Deployment' | 'StatefulSet' | 'DaemonSet' | 'Job';

/** What `deploy` and `restart` say about how a service runs as a whole. */
export interface DeployWish {
  kind: WorkloadKind;
  strategy: DeploymentStrategy;
  minReadySeconds?: number;
  restartPolicy: NonNullable<PodSpec['restartPolicy']>;
  /** Job: how often it may fail. */
  backoffLimit: number;
  annotations: Record<string, string>;
  nodeSelector: Record<string, string>;
  spread: string[];
}

// A new pod is ready before an old one goes.
const START_FIRST: DeploymentStrategy = { type: 'RollingUpdate', rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } };
const WITHOUT_LIMIT = 2_147_483_647;

export function deployOf(project: ComposeProject, service: ComposeService): DeployWish {
  const tree = service.rest.get('deploy');
  const path = `services.${service.name}.deploy`;
  const entries = tree ? read.map(tree, path).entries : new Map<string, Tree>();
  const wish: DeployWish = {
    ...runs(project, service),
    strategy: START_FIRST,
    annotations: {},
    nodeSelector: {},
    spread: [],
  };
  for (const [key, value] of entries) {
    const take = TAKERS[key];
    if (take) take(value, `${path}.${key}`, wish);
    else if (key !== 'replicas' && key !== 'resources')
      refuse(value.at, `${path}.${key}`, 'has no counterpart in Kubernetes');
  }
  // Two pods cannot listen on one port of the host.
  if (service.rest.has('network_mode') && wish.kind === 'Deployment') wish.strategy = { type: 'Recreate' };
  return wish;
}

/**
 * What is waited for until it has completed is a Job, and so is what is not to be started again after it succeeded; what has named
 * volumes is a StatefulSet: its old pod is gone before the new one opens the same files.
 */
function runs(
  project: ComposeProject,
  service: ComposeService,
): Pick<DeployWish, 'kind' | 'restartPolicy' | 'backoffLimit'> {
  const [policy = '', times] = (service.restart ?? '').split(':');
  const once = Object.values(project.services).some(
    (other) => other.dependsOn[service.name]?.condition === 'service_completed_successfully',
  );
  if (policy === 'on-failure' || (once && policy !== 'no' && policy !== ''))
    return {
      kind: 'Job',
      restartPolicy: 'OnFailure',
      backoffLimit: times === undefined ? WITHOUT_LIMIT : Number(times),
    };
  if (once || policy === 'no') return { kind: 'Job', restartPolicy: 'Never', backoffLimit: 0 };
  const named = service.volumes.some((v) => v.type === 'volume' && v.source !== undefined);
  return { kind: named ? 'StatefulSet' : 'Deployment', restartPolicy: 'Always', backoffLimit: 0 };
}

type Taker = (tree: Tree, path: string, wish: DeployWish) => void;

const TAKERS: Readonly<Record<string, Taker>> = {
  mode: (tree, path, wish) => {
    const mode = only(tree, path, ['replicated', 'global', 'replicated-job']);
    if (mode === 'global') wish.kind = 'DaemonSet';
    if (mode === 'replicated-job')
      Object.assign(wish, { kind: 'Job', restartPolicy: 'OnFailure', backoffLimit: WITHOUT_LIMIT });
  },
  labels: (tree, path, wish) => {
    wish.annotations = annotationsOf(read.namedTexts(tree, path), tree.at, path);
  },
  // Names of services resolve to the pods themselves, which is dnsrr; a client sees no difference to vip.
  endpoint_mode: (tree, path) => {
    only(tree, path, ['vip', 'dnsrr']);
  },
  restart_policy: (tree, path, wish) => {
    const settings = known(tree, path, ['condition', 'max_attempts']);
    const condition = settings.get('condition');
    const attempts = settings.get('max_attempts');
    const when = condition ? only(condition, `${path}.condition`, ['any', 'on-failure', 'none']) : 'any';
    if (when === 'none') Object.assign(wish, { kind: 'Job', restartPolicy: 'Never', backoffLimit: 0 });
    if (when === 'on-failure')
      Object.assign(wish, { kind: 'Job', restartPolicy: 'OnFailure', backoffLimit: WITHOUT_LIMIT });
    if (!attempts) return;
    if (wish.kind !== 'Job') refuse(attempts.at, `${path}.max_attempts`, 'pods that always run are always restarted');
    wish.backoffLimit = read.integer(attempts, `${path}.max_attempts`);
  },
  update_config: (tree, path, wish) => {
    const settings = known(tree, path, ['parallelism', 'delay', 'order', 'failure_action']);
    const [parallelism, delay, order, failure] = ['parallelism', 'delay', 'order', 'failure_action'].map((k) =>
      settings.get(k),
    );
    // 0 means all at once.
    const count = (parallelism && read.integer(parallelism, `${path}.parallelism`)) ?? 1;
    const many = count === 0 ? '100%' : count;
    const first = order ? only(order, `${path}.order`, ['start-first', 'stop-first']) : 'stop-first';
    const rollingUpdate =
      first === 'start-first' ? { maxSurge: many, maxUnavailable: 0 } : { maxSurge: 0, maxUnavailable: many };
    wish.strategy = { type: 'RollingUpdate', rollingUpdate };
    if (delay) wish.minReadySeconds = seconds(read.duration(delay, `${path}.delay`));
    if (failure) only(failure, `${path}.failure_action`, ['pause']);
  },
  placement: (tree, path, wish) => {
    const settings = known(tree, path, ['constraints', 'preferences']);
    const constraints = settings.get('constraints');
    for (const text of constraints ? read.texts(constraints, `${path}.constraints`) : []) {
      const [, label, name = ''] = /^node\.(?:labels\.(\S+)|hostname)\s*==\s*(\S+)$/.exec(text) ?? [];
      if (name === '')
        refuse(tree.at, `${path}.constraints`, `${JSON.stringify(text)} has no counterpart in Kubernetes`);
      wish.nodeSelector[label ?? 'kubernetes.io/hostname'] = name;
    }
    const preferences = settings.get('preferences');
    for (const item of preferences ? read.list(preferences, `${path}.preferences`) : []) {
      const spread = known(item, `${path}.preferences`, ['spread']).get('spread');
      const key = spread && /^node\.labels\.(\S+)$/.exec(read.text(spread, path))?.[1];
      wish.spread.push(key ?? refuse(item.at, `${path}.preferences`, 'is not node.labels.NAME'));
    }
  },
};

function known(tree: Tree, path: string, keys: readonly string[]): MapTree['entries'] {
  const { entries } = read.map(tree, path);
  for (const [key, value] of entries)
    if (!keys.includes(key)) refuse(value.at, `${path}.${key}`, 'has no counterpart in Kubernetes');
  return entries;
}

export function spreadOver(topologyKey: string, selector: Record<string, string>): TopologySpreadConstraint {
  return { topologyKey, maxSkew: 1, whenUnsatisfiable: 'ScheduleAnyway', labelSelector: { matchLabels: selector } };
}
