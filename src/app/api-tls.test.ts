import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { Server } from 'node:http';
import { request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { apiTls, checkExposure, type TlsWish } from '#app/api-tls.ts';
import { logger, silentSink } from '#base/log.ts';
import { type KeyPair, makeAuthority, signClient, signServer } from '#cluster/api/authn/certificates.ts';
import { createApiServer } from '#engine/api/server.ts';

const NOW = Date.now();

describe('the Docker API on TCP with certificates', () => {
  const directory = mkdtempSync(join(tmpdir(), 'estiba-api-tls-'));
  const authority = makeAuthority('ours', NOW);
  const wish: TlsWish = {
    verify: true,
    ca: join(directory, 'ca.pem'),
    cert: join(directory, 'cert.pem'),
    key: join(directory, 'key.pem'),
  };
  let server: Server;
  let port: number;

  beforeAll(async () => {
    const own = signServer(authority, { name: 'here', dnsNames: ['localhost'], addresses: ['127.0.0.1'], nowMs: NOW });
    writeFileSync(wish.ca, authority.certificate);
    writeFileSync(wish.cert, own.certificate);
    writeFileSync(wish.key, own.key);
    const tls = await apiTls(wish);
    server = createApiServer({
      handlers: {
        SystemPing: () => ({ kind: 'text', status: 200, body: 'OK' }),
        // Says its piece when the client has ended its own: as `docker run -i` of a program that reads to the end.
        ContainerAttach: () => ({
          kind: 'hijack',
          type: 'application/vnd.docker.raw-stream',
          run: async ({ input, output }) => {
            let said = '';
            for await (const chunk of input) said += chunk;
            output.write(`heard ${said}`);
          },
        }),
      },
      headers: {},
      ...(tls ? { tls } : {}),
      log: logger('api', silentSink),
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    port = (server.address() as AddressInfo).port;
  });
  afterAll(async () => {
    await new Promise((resolve) => server.close(resolve));
    rmSync(directory, { recursive: true });
  });

  const ping = (pair?: KeyPair): Promise<string> =>
    new Promise((resolve, reject) => {
      const identity = pair ? { cert: pair.certificate, key: pair.key } : {};
      const asked = request({ host: '127.0.0.1', port, path: '/_ping', ca: authority.certificate, ...identity });
      asked.once('error', reject).once('response', (answer) => {
        let text = '';
        answer.on('data', (chunk) => {
          text += chunk;
        });
        answer.once('end', () => resolve(text));
      });
      asked.end();
    });

  it('answers clients that our authority knows, and no others', async () => {
    await expect(ping(signClient(authority, { user: 'ann', groups: [], nowMs: NOW }))).resolves.toBe('OK');
    await expect(ping()).rejects.toThrow();
    const theirs = makeAuthority('theirs', NOW);
    await expect(ping(signClient(theirs, { user: 'eve', groups: [], nowMs: NOW }))).rejects.toThrow();
  });

  it('goes on talking to a client that has ended its input', async () => {
    const pair = signClient(authority, { user: 'ann', groups: [], nowMs: NOW });
    const socket = connect({
      host: '127.0.0.1',
      port,
      ca: authority.certificate,
      cert: pair.certificate,
      key: pair.key,
    });
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk;
    });
    const head = 'Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n';
    socket.end(`POST /containers/c/attach?stream=1 HTTP/1.1\r\n${head}hello`);
    await new Promise((resolve) => socket.once('end', resolve));
    expect(text).toContain('101 UPGRADED');
    expect(text).toMatch(/heard hello$/);
    socket.destroy();
  });

  it('is not given to everybody by accident', () => {
    const plain: TlsWish = { ...wish, verify: false };
    expect(() => checkExposure({ host: '0.0.0.0', port: 1 }, plain)).toThrow('root on this machine');
    expect(() => checkExposure({ host: '10.0.0.1', port: 1 }, { ...plain, tls: true })).toThrow('root on this machine');
    for (const host of ['127.0.0.1', 'localhost', '::1']) checkExposure({ host, port: 1 }, plain);
    checkExposure({ host: '0.0.0.0', port: 1 }, { ...plain, tls: false });
    checkExposure({ host: '0.0.0.0', port: 1 }, wish);
  });

  it('says which file it cannot use', async () => {
    await expect(apiTls({ ...wish, ca: '/no/such.pem' })).rejects.toThrow('--tlscacert /no/such.pem');
    writeFileSync(join(directory, 'text'), 'no certificate');
    await expect(apiTls({ ...wish, cert: join(directory, 'text') })).rejects.toThrow('is not PEM');
    await expect(apiTls({ ...wish, verify: false })).resolves.toBeUndefined();
  });
});
