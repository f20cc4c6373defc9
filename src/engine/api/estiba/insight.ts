import { fail } from '#base/shape.ts';
import { flag, integer, textOf } from '#engine/api/docker/query.ts';
import { json, type Reply } from '#engine/api/reply.ts';
import type { RouteRow } from '#engine/api/router.ts';
import type { Handlers } from '#engine/api/server.ts';
import type { Insight } from '#engine/core/insight/insight.ts';
import { SHOW_FORMS } from '#engine/core/insight/show.ts';

/**
 * Our own questions about containers and the host; the answers' types are those of `engine/core/insight`.
 *
 *     GET  /estiba/v1/xray/{id}                  what it sees, may do and uses
 *     GET  /estiba/v1/why/{id}?port=8080         why it is as it is, or why that port does not answer
 *     GET  /estiba/v1/show/{id}?as=compose       how it would be asked for elsewhere, as text
 *     GET  /estiba/v1/plan/{id}?as=text          the kernel operations that made it, each with its wish
 *     GET  /estiba/v1/exposed                    what is published, and who can reach it
 *     GET  /estiba/v1/audit                      the records against the host
 *     POST /estiba/v1/audit?clean=1              and what nobody owns is taken away
 */
export const INSIGHT_ROUTES: readonly RouteRow[] = [
  { method: 'GET', path: '/estiba/v1/xray/{id}', id: 'EstibaXray' },
  { method: 'GET', path: '/estiba/v1/why/{id}', id: 'EstibaWhy' },
  { method: 'GET', path: '/estiba/v1/show/{id}', id: 'EstibaShow' },
  { method: 'GET', path: '/estiba/v1/plan/{id}', id: 'EstibaPlan' },
  { method: 'GET', path: '/estiba/v1/exposed', id: 'EstibaExposed' },
  { method: 'GET', path: '/estiba/v1/audit', id: 'EstibaAudit' },
  { method: 'POST', path: '/estiba/v1/audit', id: 'EstibaAuditClean' },
];

export function insightHandlers(insight: Insight): Handlers {
  return {
    EstibaXray: ({ params }) => json(insight.xray(params['id'] ?? '')),
    EstibaWhy: async ({ params, query }) => json(await insight.why(params['id'] ?? '', integer(query, 'port'))),
    EstibaShow: async ({ params, query }): Promise<Reply> => {
      const wished = textOf(query, 'as') ?? 'docker-run';
      const form =
        SHOW_FORMS.find((known) => known === wished) ?? fail('query as', wished, `is none of ${SHOW_FORMS.join(', ')}`);
      return { kind: 'text', status: 200, body: await insight.show(params['id'] ?? '', form) };
    },
    EstibaPlan: ({ params, query }): Reply => {
      const { steps, text } = insight.plan(params['id'] ?? '');
      return textOf(query, 'as') === 'text' ? { kind: 'text', status: 200, body: text } : json({ steps });
    },
    EstibaExposed: async () => json(await insight.exposed()),
    EstibaAudit: async () => json(plain(await insight.audit())),
    EstibaAuditClean: async ({ query }) =>
      json(plain(await (flag(query, 'clean') ? insight.clean() : insight.audit()))),
  };
}

/** Operations are for the daemon; people and programs get the words. */
function plain(audit: Awaited<ReturnType<Insight['audit']>>): object {
  return {
    ...audit,
    findings: audit.findings.map(({ cleanup, ...finding }) => ({
      ...finding,
      ...(cleanup ? { cleanup: cleanup.says } : {}),
    })),
  };
}
