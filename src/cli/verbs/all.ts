import type { Verb } from '#cli/verb.ts';
import { CONTAINER_VERBS } from '#cli/verbs/containers.ts';
import { IMAGE_VERBS, NETWORK_VERBS, VOLUME_VERBS } from '#cli/verbs/objects.ts';
import { INSIGHT_VERBS, SYSTEM_VERBS } from '#cli/verbs/system.ts';
import { UI_VERBS } from '#cli/verbs/ui.ts';
import { UP_VERBS } from '#cli/verbs/up.ts';

/** Every verb that a daemon or a cluster answers. */
export const ALL_VERBS: readonly Verb[] = [
  ...CONTAINER_VERBS,
  ...IMAGE_VERBS,
  ...NETWORK_VERBS,
  ...VOLUME_VERBS,
  ...SYSTEM_VERBS,
  ...INSIGHT_VERBS,
  ...UP_VERBS,
  ...UI_VERBS,
];
