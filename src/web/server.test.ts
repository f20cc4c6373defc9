import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { FakeClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import { EngineClient } from '#engine/client/client.ts';
import { DaemonConnection } from '#engine/client/connection.ts';
import { Hub } from '#web/hub.ts';
import { createUiServer } from '#web/server.ts';
import { Sessions } from '#web/sessions.ts';
import { Ticker } from '#web/ticker.ts';

const HTML = '<!doctype html><script nonce="NONCE"></script>';

describe('the dashboard on the wire', () => {
  const clock = new FakeClock();
  let kept: string | undefined;
  const open = (): Promise<Sessions> => {
    const write = async (text: string): Promise<void> => {
      kept = text;
    };
    return Sessions.open(
      { clock, random: systemRandom, kept: { read: async () => kept, write } },
      logger('web', silentSink),
    );
  };
  let sessions: Sessions;
  const socketPath = join(tmpdir(), `estiba-ui-${process.pid}.sock`);
  let daemon: Server;
  let ui: Server;
  let port: number;
  let asked: string[];

  beforeEach(async () => {
    asked = [];
    kept = undefined;
    sessions = await open();
    daemon = createServer((request, response) => {
      asked.push(`${request.method} ${request.url}`);
      response.statusCode = request.url?.includes('missing') ? 404 : 200;
      response.end(JSON.stringify(response.statusCode === 404 ? { message: 'No such container: missing' } : {}));
    }).listen(socketPath);
    const log = logger('web', silentSink);
    const engine = new EngineClient(new DaemonConnection({ socketPath }));
    const hub = new Hub({
      clock,
      log,
      feeds: [
        {
          start: async (tables) => {
            tables.put('nodes', { key: 'n1' } as never);
            return () => undefined;
          },
        },
      ],
    });
    const nothing = { atMs: 0, machine: { cpuNs: 0, memoryBytes: 0 }, containers: {} };
    const figures = new Ticker({ clock, everyMs: 2_000, look: () => nothing, log });
    ui = createUiServer({
      sessions,
      calls: { engine, cluster: undefined },
      live: { hub, figures, engine, hangUp: async () => undefined, clock, log },
      files: { index: (nonce) => HTML.replace('NONCE', nonce), asset: (path) => ({ body: Buffer.from(path) }) },
      random: systemRandom,
      hostname: 'Machine',
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => ui.once('listening', resolve));
    port = (ui.address() as AddressInfo).port;
  });
  afterEach(() => {
    ui.closeAllConnections();
    ui.close();
    daemon.closeAllConnections();
    daemon.close();
  });

  const url = (path: string): string => `http://127.0.0.1:${port}${path}`;
  async function logIn(): Promise<{ cookie: string; 'x-estiba-key': string }> {
    const answer = await fetch(url(`/login?token=${sessions.newLink().token}`));
    expect(answer.status).toBe(200);
    const cookie = answer.headers.get('set-cookie') ?? '';
    expect(cookie).toMatch(/^estiba_session_\d+=[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict$/);
    const key = /#key=([\w-]{43})"/.exec(await answer.text())?.[1] ?? '';
    return { cookie: cookie.split(';')[0] ?? '', 'x-estiba-key': key };
  }
  /** Status line of a request with exactly these headers, which fetch would not send. */
  function raw(path: string, headers: Record<string, string>): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1', () => {
        const lines = Object.entries({ Connection: 'close', ...headers }).map(([k, v]) => `${k}: ${v}\r\n`);
        socket.write(`GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`);
      });
      let said = '';
      socket.on('data', (chunk) => {
        said += chunk;
      });
      socket.on('close', () => resolve(said.split('\r\n')[0] ?? ''));
      socket.on('error', reject);
    });
  }

  it('answers nothing to anybody who is not logged in, and says how to', async () => {
    for (const path of ['/', '/page.js', '/page.css', '/api/containers/x/xray', '/api/live', '/nothing']) {
      const answer = await fetch(url(path));
      expect([path, answer.status]).toEqual([path, 401]);
      expect(await answer.text()).toContain('estiba ui');
    }
    expect(asked).toEqual([]);
  });

  it('takes a link once', async () => {
    const { token } = sessions.newLink();
    expect((await fetch(url(`/login?token=${token}`))).status).toBe(200);
    const second = await fetch(url(`/login?token=${token}`));
    expect(second.status).toBe(401);
    expect(second.headers.get('set-cookie')).toBeNull();
    expect(await second.text()).toContain('has been used');
  });

  it('takes a link for a minute', async () => {
    const { token } = sessions.newLink();
    await clock.advance(60_001);
    expect((await fetch(url(`/login?token=${token}`))).status).toBe(401);
    expect((await fetch(url('/login?token='))).status).toBe(401);
  });

  it('knows its visitors again after a restart, by digests alone, until they leave', async () => {
    const admission = await sessions.enter(sessions.newLink().token);
    expect(kept).not.toContain(admission?.key);
    expect(kept).not.toContain(admission?.session);
    const unused = sessions.newLink();
    const next = await open();
    expect(next.admits({ ...admission })).toBe(true);
    expect(next.admits({ ...admission, key: 'wrong' })).toBe(false);
    expect(await next.enter(unused.token)).toBeUndefined();
    await next.leave(admission?.session);
    expect((await open()).admits({ ...admission })).toBe(false);
  });

  it.each(['', '{', '[{"session":"../x","key":"","expiresAtMs":1}]'])(
    'admits nobody by what is no record: %s',
    async (text) => {
      const admission = await sessions.enter(sessions.newLink().token);
      kept = text;
      expect((await open()).admits({ ...admission })).toBe(false);
    },
  );

  it('serves the page to the cookie, and everything that tells or does something to cookie and key together', async () => {
    const admitted = await logIn();
    const { cookie } = admitted;
    expect((await fetch(url('/'), { headers: { cookie } })).status).toBe(200);
    expect(await (await fetch(url('/page.js'), { headers: { cookie } })).text()).toBe('/page.js');
    const xray = url('/api/containers/web/xray');
    expect((await fetch(xray, { headers: { cookie } })).status).toBe(401);
    expect((await fetch(xray, { headers: { cookie, 'x-estiba-key': 'wrong' } })).status).toBe(401);
    expect((await fetch(xray, { headers: { 'x-estiba-key': admitted['x-estiba-key'] } })).status).toBe(401);
    expect((await fetch(xray, { headers: admitted })).status).toBe(200);
    expect(asked).toEqual(['GET /estiba/v1/xray/web']);
  });

  it('does what its buttons say, by the daemon’s own API, and hands on why not', async () => {
    const headers = await logIn();
    for (const action of ['start', 'stop', 'restart', 'remove'])
      expect((await fetch(url(`/api/containers/web/${action}`), { method: 'POST', headers })).status).toBe(200);
    expect(asked).toEqual([
      'POST /containers/web/start',
      'POST /containers/web/stop',
      'POST /containers/web/restart',
      'DELETE /containers/web?force=true',
    ]);
    const missing = await fetch(url('/api/containers/missing/stop'), { method: 'POST', headers });
    expect([missing.status, await missing.json()]).toEqual([404, { message: 'No such container: missing' }]);
    expect((await fetch(url('/api/containers/web/stop'), { headers })).status).toBe(404);
    expect((await fetch(url('/api/containers/web/explode'), { method: 'POST', headers })).status).toBe(404);
    expect((await fetch(url('/api/pods/default/web/delete'), { method: 'POST', headers })).status).toBe(404);
  });

  it('is served under addresses and this machine’s names alone: a rebound name is refused', async () => {
    const headers = await logIn();
    for (const host of [`127.0.0.1:${port}`, '[::1]:8443', 'localhost:9', 'machine', '10.1.2.3'])
      expect([host, await raw('/', { Host: host, Cookie: headers.cookie })]).toEqual([host, 'HTTP/1.1 200 OK']);
    for (const host of [
      'evil.example',
      'machine.evil.example',
      '127.0.0.1.evil.example',
      'localhost.evil.example',
      '1',
    ])
      expect([host, await raw('/', { Host: host, Cookie: headers.cookie })]).toEqual([
        host,
        'HTTP/1.1 421 Misdirected Request',
      ]);
  });

  it('does nothing for another page, whatever it brings along', async () => {
    const headers = await logIn();
    const post = async (more: Record<string, string>): Promise<number> =>
      (await fetch(url('/api/containers/web/stop'), { method: 'POST', headers: { ...headers, ...more } })).status;
    expect(await post({ origin: 'https://evil.example' })).toBe(403);
    expect(await post({ origin: 'null' })).toBe(403);
    expect(await post({ origin: `http://127.0.0.1:${port + 1}` })).toBe(403);
    expect(await post({ 'sec-fetch-site': 'same-site' })).toBe(403);
    expect(asked).toEqual([]);
    expect(await post({ origin: `http://127.0.0.1:${port}`, 'sec-fetch-site': 'same-origin' })).toBe(200);
  });

  it('tells browsers to run nothing that is not its own', async () => {
    const { cookie } = await logIn();
    const page = await fetch(url('/'), { headers: { cookie } });
    const policy = page.headers.get('content-security-policy') ?? '';
    const nonce = /nonce="([\w-]{22})"/.exec(await page.text())?.[1];
    expect(policy).toContain("default-src 'none'; script-src 'self'; style-src 'self' 'nonce-");
    expect(policy).toContain(`'nonce-${nonce}'`);
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).not.toContain('unsafe');
    for (const path of ['/', '/page.js', '/api/x'])
      expect((await fetch(url(path))).headers.get('content-security-policy')).toContain("default-src 'none'");
  });

  describe('its WebSocket', () => {
    function open(
      headers: Record<string, string>,
      key: string,
      origin = `http://127.0.0.1:${port}`,
    ): Promise<WebSocket> {
      const socket = new WebSocket(`ws://127.0.0.1:${port}/api/live`, ['estiba.live', `estiba.key.${key}`], {
        headers,
        origin,
      });
      return new Promise((resolve, reject) => {
        socket.once('open', () => resolve(socket));
        socket.once('error', reject);
      });
    }
    const next = (socket: WebSocket): Promise<unknown> =>
      new Promise((resolve) => socket.once('message', (bytes) => resolve(JSON.parse(String(bytes)))));

    it('needs cookie, key and origin', async () => {
      const { cookie, 'x-estiba-key': key } = await logIn();
      await expect(open({}, key)).rejects.toThrow('401');
      await expect(open({ cookie }, 'wrong')).rejects.toThrow('401');
      await expect(open({ cookie }, key, 'http://evil.example')).rejects.toThrow('403');
      (await open({ cookie }, key)).terminate();
    });

    it('opens what is asked for, and ends a page that says what no page says', async () => {
      const { cookie, 'x-estiba-key': key } = await logIn();
      const socket = await open({ cookie }, key);
      socket.send(JSON.stringify({ open: 1, topic: { kind: 'world' } }));
      expect(await next(socket)).toEqual({
        channel: 1,
        put: { whole: true, set: { nodes: [{ key: 'n1' }] }, gone: {} },
      });
      socket.send(JSON.stringify({ open: 2, topic: { kind: 'logs', container: 'missing' } }));
      expect(await next(socket)).toEqual({ channel: 2, error: 'No such container: missing' });
      const closed = new Promise((resolve) => socket.once('close', resolve));
      socket.send(JSON.stringify({ open: 3, topic: { kind: 'everything' } }));
      expect(await closed).toBe(1008);
    });

    it('ends with its session', async () => {
      const headers = await logIn();
      const socket = await open({ cookie: headers.cookie }, headers['x-estiba-key']);
      const closed = new Promise((resolve) => socket.once('close', resolve));
      expect((await fetch(url('/api/logout'), { method: 'POST', headers })).status).toBe(200);
      expect(await closed).toBe(1000);
      expect((await fetch(url('/'), { headers: { cookie: headers.cookie } })).status).toBe(401);
    });
  });
});
