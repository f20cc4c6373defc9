import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, type IncomingMessage, type Server } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { hostTls } from '#registry/client/hosts.ts';
import { proxySettings } from '#registry/client/proxy.ts';
import { readBody, Transport } from '#registry/client/transport.ts';

interface Pair {
  cert: string;
  key: string;
}

const keys = mkdtempSync(join(tmpdir(), 'estiba-registry-keys-'));
let ca: Pair;
let serverPair: Pair;
let clientPair: Pair;

beforeAll(() => {
  ca = issue('corp CA', []);
  serverPair = issue('registry', ['-addext', 'subjectAltName=DNS:registry.test,IP:127.0.0.1'], 'corp CA');
  clientPair = issue('node 7', [], 'corp CA');
});
afterAll(() => rmSync(keys, { recursive: true }));

describe('TLS', () => {
  it("trusts a host's own CA from certs.d, shows the client certificate there, and nothing to hosts it does not know", async () => {
    const { host } = await listen(
      createHttpsServer({ ...serverPair, ca: ca.cert, requestCert: true, rejectUnauthorized: false }, echo),
    );
    const folder = mkdtempSync(join(tmpdir(), 'estiba-registry-certs-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    mkdirSync(join(folder, host));
    writeFileSync(join(folder, host, 'ca.crt'), ca.cert);
    writeFileSync(join(folder, host, 'client.cert'), clientPair.cert);
    writeFileSync(join(folder, host, 'client.key'), clientPair.key);
    expect(await ask(transport({}, [folder]), `https://${host}/`)).toMatchObject({ client: 'node 7' });
    await expect(ask(transport({}, []), `https://${host}/`)).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE' });
    expect(await ask(transport({}, [], false), `https://${host}/`)).toMatchObject({ client: '' });
  });

  it("trusts a company's CA that the launchers have moved aside", async () => {
    const { host } = await listen(createHttpsServer(serverPair, echo));
    const folder = mkdtempSync(join(tmpdir(), 'estiba-registry-ca-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    writeFileSync(join(folder, 'company.crt'), ca.cert);
    const env = { ESTIBA_EXTRA_CA_CERTS: join(folder, 'company.crt') };
    expect(await ask(transport(env, []), `https://${host}/`)).toMatchObject({ encrypted: true });
  });
});

describe('proxies', () => {
  it('carry TLS through CONNECT, see nothing of it, and are logged in to', async () => {
    const { port } = await listen(createHttpsServer(serverPair, echo));
    const proxy = await proxyServer(port);
    const t = transport({ HTTPS_PROXY: `http://user:p%40ss@127.0.0.1:${proxy.port}` }, [], false);
    expect(await ask(t, `https://registry.test:${port}/v2/`)).toMatchObject({ path: '/v2/', encrypted: true });
    expect(proxy.seen).toEqual([
      { line: `CONNECT registry.test:${port}`, authorization: `Basic ${Buffer.from('user:p@ss').toString('base64')}` },
    ]);
  });

  it('carry plain HTTP with the whole URL, and a refusal is told', async () => {
    const { port } = await listen(createHttpServer(echo));
    const proxy = await proxyServer(port);
    const t = transport({ http_proxy: `127.0.0.1:${proxy.port}` }, []);
    expect(await ask(t, `http://registry.test:${port}/v2/x?y=1`)).toMatchObject({
      path: '/v2/x?y=1',
      host: `registry.test:${port}`,
    });
    expect(proxy.seen).toEqual([{ line: `GET http://registry.test:${port}/v2/x?y=1`, authorization: undefined }]);
    const closed = await listen(
      createHttpServer((_, res) => res.writeHead(403).end()).on('connect', (_, socket) =>
        socket.end('HTTP/1.1 403 Forbidden\r\n\r\n'),
      ),
    );
    const refused = ask(transport({ https_proxy: `127.0.0.1:${closed.port}` }, []), 'https://registry.test/');
    await expect(refused).rejects.toMatchObject({
      code: 'REGISTRY_UNREACHABLE',
      message: expect.stringContaining('403'),
    });
  });
});

it('a host that takes the request and says nothing is given up', async () => {
  const { host } = await listen(createHttpServer(() => undefined));
  const t = new Transport({
    proxy: proxySettings({}),
    tlsFor: async () => ({ verify: true }),
    userAgent: 'test',
    idleMs: 100,
  });
  await expect(ask(t, `http://${host}/`)).rejects.toMatchObject({
    code: 'REGISTRY_UNREACHABLE',
    message: expect.stringContaining('silent'),
  });
});

/** A certificate made by openssl, signed by itself or by an earlier one. */
function issue(name: string, more: string[], by?: string): Pair {
  const [cert, key] = [join(keys, `${name}.crt`), join(keys, `${name}.key`)];
  const signer =
    by === undefined
      ? []
      : ['-CA', join(keys, `${by}.crt`), '-CAkey', join(keys, `${by}.key`), '-addext', 'basicConstraints=CA:FALSE'];
  const common = [
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-days',
    '1',
    '-subj',
    `/CN=${name}`,
  ];
  execFileSync('openssl', [...common, '-keyout', key, '-out', cert, ...signer, ...more], { stdio: 'pipe' });
  return { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') };
}

function transport(env: Record<string, string>, folders: string[], verify = true): Transport {
  const t = new Transport({
    proxy: proxySettings(env),
    tlsFor: hostTls({ folders, verify: () => verify, env }),
    userAgent: 'test',
  });
  onTestFinished(() => t.close());
  return t;
}

async function ask(t: Transport, url: string): Promise<unknown> {
  const answer = await t.send({ method: 'GET', url: new URL(url) });
  return JSON.parse((await readBody(answer, 10_000, 'test')).toString('utf8'));
}

function echo(req: IncomingMessage, res: import('node:http').ServerResponse): void {
  const socket = req.socket as TLSSocket;
  const subject = socket.encrypted ? socket.getPeerCertificate().subject : undefined;
  res.end(
    JSON.stringify({
      path: req.url,
      host: req.headers.host,
      encrypted: socket.encrypted === true,
      client: subject?.CN ?? '',
    }),
  );
}

async function listen(server: Server): Promise<{ host: string; port: number }> {
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', () => ready()));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { host: `127.0.0.1:${port}`, port };
}

/** Leads every name to one port of loopback, and notes what it was asked. */
async function proxyServer(
  to: number,
): Promise<{ port: number; seen: { line: string; authorization: string | undefined }[] }> {
  const seen: { line: string; authorization: string | undefined }[] = [];
  const note = (req: IncomingMessage): void => {
    seen.push({ line: `${req.method} ${req.url}`, authorization: req.headers['proxy-authorization'] });
  };
  const server = createHttpServer(async (req, res) => {
    note(req);
    const url = new URL(req.url ?? '');
    const answer = await fetch(`http://127.0.0.1:${to}${url.pathname}${url.search}`);
    const body = { ...((await answer.json()) as object), host: req.headers.host };
    res.end(JSON.stringify(body));
  });
  const open = new Set<Socket>();
  server.on('connect', (req, socket) => {
    note(req);
    const target = connect(to, '127.0.0.1', () => socket.write('HTTP/1.1 200 OK\r\n\r\n'));
    open.add(target);
    socket.on('error', () => target.destroy());
    target.on('error', () => socket.destroy());
    socket.pipe(target).pipe(socket);
  });
  onTestFinished(() => {
    for (const socket of open) socket.destroy();
  });
  return { port: (await listen(server)).port, seen };
}
