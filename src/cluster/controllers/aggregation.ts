import { DONE, type Requeue } from '#cluster/client/queue.ts';
import { CLUSTER_ROLES, keyOf, type Live } from '#cluster/client/resources.ts';
import { equalJson } from '#spec/kubernetes/json.ts';
import { matchesSelector } from '#spec/kubernetes/selector.ts';
import type { ClusterRole, PolicyRule } from '#spec/kubernetes/types.gen.ts';
import { type ControllerDeps, type Reconciler, reconciler } from './loop.ts';

/** What an aggregated role is to hold: each rule of the roles that its selectors find, once, in the order of their names. Pure. */
export function aggregatedRules(role: ClusterRole, all: readonly Live<ClusterRole>[]): PolicyRule[] {
  const selectors = role.aggregationRule?.clusterRoleSelectors ?? [];
  const found = all
    .filter((other) => other.metadata.name !== role.metadata.name)
    .filter((other) => selectors.some((selector) => matchesSelector(selector, other.metadata.labels)))
    .sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
  const rules = new Map(found.flatMap(({ rules = [] }) => rules.map((rule) => [JSON.stringify(rule), rule])));
  return [...rules.values()];
}

/**
 * Writes the rules of aggregated ClusterRoles, for those who read them (`kubectl describe clusterrole`): the authorizer follows the
 * selectors itself, so what is allowed never waits for this.
 */
export function aggregationController(deps: ControllerDeps): Reconciler {
  const roles = deps.view.of(CLUSTER_ROLES);
  const loop = reconciler(deps, 'clusterrole-aggregation', reconcile);
  roles.informer.onChange(() => {
    for (const role of roles.list()) if (role.aggregationRule) loop.queue.add(keyOf(role));
  });
  return loop;

  async function reconcile(key: string): Promise<Requeue> {
    const role = roles.get(key);
    if (!role?.aggregationRule) return DONE;
    const rules = aggregatedRules(role, roles.list());
    if (!equalJson(rules, role.rules ?? [])) await roles.update({ ...role, rules });
    return DONE;
  }
}
