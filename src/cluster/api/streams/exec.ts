import type { Duplex, Readable } from 'node:stream';
import type { Clock } from '#base/clock.ts';
import { WebSocket } from '#base/websocket.ts';
import { isObject } from '../codec/json.ts';
import type { ExecSession } from '../node-proxy.ts';
import { SpdySession, type SpdyStream } from './spdy.ts';

/**
 * exec and attach over one WebSocket (`v4.channel.k8s.io`, `v5.channel.k8s.io`): the first byte of a message is its channel.
 *
 *     client ── 0 stdin · 4 resize {"Width","Height"} · 255 close of a channel (v5) ──▶ server
 *     client ◀── 1 stdout · 2 stderr · 3 a Status, last ── server
 *
 * Clients before 1.31 open a SPDY stream for each instead (`streamtype: error, stdin, stdout, stderr, resize`).
 */
/** Of SPDY streams; what came before it says exit codes in words. */
export const EXEC_SPDY_PROTOCOLS = ['v4.channel.k8s.io'] as const;
export const EXEC_PROTOCOLS = ['v5.channel.k8s.io', 'v4.channel.k8s.io'] as const;

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const STATUS = 3;
const RESIZE = 4;
const CLOSE = 255;

export function serveExec(socket: Duplex, head: Buffer, session: ExecSession, onError: (error: unknown) => void): void {
  const ws = new WebSocket(socket, head, {
    message: (payload) => take(ws, session, payload),
    closed: () => session.close(),
  });
  const outputs = [pump(ws, session.stdout, STDOUT), pump(ws, session.stderr, STDERR)];
  finish(ws, session, outputs).catch(onError);
}

/** A client that opens fewer streams than it asked for is not waited for. */
const STREAMS_MS = 30_000;

export function serveExecOverSpdy(
  connection: Duplex,
  head: Buffer,
  wanted: { stdin: boolean; stdout: boolean; stderr: boolean; tty: boolean },
  session: ExecSession,
  clock: Clock,
  onError: (error: unknown) => void,
): void {
  // A client waits for our answer to each of them, the sizes of its terminal too: a command that ends at once must not end before.
  const { stdin, stdout, stderr, tty } = wanted;
  const asked = { error: true, stdin, stdout, stderr, resize: tty };
  const names = Object.entries(asked).flatMap(([name, wants]) => (wants ? [name] : []));
  const streams = new Map<string, SpdyStream>();
  const spdy = new SpdySession(connection, head, {
    stream(stream) {
      const name = stream.headers.get('streamtype') ?? '';
      streams.set(name, stream);
      if (name === 'resize') readSizes(stream, session);
      if (started || !names.every((each) => streams.has(each))) return;
      started = true;
      late();
      carryExec(streams, session)
        .then(() => spdy.close())
        .catch(onError);
    },
    closed() {
      late();
      session.close();
    },
  });
  let started = false;
  const late = clock.after(STREAMS_MS, () => spdy.close());
}

async function carryExec(streams: ReadonlyMap<string, SpdyStream>, session: ExecSession): Promise<void> {
  const [stdin, stdout, stderr, error] = ['stdin', 'stdout', 'stderr', 'error'].map((name) => streams.get(name));
  if (stdin && session.stdin) stdin.pipe(session.stdin);
  stdin?.on('error', () => session.stdin?.end());
  const outputs = [copy(session.stdout, stdout), copy(session.stderr, stderr)];
  const code = await session.exited;
  await Promise.all(outputs);
  for (const stream of [stdout, stderr]) stream?.end();
  await new Promise<void>((done) => (error ? error.end(JSON.stringify(exitStatus(code)), done) : done()));
}

/** Until the source ends; the stream's own end is for later. */
function copy(from: Readable | undefined, to: SpdyStream | undefined): Promise<void> {
  if (!from || !to) return Promise.resolve();
  return new Promise((done) => {
    from.pipe(to, { end: false });
    for (const event of ['end', 'close', 'error'] as const) from.on(event, () => done());
    to.on('close', () => done());
  });
}

/** Sizes come as JSON texts one behind the other. */
function readSizes(stream: SpdyStream, session: ExecSession): void {
  let rest = '';
  stream.setEncoding('utf8');
  stream.on('data', (chunk: string) => {
    rest += chunk;
    for (let end = rest.indexOf('}'); end >= 0; end = rest.indexOf('}')) {
      const size = parseSize(rest.slice(0, end + 1));
      rest = rest.slice(end + 1);
      if (size) session.resize(size.columns, size.rows);
    }
    if (rest.length > SIZE_MAX) stream.destroy();
  });
}

const SIZE_MAX = 1_024;

async function finish(ws: WebSocket, session: ExecSession, outputs: readonly Promise<void>[]): Promise<void> {
  const code = await session.exited;
  // What the command wrote before it ended comes before its status.
  await Promise.all(outputs);
  ws.send(Buffer.concat([Buffer.of(STATUS), Buffer.from(JSON.stringify(exitStatus(code)))]));
  ws.close();
}

export function exitStatus(code: number): object {
  if (code === 0) return { metadata: {}, status: 'Success' };
  return {
    metadata: {},
    status: 'Failure',
    reason: 'NonZeroExitCode',
    message: `command terminated with non-zero exit code: exit status ${code}`,
    details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
  };
}

function take(ws: WebSocket, session: ExecSession, payload: Buffer): void {
  const channel = payload[0];
  const data = payload.subarray(1);
  if (channel === STDIN && data.length > 0) {
    if (session.stdin?.write(data) === false) {
      ws.pause();
      session.stdin.once('drain', () => ws.resume());
    }
  } else if (channel === CLOSE && data[0] === STDIN) session.stdin?.end();
  else if (channel === RESIZE) {
    const size = parseSize(data.toString('utf8'));
    if (size) session.resize(size.columns, size.rows);
  }
}

function parseSize(text: string): { columns: number; rows: number } | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value) && Number(value['Width']) > 0 && Number(value['Height']) > 0)
      return { columns: Number(value['Width']), rows: Number(value['Height']) };
  } catch {
    return undefined; // a size that cannot be read changes nothing
  }
  return undefined;
}

function pump(ws: WebSocket, stream: Readable | undefined, channel: number): Promise<void> {
  if (!stream) return Promise.resolve();
  return new Promise((done) => {
    stream.on('data', (chunk: Buffer | string) => {
      const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
      if (ws.send(Buffer.concat([Buffer.of(channel), bytes]))) return;
      stream.pause();
      ws.drained(() => stream.resume());
    });
    stream.on('end', done);
    stream.on('close', done);
    stream.on('error', done);
  });
}
