import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { userOfSubject } from '../authn/authenticate.ts';
import type { KeyPair } from '../authn/certificates.ts';
import type { ApiServer } from '../server.ts';
import { badRequest, StatusError, tooLarge } from '../status.ts';
import { BODY_MAX_BYTES } from './body.ts';
import { errorResponse } from './respond.ts';
import { type ApiRequest, type ApiResponse, isStream, type Sink } from './types.ts';

/**
 * The API server on a TLS socket. Client certificates are asked for and, when one of our authority's is shown, name the user; a
 * stranger's certificate counts as none, a token may still come.
 */
export interface ListenerOptions {
  server: ApiServer;
  host: string;
  /** 0 picks a free one. */
  port: number;
  certificate: KeyPair;
  /** PEM of the authority that signs clients. */
  authority: string;
  /** Takes over `Upgrade` requests: exec and attach. */
  upgrade: (request: ApiRequest, socket: Duplex, head: Buffer) => void;
  onError: (error: unknown) => void;
}

export interface Listener {
  port: number;
  close(): Promise<void>;
}

// A slow sender must not hold a request open for ever; a body of 3 MiB takes a fraction of this on any network.
const REQUEST_TIMEOUT_MS = 60_000;
const HEADERS_MAX_BYTES = 64 * 1024;

export async function listen(options: ListenerOptions): Promise<Listener> {
  const sockets = new Set<Duplex>();
  const https: Server = createServer(
    {
      cert: options.certificate.certificate,
      key: options.certificate.key,
      ca: options.authority,
      requestCert: true,
      rejectUnauthorized: false,
      minVersion: 'TLSv1.2',
      maxHeaderSize: HEADERS_MAX_BYTES,
      requestTimeout: REQUEST_TIMEOUT_MS,
      // Idle connections of pooled clients: longer than their own 90 s, so that they close first.
      keepAliveTimeout: 120_000,
    },
    (message, response) => {
      serve(options, message, response).catch(options.onError);
    },
  );
  https.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  https.on('upgrade', (message, socket, head) => options.upgrade(requestOf(message, Buffer.alloc(0)), socket, head));
  https.on('tlsClientError', () => undefined); // scanners and clients without our CA: theirs to report
  https.on('clientError', (_, socket) => socket.destroy());
  await new Promise<void>((ready, fail) => {
    https.once('error', fail);
    https.listen(options.port, options.host, () => {
      https.off('error', fail);
      ready();
    });
  });
  const address = https.address();
  return {
    port: typeof address === 'object' && address ? address.port : options.port,
    close: () =>
      new Promise((done) => {
        https.close(() => done());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

async function serve(options: ListenerOptions, message: IncomingMessage, response: ServerResponse): Promise<void> {
  let answer: ApiResponse;
  try {
    const body = await readAll(message);
    answer = await options.server.handle(requestOf(message, body));
  } catch (error) {
    if (message.destroyed && !(error instanceof StatusError)) return; // the client hung up while sending
    answer = errorResponse(error, options.onError);
    // What is left of the body is not worth reading.
    answer.headers['connection'] = 'close';
  }
  send(message, response, answer);
}

function requestOf(message: IncomingMessage, body: Uint8Array): ApiRequest {
  const headers: Record<string, string | undefined> = Object.create(null);
  for (const [name, value] of Object.entries(message.headers))
    headers[name] = Array.isArray(value) ? value.join(', ') : value;
  return { method: message.method ?? 'GET', url: message.url ?? '/', headers, body, peer: peerOf(message) };
}

function peerOf(message: IncomingMessage): ApiRequest['peer'] {
  const socket = message.socket as TLSSocket;
  if (!socket.authorized) return undefined;
  const { subject } = socket.getPeerCertificate();
  return subject ? userOfSubject(subject as { CN?: string | string[]; O?: string | string[] }) : undefined;
}

function readAll(message: IncomingMessage): Promise<Buffer> {
  return new Promise((done, fail) => {
    if (Number(message.headers['content-length'] ?? 0) > BODY_MAX_BYTES) {
      fail(tooLarge(BODY_MAX_BYTES));
      return;
    }
    const chunks: Buffer[] = [];
    let size = 0;
    message.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > BODY_MAX_BYTES) {
        message.pause();
        fail(tooLarge(BODY_MAX_BYTES));
      } else chunks.push(chunk);
    });
    message.on('end', () => done(Buffer.concat(chunks)));
    message.on('error', (error) => fail(badRequest('the request was cut off', error)));
    message.on('aborted', () => fail(badRequest('the request was cut off')));
  });
}

function send(message: IncomingMessage, response: ServerResponse, answer: ApiResponse): void {
  if (isStream(answer)) {
    response.writeHead(answer.code, answer.headers);
    response.flushHeaders();
    const stop = answer.stream(sinkOf(response));
    response.on('close', stop);
    return;
  }
  const body = typeof answer.body === 'string' ? Buffer.from(answer.body) : answer.body;
  response.writeHead(answer.code, { ...answer.headers, 'content-length': body.length });
  response.end(message.method === 'HEAD' ? undefined : body);
}

function sinkOf(response: ServerResponse): Sink {
  return {
    write: (chunk) => response.write(chunk),
    pendingBytes: () => response.writableLength,
    end: () => response.end(),
    destroy: () => response.destroy(),
  };
}
