import { wishedContainer } from '#engine/api/docker/containers.ts';
import { textOf } from '#engine/api/docker/query.ts';
import { updateRequest } from '#engine/api/docker/update.ts';
import { json } from '#engine/api/reply.ts';
import type { RouteRow } from '#engine/api/router.ts';
import type { Handlers } from '#engine/api/server.ts';
import type { Containers } from '#engine/core/containers.ts';
import type { Insight } from '#engine/core/insight/insight.ts';
import { checkBody } from '#spec/docker/body.ts';

/**
 * What a request would do, with nothing done; bodies are those of Docker's own calls, answers `Foreseen` of
 * `engine/core/insight/foresee.ts`.
 *
 *     POST /estiba/v1/plan/create?name=web       a create and the start after it
 *     POST /estiba/v1/plan/update/{id}           an update
 */
export const PLAN_ROUTES: readonly RouteRow[] = [
  { method: 'POST', path: '/estiba/v1/plan/create', id: 'EstibaPlanCreate' },
  { method: 'POST', path: '/estiba/v1/plan/update/{id}', id: 'EstibaPlanUpdate' },
];

export function planHandlers(containers: Containers, insight: Insight): Handlers {
  return {
    EstibaPlanCreate: async ({ query, json: body }) => {
      const { spec } = wishedContainer(checkBody('ContainerCreate', await body()), containers);
      return json(await insight.planCreate(textOf(query, 'name'), spec));
    },
    EstibaPlanUpdate: async ({ params, json: body }) =>
      json(insight.planUpdate(params['id'] ?? '', updateRequest(checkBody('ContainerUpdate', await body())))),
  };
}
