import type { Verb } from '#cli/verb.ts';
import { UP_VERBS } from '#cli/verbs/up.ts';

/** Every verb that a daemon or a cluster answers. */
export const ALL_VERBS: readonly Verb[] = [...UP_VERBS];
