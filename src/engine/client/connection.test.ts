import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DaemonConnection } from '#engine/client/connection.ts';

const HEAD = 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n';

describe('a daemon that goes', () => {
  let answer: (socket: Socket) => void = () => undefined;
  let server: Server;
  let daemon: DaemonConnection;

  beforeAll(async () => {
    server = createServer((socket) => {
      socket.on('error', () => undefined); // what is tried here
      // The whole of a request has come when its head has: those with a body send it in the same breath.
      socket.once('data', () => answer(socket));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    daemon = new DaemonConnection({ host: '127.0.0.1', port: (server.address() as { port: number }).port });
  });
  afterAll(() => void server.close());

  const moments: [string, (socket: Socket) => void][] = [
    ['after the request', (socket) => socket.end()],
    ['after the request, with a reset', (socket) => socket.resetAndDestroy()],
    ['in the middle of the head', (socket) => socket.end(HEAD.slice(0, 20))],
    ['after the head', (socket) => socket.end(HEAD)],
    ['in the middle of the body', (socket) => socket.end(`${HEAD}{"a"`)],
    [
      'in the middle of a chunk',
      (socket) => socket.end('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{'),
    ],
    ['in the middle of a refusal', (socket) => socket.end(HEAD.replace('200', '500'))],
  ];
  const calls: [string, () => Promise<unknown>][] = [
    ['a GET', () => daemon.json('/info')],
    ['a POST of JSON', () => daemon.json('/build', { method: 'POST', json: { a: 1 } })],
    ['a POST of a body', () => daemon.json('/contexts', { method: 'POST', body: bytes(3) })],
    ['a reader of lines', () => firstOf(daemon.lines('/events'))],
    ['an upgrade', () => daemon.upgrade('/attach', undefined)],
  ];
  for (const [moment, act] of moments)
    it.each(calls)(`${moment} is told to %s`, async (_, call) => {
      answer = act;
      await expect(call()).rejects.toMatchObject({ code: 'DAEMON_UNREACHABLE' });
    });

  it('is not what is told of a body that cannot be read, whenever that shows', async () => {
    answer = (socket) => socket.resume();
    for (const chunks of [0, 1, 50]) {
      const sent = daemon.json('/contexts', { method: 'POST', body: bytes(chunks, new Error('a file changed')) });
      await expect(sent).rejects.toThrow('a file changed');
    }
  });

  it('gives what came before it to a reader of lines', async () => {
    answer = (socket) => socket.end('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"a":1}\n\r\n');
    const lines = daemon.lines('/events');
    await expect(lines.next()).resolves.toEqual({ done: false, value: { a: 1 } });
    await expect(lines.next()).rejects.toMatchObject({ code: 'DAEMON_UNREACHABLE' });
  });

  it('is not what is told to a caller that has given up', async () => {
    answer = (socket) => socket.write(HEAD);
    const caller = new AbortController();
    const asked = daemon.json('/info', { signal: caller.signal });
    caller.abort();
    await expect(asked).rejects.toMatchObject({ name: 'AbortError' });
  });
});

async function* bytes(chunks: number, end?: Error): AsyncGenerator<Buffer> {
  for (let i = 0; i < chunks; i++) yield Buffer.alloc(1024);
  if (end) throw end;
}

async function firstOf(lines: AsyncGenerator<unknown>): Promise<unknown> {
  for await (const line of lines) return line;
  return undefined;
}
