import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { Duplex } from 'node:stream';
import type { TlsOptions } from 'node:tls';
import { describeChain, EstibaError, isCode, messageOf } from '#base/errors.ts';
import type { Random } from '#base/random.ts';
import { acceptHead, chooseProtocol } from '#base/websocket.ts';
import { type Calls, callOf } from '#web/calls.ts';
import { LinkUsed, NoSuchCall, NotLoggedIn } from '#web/errors.ts';
import {
  cookieOf,
  KEY_HEADER,
  keyOfProtocols,
  LIVE_PROTOCOL,
  type Refusal,
  refuseHost,
  refuseOrigin,
  securityHeaders,
  sessionCookie,
} from '#web/guard.ts';
import { Live, type LiveDeps } from '#web/live.ts';
import { enteredPage, type PageFiles, refusedPage } from '#web/pages.ts';
import type { Sessions } from '#web/sessions.ts';

export interface UiServerOptions {
  sessions: Sessions;
  calls: Calls;
  live: LiveDeps;
  files: PageFiles;
  random: Random;
  /** This machine's own name, by which a browser may call it. */
  hostname: string;
  /** HTTPS with these; plain HTTP, for the loopback alone, when absent. */
  tls?: TlsOptions;
}

const FILES = { '/page.js': 'text/javascript; charset=utf-8', '/page.css': 'text/css; charset=utf-8' } as const;
/** How often a page's connection is looked at again: a session ends while it is open. */
const RECHECK_MS = 60_000;

/**
 * The dashboard on the wire:
 *
 *     GET  /login?token=…                     a link of `estiba ui`, good once: sets the cookie, hands the page its key
 *     GET  /, /page.js, /page.css             with the cookie
 *     GET  /api/…, POST /api/…                with cookie and key (calls.ts)
 *     GET  /api/live, a WebSocket             with cookie and key (wire.ts)
 *
 * Everything else, and everybody else, is refused before anything is looked up.
 */
export function createUiServer(options: UiServerOptions): Server {
  const server = options.tls ? createTlsServer(options.tls) : createServer();
  const ui = new Ui(options);
  server.on('request', (request, response) => void ui.answer(request, response));
  server.on('upgrade', (request, socket, head) => ui.upgrade(request, socket, head));
  return server;
}

class Ui {
  readonly #o: UiServerOptions;
  readonly #scheme: 'http' | 'https';
  readonly #lives = new Map<Live, () => boolean>();

