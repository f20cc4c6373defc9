import type { Duplex, Readable } from 'node:stream';
import { isObject } from '../codec/json.ts';
import type { ExecSession } from '../node-proxy.ts';
import { WebSocket } from './websocket.ts';

/**
 * exec and attach over one WebSocket (`v4.channel.k8s.io`, `v5.channel.k8s.io`): the first byte of a message is its channel.
 *
 *     client ── 0 stdin · 4 resize {"Width","Height"} · 255 close of a channel (v5) ──▶ server
 *     client ◀── 1 stdout · 2 stderr · 3 a Status, last ── server
 */
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
