import { fail } from '#base/shape.ts';
import { integer } from '#engine/api/docker/query.ts';
import { json } from '#engine/api/reply.ts';
import type { RouteRow } from '#engine/api/router.ts';
import type { Handlers } from '#engine/api/server.ts';
import type { NodeImages } from '#engine/core/images.ts';

/**
 * Our own questions about images.
 *
 *     GET  /estiba/v1/images/{name}/explain?top=10    which instruction added which bytes, and what of them is wasted
 *                                                     (`Explanation` of `image/explain.ts`)
 */
export const IMAGE_ROUTES: readonly RouteRow[] = [
  { method: 'GET', path: '/estiba/v1/images/{name}/explain', id: 'EstibaImageExplain' },
];

const TOP = 10;
const TOP_MOST = 10_000;

export function imageHandlers(images: NodeImages): Handlers {
  return {
    EstibaImageExplain: async ({ params, query, signal }) => {
      const top = integer(query, 'top') ?? TOP;
      if (top < 1 || top > TOP_MOST) return fail('query top', String(top), `is not between 1 and ${TOP_MOST}`);
      return json(await images.explain(params['name'] ?? '', top, signal));
    },
  };
}
