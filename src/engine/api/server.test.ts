import { mkdtempSync, rmSync } from 'node:fs';
import { request as httpRequest, type Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { defineError } from '#base/errors.ts';
import { logger, silentSink } from '#base/log.ts';
import { empty, json, jsonLines } from '#engine/api/reply.ts';
import { Router } from '#engine/api/router.ts';
import { createApiServer, type Handlers, standardHeaders } from '#engine/api/server.ts';

const Conflict = defineError('NAME_TAKEN', (d: { name: string }) => ({
  message: `the name ${d.name} is taken`,
  hint: 'choose another',
}));

let departed = 0;
let waiting: () => void = () => undefined;

const handlers: Handlers = {
  SystemPing: () => ({ kind: 'text', status: 200, body: 'OK' }),
  ContainerInspect: ({ params, query, version }) => json({ id: params['id'], size: query.get('size'), version }),
  ImageInspect: ({ params }) => json(params),
  ContainerCreate: async (request) => json({ got: await request.json() }, 201),
  ContainerRename: () => {
    throw new Conflict({ name: 'web' });
  },
  ContainerStart: () => empty(),
  ContainerKill: () => {
    throw new TypeError('a bug');
  },
  ImageCreate: () =>
    jsonLines(async (put) => {
      await put({ status: 'Pulling' });
      throw new Error('no such manifest');
    }),
  SystemEvents: () =>
    jsonLines(async (put, signal) => {
      await put({ Type: 'container' });
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      departed++;
      waiting();
    }),
  ContainerExport: () => ({
    kind: 'pipe',
    status: 200,
    type: 'application/x-tar',
    body: Readable.from(['tar', 'ball']),
  }),
  ContainerAttachWebsocket: () => ({
    kind: 'websocket',
    run: (open) =>
      new Promise((resolve) => {
        const socket = open({ message: (text) => socket.send(Buffer.concat([text, text])), closed: resolve });
      }),
  }),
  ExecStart: async (request) => {
    const options = await request.json();
    return {
      kind: 'hijack',
      type: 'application/vnd.docker.raw-stream',
      run: async ({ input, output }) => {
        output.write(JSON.stringify(options));
        for await (const chunk of input) output.write(String(chunk).toUpperCase());
        output.write('!');
      },
    };
  },
};

describe('the API server', () => {
  const directory = mkdtempSync(join(tmpdir(), 'estiba-api-'));
  const socketPath = join(directory, 'docker.sock');
  let server: Server;

  beforeAll(async () => {
    const log = logger('api', silentSink);
    server = createApiServer({ handlers, statuses: { NAME_TAKEN: 409 }, headers: standardHeaders('Estiba/0'), log });
    await new Promise<void>((ready) => server.listen(socketPath, ready));
  });
  afterAll(async () => {
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
    rmSync(directory, { recursive: true });
  });

  function call(method: string, path: string, body?: string): Promise<{ status: number; type: string; text: string }> {
    return new Promise((resolve, reject) => {
      const request = httpRequest({ socketPath, method, path }, async (response) => {
        try {
          let text = '';
          for await (const chunk of response) text += chunk;
          resolve({ status: response.statusCode ?? 0, type: response.headers['content-type'] ?? '', text });
        } catch (error) {
          reject(error);
        }
      });
      request.on('error', reject);
      request.end(body);
    });
  }

  /** Sends the pieces one by one with pauses, as a network might, and returns all that comes until the end. */
  async function raw(pieces: string[], end = true): Promise<string> {
    const socket: Socket = connect(socketPath);
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk;
    });
    const closed = new Promise((resolve) => socket.on('close', resolve));
    for (const piece of pieces) {
      socket.write(piece);
      await new Promise((done) => setTimeout(done, 15));
    }
    if (end) socket.end();
    await closed;
    return text;
  }

  it('says how long an answer is that is known whole: it goes in one piece', async () => {
    const answer = await raw(['GET /images/a/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n']);
    const [head = '', body = ''] = answer.split('\r\n\r\n');
    expect(head).toMatch(/^content-length: (\d+)$/im);
    expect(Number(/^content-length: (\d+)$/im.exec(head)?.[1])).toBe(Buffer.byteLength(body));
    expect(head).not.toMatch(/transfer-encoding/i);
  });

  it('routes with and without a version, and decodes names', async () => {
    expect(JSON.parse((await call('GET', '/v1.30/containers/a%20b/json?size=1')).text)).toEqual({
      id: 'a b',
      size: '1',
      version: '1.30',
    });
    expect(JSON.parse((await call('GET', '/images/host:5000/team/app:1/json')).text)).toEqual({
      name: 'host:5000/team/app:1',
    });
    expect((await call('GET', '/_ping')).text).toBe('OK');
    expect((await call('POST', '/containers/x/start')).status).toBe(204);
  });

  it('answers what it does not have, or not for this method or version', async () => {
    expect(await call('GET', '/nothing')).toMatchObject({
      status: 404,
      text: expect.stringContaining('page not found'),
    });
    expect(await call('DELETE', '/_ping')).toMatchObject({ status: 405, text: expect.stringContaining('GET, HEAD') });
    expect(await call('GET', '/v1.12/_ping')).toMatchObject({ status: 400, text: expect.stringContaining('too old') });
    expect(await call('GET', '/v9.9/_ping')).toMatchObject({ status: 400, text: expect.stringContaining('too new') });
  });

  it('reads JSON bodies, and says so when they are none or too long', async () => {
    expect(JSON.parse((await call('POST', '/containers/create', '{"Image":"a"}')).text)).toEqual({
      got: { Image: 'a' },
    });
    expect(await call('POST', '/containers/create', '{')).toMatchObject({
      status: 400,
      text: expect.stringContaining('not JSON'),
    });
    expect(await call('POST', '/containers/create', `"${'x'.repeat(9 * 1024 * 1024)}"`)).toMatchObject({
      status: 400,
      text: expect.stringContaining('longer'),
    });
  });

  it('answers errors with the status of their code and the hint behind the message', async () => {
    const conflict = await call('POST', '/containers/a/rename');
    expect([conflict.status, JSON.parse(conflict.text)]).toEqual([
      409,
      { message: 'the name web is taken: choose another' },
    ]);
    expect((await call('POST', '/containers/a/kill')).status).toBe(500);
  });

  it('puts an error that comes late into the stream', async () => {
    const { status, text } = await call('POST', '/images/create');
    const lines = text
      .trim()
      .split('\r\n')
      .map((line) => JSON.parse(line));
    expect([status, lines]).toEqual([
      200,
      [{ status: 'Pulling' }, { errorDetail: { message: 'no such manifest' }, error: 'no such manifest' }],
    ]);
  });

  it('pipes archives', async () => {
    expect(await call('GET', '/containers/a/export')).toEqual({
      status: 200,
      type: 'application/x-tar',
      text: 'tarball',
    });
  });

  it('lets a stream go when its client leaves', async () => {
    const left = new Promise<void>((resolve) => {
      waiting = resolve;
    });
    const request = httpRequest({ socketPath, path: '/events' }, (response) =>
      response.once('data', () => request.destroy()),
    );
    request.on('error', () => undefined); // its own hanging up
    request.end();
    await left;
    expect(departed).toBe(1);
  });

  const upgrade =
    'POST /exec/1/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n';
  const chunked = upgrade.replace('Content-Length: 13', 'Transfer-Encoding: chunked');
  it.each([
    ['in one piece', [`${upgrade}{"Tty":false}ab`]],
    ['with the body apart', [upgrade, '{"Tty":false}', 'ab']],
    ['cut inside the body, with early input', [`${upgrade}{"Tt`, 'y":false}a', 'b']],
    ['in chunks', [`${chunked}5\r\n{"Tty\r\n`, '8\r\n":false}\r\n0\r', '\n\r\nab']],
  ])('hijacks an upgraded request that comes %s', async (_, pieces) => {
    const text = await raw(pieces);
    expect(text).toMatch(/^HTTP\/1\.1 101 UPGRADED\r\n/);
    expect(text).toContain('Content-Type: application/vnd.docker.raw-stream\r\n');
    expect(text.split('\r\n\r\n')[1]).toBe('{"Tty":false}AB!');
  });

  it('answers errors to an upgraded request as plain HTTP', async () => {
    const text = await raw([upgrade.replace('/exec/1/start', '/containers/1/kill'), '{"Tty":false}'], false);
    expect(text).toMatch(/^HTTP\/1\.1 500 /);
    expect(await raw([upgrade.replace('Content-Length: 13', 'Content-Length: 99999999999')], false)).toMatch(
      /^HTTP\/1\.1 400 /,
    );
    expect(await raw([`${chunked}no size\r\n`], false)).toMatch(/^HTTP\/1\.1 400 /);
  });

  it('speaks WebSocket where a call is made for it, and says so to others', async () => {
    const client = new WebSocket(`ws+unix:${socketPath}:/containers/1/attach/ws`);
    const said = new Promise((resolve) => client.on('message', (data) => resolve(String(data))));
    client.on('open', () => client.send('ab'));
    expect(await said).toBe('abab');
    const closed = new Promise((resolve) => client.on('close', resolve));
    client.close();
    expect(await closed).toBe(1000);
    const plain = await raw(['GET /containers/1/attach/ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'], false);
    expect(plain).toMatch(/^HTTP\/1\.1 400 [\s\S]*WebSocket clients alone/);
  });

  it('hijacks without an upgrade too: output until the end, input from the body', async () => {
    const body = '{"Tty":false}';
    const text = await raw(
      [`POST /exec/1/start HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`],
      false,
    );
    expect(text).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
    expect(text.split('\r\n\r\n')[1]).toBe('{"Tty":false}!');
  });
});

describe('Router', () => {
  it('has fixed words win over parameters', () => {
    const router = new Router([{ method: 'GET', path: '/estiba/v1/xray/{id}', id: 'Xray' }]);
    expect(router.match('GET', '/images/json')).toMatchObject({ id: 'ImageList' });
    expect(router.match('GET', '/images/json/json')).toMatchObject({ id: 'ImageInspect', params: { name: 'json' } });
    expect(router.match('GET', '/images/get')).toMatchObject({ id: 'ImageGetAll' });
    expect(router.match('GET', '/estiba/v1/xray/web')).toMatchObject({ id: 'Xray', params: { id: 'web' } });
    expect(router.match('GET', '/containers/a/b/json')).toBeUndefined();
  });
});
