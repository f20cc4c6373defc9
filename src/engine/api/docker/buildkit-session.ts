import type { ClientHttp2Session } from 'node:http2';
import { Duplex } from 'node:stream';
import { fail } from '#base/shape.ts';
import { bytesField, readFields } from '#engine/api/docker/buildkit-wire.ts';
import type { Reply } from '#engine/api/reply.ts';
import type { ApiRequest } from '#engine/api/server.ts';

/**
 * `POST /session`: the client turns the connection round and serves gRPC on it (h2c) for as long as it builds. Of what BuildKit asks there
 * we ask one thing, credentials:
 *
 *   client                                     daemon
 *     ── POST /session, Upgrade: h2c ─────▶
 *     ◀── 101 ────────────────────────────
 *     ◀── /moby.filesync.v1.Auth/Credentials {Host = 1}
 *     ── {Username = 1, Secret = 2} ──────▶
 */
export class BuildSessions {
  /** By id, from the request on: the session is there once its connection is turned round. */
  readonly #places = new Map<string, { session?: ClientHttp2Session }>();

  open(request: ApiRequest): Reply {
    const id = request.headers['x-docker-expose-session-uuid'];
    if (typeof id !== 'string' || id === '' || this.#places.has(id))
      fail('X-Docker-Expose-Session-Uuid', id, 'is not the name of a session of its own');
    // Taken here, not in `run`: a second request of the same id could come before that, and would take the place of a session in use.
    const place: { session?: ClientHttp2Session } = {};
    this.#places.set(id, place);
    const leave = (): void => {
      if (this.#places.get(id) === place) this.#places.delete(id);
    };
    request.signal.addEventListener('abort', leave, { once: true }); // a client that leaves before `run`
    if (request.signal.aborted) leave();
    return {
      kind: 'hijack',
      type: 'application/grpc',
      run: async ({ input, output }) => {
        const duplex = Duplex.from({ readable: input, writable: output });
        // Loaded here, in the same turn: a daemon starts a tenth faster without it, and the client may ask for its session at once.
        const { connect } = process.getBuiltinModule('node:http2');
        const session = connect('http://session', { createConnection: () => duplex });
        session.on('error', () => session.destroy()); // the client has gone; `close` follows
        place.session = session;
        // Not `once` of node:events, which rejects at an error and would keep the id for ever.
        await new Promise<void>((closed) => session.on('close', closed));
        leave();
      },
    };
  }

  /** Undefined when the client has none for that host, or does not say. */
  async credentials(id: string, host: string): Promise<{ username: string; password: string } | undefined> {
    const session = this.#places.get(id)?.session ?? fail('query session', id, 'is not open');
    const answer = await unary(session, '/moby.filesync.v1.Auth/Credentials', bytesField(1, host));
    const fields = answer ? readFields(answer) : new Map<number, Buffer>();
    const [username, password] = [fields.get(1)?.toString() ?? '', fields.get(2)?.toString() ?? ''];
    return username === '' && password === '' ? undefined : { username, password };
  }
}

const ANSWER_MS = 10_000;
const ANSWER_MAX_BYTES = 64 * 1024;
/** One byte that says whether it is compressed, four of length (gRPC over HTTP/2, "Length-Prefixed-Message"). */
const PREFIX_BYTES = 5;

/** One gRPC call. Undefined when the client refuses it: not every client has every service. */
async function unary(session: ClientHttp2Session, path: string, message: Buffer): Promise<Buffer | undefined> {
  const stream = session.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  stream.setTimeout(ANSWER_MS, () => stream.destroy(new Error(`no answer to ${path} within ${ANSWER_MS} ms`)));
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.writeUInt32BE(message.length, 1);
  stream.end(Buffer.concat([prefix, message]));
  let status = '';
  const note = (headers: Record<string, unknown>): void => {
    status = String(headers['grpc-status'] ?? status);
  };
  stream.on('response', note);
  stream.on('trailers', note);
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > ANSWER_MAX_BYTES) fail('session', size, 'answers more than fits');
    chunks.push(chunk);
  }
  const answer = Buffer.concat(chunks);
  return status === '0' && answer.length >= PREFIX_BYTES ? answer.subarray(PREFIX_BYTES) : undefined;
}
