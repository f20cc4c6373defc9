import { type ClientHttp2Stream, constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import { ANSWER_MS, destroy, type Forwarding, hasBody, Unanswered } from '#cluster/ingress/exchange.ts';
import { endToEnd, forwardHeaders } from '#cluster/ingress/headers.ts';
import type { Target } from '#cluster/ingress/model.ts';

/**
 * One request to a backend that speaks HTTP/2 without TLS (`appProtocol: kubernetes.io/h2c`), as gRPC servers do: streams both ways, and
 * trailers, in which gRPC tells how a call went. Unanswered, as for HTTP/1.1.
 */
export async function passOnHttp2(f: Forwarding, target: Target): Promise<void> {
  const outgoing = await open(f, target);
  const { headers, over } = await answerOf(f, outgoing);
  await sendAnswer(f, outgoing, headers, over);
}

async function open(f: Forwarding, target: Target): Promise<ClientHttp2Stream> {
  const { host: _host, 'transfer-encoding': _chunked, ...headers } = forwardHeaders(f.request.headers, f.client);
  try {
    const session = await f.connections.http2(target, f.clock);
    return session.request(
      {
        ...headers,
        [constants.HTTP2_HEADER_METHOD]: f.request.method ?? 'GET',
        [constants.HTTP2_HEADER_PATH]: f.request.url ?? '/',
        [constants.HTTP2_HEADER_SCHEME]: 'http',
        [constants.HTTP2_HEADER_AUTHORITY]: f.client.host,
      },
      { endStream: !hasBody(f.request) },
    );
  } catch (error) {
    throw new Unanswered(error, { unsent: true });
  }
}

interface Head {
  headers: IncomingHttpHeaders;
  /** Nothing follows it. */
  over: boolean;
}

function answerOf(f: Forwarding, outgoing: ClientHttp2Stream): Promise<Head> {
  return new Promise((resolve, reject) => {
    const cancel = f.clock.after(ANSWER_MS, () => fail(new Error('no answer in time'), { late: true }));
    const fail = (error: unknown, is: { late?: boolean } = {}): void => {
      done();
      f.request.unpipe(outgoing);
      outgoing.on('error', () => undefined); // its end by our own hand; why is told already
      outgoing.close(constants.NGHTTP2_CANCEL);
      // RFC 9113 8.7: a refused stream has not been looked at.
      const unsent = outgoing.rstCode === constants.NGHTTP2_REFUSED_STREAM && !hasBody(f.request);
      reject(new Unanswered(error, { ...is, unsent }));
    };
    const gone = (): void => fail(new Error('the client went away'));
    const closed = (): void => fail(new Error(`the stream was closed with code ${outgoing.rstCode}`));
    const done = (): void => {
      cancel();
      f.response.off('close', gone);
      outgoing.off('error', fail);
      outgoing.off('close', closed);
    };
    outgoing.once('error', fail);
    outgoing.once('close', closed);
    outgoing.once('response', (headers, flags) => {
      done();
      resolve({ headers, over: (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0 });
    });
    f.response.once('close', gone);
    if (hasBody(f.request)) f.request.pipe(outgoing);
  });
}

function sendAnswer(
  f: Forwarding,
  outgoing: ClientHttp2Stream,
  head: IncomingHttpHeaders,
  over: boolean,
): Promise<void> {
  const { response } = f;
  const status = Number(head[':status'] ?? 502);
  const headers = endToEnd(head);
  outgoing.on('trailers', (told) => response.addTrailers(endToEnd(told) as Record<string, string>));
  return new Promise((resolve) => {
    outgoing.on('error', () => destroy(response));
    outgoing.on('aborted', () => destroy(response));
    outgoing.on('close', () => {
      if (outgoing.rstCode !== constants.NGHTTP2_NO_ERROR) destroy(response);
    });
    response.once('close', () => {
      outgoing.close(constants.NGHTTP2_CANCEL);
      resolve();
    });
    const stream: ServerHttp2Stream | undefined = 'stream' in response ? response.stream : undefined;
    if (stream) {
      // Trailers alone are the head and the end at once: gRPC clients look at that.
      stream.respond({ ...headers, ':status': status }, over ? { endStream: true } : { waitForTrailers: true });
      if (over) outgoing.resume();
      else outgoing.pipe(stream);
    } else {
      response.writeHead(status, headers);
      if ('flushHeaders' in response) response.flushHeaders();
      outgoing.pipe(response as NodeJS.WritableStream);
    }
  });
}