  constructor(options: UiServerOptions) {
    this.#o = options;
    this.#scheme = options.tls ? 'https' : 'http';
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await this.#answer(request, response, new URL(request.url ?? '/', 'http://ui'));
    } catch (error) {
      this.#fail(response, error);
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const { pathname } = url;
    const method = request.method ?? '';
    // A person may come from a link on another page; whatever is asked for after that comes from ours.
    const isVisit = method === 'GET' && (pathname === '/' || pathname === '/login');
    const refusal =
      refuseHost(request.headers.host, this.#o.hostname) ??
      (isVisit ? undefined : refuseOrigin(request.headers, this.#scheme));
    if (refusal) return refuse(response, refusal);
    if (isVisit && pathname === '/login') return this.#enter(request, response, url.searchParams.get('token') ?? '');
    if (!this.#o.sessions.hasSession(sessionOf(request)))
      return isVisit
        ? sendPage(response, 401, refusedPage(new NotLoggedIn({})))
        : this.#fail(response, new NotLoggedIn({}));
    if (isVisit) {
      const nonce = Buffer.from(this.#o.random.bytes(16)).toString('base64url');
      return sendPage(response, 200, this.#o.files.index(nonce), securityHeaders(nonce));
    }
    if (method === 'GET' && (pathname === '/page.js' || pathname === '/page.css')) {
      const { body, encoding } = this.#o.files.asset(pathname, request.headers['accept-encoding'] ?? '');
      const type = { 'Content-Type': FILES[pathname], Vary: 'Accept-Encoding' };
      response.writeHead(200, { ...securityHeaders(), ...type, ...(encoding ? { 'Content-Encoding': encoding } : {}) });
      response.end(body);
      return;
    }
    if (!this.#admits(request, header(request, KEY_HEADER))) return this.#fail(response, new NotLoggedIn({}));
    if (method === 'POST' && pathname === '/api/logout') return this.#leave(request, response);
    const call = callOf(this.#o.calls, method, pathname);
    if (!call) throw new NoSuchCall({ method, path: pathname });
    sendJson(response, 200, (await call()) ?? {});
  }

  async #enter(request: IncomingMessage, response: ServerResponse, token: string): Promise<void> {
    const admission = await this.#o.sessions.enter(token);
    if (!admission) {
      sendPage(response, 401, refusedPage(new LinkUsed({})));
      return;
    }
    const cookie = sessionCookie(portOf(request), admission.session, this.#scheme);
    // A page of ours that goes on to the next, and no redirect: a Strict cookie is not sent on a way that began elsewhere.
    sendPage(response, 200, enteredPage(admission.key), { ...securityHeaders(), 'Set-Cookie': cookie });
  }

  async #leave(request: IncomingMessage, response: ServerResponse): Promise<void> {
    await this.#o.sessions.leave(sessionOf(request));
    sendJson(response, 200, {});
    for (const [live, isAdmitted] of this.#lives) if (!isAdmitted()) live.close(1000);
  }

  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => undefined); // its close is what counts
    const { headers } = request;
    const key = keyOfProtocols(headers['sec-websocket-protocol']);
    const isAdmitted = (): boolean => this.#admits(request, key);
    const refusal =
      refuseHost(headers.host, this.#o.hostname) ??
      refuseOrigin(headers, this.#scheme) ??
      (isAdmitted() ? undefined : { status: 401, why: new NotLoggedIn({}).message });
    const protocol = chooseProtocol(headers['sec-websocket-protocol'], [LIVE_PROTOCOL]);
    const nonce = headers['sec-websocket-key'];
    if (refusal) {
      refuseUpgrade(socket, refusal);
      return;
    }
    if (request.url !== '/api/live' || protocol === undefined || nonce === undefined) {
      refuseUpgrade(socket, { status: 400, why: 'the dashboard speaks WebSocket at /api/live alone' });
      return;
    }
    socket.write(acceptHead(nonce, protocol));
    socket.unshift(head); // read when all below stands
    const live = new Live(this.#o.live, socket, () => {
      this.#lives.delete(live);
      cancel();
    });
    const recheck = (): void => {
      if (isAdmitted()) cancel = this.#o.live.clock.after(RECHECK_MS, recheck);
      else live.close(1000);
    };
    let cancel = this.#o.live.clock.after(RECHECK_MS, recheck);
    this.#lives.set(live, isAdmitted);
  }

  #admits(request: IncomingMessage, key: string | undefined): boolean {
    const session = sessionOf(request);
    return session !== undefined && key !== undefined && this.#o.sessions.admits({ session, key });
  }

  #fail(response: ServerResponse, error: unknown): void {
    const status = statusOf(error);
    if (status >= 500) this.#o.live.log.error('the dashboard could not answer', { error: describeChain(error) });
    const hint = error instanceof EstibaError ? error.hint : undefined;
    sendJson(response, status, { message: messageOf(error), ...(hint === undefined ? {} : { hint }) });
  }
}

function portOf(request: IncomingMessage): number {
  return request.socket.localPort ?? 0;
}

function sessionOf(request: IncomingMessage): string | undefined {
  return cookieOf(request.headers.cookie, portOf(request));
}

function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? undefined : value;
}

/** Refusals of the daemon and of the cluster carry their HTTP status. */
function statusOf(error: unknown): number {
  if (isCode(error, 'UI_NOT_LOGGED_IN')) return 401;
  if (isCode(error, 'UI_NO_SUCH_CALL', 'UI_NO_CLUSTER')) return 404;
  const status = error instanceof EstibaError ? Number(error.data['status']) : Number.NaN;
  return status >= 400 && status < 600 ? status : 500;
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { ...securityHeaders(), 'Content-Type': 'application/json' });
  response.end(JSON.stringify(body));
}

function sendPage(response: ServerResponse, status: number, html: string, headers = securityHeaders()): void {
  response.writeHead(status, { ...headers, 'Content-Type': 'text/html; charset=utf-8' }).end(html);
}

function refuse(response: ServerResponse, { status, why }: Refusal): void {
  response.writeHead(status, { ...securityHeaders(), 'Content-Type': 'text/plain; charset=utf-8' }).end(`${why}\n`);
}

function refuseUpgrade(socket: Duplex, { status, why }: Refusal): void {
  const body = `${why}\n`;
  socket.end(
    `HTTP/1.1 ${status} Refused\r\nContent-Type: text/plain\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
