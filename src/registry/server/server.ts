import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { describeChain, isCode } from '#base/errors.ts';
import type { Principal } from '#registry/server/access.ts';
import {
  cancelUpload,
  deleteBlob,
  finishUpload,
  patchUpload,
  serveBlob,
  startUpload,
  uploadStatus,
} from '#registry/server/blobs.ts';
import { listReferrers, listRepositories, listTags } from '#registry/server/discovery.ts';
import { errorBody, type Refusal, refuse, statusOf } from '#registry/server/errors.ts';
import { Exchange } from '#registry/server/exchange.ts';
import { deleteManifest, putManifest, serveManifest } from '#registry/server/manifests.ts';
import { METHODS, parseRoute, type Route } from '#registry/server/route.ts';
import type { Services } from '#registry/server/services.ts';

export interface TlsKeys {
  cert: string | Buffer;
  key: string | Buffer;
}

/** A server over the services; the caller listens and closes. */
export function createRegistryServer(services: Services, tls?: TlsKeys): Server {
  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    void serve(request, response, services);
  };
  const server = tls ? createTlsServer({ ...tls, minVersion: 'TLSv1.2' }, handle) : createHttpServer(handle);
  // A layer may take an hour: bodies are bounded by idleness, not by Node's five minutes for a whole request.
  server.requestTimeout = 0;
  server.headersTimeout = services.limits.idleMs;
  // Longer than Go clients keep an idle connection (90 s): then it is the client that closes, never in the middle of a request.
  server.keepAliveTimeout = 120_000;
  return server;
}

/** The main path of a request: what is asked, may it be asked, by whom, do it. */
async function serve(request: IncomingMessage, response: ServerResponse, s: Services): Promise<void> {
  const { tokens } = s;
  const x = new Exchange(request, response, s.limits);
  response.setHeader('docker-distribution-api-version', 'registry/2.0');
  response.setHeader('x-content-type-options', 'nosniff');
  try {
    const route = parseRoute(x.path);
    await s.access.refresh();
    const right = METHODS[route.to][x.method] ?? wrongMethod(route);
    if (route.to === 'token') return await tokens.issue(x);
    const principal = await tokens.identify(x);
    if (right === 'login') return ping(x, principal, s);
    if (right !== 'nothing' && 'repository' in route) tokens.demand(x, principal, right, route.repository);
    await run(x, route, s, principal);
  } catch (error) {
    fail(x, error, s);
  }
}

function run(x: Exchange, route: Route, s: Services, principal: Principal): Promise<void> {
  switch (route.to) {
    case 'catalog':
      return listRepositories(x, s, principal);
    case 'tags':
      return listTags(x, route, s);
    case 'referrers':
      return listReferrers(x, route, s);
    case 'uploads':
      return startUpload(x, route, s, principal);
    case 'upload':
      switch (x.method) {
        case 'PATCH':
          return patchUpload(x, route, s);
        case 'PUT':
          return finishUpload(x, route, s);
        case 'DELETE':
          return cancelUpload(x, route, s);
        default:
          return uploadStatus(x, route, s);
      }
    case 'blob':
      return x.method === 'DELETE' ? deleteBlob(x, route, s) : serveBlob(x, route, s);
    case 'manifest':
      switch (x.method) {
        case 'PUT':
          return putManifest(x, route, s);
        case 'DELETE':
          return deleteManifest(x, route, s);
        default:
          return serveManifest(x, route, s);
      }
    case 'base':
    case 'token':
      return wrongMethod(route);
  }
}

/**
 * GET /v2/ (end-1). Where accounts exist, a client without one is asked to log in even if it may read: this answer is where
 * Docker's clients learn how. They then fetch a token, with no account an anonymous one.
 */
function ping(x: Exchange, principal: Principal, s: Services): void {
  const hasToken = x.header('authorization') !== undefined;
  if (!s.access.current.open && principal.name === undefined && !hasToken) s.tokens.demandLogin(x);
  x.json({});
}

function wrongMethod(route: Route): never {
  return refuse('UNSUPPORTED', 'this method is not known here', {
    headers: { allow: Object.keys(METHODS[route.to]).join(', ') },
  });
}

/** The one place where errors become answers; what is not a refusal is our failure, and logged here once. */
function fail(x: Exchange, error: unknown, s: Services): void {
  const refusal = isCode(error, 'REGISTRY_REFUSED') ? (error as Refusal) : undefined;
  const [status, code] = refusal ? [statusOf(refusal), refusal.data.wire] : ownFailure(error);
  if (status >= 500) s.log.error('request failed', { method: x.method, path: x.path, error: describeChain(error) });
  else s.log.debug('refused', { method: x.method, path: x.path, status, code });
  if (x.response.headersSent || x.response.destroyed) {
    // Too late for an answer: cut the body short, so that the client sees that it is not whole.
    x.response.destroy();
    return;
  }
  const message =
    refusal?.message ?? (status === 507 ? 'the registry has no space left' : 'the registry failed; its log says why');
  endRequest(x);
  x.answer(
    status,
    { 'content-type': 'application/json', ...refusal?.data.headers },
    errorBody(code, message, refusal?.data.detail),
  );
}

function ownFailure(error: unknown): [status: number, code: string] {
  if (isCode(error, 'REGISTRY_BODY_BROKEN')) return [400, 'BLOB_UPLOAD_INVALID'];
  if (isCode(error, 'QUEUE_FULL')) return [429, 'TOOMANYREQUESTS'];
  if ((error as NodeJS.ErrnoException).code === 'ENOSPC' || isCode(error, 'STORE_FULL')) return [507, 'UNKNOWN'];
  return [500, 'UNKNOWN'];
}

/** How long a client may go on sending a body that was refused: cut at once, it would see a broken pipe instead of the answer. */
const LINGER_MS = 10_000;

function endRequest(x: Exchange): void {
  if (x.request.complete || x.request.destroyed) return;
  x.request.resume();
  const timer = setTimeout(() => x.request.destroy(), LINGER_MS);
  x.request.once('close', () => clearTimeout(timer));
}
