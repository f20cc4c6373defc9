import { type KubeObject, keyOf } from '#cluster/store/objects.ts';
import { claimNameOf } from '#spec/kubernetes/pod-volumes.ts';
import type { Pod } from '#spec/kubernetes/types.gen.ts';
import { nodeNameOf, type User } from '../authn/user.ts';
import type { Cache } from '../cache/cache.ts';
import { isObject, type JsonObject } from '../codec/json.ts';
import type { Attributes, Decision } from './authorizer.ts';

/**
 * What a node may read beyond its role: only the secrets, config maps, claims and accounts that pods bound to it name. A stolen node
 * credential then opens what that node ran anyway. Undefined: not for this authorizer to say.
 */
const GUARDED = new Set(['secrets', 'configmaps', 'persistentvolumeclaims', 'persistentvolumes', 'serviceaccounts']);

export function nodeDecision(cache: Cache, user: User, attributes: Attributes): Decision | undefined {
  const node = nodeNameOf(user);
  if (node === undefined || attributes.is === 'path' || attributes.group !== '' || !GUARDED.has(attributes.resource))
    return undefined;
  const { resource, namespace, name, verb, subresource } = attributes;
  const refused = (why: string): Decision => ({ allowed: false, reason: `node ${node}: ${why}` });
  if (resource === 'serviceaccounts' && (subresource !== 'token' || verb !== 'create'))
    return refused('may only create tokens of service accounts');
  if (resource !== 'serviceaccounts' && !['get', 'list', 'watch'].includes(verb)) return undefined;
  if (name === undefined) return refused(`can only read resources of this type by name`);
  return isNamed(cache, node, { resource, namespace, name })
    ? { allowed: true, reason: '' }
    : refused(`no relationship found between node '${node}' and this object`);
}

function isNamed(
  cache: Cache,
  node: string,
  what: { resource: string; namespace: string | undefined; name: string },
): boolean {
  if (what.resource === 'persistentvolumes') return volumeIsUsed(cache, node, what.name);
  for (const { object } of cache.resource('pods').all(what.namespace)) {
    const spec = isObject(object['spec']) ? object['spec'] : {};
    if (spec['nodeName'] !== node) continue;
    if (what.resource === 'serviceaccounts') {
      if (spec['serviceAccountName'] === what.name) return true;
    } else if (what.resource === 'persistentvolumeclaims' && ownClaims(object).includes(what.name)) {
      return true;
    } else if (names(spec, REFERENCES[what.resource] ?? NO_REFERENCES).has(what.name)) return true;
  }
  return false;
}

/** Claims of ephemeral volumes, which the spec does not name. */
function ownClaims(object: KubeObject): string[] {
  const pod = object as unknown as Pod;
  return (pod.spec.volumes ?? []).flatMap((v) => (v.ephemeral && claimNameOf(pod, v)) ?? []);
}

function volumeIsUsed(cache: Cache, node: string, name: string): boolean {
  const volume = cache.resource('persistentvolumes').get(keyOf('persistentvolumes', { name }))?.object;
  const claim =
    isObject(volume?.['spec']) && isObject(volume['spec']['claimRef']) ? volume['spec']['claimRef'] : undefined;
  return (
    claim !== undefined &&
    isNamed(cache, node, {
      resource: 'persistentvolumeclaims',
      namespace: String(claim['namespace']),
      name: String(claim['name']),
    })
  );
}

// Fields of a pod's spec that name an object, and the member that is its name.
const REFERENCES: Record<string, Record<string, string>> = {
  secrets: {
    secretKeyRef: 'name',
    secretRef: 'name',
    secret: 'secretName',
    imagePullSecrets: 'name',
    projectedSecret: 'name',
  },
  configmaps: { configMapKeyRef: 'name', configMapRef: 'name', configMap: 'name' },
  persistentvolumeclaims: { persistentVolumeClaim: 'claimName' },
};

// Objects in the cache are never changed in place: what a spec names is looked up once a spec, not once a request.
const known = new WeakMap<JsonObject, Map<object, Set<string>>>();

const NO_REFERENCES = {};

function names(spec: JsonObject, references: Readonly<Record<string, string>>): Set<string> {
  const before = known.get(spec)?.get(references);
  if (before) return before;
  const found = new Set<string>();
  known.set(spec, (known.get(spec) ?? new Map()).set(references, found));
  const walk = (value: unknown): void => {
    if (Array.isArray(value)) value.forEach(walk);
    else if (isObject(value)) {
      for (const [key, item] of Object.entries(value)) {
        const member = references[key];
        for (const target of member === undefined ? [] : [item].flat()) {
          if (!isObject(target)) continue;
          // A projected secret names itself by `name`, a secret volume by `secretName`.
          const name = target[member ?? ''] ?? target['name'];
          if (typeof name === 'string') found.add(name);
        }
        walk(item);
      }
    }
  };
  walk(spec);
  return found;
}
