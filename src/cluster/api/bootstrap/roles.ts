import type { ClusterRole, ClusterRoleBinding, PolicyRule, Subject } from '#spec/kubernetes/types.gen.ts';

/** The roles every Kubernetes cluster has, with the rules that concern what is served here. */
const RBAC = 'rbac.authorization.k8s.io';
const READ = ['get', 'list', 'watch'];
const WRITE = ['create', 'delete', 'deletecollection', 'patch', 'update'];
const BOOTSTRAP = { 'kubernetes.io/bootstrapping': 'rbac-defaults' };
const AUTO_UPDATE = { 'rbac.authorization.kubernetes.io/autoupdate': 'true' };

const rule = (groups: string, resources: string, verbs: readonly string[]): PolicyRule => ({
  verbs: [...verbs],
  apiGroups: groups.split(',').map((g) => (g === 'core' ? '' : g)),
  resources: resources.split(' '),
});
const paths = (...nonResourceURLs: string[]): PolicyRule => ({ verbs: ['get'], nonResourceURLs });

// What a namespace's people work with, beside secrets and RBAC.
const CORE_OPEN =
  'configmaps endpoints events persistentvolumeclaims pods replicationcontrollers replicationcontrollers/scale services';
const VIEW_RULES: PolicyRule[] = [
  rule(
    'core',
    `${CORE_OPEN} serviceaccounts bindings limitranges namespaces namespaces/status persistentvolumeclaims/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status services/status`,
    READ,
  ),
  rule(
    'apps',
    'controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status',
    READ,
  ),
  rule('autoscaling', 'horizontalpodautoscalers horizontalpodautoscalers/status', READ),
  rule('batch', 'cronjobs cronjobs/status jobs jobs/status', READ),
  rule('discovery.k8s.io,events.k8s.io', 'endpointslices events', READ),
  rule('networking.k8s.io', 'ingresses ingresses/status networkpolicies', READ),
  rule('policy', 'poddisruptionbudgets poddisruptionbudgets/status', READ),
  rule('metrics.k8s.io', 'pods nodes', READ),
];
const EDIT_RULES: PolicyRule[] = [
  rule('core', 'pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy', READ),
  rule('core', 'serviceaccounts', ['impersonate']),
  rule(
    'core',
    'configmaps events persistentvolumeclaims pods pods/attach pods/exec pods/portforward pods/proxy replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy',
    WRITE,
  ),
  rule('core', 'pods/eviction serviceaccounts/token', ['create']),
  rule(
    'apps',
    'daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale',
    WRITE,
  ),
  rule('autoscaling', 'horizontalpodautoscalers', WRITE),
  rule('batch', 'cronjobs jobs', WRITE),
  rule('networking.k8s.io', 'ingresses networkpolicies', WRITE),
  rule('policy', 'poddisruptionbudgets', WRITE),
  rule('coordination.k8s.io', 'leases', [...READ, ...WRITE]),
];
const ADMIN_RULES: PolicyRule[] = [
  rule('authorization.k8s.io', 'localsubjectaccessreviews', ['create']),
  rule(RBAC, 'rolebindings roles', [...READ, ...WRITE]),
];
const NODE_RULES: PolicyRule[] = [
  rule('authentication.k8s.io', 'tokenreviews', ['create']),
  rule('authorization.k8s.io', 'localsubjectaccessreviews subjectaccessreviews', ['create']),
  rule('core', 'services', READ),
  rule('core', 'nodes', ['create', 'get', 'list', 'watch', 'patch', 'update']),
  rule('core', 'nodes/status', ['patch', 'update']),
  rule('core', 'events', ['create', 'patch', 'update']),
  rule('core', 'pods', ['create', 'delete', ...READ]),
  rule('core', 'pods/status', ['patch', 'update']),
  rule('core', 'pods/eviction serviceaccounts/token', ['create']),
  rule('core', 'configmaps secrets persistentvolumeclaims persistentvolumes', ['get', 'list', 'watch']),
  rule('core', 'persistentvolumeclaims/status', ['get', 'patch', 'update']),
  rule('coordination.k8s.io', 'leases', ['create', 'delete', 'get', 'patch', 'update']),
  rule('node.k8s.io', 'runtimeclasses', READ),
  rule('discovery.k8s.io,networking.k8s.io', 'endpointslices ingresses ingressclasses networkpolicies', READ),
];

