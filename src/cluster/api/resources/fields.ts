import type { KubeObject } from '#cluster/store/objects.ts';
import { isObject } from '../codec/json.ts';
import type { SelectableFields } from '../selectors.ts';

const at =
  (...path: string[]) =>
  (object: KubeObject): string => {
    let value: unknown = object;
    for (const name of path) value = isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined;
    return value === undefined || value === null ? '' : String(value);
  };

const COMMON: SelectableFields = {
  'metadata.name': at('metadata', 'name'),
  'metadata.namespace': at('metadata', 'namespace'),
};

const paths = (...names: string[]): SelectableFields =>
  Object.fromEntries(names.map((name) => [name, at(...name.split('.'))]));

const involved = (prefix: string): SelectableFields =>
  Object.fromEntries(
    ['kind', 'namespace', 'name', 'uid', 'apiVersion', 'resourceVersion', 'fieldPath'].map((f) => [
      `${prefix}.${f}`,
      at('involvedObject', f),
    ]),
  );

/** Fields beyond name and namespace that lists and watches may select by, as upstream has them. */
const BY_RESOURCE: Record<string, SelectableFields> = {
  pods: paths(
    'spec.nodeName',
    'spec.restartPolicy',
    'spec.schedulerName',
    'spec.serviceAccountName',
    'spec.hostNetwork',
    'status.phase',
    'status.podIP',
    'status.nominatedNodeName',
  ),
  nodes: paths('spec.unschedulable'),
  namespaces: paths('status.phase'),
  secrets: paths('type'),
  services: paths('spec.clusterIP', 'spec.type'),
  events: {
    ...involved('involvedObject'),
    ...involved('regarding'),
    ...paths('reason', 'type', 'reportingComponent'),
    source: at('source', 'component'),
  },
  jobs: { 'status.successful': at('status', 'succeeded') },
  replicationcontrollers: paths('status.replicas'),
  replicasets: paths('status.replicas'),
};

export function selectableFields(resource: string): SelectableFields {
  return { ...COMMON, ...BY_RESOURCE[resource] };
}
