import { KUBERNETES_VERSION, kubernetesFacts, type ResourceFacts } from '#spec/kubernetes/facts.ts';
import { FIGURE_RESOURCES, METRICS_GROUP } from './resources/figures.ts';
import { notFound } from './status.ts';

/** What is served, in the two forms clients read: a document a version (old), or all in one (aggregated, kubectl 1.27+). */
const AGGREGATED = /application\/json;[^,]*g=apidiscovery\.k8s\.io[^,]*as=APIGroupDiscoveryList/;

// Preferred version first; and groups in the order kubectl should resolve short names.
const GROUPS = [
  'apps',
  'events.k8s.io',
  'authentication.k8s.io',
  'authorization.k8s.io',
  'autoscaling',
  'batch',
  'networking.k8s.io',
  'policy',
  'rbac.authorization.k8s.io',
  'storage.k8s.io',
  'scheduling.k8s.io',
  'coordination.k8s.io',
  'node.k8s.io',
  'discovery.k8s.io',
  METRICS_GROUP,
];

function served(): readonly ResourceFacts[] {
  return [...kubernetesFacts().resources, ...FIGURE_RESOURCES];
}

export const SERVER_VERSION = {
  major: KUBERNETES_VERSION.split('.')[0] ?? '',
  minor: KUBERNETES_VERSION.split('.')[1] ?? '',
  gitVersion: `v${KUBERNETES_VERSION}.0+estiba`,
  gitCommit: '',
  gitTreeState: 'clean',
  buildDate: '1970-01-01T00:00:00Z',
  goVersion: 'none',
  compiler: `node ${process.version}`,
  platform: `linux/${process.arch === 'x64' ? 'amd64' : process.arch}`,
};

export interface DiscoveryAnswer {
  contentType: string;
  body: object;
}

/** The answer for `/api`, `/apis` and below, or undefined when the path is none of these. */
export function discover(path: string, accept: string, serverAddress: string): DiscoveryAnswer | undefined {
  const parts = path.replace(/\/$/, '').split('/').slice(1);
  const plain = (body: object): DiscoveryAnswer => ({ contentType: 'application/json', body });
  if (parts[0] !== 'api' && parts[0] !== 'apis') return undefined;
  if (parts.length === 1) {
    if (AGGREGATED.test(accept)) return aggregated(parts[0] === 'api' ? [''] : GROUPS, accept);
    if (parts[0] === 'apis') return plain({ kind: 'APIGroupList', apiVersion: 'v1', groups: GROUPS.map(group) });
    const serverAddressByClientCIDRs = [{ clientCIDR: '0.0.0.0/0', serverAddress }];
    return plain({ kind: 'APIVersions', versions: ['v1'], serverAddressByClientCIDRs });
  }
  if (parts[0] === 'apis' && parts.length === 2) {
    if (!GROUPS.includes(parts[1] ?? '')) throw notFound({ group: '', resource: 'apigroups', name: parts[1] ?? '' });
    return plain({ kind: 'APIGroup', apiVersion: 'v1', ...group(parts[1] ?? '') });
  }
  const apiVersion = parts.slice(1).join('/');
  const resources = served().filter((r) => r.apiVersion === apiVersion);
  if (resources.length === 0 || parts.length !== (parts[0] === 'api' ? 2 : 3)) return undefined;
  return plain({
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion: apiVersion,
    resources: resources.flatMap(listed),
  });
}

function versionsOf(name: string): string[] {
  const versions = new Set(
    served()
      .filter((r) => r.group === name)
      .map((r) => r.version),
  );
  // Higher first: autoscaling/v2 before v1.
  return [...versions].sort().reverse();
}

function group(name: string): object {
  const versions = versionsOf(name).map((version) => ({ groupVersion: `${name}/${version}`, version }));
  return { name, versions, preferredVersion: versions[0] };
}

const SUB_VERBS = ['create', 'delete', 'get', 'patch', 'update'];

function listed(r: ResourceFacts): object[] {
  const main = {
    name: r.resource,
    singularName: r.singular,
    namespaced: r.namespaced,
    kind: r.kind,
    verbs: [...r.verbs],
    ...(r.shortNames.length > 0 ? { shortNames: r.shortNames } : {}),
    ...(r.categories.length > 0 ? { categories: r.categories } : {}),
    storageVersionHash: '',
  };
  const subs = [...r.subresources.values()].map((s) => {
    const { group: g, version } = split(s.apiVersion);
    return {
      name: `${r.resource}/${s.name}`,
      singularName: '',
      namespaced: r.namespaced,
      ...(s.apiVersion === r.apiVersion ? {} : { group: g, version }),
      kind: s.kind,
      verbs: subVerbs(s.verbs),
    };
  });
  return [main, ...subs];
}

function subVerbs(verbs: ReadonlySet<string>): string[] {
  return verbs.has('connect') ? ['create', 'get'] : SUB_VERBS.filter((v) => verbs.has(v));
}

function split(apiVersion: string): { group: string; version: string } {
  const slash = apiVersion.indexOf('/');
  return { group: slash < 0 ? '' : apiVersion.slice(0, slash), version: apiVersion.slice(slash + 1) };
}

function aggregated(groups: readonly string[], accept: string): DiscoveryAnswer {
  const version = /v=(v2beta1|v2)(?![\w])/.exec(accept)?.[1] ?? 'v2';
  const items = groups.map((name) => ({
    metadata: name === '' ? {} : { name },
    versions: versionsOf(name).map((v) => ({
      version: v,
      freshness: 'Current',
      resources: served()
        .filter((r) => r.group === name && r.version === v)
        .map(aggregatedResource),
    })),
  }));
  return {
    contentType: `application/json;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`,
    body: { kind: 'APIGroupDiscoveryList', apiVersion: `apidiscovery.k8s.io/${version}`, metadata: {}, items },
  };
}

function aggregatedResource(r: ResourceFacts): object {
  const subresources = [...r.subresources.values()].map((s) => ({
    subresource: s.name,
    responseKind: { ...split(s.apiVersion), kind: s.kind },
    verbs: subVerbs(s.verbs),
  }));
  return {
    resource: r.resource,
    responseKind: { group: r.group, version: r.version, kind: r.kind },
    scope: r.namespaced ? 'Namespaced' : 'Cluster',
    singularResource: r.singular,
    verbs: [...r.verbs],
    ...(r.shortNames.length > 0 ? { shortNames: r.shortNames } : {}),
    ...(r.categories.length > 0 ? { categories: r.categories } : {}),
    ...(subresources.length > 0 ? { subresources } : {}),
  };
}
