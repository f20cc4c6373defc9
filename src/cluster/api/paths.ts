import { SERVER_VERSION } from './discovery.ts';
import { json, text } from './http/respond.ts';
import type { Route } from './http/route.ts';
import type { ApiRequest, ApiResponse } from './http/types.ts';
import { openApiV2, openApiV3, openApiV3Index } from './openapi/documents.ts';
import { openApiV2Protobuf } from './openapi/protobuf.ts';
import type { ApiServer } from './server.ts';
import { methodNotAllowed, noSuchResource } from './status.ts';

/** Paths without a resource, a row each. */
interface PathCall {
  server: ApiServer;
  request: ApiRequest;
  route: Route & { is: 'path' };
  ready: () => boolean;
}

const ROWS: readonly [
  pattern: RegExp,
  answer: (call: PathCall, match: RegExpExecArray) => ApiResponse | Promise<ApiResponse>,
][] = [
  [/^\/version\/?$/, () => json(200, SERVER_VERSION)],
  [/^\/(healthz|livez|readyz)(\/[a-z-]+)?\/?$/, health],
  [/^\/metrics$/, metrics],
  [/^\/openapi\/v2$/, swagger],
  [/^\/openapi\/v3\/?$/, () => json(200, openApiV3Index())],
  [/^\/openapi\/v3\/(?:api|apis)\/(.+)$/, documentV3],
  [/^\/openid\/v1\/jwks\/?$/, ({ server }) => json(200, server.services.tokens.jwks())],
  [/^\/\.well-known\/openid-configuration$/, openIdConfiguration],
  [
    /^\/$/,
    () =>
      json(200, {
        paths: ['/api', '/apis', '/healthz', '/livez', '/metrics', '/openapi/v2', '/openapi/v3', '/readyz', '/version'],
      }),
  ],
];

export function answerPath(
  server: ApiServer,
  request: ApiRequest,
  route: Route & { is: 'path' },
  more: { ready: () => boolean },
): ApiResponse | Promise<ApiResponse> {
  for (const [pattern, answer] of ROWS) {
    const match = pattern.exec(route.path);
    if (!match) continue;
    if (route.verb !== 'get' && route.verb !== 'head')
      throw methodNotAllowed({ group: '', resource: route.path }, route.verb);
    return answer({ server, request, route, ...more }, match);
  }
  throw noSuchResource(route.path);
}

function health({ route, ready }: PathCall, match: RegExpExecArray): ApiResponse {
  const ok = match[1] !== 'readyz' || ready();
  if (!ok) return text(500, '[+]ping ok\n[-]started failed\nreadyz check failed\n');
  return text(200, route.query.has('verbose') ? `[+]ping ok\n[+]started ok\n${match[1] ?? ''} check passed\n` : 'ok');
}

function metrics({ server }: PathCall): ApiResponse {
  const { cache } = server.services.registry;
  const gauges: Record<string, number> = { apiserver_store_revision: cache.revision };
  const watched = new Set([...server.table.values()].map((r) => r.storage));
  let watchers = 0;
  const lines: Record<string, number> = {};
  for (const resource of watched) {
    watchers += cache.resource(resource).watchers;
    lines[`apiserver_storage_objects{resource="${resource}"}`] = cache.resource(resource).size;
  }
  gauges['apiserver_registered_watchers'] = watchers;
  const objects = Object.entries(lines).map(([name, value]) => `${name} ${value}`);
  return text(
    200,
    `${server.metrics.text(gauges)}# TYPE apiserver_storage_objects gauge\n${objects.join('\n')}\n`,
    'text/plain; version=0.0.4; charset=utf-8',
  );
}

const PROTOBUF = 'application/com.github.proto-openapi.spec.v2@v1.0+protobuf';
// The name that is no valid media type ('@') may be asked for, but clients cannot read it in an answer.
const PROTOBUF_NEW = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf';

function swagger({ request }: PathCall): ApiResponse {
  const accept = request.headers['accept'] ?? '';
  // kubectl up to 1.2x takes protobuf only, and offers nothing else.
  if (accept.includes(PROTOBUF) || accept.includes(PROTOBUF_NEW)) {
    return { code: 200, headers: { 'content-type': PROTOBUF_NEW }, body: openApiV2Protobuf() };
  }
  return { code: 200, headers: { 'content-type': 'application/json' }, body: openApiV2() };
}

function documentV3({ route }: PathCall, match: RegExpExecArray): ApiResponse {
  const document = openApiV3(match[1] ?? '');
  if (document === undefined) throw noSuchResource(route.path);
  // The hash in the address names this very document.
  const cached: Record<string, string> = route.query.has('hash')
    ? { 'cache-control': 'public, immutable', expires: 'Thu, 31 Dec 2099 23:59:59 GMT' }
    : {};
  return { code: 200, headers: { 'content-type': 'application/json', ...cached }, body: document };
}

function openIdConfiguration({ server }: PathCall): ApiResponse {
  const { issuer } = server.services.tokens;
  return json(200, {
    issuer,
    jwks_uri: `${issuer}/openid/v1/jwks`,
    response_types_supported: ['id_token'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['ES256'],
  });
}
