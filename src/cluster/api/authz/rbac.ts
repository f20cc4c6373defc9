import { keyOf } from '#cluster/store/objects.ts';
import { matchesSelector } from '#spec/kubernetes/selector.ts';
import type {
  ClusterRole,
  ClusterRoleBinding,
  PolicyRule,
  Role,
  RoleBinding,
  Subject,
} from '#spec/kubernetes/types.gen.ts';
import type { User } from '../authn/user.ts';
import type { Cache } from '../cache/cache.ts';
import type { Attributes, Decision } from './authorizer.ts';

export type Rule = PolicyRule;

interface Grant {
  rules: readonly Rule[];
  /** `ClusterRoleBinding "x" of ClusterRole "y"` */
  by: string;
}

/** Roles and bindings as they are in the cache, looked up by subject. Rebuilt when one of them has changed. */
export class RbacIndex {
  readonly #cache: Cache;
  #builtAt = '';
  /** Grants by namespace ('' for the whole cluster), then by subject. */
  #grants = new Map<string, Map<string, Grant[]>>();

  constructor(cache: Cache) {
    this.#cache = cache;
  }

  decide(user: User, attributes: Attributes): Decision {
    const namespace = attributes.is === 'resource' ? attributes.namespace : undefined;
    for (const grant of this.#grantsOf(user, namespace)) {
      if (grant.rules.some((rule) => allows(rule, attributes)))
        return { allowed: true, reason: `RBAC: allowed by ${grant.by} to ${user.username}` };
    }
    return { allowed: false, reason: '' };
  }

  rulesOf(user: User, namespace: string | undefined): Rule[] {
    return [...this.#grantsOf(user, namespace)].flatMap((grant) => grant.rules);
  }

  covers(user: User, namespace: string | undefined, rules: readonly Rule[]): boolean {
    const held = this.rulesOf(user, namespace);
    return rules.every((rule) => atomsOf(rule).every((atom) => held.some((mine) => allows(mine, atom))));
  }

  rulesOfRole(ref: { kind: string; name: string }, namespace: string | undefined): Rule[] {
    const resource = ref.kind === 'ClusterRole' ? 'clusterroles' : 'roles';
    const at = ref.kind === 'ClusterRole' ? { name: ref.name } : { namespace, name: ref.name };
    const stored = this.#cache.resource(resource).get(keyOf(resource, at));
    return stored ? this.#rulesIn(stored.object as unknown as ClusterRole | Role) : [];
  }

  *#grantsOf(user: User, namespace: string | undefined): Generator<Grant> {
    this.#refresh();
    for (const scope of namespace ? ['', namespace] : ['']) {
      const bySubject = this.#grants.get(scope);
      if (!bySubject) continue;
      for (const subject of [`u ${user.username}`, ...user.groups.map((g) => `g ${g}`)])
        yield* bySubject.get(subject) ?? [];
    }
  }

  #refresh(): void {
    const stamp = ['roles', 'clusterroles', 'rolebindings', 'clusterrolebindings']
      .map((r) => this.#cache.resource(r).changes)
      .join(' ');
    if (stamp === this.#builtAt) return;
    this.#builtAt = stamp;
    this.#grants = new Map();
    for (const { object } of this.#cache.resource('clusterrolebindings').all())
      this.#add('', object as unknown as ClusterRoleBinding);
    for (const { object } of this.#cache.resource('rolebindings').all())
      this.#add(object.metadata.namespace ?? '', object as unknown as RoleBinding);
  }

  #add(scope: string, binding: ClusterRoleBinding | RoleBinding): void {
    const { roleRef } = binding;
    const rules = this.rulesOfRole(roleRef, scope);
    const grant: Grant = {
      rules,
      by: `${binding.kind ?? 'Binding'} "${binding.metadata.name ?? ''}${scope === '' ? '' : `/${scope}`}" of ${roleRef.kind} "${roleRef.name}"`,
    };
    const bySubject = this.#grants.get(scope) ?? new Map<string, Grant[]>();
    this.#grants.set(scope, bySubject);
    for (const subject of binding.subjects ?? []) {
      const key = subjectKey(subject, scope);
      bySubject.set(key, [...(bySubject.get(key) ?? []), grant]);
    }
  }

  /** An aggregated role has the rules of all roles its selectors find, and of those that theirs find. */
  #rulesIn(role: ClusterRole | Role, visited = new Set<string>()): Rule[] {
    const selectors = 'aggregationRule' in role ? (role.aggregationRule?.clusterRoleSelectors ?? []) : [];
    const own = role.rules ?? [];
    const name = role.metadata.name ?? '';
    if (selectors.length === 0 || visited.has(name)) return own;
    visited.add(name);
    const found = [...this.#cache.resource('clusterroles').all()].filter(
      ({ object }) =>
        !visited.has(object.metadata.name) && selectors.some((s) => matchesSelector(s, object.metadata.labels)),
    );
    return [...own, ...found.flatMap(({ object }) => this.#rulesIn(object as unknown as ClusterRole, visited))];
  }
}

function subjectKey(subject: Subject, scope: string): string {
  if (subject.kind === 'ServiceAccount') return `u system:serviceaccount:${subject.namespace ?? scope}:${subject.name}`;
  return `${subject.kind === 'Group' ? 'g' : 'u'} ${subject.name}`;
}

export function allows(rule: Rule, attributes: Attributes): boolean {
  if (!has(rule.verbs, attributes.verb)) return false;
  if (attributes.is === 'path')
    return (rule.nonResourceURLs ?? []).some((pattern) => matchesPath(pattern, attributes.path));
  const { group, resource, subresource, name } = attributes;
  return (
    has(rule.apiGroups ?? [], group) &&
    (rule.resources ?? []).some((r) => matchesResource(r, resource, subresource)) &&
    ((rule.resourceNames ?? []).length === 0 || (name !== undefined && (rule.resourceNames ?? []).includes(name)))
  );
}

function has(list: readonly string[], value: string): boolean {
  return list.includes('*') || list.includes(value);
}

function matchesResource(pattern: string, resource: string, subresource: string): boolean {
  if (pattern === '*') return true;
  if (subresource === '') return pattern === resource;
  return pattern === `${resource}/${subresource}` || pattern === `*/${subresource}`;
}

function matchesPath(pattern: string, path: string): boolean {
  return pattern === '*' || pattern === path || (pattern.endsWith('*') && path.startsWith(pattern.slice(0, -1)));
}

/** A rule as all single permissions it is made of; `*` stands for itself. */
function atomsOf(rule: Rule): Attributes[] {
  const paths = rule.verbs.flatMap((verb) =>
    (rule.nonResourceURLs ?? []).map((path): Attributes => ({ is: 'path', verb, path })),
  );
  const names = (rule.resourceNames ?? []).length === 0 ? [undefined] : (rule.resourceNames ?? []);
  const resources = rule.verbs.flatMap((verb) =>
    (rule.apiGroups ?? []).flatMap((group) =>
      (rule.resources ?? []).flatMap((r) => {
        const [resource = '', subresource = ''] = r.split('/');
        return names.map(
          (name): Attributes => ({ is: 'resource', verb, group, resource, subresource, namespace: undefined, name }),
        );
      }),
    ),
  );
  return [...paths, ...resources];
}
