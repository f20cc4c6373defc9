import { isCode } from '#base/errors.ts';
import type { KubeObject } from '#cluster/store/objects.ts';
import { SERVER } from '../authn/user.ts';
import { equalJson } from '../codec/json.ts';
import { contextFor } from '../registry/context.ts';
import type { Registry } from '../registry/registry.ts';
import { addressAt } from '../resources/allocate.ts';
import type { Resource } from '../resources/table.ts';
import { bootstrapBindings, bootstrapRoles } from './roles.ts';

/** The objects a cluster has from its first second, and what every namespace has from its. */
export interface BootstrapOptions {
  registry: Registry;
  table: ReadonlyMap<string, Resource>;
  serviceCidr: string;
  /** Where pods reach this server: the endpoints of `default/kubernetes`. Absent: not yet known, the Service has none. */
  endpoint: { address: string; port: number } | undefined;
  /** PEM */
  authority: string;
  storageProvisioner: string;
  ingressController: string;
}

export const NAMESPACES = ['default', 'kube-system', 'kube-public', 'kube-node-lease'];
const ROOT_CA = 'kube-root-ca.crt';

export async function bootstrap(options: BootstrapOptions): Promise<void> {
  for (const name of NAMESPACES) await ensure(options, object('v1', 'Namespace', { name }));
  for (const name of NAMESPACES) await furnishNamespace(options, name);
  for (const role of bootstrapRoles()) await ensure(options, role as unknown as KubeObject, 'rules');
  for (const binding of bootstrapBindings()) await ensure(options, binding as unknown as KubeObject);
  for (const each of classes(options)) await ensure(options, each);
  await ensure(options, kubernetesService(options));
  if (options.endpoint) {
    await ensure(options, kubernetesEndpoints(options.endpoint), 'subsets');
    await ensure(options, kubernetesSlice(options.endpoint), 'endpoints');
  }
}

/** The account pods run as when they name none, and the authority they trust the API server by. */
export async function furnishNamespace(
  options: Pick<BootstrapOptions, 'registry' | 'table' | 'authority'>,
  namespace: string,
): Promise<void> {
  await ensure(options, object('v1', 'ServiceAccount', { name: 'default', namespace }));
  await ensure(
    options,
    { ...object('v1', 'ConfigMap', { name: ROOT_CA, namespace }), data: { 'ca.crt': options.authority } },
    'data',
  );
}

function object(apiVersion: string, kind: string, metadata: KubeObject['metadata']): KubeObject {
  return { apiVersion, kind, metadata };
}

function classes(options: BootstrapOptions): KubeObject[] {
  const priority = (name: string, value: number, description: string): KubeObject => ({
    ...object('scheduling.k8s.io/v1', 'PriorityClass', { name }),
    value,
    description,
  });
  return [
    priority(
      'system-cluster-critical',
      2_000_000_000,
      'Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.',
    ),
    priority(
      'system-node-critical',
      2_000_001_000,
      'Used for system critical pods that must not be moved from their current node.',
    ),
    {
      ...object('storage.k8s.io/v1', 'StorageClass', {
        name: 'local',
        annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' },
      }),
      provisioner: options.storageProvisioner,
      volumeBindingMode: 'WaitForFirstConsumer',
    },
    {
      ...object('networking.k8s.io/v1', 'IngressClass', {
        name: 'estiba',
        annotations: { 'ingressclass.kubernetes.io/is-default-class': 'true' },
      }),
      spec: { controller: options.ingressController },
    },
  ];
}

const KUBERNETES = {
  name: 'kubernetes',
  namespace: 'default',
  labels: { component: 'apiserver', provider: 'kubernetes' },
};

function kubernetesService({ serviceCidr, endpoint }: BootstrapOptions): KubeObject {
  return {
    ...object('v1', 'Service', { ...KUBERNETES }),
    spec: {
      type: 'ClusterIP',
      clusterIP: addressAt(serviceCidr, 1),
      ports: [{ name: 'https', port: 443, protocol: 'TCP', targetPort: endpoint?.port ?? 6443 }],
    },
  };
}

function kubernetesEndpoints({ address, port }: { address: string; port: number }): KubeObject {
  return {
    ...object('v1', 'Endpoints', { ...KUBERNETES, labels: { 'endpointslice.kubernetes.io/skip-mirror': 'true' } }),
    subsets: [{ addresses: [{ ip: address }], ports: [{ name: 'https', port, protocol: 'TCP' }] }],
  };
}

function kubernetesSlice({ address, port }: { address: string; port: number }): KubeObject {
  return {
    ...object('discovery.k8s.io/v1', 'EndpointSlice', {
      ...KUBERNETES,
      labels: { 'kubernetes.io/service-name': 'kubernetes' },
    }),
    addressType: 'IPv4',
    endpoints: [{ addresses: [address], conditions: { ready: true } }],
    ports: [{ name: 'https', port, protocol: 'TCP' }],
  };
}

/** Makes it if it is not there; with `field`, brings that field up to date. What people changed besides stays. */
async function ensure(
  { registry, table }: Pick<BootstrapOptions, 'registry' | 'table'>,
  wanted: KubeObject,
  field?: string,
): Promise<void> {
  const resource = [...table.values()].find(
    (r) => r.facts.apiVersion === wanted.apiVersion && r.facts.kind === wanted.kind,
  );
  if (!resource) throw new Error(`${wanted.apiVersion} ${wanted.kind} is not served`);
  const { namespace, name } = wanted.metadata;
  const context = contextFor(SERVER, { verb: 'create', manager: 'estiba' });
  const existing = await registry.get(resource, { namespace, name }).catch((error: unknown) => {
    if (isCode(error, 'KUBE_NOTFOUND')) return undefined;
    throw error;
  });
  if (!existing) {
    await registry.create(resource, namespace, wanted, context).catch((error: unknown) => {
      // Another server of the cluster, or a controller, was first.
      if (!isCode(error, 'KUBE_ALREADYEXISTS')) throw error;
    });
    return;
  }
  if (field === undefined || equalJson(existing.object[field], wanted[field])) return;
  await registry.update(resource, { namespace, name }, { ...context, verb: 'update' }, { part: 'main' }, (live) => ({
    ...live,
    [field]: wanted[field],
  }));
}
