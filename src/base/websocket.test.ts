import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { WebSocket } from '#base/websocket.ts';

/** Both ends of a connection as an HTTP server has it: half open until both sides have ended. */
async function pair(): Promise<{ server: Socket; client: Socket }> {
  const listener = createServer({ allowHalfOpen: true });
  await new Promise<void>((ready) => listener.listen(0, '127.0.0.1', ready));
  const client = connect((listener.address() as { port: number }).port, '127.0.0.1');
  const [server] = (await once(listener, 'connection')) as [Socket];
  listener.close();
  onTestFinished(() => {
    server.destroy();
    client.destroy();
  });
  return { server, client };
}

describe('a WebSocket', () => {
  it('whose client goes while it is behind keeps nobody waiting', async () => {
    const { server, client } = await pair();
    client.pause();
    let closed = 0;
    const ws = new WebSocket(server, Buffer.alloc(0), { message: () => undefined, closed: () => closed++ });
    const piece = Buffer.alloc(1 << 20);
    while (ws.send(piece)); // until the client is behind
    const waiting = new Promise<void>((then) => ws.drained(then));
    client.destroy();
    await waiting;
    await new Promise<void>((then) => ws.drained(then)); // one that asks after the end
    expect(closed).toBe(1);
  });

  it('tells once when its client has caught up', async () => {
    const { server, client } = await pair();
    client.pause();
    const ws = new WebSocket(server, Buffer.alloc(0), { message: () => undefined, closed: () => undefined });
    const piece = Buffer.alloc(1 << 20);
    while (ws.send(piece)); // until the client is behind
    let told = 0;
    const waiting = new Promise<void>((then) =>
      ws.drained(() => {
        told++;
        then();
      }),
    );
    client.resume();
    await waiting;
    client.end();
    await once(server, 'close');
    expect(told).toBe(1);
  });

  it('is let go of when its client leaves without a word', async () => {
    const { server, client } = await pair();
    const closed = new Promise<void>((resolve) => {
      new WebSocket(server, Buffer.alloc(0), { message: () => undefined, closed: resolve });
    });
    const gone = once(server, 'close');
    client.end();
    await Promise.all([closed, gone]);
  });
});
