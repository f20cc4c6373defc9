import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2';
import type { Clock } from '#base/clock.ts';
import { messageOf } from '#base/errors.ts';
import type { Backend, Connections } from '#cluster/ingress/backends.ts';
import type { Client } from '#cluster/ingress/headers.ts';

export type InRequest = IncomingMessage | Http2ServerRequest;
export type OutResponse = ServerResponse | Http2ServerResponse;

/** One request on its way, whatever is spoken on either side. */
export interface Forwarding {
  request: InRequest;
  response: OutResponse;
  client: Client;
  backend: Backend;
  /** Of the backend, for pages. */
  name: string;
  connections: Connections;
  clock: Clock;
}

/** Until the backend's head of answer; a body may take as long as it keeps moving. */
export const ANSWER_MS = 60_000;

/** The backend gave no answer. */
export class Unanswered extends Error {
  /** Nothing of the request reached it. */
  readonly unsent: boolean;
  readonly late: boolean;

  constructor(cause: unknown, is: { unsent?: boolean; late?: boolean }) {
    super(messageOf(cause), { cause });
    this.unsent = is.unsent ?? false;
    this.late = is.late ?? false;
  }
}

export function hasBody(request: InRequest): boolean {
  const { headers } = request;
  if (headers['transfer-encoding'] !== undefined) return true;
  if (headers['content-length'] !== undefined) return headers['content-length'] !== '0';
  // HTTP/2 needs neither: the stream says whether more is to come.
  return request.httpVersionMajor === 2 && 'stream' in request && !request.stream.endAfterHeaders;
}

/** Cut short, so that nobody takes half an answer for a whole one. */
export function destroy(response: OutResponse): void {
  if ('stream' in response && response.stream) response.stream.close(NGHTTP2_INTERNAL_ERROR);
  else response.destroy();
}

const NGHTTP2_INTERNAL_ERROR = 2;
