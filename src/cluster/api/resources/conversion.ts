import type { KubeObject } from '#cluster/store/objects.ts';
import { isObject, type JsonObject } from '../codec/json.ts';

/** Two versions of one stored kind: what comes in becomes the stored version, what goes out becomes the asked one. */
export interface Conversion {
  toStored(object: KubeObject): KubeObject;
  fromStored(object: KubeObject): KubeObject;
}

const objects = (value: unknown): JsonObject[] => (Array.isArray(value) ? value.filter(isObject) : []);
const part = (o: JsonObject, name: string): JsonObject => (isObject(o[name]) ? o[name] : {});

function renamed(object: KubeObject, apiVersion: string, names: Readonly<Record<string, string>>): KubeObject {
  const out: KubeObject = { apiVersion, kind: object.kind, metadata: object.metadata };
  for (const [key, value] of Object.entries(object)) if (key !== 'apiVersion') out[names[key] ?? key] = value;
  return out;
}

const EVENT_NAMES: Record<string, string> = {
  note: 'message',
  regarding: 'involvedObject',
  deprecatedSource: 'source',
  deprecatedFirstTimestamp: 'firstTimestamp',
  deprecatedLastTimestamp: 'lastTimestamp',
  deprecatedCount: 'count',
  reportingController: 'reportingComponent',
};
const EVENT_NAMES_BACK = Object.fromEntries(Object.entries(EVENT_NAMES).map(([a, b]) => [b, a]));

/** events.k8s.io/v1 over core/v1. */
export const EVENTS: Conversion = {
  toStored: (object) => renamed(object, 'v1', EVENT_NAMES),
  fromStored: (object) => renamed(object, 'events.k8s.io/v1', EVENT_NAMES_BACK),
};

const CPU_METRIC = (m: JsonObject): boolean => m['type'] === 'Resource' && part(m, 'resource')['name'] === 'cpu';
const OTHER_METRICS = 'autoscaling.alpha.kubernetes.io/metrics';

/** autoscaling/v1 over v2: the CPU target is a metric; what v1 cannot say travels in an annotation. */
export const AUTOSCALERS: Conversion = {
  toStored(object) {
    const { targetCPUUtilizationPercentage: cpu, ...spec } = part(object, 'spec');
    const { currentCPUUtilizationPercentage: current, ...status } = part(object, 'status');
    const { [OTHER_METRICS]: others, ...annotations } = object.metadata.annotations ?? {};
    const metrics = [
      ...(others === undefined ? [] : parsedMetrics(others)),
      ...(cpu === undefined
        ? []
        : [{ type: 'Resource', resource: { name: 'cpu', target: { type: 'Utilization', averageUtilization: cpu } } }]),
    ];
    const metadata = { ...object.metadata, ...(others === undefined ? {} : { annotations }) };
    return {
      ...object,
      apiVersion: 'autoscaling/v2',
      metadata,
      spec: { ...spec, ...(metrics.length === 0 ? {} : { metrics }) },
      ...(object['status'] === undefined
        ? {}
        : {
            status: {
              ...status,
              ...(current === undefined
                ? {}
                : {
                    currentMetrics: [
                      { type: 'Resource', resource: { name: 'cpu', current: { averageUtilization: current } } },
                    ],
                  }),
            },
          }),
    };
  },
  fromStored(object) {
    const { metrics, behavior: _, ...spec } = part(object, 'spec');
    const { currentMetrics, conditions: __, ...status } = part(object, 'status');
    const cpu = objects(metrics).find(CPU_METRIC);
    const others = objects(metrics).filter((m) => m !== cpu);
    const target = cpu && part(part(cpu, 'resource'), 'target')['averageUtilization'];
    const now = objects(currentMetrics).find(CPU_METRIC);
    const current = now && part(part(now, 'resource'), 'current')['averageUtilization'];
    return {
      ...object,
      apiVersion: 'autoscaling/v1',
      metadata:
        others.length === 0
          ? object.metadata
          : {
              ...object.metadata,
              annotations: { ...object.metadata.annotations, [OTHER_METRICS]: JSON.stringify(others) },
            },
      spec: { ...spec, ...(target === undefined ? {} : { targetCPUUtilizationPercentage: target }) },
      status: {
        currentReplicas: 0,
        desiredReplicas: 0,
        ...status,
        ...(current === undefined ? {} : { currentCPUUtilizationPercentage: current }),
      },
    };
  },
};

function parsedMetrics(text: string): JsonObject[] {
  try {
    return objects(JSON.parse(text));
  } catch {
    return []; // an annotation somebody wrote by hand: it says nothing we could keep
  }
}
