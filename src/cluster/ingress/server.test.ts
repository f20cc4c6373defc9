import { execFileSync } from 'node:child_process';
import { Agent, createServer, type IncomingMessage, type RequestListener, request, type Server } from 'node:http';
import { connect as connectHttp2, constants } from 'node:http2';
import { request as requestTls } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { seededRandom } from '#base/random.ts';
import { FALLBACK_HOST } from '#cluster/ingress/model.ts';
import { IngressServer } from '#cluster/ingress/server.ts';

interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  body: string;
}

describe('the proxy', () => {
  let proxy: IngressServer;
  let port: number;
  const servers: Server[] = [];

  async function backend(listener: RequestListener): Promise<{ ip: string; port: number; server: Server }> {
    const server = createServer(listener);
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    servers.push(server);
    return { ip: '127.0.0.1', port: (server.address() as AddressInfo).port, server };
  }

  async function tell(set: Record<string, unknown>, drop: string[] = []): Promise<void> {
    await proxy.apply({ whole: false, set: new Map(Object.entries(set)), drop });
  }

  const web = (targets: { ip: string; port: number }[], why?: string): Record<string, unknown> => ({
    'ing/default/web': {
      namespace: 'default',
      name: 'web',
      createdAtMs: 1,
      rules: [{ host: 'web.example', path: '/', type: 'Prefix', backend: 'default/web:80' }],
      tls: [],
    },
    'be/default/web:80': {
      targets: targets.map((t) => ({ ip: t.ip, port: t.port })),
      protocol: 'http',
      ...(why === undefined ? {} : { why }),
    },
  });

  function ask(options: {
    method?: string;
    path?: string;
    host?: string;
    headers?: Record<string, string>;
    body?: string | Buffer;
    agent?: Agent;
  }): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const { method = 'GET', path = '/', host = 'web.example', headers = {}, body, agent } = options;
      const out = request({
        host: '127.0.0.1',
        port,
        method,
        path,
        headers: { host, ...headers },
        ...(agent ? { agent } : {}),
      });
      out.on('error', reject);
      out.on('response', (answer) => {
        const parts: Buffer[] = [];
        answer.on('data', (part: Buffer) => parts.push(part));
        answer.on('error', reject);
        answer.on('end', () =>
          resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: Buffer.concat(parts).toString() }),
        );
      });
      out.end(body);
    });
  }

  beforeEach(async () => {
    proxy = new IngressServer({
      clock: systemClock,
      random: seededRandom(1),
      log: logger('cluster:ingress', silentSink),
    });
    await tell({ settings: { http: [{ ip: '127.0.0.1', port: 0 }], https: [{ ip: '127.0.0.1', port: 0 }] } });
    port = proxy.ports('http')[0] ?? 0;
  });
  afterEach(async () => {
    await proxy.close();
    for (const server of servers.splice(0)) {
      server.closeAllConnections();
      server.close();
    }
  });

  it('passes requests on, and tells the backend who asked; what the client claims about itself does not count', async () => {
    const to = await backend((q, r) => r.end(JSON.stringify({ url: q.url, headers: q.headers })));
    await tell(web([to]));
    const { body } = await ask({
      path: '/a%20b?c=1',
      headers: { 'x-forwarded-for': '6.6.6.6', connection: 'x-mine', 'x-mine': '1' },
    });
    const seen = JSON.parse(body) as { url: string; headers: Record<string, string> };
    expect(seen.url).toBe('/a%20b?c=1');
    expect(seen.headers).toMatchObject({
      host: 'web.example',
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-host': 'web.example',
      'x-forwarded-proto': 'http',
      'x-forwarded-port': String(port),
    });
    expect(seen.headers['x-mine']).toBeUndefined();
  });

  it('says why there is no answer', async () => {
    expect((await ask({})).headers['x-estiba-error']).toBe('NO_ROUTE');
    await tell(web([], 'none of the 3 pods of Service default/web is ready'));
    const none = await ask({});
    expect([none.status, none.body]).toEqual([
      503,
      '503 Service Unavailable: none of the 3 pods of Service default/web is ready (NO_ENDPOINTS)\n',
    ]);
    const gone = await backend(() => undefined);
    gone.server.close();
    await tell(web([gone]));
    expect(await ask({ headers: { accept: 'text/html' } })).toMatchObject({
      status: 502,
      headers: { 'x-estiba-error': 'BACKEND_REFUSED' },
    });
    const rude = await backend((q) => q.socket.destroy());
    await tell(web([rude]));
    expect(await ask({ method: 'POST', body: 'x' })).toMatchObject({
      status: 502,
      headers: { 'x-estiba-error': 'BACKEND_BROKE' },
    });
  });

  it('a target that refuses costs no request, a POST with a body neither', async () => {
    const dead = await backend(() => undefined);
    dead.server.close();
    const to = await backend((q, r) => void q.pipe(r));
    await tell(web([dead, to]));
    for (let n = 0; n < 20; n++) expect((await ask({})).status).toBe(200);
    for (let n = 0; n < 20; n++) expect((await ask({ method: 'POST', body: `n${n}` })).body).toBe(`n${n}`);
  });

  it('a GET that meets a dying server is asked again, a POST is not made twice', async () => {
    let posts = 0;
    const dying = await backend((q) => {
      if (q.method === 'POST') posts++;
      q.socket.destroy();
    });
    const to = await backend((q, r) => {
      if (q.method === 'POST') posts++;
      r.end('fine');
    });
    await tell(web([dying, to]));
    for (let n = 0; n < 20; n++) expect((await ask({})).status).toBe(200);
    const statuses: number[] = [];
    for (let n = 0; n < 20; n++) statuses.push((await ask({ method: 'POST', body: 'x' })).status);
    expect(posts).toBe(20);
    expect(new Set(statuses)).toEqual(new Set([200, 502]));
  });

  it('bodies stream both ways, with back pressure', async () => {
    const to = await backend((q, r) => void q.pipe(r));
    await tell(web([to]));
    const body = Buffer.alloc(20 << 20, 'estiba');
    expect((await ask({ method: 'PUT', body })).body.length).toBe(body.length);
    const events = await backend((_, r) => {
      r.writeHead(200, { 'content-type': 'text/event-stream' });
      setTimeout(() => r.write('data: 1\n\n'), 20);
    });
    await tell(web([events]));
    const first = await new Promise<string>((resolve) => {
      request({ host: '127.0.0.1', port, headers: { host: 'web.example' } }, (answer) =>
        answer.once('data', (chunk: Buffer) => {
          answer.destroy();
          resolve(chunk.toString());
        }),
      ).end();
    });
    expect(first).toBe('data: 1\n\n');
  });

  it('half an answer is never taken for a whole one', async () => {
    const to = await backend((_, r) => {
      r.writeHead(200, { 'content-length': '100' });
      r.write('half');
      setTimeout(() => r.destroy(), 20);
    });
    await tell(web([to]));
    await expect(ask({})).rejects.toThrow();
  });

  it('no request is lost while targets come and go under load, with connections kept alive', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 8 });
    let current = await backend((_, r) => r.end('ok'));
    await tell(web([current]));
    const failures: unknown[] = [];
    let done = 0;
    let stop = false;
    const counts = new Array<number>(8).fill(0);
    const client = async (_: unknown, me: number): Promise<void> => {
      for (let n = 0; !stop; n++) {
        const answer = await ask(n % 3 === 0 ? { method: 'POST', body: 'x', agent } : { agent }).catch(
          (e: unknown) => e,
        );
        if (answer instanceof Error || (answer as Answer).status !== 200) failures.push(answer);
        done++;
        counts[me] = n + 1;
      }
    };
    const clients = Array.from({ length: 8 }, client);
    for (let round = 0; round < 15; round++) {
      const next = await backend((_, r) => r.end('ok'));
      await tell(web([current, next]));
      await tell(web([next]));
      // Who ends a pod waits until what was connected by then is taken (app/services.ts); here: until every client has had
      // an answer to a request that it made after the change.
      const then = [...counts];
      await expect
        .poll(() => counts.every((n, i) => n >= (then[i] ?? 0) + 2), { interval: 2, timeout: 10_000 })
        .toBe(true);
      // As a server ends: takes no more connections, closes idle ones, lets the others finish.
      current.server.close();
      current.server.closeIdleConnections();
      current = next;
    }
    stop = true;
    await Promise.all(clients);
    agent.destroy();
    expect(failures).toEqual([]);
    expect(done).toBeGreaterThan(100);
  });

  it('WebSockets pass, and a refused upgrade says so', async () => {
    const to = await backend((_, r) => r.end());
    const sockets = new WebSocketServer({ server: to.server });
    sockets.on('connection', (socket) => socket.on('message', (m) => socket.send(`echo ${String(m)}`)));
    await tell(web([to]));
    const socket = new WebSocket(`ws://127.0.0.1:${port}/chat`, { headers: { host: 'web.example' } });
    const answer = await new Promise<string>((resolve, reject) => {
      socket.on('open', () => socket.send('hi'));
      socket.on('message', (m) => resolve(String(m)));
      socket.on('error', reject);
    });
    socket.terminate();
    sockets.close();
    expect(answer).toBe('echo hi');
    const refused = new WebSocket(`ws://127.0.0.1:${port}/`, { headers: { host: 'other.example' } });
    await expect(new Promise((_, reject) => refused.on('error', reject))).rejects.toThrow('404');
  });

  describe('with TLS', () => {
    /** A certificate that signs itself, as PEM. */
    function own(host: string): { certificate: string; key: string } {
      const args = `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=${host} -addext subjectAltName=DNS:${host} -keyout - -out -`;
      const text = execFileSync('openssl', args.split(' '), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
      const at = text.indexOf('-----BEGIN CERTIFICATE-----');
      return { key: text.slice(0, at), certificate: text.slice(at) };
    }

    it('speaks HTTP/2 and HTTP/1.1, and shows the secret’s certificate, else one of its own', async () => {
      const mine = own('web.example');
      const to = await backend((q, r) => r.end(`${q.httpVersion} ${q.headers['x-forwarded-proto']} ${q.headers.host}`));
      await tell({
        ...web([to]),
        'ing/default/web': {
          namespace: 'default',
          name: 'web',
          createdAtMs: 1,
          rules: [{ host: '', path: '/', type: 'Prefix', backend: 'default/web:80' }],
          tls: [{ hosts: ['given.example'], secret: 'cert' }],
        },
        'tls/default/cert': own('given.example'),
        'own/web.example': mine,
        [`own/${FALLBACK_HOST}`]: own(FALLBACK_HOST),
      });
      const [secure = 0] = proxy.ports('https');
      const over2 = connectHttp2(`https://127.0.0.1:${secure}`, {
        ca: mine.certificate,
        servername: 'web.example',
      });
      const body = await new Promise<string>((resolve, reject) => {
        over2.on('error', reject);
        const stream = over2.request({
          ':path': '/',
          ':authority': 'web.example',
          [constants.HTTP2_HEADER_METHOD]: 'POST',
        });
        let text = '';
        stream.on('data', (chunk: Buffer) => (text += chunk.toString()));
        stream.on('end', () => resolve(text));
        stream.on('error', reject);
        stream.end('body');
      });
      over2.destroy();
      expect(body).toBe('1.1 https web.example');
      const subject = (servername: string): Promise<string> =>
        new Promise((resolve, reject) => {
          const out = requestTls(
            {
              host: '127.0.0.1',
              port: secure,
              servername,
              rejectUnauthorized: false,
              headers: { host: 'x' },
              agent: false,
            },
            (answer) => {
              resolve(String((answer.socket as TLSSocket).getPeerCertificate().subject.CN));
              answer.resume();
            },
          );
          out.on('error', reject);
          out.end();
        });
      expect(await subject('given.example')).toBe('given.example');
      expect(await subject('web.example')).toBe('web.example');
      expect(await subject('')).toBe(FALLBACK_HOST);
    });
  });
});
