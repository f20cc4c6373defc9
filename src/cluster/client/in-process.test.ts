import { describe, expect, it } from 'vitest';
import { type ApiHandler, InProcessTransport } from '#cluster/client/in-process.ts';

const IDENTITY = { username: 'test', groups: [] };
type Stream = Extract<Awaited<ReturnType<ApiHandler['handle']>>, { stream: unknown }>['stream'];
type Reader = Parameters<Stream>[0];

function watched(): { api: ApiHandler; reader: () => Reader; stopped: () => boolean } {
  let reader: Reader | undefined;
  let stopped = false;
  const stream: Stream = (sink) => {
    reader = sink;
    return () => {
      stopped = true;
    };
  };
  return {
    api: { handle: async () => ({ code: 200, stream }) },
    reader: () => {
      if (!reader) throw new Error('nobody watches');
      return reader;
    },
    stopped: () => stopped,
  };
}

describe('a client in the server’s process', () => {
  it('gets the very object of the server, and text only where there is nothing else', async () => {
    const value = { kind: 'Pod', metadata: { name: 'a' } };
    const body = (): never => {
      throw new Error('nobody asked for text');
    };
    const api = (answer: object): ApiHandler => ({ handle: async () => answer as { code: number; body: string } });
    const objects = new InProcessTransport(
      api(Object.defineProperty({ code: 200, value }, 'body', { get: body })),
      IDENTITY,
    );
    expect((await objects.request({ method: 'GET', path: '/' })).body).toBe(value);
    const words = new InProcessTransport(api({ code: 200, body: 'ok' }), IDENTITY);
    expect((await words.request({ method: 'GET', path: '/healthz' })).body).toBe('ok');
  });

  it('cannot change it when it is frozen, however deep', async () => {
    const value = { metadata: { labels: { app: 'web' } } };
    const api: ApiHandler = { handle: async () => ({ code: 200, body: '', value }) };
    await new InProcessTransport(api, IDENTITY, { frozen: true }).request({ method: 'GET', path: '/' });
    expect(() => {
      value.metadata.labels.app = 'other';
    }).toThrow(TypeError);
  });

  it('reads a watch to its end, also what was told before it asked', async () => {
    const { api, reader, stopped } = watched();
    const events = new InProcessTransport(api, IDENTITY)
      .watch('/', new AbortController().signal)
      [Symbol.asyncIterator]();
    const first = events.next();
    await new Promise(setImmediate);
    for (const name of ['a', 'b']) reader().take({ type: 'ADDED', object: { metadata: { name } } });
    reader().end();
    expect((await first).value).toEqual({ type: 'ADDED', object: { metadata: { name: 'a' } } });
    expect((await events.next()).value).toEqual({ type: 'ADDED', object: { metadata: { name: 'b' } } });
    expect((await events.next()).done).toBe(true);
    expect(stopped()).toBe(true);
  });

  it('that stops reading has its watch ended, and begins anew', async () => {
    const { api, reader } = watched();
    const events = new InProcessTransport(api, IDENTITY)
      .watch('/', new AbortController().signal)
      [Symbol.asyncIterator]();
    const first = events.next();
    await new Promise(setImmediate);
    for (let i = 0; i < 60_000; i++) reader().take({ type: 'ADDED', object: { i } });
    expect((await first).done).toBe(false);
    let read = 1;
    while (!(await events.next()).done) read++;
    expect(read).toBe(50_000);
  });
});
