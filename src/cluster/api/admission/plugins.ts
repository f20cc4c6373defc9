import { type KubeObject, keyOf } from '#cluster/store/objects.ts';
import { nodeNameOf } from '../authn/user.ts';
import type { Cache } from '../cache/cache.ts';
import { isObject, type JsonObject } from '../codec/json.ts';
import { forbidden, notFound, StatusError } from '../status.ts';
import type { AdmissionRequest, DeletePlugin, MutatingPlugin } from './admission.ts';

/** Admission that changes or refuses one object by looking at others, a plugin each, named as upstream names them. */
const list = (value: unknown): JsonObject[] => (Array.isArray(value) ? value.filter(isObject) : []);
const part = (o: JsonObject, name: string): JsonObject => (isObject(o[name]) ? o[name] : {});
const isNewPod = ({ resource, old, context }: AdmissionRequest): boolean =>
  resource.facts.resource === 'pods' && old === undefined && context.subresource === '';
const subject = ({ resource, object }: AdmissionRequest) => ({
  group: resource.facts.group,
  resource: resource.facts.resource,
  name: object.metadata.name || object.metadata.generateName || '',
});

/** Nothing is created in a namespace that does not exist or is on its way out. */
export function namespaceLifecycle(cache: Cache): MutatingPlugin {
  return {
    name: 'NamespaceLifecycle',
    async mutate(request) {
      const { resource, old, object } = request;
      if (!resource.facts.namespaced || old) return;
      const name = object.metadata.namespace ?? '';
      const find = (): KubeObject | undefined =>
        cache.resource('namespaces').get(keyOf('namespaces', { name }))?.object;
      if (!find()) await cache.fresh();
      const namespace = find();
      if (!namespace) throw notFound({ group: '', resource: 'namespaces', name });
      if (namespace.metadata.deletionTimestamp === undefined && part(namespace, 'status')['phase'] !== 'Terminating')
        return;
      throw new StatusError(
        403,
        'Forbidden',
        forbidden(subject(request), `unable to create new content in namespace ${name} because it is being terminated`)
          .message,
        {
          details: {
            ...subject(request),
            kind: resource.facts.resource,
            causes: [
              {
                reason: 'NamespaceTerminating',
                message: `namespace ${name} is being terminated`,
                field: 'metadata.namespace',
              },
            ],
          },
        },
      );
    },
  };
}

const TOKEN_MOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

/** A pod runs as an account that exists, with its pull secrets, and with a projected token unless somebody says no. */
export function serviceAccount(cache: Cache, random: () => number): MutatingPlugin {
  return {
    name: 'ServiceAccount',
    mutate(request) {
      if (!isNewPod(request)) return;
      const spec = part(request.object, 'spec');
      if (request.object.metadata.annotations?.['kubernetes.io/config.mirror'] !== undefined) return;
      const name = String(spec['serviceAccountName'] || 'default');
      Object.assign(spec, { serviceAccountName: name, serviceAccount: name });
      const { namespace } = request.object.metadata;
      const account = cache.resource('serviceaccounts').get(keyOf('serviceaccounts', { namespace, name }))?.object;
      if (!account)
        throw forbidden(
          subject(request),
          `error looking up service account ${namespace ?? ''}/${name}: serviceaccount "${name}" not found`,
        );
      const wanted = spec['automountServiceAccountToken'] ?? account['automountServiceAccountToken'] ?? true;
      if (wanted === true) mountToken(spec, random);
      if (spec['imagePullSecrets'] === undefined && list(account['imagePullSecrets']).length > 0)
        spec['imagePullSecrets'] = account['imagePullSecrets'];
    },
  };
}