export function bootstrapRoles(): ClusterRole[] {
  const role = (name: string, rules: PolicyRule[], labels: Record<string, string> = {}): ClusterRole => ({
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name, labels: { ...BOOTSTRAP, ...labels }, annotations: AUTO_UPDATE },
    rules,
  });
  const aggregate = (name: string, to: string): ClusterRole => ({
    ...role(name, [], AGGREGATES[name] ?? {}),
    aggregationRule: {
      clusterRoleSelectors: [{ matchLabels: { [`rbac.authorization.k8s.io/aggregate-to-${to}`]: 'true' } }],
    },
  });
  const to = (target: string): Record<string, string> => ({
    [`rbac.authorization.k8s.io/aggregate-to-${target}`]: 'true',
  });
  return [
    role('cluster-admin', [
      { verbs: ['*'], apiGroups: ['*'], resources: ['*'] },
      { verbs: ['*'], nonResourceURLs: ['*'] },
    ]),
    aggregate('admin', 'admin'),
    aggregate('edit', 'edit'),
    aggregate('view', 'view'),
    role('system:aggregate-to-admin', ADMIN_RULES, to('admin')),
    role('system:aggregate-to-edit', EDIT_RULES, to('edit')),
    role('system:aggregate-to-view', VIEW_RULES, to('view')),
    role('system:discovery', [
      paths(
        '/api',
        '/api/*',
        '/apis',
        '/apis/*',
        '/healthz',
        '/livez',
        '/openapi',
        '/openapi/*',
        '/readyz',
        '/version',
        '/version/',
      ),
    ]),
    role('system:public-info-viewer', [paths('/healthz', '/livez', '/readyz', '/version', '/version/')]),
    role('system:basic-user', [
      rule('authorization.k8s.io', 'selfsubjectaccessreviews selfsubjectrulesreviews', ['create']),
      rule('authentication.k8s.io', 'selfsubjectreviews', ['create']),
    ]),
    role('system:service-account-issuer-discovery', [paths('/.well-known/openid-configuration', '/openid/v1/jwks')]),
    role('system:node', NODE_RULES),
    role('system:monitoring', [
      paths('/healthz', '/healthz/*', '/livez', '/livez/*', '/metrics', '/metrics/slis', '/readyz', '/readyz/*'),
    ]),
    role('system:kube-scheduler', [
      rule('core', 'bindings pods/binding', ['create']),
      rule('core', 'pods', ['delete', ...READ]),
      rule('core', 'pods/status', ['patch', 'update']),
      rule('core', 'nodes namespaces services replicationcontrollers persistentvolumeclaims persistentvolumes', READ),
      rule('apps,storage.k8s.io,policy', 'replicasets statefulsets storageclasses poddisruptionbudgets', READ),
      rule('core,events.k8s.io', 'events', ['create', 'patch', 'update']),
      rule('coordination.k8s.io', 'leases', ['create', ...READ, 'update']),
    ]),
    role('system:auth-delegator', [
      rule('authentication.k8s.io', 'tokenreviews', ['create']),
      rule('authorization.k8s.io', 'subjectaccessreviews', ['create']),
    ]),
  ];
}

// Who may edit may view, who administers may edit.
const AGGREGATES: Record<string, Record<string, string>> = {
  edit: { 'rbac.authorization.k8s.io/aggregate-to-admin': 'true' },
  view: { 'rbac.authorization.k8s.io/aggregate-to-edit': 'true' },
};

export function bootstrapBindings(): ClusterRoleBinding[] {
  const group = (name: string): Subject => ({ kind: 'Group', apiGroup: RBAC, name });
  const user = (name: string): Subject => ({ kind: 'User', apiGroup: RBAC, name });
  const binding = (name: string, role: string, ...subjects: Subject[]): ClusterRoleBinding => ({
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name, labels: BOOTSTRAP, annotations: AUTO_UPDATE },
    roleRef: { apiGroup: RBAC, kind: 'ClusterRole', name: role },
    subjects,
  });
  return [
    binding('cluster-admin', 'cluster-admin', group('system:masters')),
    binding('system:discovery', 'system:discovery', group('system:authenticated')),
    binding('system:basic-user', 'system:basic-user', group('system:authenticated')),
    binding(
      'system:public-info-viewer',
      'system:public-info-viewer',
      group('system:authenticated'),
      group('system:unauthenticated'),
    ),
    binding(
      'system:service-account-issuer-discovery',
      'system:service-account-issuer-discovery',
      group('system:serviceaccounts'),
    ),
    binding('system:node', 'system:node', group('system:nodes')),
    binding('system:kube-scheduler', 'system:kube-scheduler', user('system:kube-scheduler')),
    binding('system:monitoring', 'system:monitoring', group('system:monitoring')),
  ];
}
