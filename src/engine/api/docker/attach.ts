import { PassThrough, Writable } from 'node:stream';
import { flag } from '#engine/api/docker/query.ts';
import { type JoinWish, joinStreams } from '#engine/api/docker/streams.ts';
import type { Hijacked, Reply, WebSocketOpener } from '#engine/api/reply.ts';
import type { ApiRequest } from '#engine/api/server.ts';
import { compareVersions } from '#engine/api/version.ts';
import type { Containers } from '#engine/core/containers.ts';
import type { Attached } from '#engine/core/parts.ts';
import { type ContainerRecord, isRunning } from '#engine/core/record.ts';
import { MULTIPLEXED_STREAM, RAW_STREAM } from '#spec/docker/frames.ts';

export interface AttachOptions {
  containers: Pick<Containers, 'find' | 'running' | 'onNextStart' | 'tell'>;
  /** What it said until it is called, for a client that attaches with `logs`. */
  past: (
    record: ContainerRecord,
    wish: { stdout: boolean; stderr: boolean; framed: boolean },
    write: (chunk: Buffer) => Promise<void>,
  ) => Promise<void>;
}

/** `POST /containers/{id}/attach`: raw bytes both ways; output of a container without a terminal comes in frames. */
export function attachReply(o: AttachOptions, request: ApiRequest, name: string): Reply {
  const attach = attachment(o, request, name);
  const { framed } = attach;
  return {
    kind: 'hijack',
    type: framed && compareVersions(request.version, '1.42') >= 0 ? MULTIPLEXED_STREAM : RAW_STREAM,
    run: (connection, signal) => attach.run(connection, framed, signal),
  };
}

/** `GET /containers/{id}/attach/ws`: the same in WebSocket messages, standard output and error together, as Docker has it. */
export function attachWebSocketReply(o: AttachOptions, request: ApiRequest, name: string): Reply {
  const attach = attachment(o, request, name);
  return {
    kind: 'websocket',
    run: (open, signal) => {
      const { connection, close } = overWebSocket(open);
      return attach.run(connection, false, signal).finally(close);
    },
  };
}

function attachment(
  { containers, past }: AttachOptions,
  { query }: ApiRequest,
  name: string,
): { framed: boolean; run(connection: Hijacked, framed: boolean, signal: AbortSignal): Promise<void> } {
  const record = containers.find(name);
  const { tty } = record.spec.process;
  const wish: JoinWish = {
    stdin: flag(query, 'stdin') && record.spec.process.stdin,
    stdout: flag(query, 'stdout'),
    stderr: flag(query, 'stderr'),
    tty,
    closeStdin: record.spec.process.stdinOnce,
    detachKeys: query.get('detachKeys') ?? '',
  };
  return {
    framed: !tty,
    run: async (connection, framed, signal) => {
      containers.tell(record, 'attach');
      const put = (chunk: Buffer): Promise<void> => new Promise((done) => connection.output.write(chunk, () => done()));
      const joins = flag(query, 'stream') ? join(containers, record.id, wish.stdin, signal) : undefined;
      if (flag(query, 'logs')) await toldBefore(joins, () => past(record, { ...wish, framed }, put));
      const program = await (await joins)?.program;
      if (program) await joinStreams(connection, program, { ...wish, framed }, signal);
    },
  };
}

/** Messages of the client are its standard input; each piece of output is one message. */
function overWebSocket(open: WebSocketOpener): { connection: Hijacked; close(): void } {
  const input = new PassThrough();
  const socket = open({
    message: (payload) => {
      if (input.write(payload)) return;
      socket.pause();
      input.once('drain', () => socket.resume());
    },
    closed: () => input.end(),
  });
  const output = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      if (socket.send(chunk)) done();
      else socket.drained(done);
    },
  });
  return { connection: { input, output }, close: () => socket.close() };
}

/** A client's place in a container's output. */
interface Joined {
  /** Undefined when the client leaves before. */
  program: Promise<Attached | undefined>;
}

/** Of a running container at once; of one that is not, its place at the next start, before the call returns. */
async function join(
  containers: AttachOptions['containers'],
  id: string,
  stdin: boolean,
  signal: AbortSignal,
): Promise<Joined> {
  if (!isRunning(containers.find(id).state)) return { program: atNextStart(containers, id, stdin, signal) };
  const program = await containers.running(id).attach({ stdin });
  return { program: Promise.resolve(program) };
}

function atNextStart(
  containers: AttachOptions['containers'],
  id: string,
  stdin: boolean,
  signal: AbortSignal,
): Promise<Attached | undefined> {
  return new Promise((resolve) => {
    const cancel = containers.onNextStart(id, async (process) => resolve(await process.attach({ stdin })));
    signal.addEventListener('abort', () => {
      cancel();
      resolve(undefined);
    });
  });
}

/**
 * The past is told once the client has its place: a program that starts, speaks and ends while the past is read would else be in
 * neither. Its words wait in the stream meanwhile.
 */
async function toldBefore(joins: Promise<Joined> | undefined, tell: () => Promise<void>): Promise<void> {
  const joined = await joins;
  try {
    await tell();
  } catch (error) {
    void joined?.program.then((program) => program?.detach());
    throw error;
  }
}