function mountToken(spec: JsonObject, random: () => number): void {
  const containers = [...list(spec['initContainers']), ...list(spec['containers'])];
  const lacking = containers.filter((c) => !list(c['volumeMounts']).some((m) => m['mountPath'] === TOKEN_MOUNT));
  if (lacking.length === 0) return;
  const existing = list(spec['volumes']).find((v) => String(v['name']).startsWith('kube-api-access-'));
  const name = existing ? String(existing['name']) : `kube-api-access-${suffix(random)}`;
  for (const container of lacking)
    container['volumeMounts'] = [...list(container['volumeMounts']), { name, readOnly: true, mountPath: TOKEN_MOUNT }];
  if (existing) return;
  const sources = [
    { serviceAccountToken: { expirationSeconds: 3607, path: 'token' } },
    { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
    {
      downwardAPI: { items: [{ path: 'namespace', fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } }] },
    },
  ];
  spec['volumes'] = [...list(spec['volumes']), { name, projected: { sources, defaultMode: 420 } }];
}

function suffix(random: () => number): string {
  const letters = 'bcdfghjklmnpqrstvwxz2456789';
  return Array.from({ length: 5 }, () => letters[Math.floor(random() * letters.length)]).join('');
}

/** A pod's priority is a number looked up once, so that a later change of the class does not reorder what runs. */
export function priority(cache: Cache): MutatingPlugin {
  return {
    name: 'Priority',
    mutate(request) {
      if (!isNewPod(request)) return;
      const spec = part(request.object, 'spec');
      const classes = [...cache.resource('priorityclasses').all()].map((s) => s.object);
      const name = spec['priorityClassName'];
      const found = name
        ? classes.find((c) => c.metadata.name === name)
        : classes.find((c) => c['globalDefault'] === true);
      if (name && !found) throw forbidden(subject(request), `no PriorityClass with name ${String(name)} was found`);
      const value = Number(found?.['value'] ?? 0);
      if (spec['priority'] !== undefined && spec['priority'] !== value)
        throw forbidden(
          subject(request),
          `the integer value of priority (${String(spec['priority'])}) must not be provided in pod spec; priority admission controller computed ${value} from the given PriorityClass name`,
        );
      spec['priority'] = value;
      spec['preemptionPolicy'] = found?.['preemptionPolicy'] ?? 'PreemptLowerPriority';
      if (found && !name) spec['priorityClassName'] = found.metadata.name;
    },
  };
}

const TOLERATED_SECONDS = 300;

/** Pods stay five minutes on a node that is not ready or not reachable, unless they say how long. */
export const defaultTolerationSeconds: MutatingPlugin = {
  name: 'DefaultTolerationSeconds',
  mutate(request) {
    if (!isNewPod(request)) return;
    const spec = part(request.object, 'spec');
    const tolerations = list(spec['tolerations']);
    for (const key of ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable']) {
      const tolerated = tolerations.some(
        (t) => (t['key'] === key || !t['key']) && (!t['effect'] || t['effect'] === 'NoExecute'),
      );
      if (!tolerated)
        tolerations.push({ key, operator: 'Exists', effect: 'NoExecute', tolerationSeconds: TOLERATED_SECONDS });
    }
    spec['tolerations'] = tolerations;
  },
};

const CLASS_ANNOTATION = 'volume.beta.kubernetes.io/storage-class';

/** A claim that names no class gets the default one; `""` means none at all. */
export function defaultStorageClass(cache: Cache): MutatingPlugin {
  return {
    name: 'DefaultStorageClass',
    mutate({ resource, object, old }) {
      if (resource.facts.resource !== 'persistentvolumeclaims' || old) return;
      const spec = part(object, 'spec');
      const chosen = spec['storageClassName'] ?? object.metadata.annotations?.[CLASS_ANNOTATION];
      const name =
        chosen === undefined
          ? defaultOf(cache, 'storageclasses', 'storageclass.kubernetes.io/is-default-class')
          : undefined;
      if (name !== undefined) spec['storageClassName'] = name;
    },
  };
}

