import type { KubeObject } from '#cluster/store/objects.ts';
import { nanoOf } from '#spec/kubernetes/quantity.ts';
import { isObject, type JsonObject, put } from '../codec/json.ts';
import type { Allocators } from './allocate.ts';

/** What a kind does of its own before it is validated. Objects may be changed; `old` may not. */
export interface Hooks {
  beforeCreate?(object: KubeObject, tools: HookTools): void;
  beforeUpdate?(object: KubeObject, old: KubeObject, tools: HookTools): void;
  /** The seconds a delete waits for somebody else to finish; undefined: none, it is removed at once. */
  graceSeconds?(object: KubeObject, asked: number | undefined): number;
}

export interface HookTools {
  /** Now, RFC 3339. */
  now: string;
  allocators: Allocators;
}

const part = (o: JsonObject, name: string): JsonObject => (isObject(o[name]) ? o[name] : {});
const list = (value: unknown): JsonObject[] => (Array.isArray(value) ? value.filter(isObject) : []);

/** `stringData` is a way to write, not something kept. */
function foldStringData(object: KubeObject): void {
  const strings = object['stringData'];
  if (!isObject(strings)) return;
  const data: JsonObject = {};
  for (const [key, value] of Object.entries(part(object, 'data'))) put(data, key, value);
  for (const [key, value] of Object.entries(strings)) put(data, key, Buffer.from(String(value)).toString('base64'));
  object['data'] = data;
  delete object['stringData'];
}

/** Guaranteed: every container limits cpu and memory and requests the same; BestEffort: none says anything. */
function qosClass(spec: JsonObject): 'Guaranteed' | 'Burstable' | 'BestEffort' {
  const resources = [...list(spec['containers']), ...list(spec['initContainers'])].map((c) => part(c, 'resources'));
  const says = (r: JsonObject, kind: string, name: string): bigint => nanoOf(part(r, kind)[name] as string | undefined);
  const all = resources.flatMap((r) =>
    ['cpu', 'memory'].map((name) => [says(r, 'requests', name), says(r, 'limits', name)] as const),
  );
  if (all.every(([request, limit]) => request === 0n && limit === 0n)) return 'BestEffort';
  return all.every(([request, limit]) => limit > 0n && request === limit) ? 'Guaranteed' : 'Burstable';
}

function beginPod(object: KubeObject): void {
  const gated = list(part(object, 'spec')['schedulingGates']).length > 0;
  object['status'] = {
    phase: 'Pending',
    qosClass: qosClass(part(object, 'spec')),
    ...(gated
      ? {
          conditions: [
            {
              type: 'PodScheduled',
              status: 'False',
              reason: 'SchedulingGated',
              message: 'Scheduling is blocked due to non-empty scheduling gates',
              lastProbeTime: null,
              lastTransitionTime: null,
            },
          ],
        }
      : {}),
  };
}

/** A pod that no node has, or that has ended, needs nobody's leave to go. */
function podGrace(object: KubeObject, asked: number | undefined): number {
  const spec = part(object, 'spec');
  const phase = part(object, 'status')['phase'];
  if (!spec['nodeName'] || phase === 'Succeeded' || phase === 'Failed') return 0;
  const wanted = asked ?? Number(spec['terminationGracePeriodSeconds'] ?? 30);
  return Math.max(wanted, asked === 0 ? 0 : 1);
}

/** A job selects its pods by its own uid, so that two jobs of one name never share pods. */
function labelJob(object: KubeObject): void {
  const spec = part(object, 'spec');
  if (spec['manualSelector'] === true || !isObject(spec['template'])) return;
  const template = spec['template'];
  const uid = object.metadata.uid ?? '';
  const labels = {
    'batch.kubernetes.io/controller-uid': uid,
    'batch.kubernetes.io/job-name': object.metadata.name,
    'controller-uid': uid,
    'job-name': object.metadata.name,
  };
  const metadata = part(template, 'metadata');
  template['metadata'] = { ...metadata, labels: { ...part(metadata, 'labels'), ...labels } };
  spec['selector'] = { matchLabels: { 'batch.kubernetes.io/controller-uid': uid } };
}

/** Requests of a claim as its status says them until it is bound. */
function keepNamespacePhase(object: KubeObject, old: KubeObject): void {
  object['spec'] = old['spec'];
  object['status'] = old['status'];
}

export const HOOKS: Record<string, Hooks> = {
  pods: { beforeCreate: beginPod, graceSeconds: podGrace },
  secrets: { beforeCreate: foldStringData, beforeUpdate: foldStringData },
  jobs: { beforeCreate: labelJob },
  services: {
    beforeCreate: (object, { allocators }) => allocators.allocateService(object, undefined),
    beforeUpdate: (object, old, { allocators }) => allocators.allocateService(object, old),
  },
  namespaces: {
    beforeCreate: (object) => {
      object['spec'] = { finalizers: ['kubernetes'] };
      object['status'] = { phase: 'Active' };
    },
    beforeUpdate: keepNamespacePhase,
  },
};
