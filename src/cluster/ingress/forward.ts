import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { errnoOf } from '#base/errors.ts';
import { connectTo, nameOf } from '#cluster/ingress/backends.ts';
import { ANSWER_MS, destroy, type Forwarding, hasBody, type InRequest, Unanswered } from '#cluster/ingress/exchange.ts';
import { passOnHttp2 } from '#cluster/ingress/forward-http2.ts';
import { endToEnd, forwardHeaders, isIdempotent } from '#cluster/ingress/headers.ts';
import type { Target } from '#cluster/ingress/model.ts';
import type { Page } from '#cluster/ingress/pages.ts';

const ATTEMPTS = 4;

/**
 * Passes one request on. It is made again at another target only when that cannot do it twice:
 *
 *   no connection came about                 nothing was sent: any request
 *   the connection broke before the answer   requests that may be repeated (RFC 9110 9.2.2) and have no body; the others get
 *                                            a connection of their own, so that they never meet one that is being closed
 *
 * Resolves with the page to show when there is no answer, or undefined when there was one (whole or cut short).
 */
export async function forward(f: Forwarding): Promise<Page | undefined> {
  const repeatable = isIdempotent(f.request.method ?? '') && !hasBody(f.request);
  const tried = new Set<string>();
  for (let attempt = 1; ; attempt++) {
    const target = f.backend.pick(tried) ?? (attempt === 1 ? undefined : f.backend.pick(new Set()));
    if (!target)
      return {
        status: 503,
        code: 'NO_ENDPOINTS',
        says: f.backend.entry.why ?? `${f.name} has no endpoint that is ready`,
      };
    tried.add(nameOf(target));
    const over = f.backend.begin(target);
    try {
      if (f.backend.entry.protocol === 'h2c') await passOnHttp2(f, target);
      else await passOn(f, target, repeatable);
      return undefined;
    } catch (error) {
      if (!(error instanceof Unanswered)) throw error;
      if (error.unsent) f.backend.avoid(target);
      if ((error.unsent || (repeatable && !error.late)) && attempt < ATTEMPTS && !clientGone(f)) continue;
      return pageFor(error, f.name, target);
    } finally {
      over();
    }
  }
}

async function passOn(f: Forwarding, target: Target, repeatable: boolean): Promise<void> {
  const outgoing = await open(f, target, repeatable);
  const answer = await sendRequest(f, outgoing);
  await sendAnswer(f, answer, outgoing);
}

async function open(f: Forwarding, target: Target, repeatable: boolean): Promise<ClientRequest> {
  const protocol = f.backend.entry.protocol === 'https' ? 'https' : 'http';
  const make = protocol === 'https' ? httpsRequest : httpRequest;
  const options = {
    host: target.ip,
    port: target.port,
    method: f.request.method ?? 'GET',
    path: f.request.url ?? '/',
    headers: withLength(f.request, forwardHeaders(f.request.headers, f.client)),
    setHost: false,
  };
  if (repeatable) return make({ ...options, agent: f.connections.agent(protocol) });
  try {
    const socket = protocol === 'http' ? await connectTo(target, f.clock) : undefined;
    return make({
      ...options,
      agent: false,
      ...(socket ? { createConnection: () => socket } : { rejectUnauthorized: false }),
    });
  } catch (error) {
    throw new Unanswered(error, { unsent: true });
  }
}

function sendRequest(f: Forwarding, outgoing: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const cancel = f.clock.after(ANSWER_MS, () => fail(new Error('no answer in time'), true));
    const fail = (error: unknown, late = false): void => {
      done();
      f.request.unpipe(outgoing);
      outgoing.on('error', () => undefined); // its end by our own hand; why is told already
      outgoing.destroy();
      // A connection of a pool that never came about: the system's words for it, and the request waited in memory.
      const unsent = ['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'EADDRNOTAVAIL'].includes(errnoOf(error) ?? '');
      reject(new Unanswered(error, { late, unsent: unsent && !hasBody(f.request) }));
    };
    const gone = (): void => fail(new Error('the client went away'));
    const done = (): void => {
      cancel();
      f.response.off('close', gone);
      outgoing.off('error', fail);
    };
    outgoing.once('error', fail);
    outgoing.once('response', (answer) => {
      done();
      resolve(answer);
    });
    outgoing.on('information', ({ statusCode, headers }) => {
      if (statusCode === 103 && 'writeEarlyHints' in f.response && headers.link)
        f.response.writeEarlyHints({ link: headers.link });
    });
    f.response.once('close', gone);
    if (hasBody(f.request)) f.request.pipe(outgoing);
    else outgoing.end();
  });
}

function sendAnswer(f: Forwarding, answer: IncomingMessage, outgoing: ClientRequest): Promise<void> {
  const { response } = f;
  return new Promise((resolve) => {
    const headers = endToEnd(answer.headers);
    response.writeHead(answer.statusCode ?? 502, headers);
    // The head goes out with the first of the body; where that waits (events, long polls) it goes out alone.
    const head = setImmediate(() => {
      if ('flushHeaders' in response && !response.writableEnded && !response.destroyed) response.flushHeaders();
    });
    answer.once('data', () => clearImmediate(head));
    // Cut short on one side: cut on the other, so that nobody takes half an answer for a whole one.
    answer.on('error', () => destroy(response));
    answer.on('aborted', () => destroy(response));
    outgoing.on('error', () => destroy(response));
    response.once('close', () => {
      if (!answer.complete) outgoing.destroy();
      resolve();
    });
    answer.on('end', () => {
      if (Object.keys(answer.trailers).length > 0 && 'addTrailers' in response)
        response.addTrailers(answer.trailers as Record<string, string>);
    });
    (answer as NodeJS.ReadableStream).pipe(response as NodeJS.WritableStream);
  });
}

/** HTTP/1.1 needs to know how a body ends; an HTTP/2 client need not have said. */
function withLength(request: InRequest, headers: ReturnType<typeof forwardHeaders>): typeof headers {
  if (!hasBody(request) || headers['content-length'] !== undefined) return headers;
  return { ...headers, 'transfer-encoding': 'chunked' };
}

function clientGone(f: Forwarding): boolean {
  return f.response.destroyed || f.response.writableEnded;
}

function pageFor(error: Unanswered, name: string, target: Target): Page {
  const where = `${name} at ${nameOf(target)}`;
  if (error.late)
    return { status: 504, code: 'BACKEND_SILENT', says: `${where} gave no answer in ${ANSWER_MS / 1000} seconds` };
  if (error.unsent)
    return { status: 502, code: 'BACKEND_REFUSED', says: `${where} takes no connection: ${error.message}` };
  return {
    status: 502,
    code: 'BACKEND_BROKE',
    says: `${where} ended the connection without an answer: ${error.message}`,
  };
}
