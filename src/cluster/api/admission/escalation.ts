import type { PolicyRule } from '#spec/kubernetes/types.gen.ts';
import type { Authorizer } from '../authz/authorizer.ts';
import { equalJson, isObject } from '../codec/json.ts';
import { forbidden } from '../status.ts';
import type { ValidatingPlugin } from './admission.ts';

/** Nobody hands out more than they hold: neither in a role's rules nor by binding a role, unless `escalate` or `bind` lets them. */
export function rbacEscalation(authorizer: Authorizer): ValidatingPlugin {
  return {
    name: 'RBACEscalation',
    validate({ resource, object, old, context }) {
      const kind = resource.facts.resource;
      const { namespace, name } = object.metadata;
      const may = (verb: string, target: string, targetName: string): boolean =>
        authorizer.decide(context.user, {
          is: 'resource',
          verb,
          group: 'rbac.authorization.k8s.io',
          resource: target,
          subresource: '',
          namespace,
          name: targetName,
        }).allowed;
      const refuse = (what: string): never => {
        throw forbidden(
          { group: resource.facts.group, resource: kind, name },
          `user "${context.user.username}" (groups=${JSON.stringify(context.user.groups)}) is attempting to grant RBAC permissions not currently held: ${what}`,
        );
      };
      if (kind === 'roles' || kind === 'clusterroles') {
        if (
          old &&
          equalJson(old['rules'], object['rules']) &&
          equalJson(old['aggregationRule'], object['aggregationRule'])
        )
          return;
        if (may('escalate', kind, name)) return;
        const rules = (object['rules'] as PolicyRule[] | undefined) ?? [];
        if (!authorizer.covers(context.user, namespace, rules) || object['aggregationRule'] !== undefined)
          refuse(JSON.stringify(rules).slice(0, 500));
      } else if (kind === 'rolebindings' || kind === 'clusterrolebindings') {
        const ref = isObject(object['roleRef'])
          ? { kind: String(object['roleRef']['kind']), name: String(object['roleRef']['name']) }
          : { kind: '', name: '' };
        if (may('bind', ref.kind === 'Role' ? 'roles' : 'clusterroles', ref.name)) return;
        if (!authorizer.covers(context.user, namespace, authorizer.rulesOfRole(ref, namespace)))
          refuse(`${ref.kind} ${ref.name}`);
      }
    },
  };
}
