import type { User } from '../authn/user.ts';
import { MASTERS } from '../authn/user.ts';
import type { Cache } from '../cache/cache.ts';
import { nodeDecision } from './node.ts';
import { RbacIndex, type Rule } from './rbac.ts';

/** One thing somebody wants to do. */
export type Attributes =
  | {
      is: 'resource';
      verb: string;
      group: string;
      resource: string;
      subresource: string;
      namespace: string | undefined;
      name: string | undefined;
    }
  | { is: 'path'; verb: string; path: string };

export interface Decision {
  allowed: boolean;
  /** Which rule allowed it, or why nothing did; for `auth can-i` and reviews. */
  reason: string;
}

/** Masters may everything; nodes what concerns their pods; all others what RBAC grants. */
export class Authorizer {
  readonly #cache: Cache;
  readonly #rbac: RbacIndex;

  constructor(cache: Cache) {
    this.#cache = cache;
    this.#rbac = new RbacIndex(cache);
  }

  decide(user: User, attributes: Attributes): Decision {
    if (user.groups.includes(MASTERS)) return { allowed: true, reason: '' };
    const node = nodeDecision(this.#cache, user, attributes);
    if (node) return node;
    return this.#rbac.decide(user, attributes);
  }

  /** Every rule that applies to a user in a namespace. */
  rulesOf(user: User, namespace: string | undefined): Rule[] {
    if (user.groups.includes(MASTERS))
      return [
        { verbs: ['*'], apiGroups: ['*'], resources: ['*'] },
        { verbs: ['*'], nonResourceURLs: ['*'] },
      ];
    return this.#rbac.rulesOf(user, namespace);
  }

  /** Does the user hold all of `rules` itself? Who writes roles may not hand out more than it has. */
  covers(user: User, namespace: string | undefined, rules: readonly Rule[]): boolean {
    if (user.groups.includes(MASTERS)) return true;
    return this.#rbac.covers(user, namespace, rules);
  }

  rulesOfRole(ref: { kind: string; name: string }, namespace: string | undefined): Rule[] {
    return this.#rbac.rulesOfRole(ref, namespace);
  }
}