export function defaultIngressClass(cache: Cache): MutatingPlugin {
  return {
    name: 'DefaultIngressClass',
    mutate({ resource, object, old }) {
      if (resource.facts.resource !== 'ingresses' || old) return;
      const spec = part(object, 'spec');
      if (
        spec['ingressClassName'] !== undefined ||
        object.metadata.annotations?.['kubernetes.io/ingress.class'] !== undefined
      )
        return;
      const name = defaultOf(cache, 'ingressclasses', 'ingressclass.kubernetes.io/is-default-class');
      if (name !== undefined) spec['ingressClassName'] = name;
    },
  };
}

/** The newest of those marked as default. */
function defaultOf(cache: Cache, resource: string, annotation: string): string | undefined {
  const marked = [...cache.resource(resource).all()]
    .map((s) => s.object.metadata)
    .filter((m) => m.annotations?.[annotation] === 'true');
  marked.sort((a, b) => ((a.creationTimestamp ?? '') > (b.creationTimestamp ?? '') ? -1 : 1));
  return marked[0]?.name;
}

/** A node changes itself and its pods, and nothing else. */
export const nodeRestriction: MutatingPlugin = {
  name: 'NodeRestriction',
  mutate(request) {
    const node = nodeNameOf(request.context.user);
    if (node === undefined) return;
    const { resource, object, old } = request;
    const refuse = (why: string): never => {
      throw forbidden(subject(request), why);
    };
    if (resource.facts.resource === 'nodes') {
      if (object.metadata.name !== node)
        refuse(`node "${node}" is not allowed to modify node "${object.metadata.name}"`);
      const restricted = changedLabels(object, old).filter((l) => /(^|\.)node-restriction\.kubernetes\.io\//.test(l));
      if (restricted.length > 0) refuse(`is not allowed to modify labels: ${restricted.join(', ')}`);
    } else if (resource.facts.resource === 'pods') {
      const bound = part(object, 'spec')['nodeName'];
      if (bound !== node) refuse(`node "${node}" can only update pods with spec.nodeName set to itself`);
      if (!old && object.metadata.annotations?.['kubernetes.io/config.mirror'] === undefined)
        refuse(
          `pod does not have "kubernetes.io/config.mirror" annotation, node "${node}" can only create mirror pods`,
        );
    } else if (
      resource.facts.resource === 'leases' &&
      (object.metadata.namespace !== 'kube-node-lease' || object.metadata.name !== node)
    ) {
      refuse(`node "${node}" can only access the lease of its own name in kube-node-lease`);
    }
  },
};

/** Namespaces a cluster cannot be without. */
const PROTECTED = new Set(['default', 'kube-system', 'kube-public']);

export const namespaceProtection: DeletePlugin = {
  name: 'NamespaceLifecycle',
  checkDelete({ resource, object }) {
    if (resource.facts.resource === 'namespaces' && PROTECTED.has(object.metadata.name))
      throw forbidden(
        { group: '', resource: 'namespaces', name: object.metadata.name },
        'this namespace may not be deleted',
      );
  },
};

/** A node takes away its own pods, its own lease, and itself. */
export const nodeDeleteRestriction: DeletePlugin = {
  name: 'NodeRestriction',
  checkDelete({ resource, object, context }) {
    const node = nodeNameOf(context.user);
    if (node === undefined) return;
    const kind = resource.facts.resource;
    const own = kind === 'pods' ? part(object, 'spec')['nodeName'] === node : object.metadata.name === node;
    if (!own)
      throw forbidden(
        { group: resource.facts.group, resource: kind, name: object.metadata.name },
        `node "${node}" can only delete its own ${kind}`,
      );
  },
};

function changedLabels(object: KubeObject, old: KubeObject | undefined): string[] {
  const now = object.metadata.labels ?? {};
  const before = old?.metadata.labels ?? {};
  return [...new Set([...Object.keys(now), ...Object.keys(before)])].filter((l) => now[l] !== before[l]);
}
