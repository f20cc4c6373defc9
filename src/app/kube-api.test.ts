import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:https';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { memoryStore } from '#storage/memory.ts';
import { get } from '#storage/store.ts';
import { type KubeApi, startKubeApi } from './kube-api.ts';

const store = memoryStore(systemClock);
const directory = mkdtempSync(join(tmpdir(), 'estiba-kube-api-'));
let api: KubeApi;
let admin: { cert: string; key: string };
beforeAll(async () => {
  api = await startKubeApi({ store, directory, port: 0, log: logger('cluster:api', silentSink) });
  admin = credentials(api.kubeconfigFor('admin', ['system:masters']));
});
afterAll(async () => {
  await api.close();
  rmSync(directory, { recursive: true });
});

function credentials(kubeconfig: string): { cert: string; key: string } {
  const { user } = JSON.parse(kubeconfig).users[0];
  const text = (field: string): string => Buffer.from(user[field], 'base64').toString();
  return { cert: text('client-certificate-data'), key: text('client-key-data') };
}

function ask(
  path: string,
  options: { method?: string; as?: { cert: string; key: string }; body?: string | Buffer } = {},
): Promise<{ code: number; text: string }> {
  return new Promise((done, fail) => {
    const call = request(
      `${api.url}${path}`,
      {
        method: options.method ?? 'GET',
        ca: api.authority.certificate,
        agent: false,
        ...options.as,
        headers: { 'content-type': 'application/json' },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => done({ code: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() }));
      },
    );
    call.on('error', fail);
    call.end(options.body);
  });
}

describe('the API server on its socket', () => {
  it('a certificate of the cluster names the user, one of a stranger names nobody', async () => {
    expect((await ask('/api/v1/nodes', { as: admin })).code).toBe(200);
    expect((await ask('/api/v1/nodes', { as: credentials(api.kubeconfigFor('eve', [])) })).text).toContain(
      'User \\"eve\\" cannot list resource',
    );
    expect((await ask('/api/v1/nodes')).text).toContain('system:anonymous');
    const other = mkdtempSync(join(tmpdir(), 'estiba-kube-other-'));
    const stranger = await startKubeApi({
      store: memoryStore(systemClock),
      directory: other,
      port: 0,
      log: logger('cluster:api', silentSink),
    });
    expect(
      (await ask('/api/v1/nodes', { as: credentials(stranger.kubeconfigFor('admin', ['system:masters'])) })).text,
    ).toContain('system:anonymous');
    await stranger.close();
    rmSync(other, { recursive: true });
  });

  it('a body over 3 MiB is refused with 413', async () => {
    const body = JSON.stringify({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'x' },
      data: { a: 'x'.repeat(4 << 20) },
    });
    const answer = await ask('/api/v1/namespaces/default/configmaps', { method: 'POST', as: admin, body }).catch(
      (error: Error) => ({ code: 0, text: error.message }),
    );
    // The server answers before it has read the body; a client that only writes sees the connection end.
    expect([413, 0]).toContain(answer.code);
    expect((await ask('/healthz')).code).toBe(200);
  });

  it('secrets lie encrypted in the store, and nowhere else in clear', async () => {
    const body = JSON.stringify({
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 's' },
      stringData: { p: 'very-secret' },
    });
    expect((await ask('/api/v1/namespaces/default/secrets', { method: 'POST', as: admin, body })).code).toBe(201);
    const raw = Buffer.from((await get(store, '/registry/secrets/default/s'))?.value ?? []).toString('latin1');
    expect(raw.startsWith('sealed:v1:')).toBe(true);
    expect(raw).not.toContain(Buffer.from('very-secret').toString('base64'));
    expect((await ask('/api/v1/namespaces/default/secrets/s', { as: admin })).text).toContain(
      Buffer.from('very-secret').toString('base64'),
    );
  });

  it('a second start reads everything back', async () => {
    const again = await startKubeApi({ store, directory, port: 0, log: logger('cluster:api', silentSink) });
    const { registry, table } = again.server.services;
    const secrets = table.get('v1 secrets');
    expect(secrets && (await registry.get(secrets, { namespace: 'default', name: 's' })).object['data']).toEqual({
      p: Buffer.from('very-secret').toString('base64'),
    });
    await again.close();
  });

  it('a start that finds one of its addresses taken lets go of the others', async () => {
    const taken = createServer();
    await new Promise<void>((ready) => taken.listen(0, '127.0.0.2', ready));
    const { port } = taken.address() as { port: number };
    const start = { store, directory, port, nodeAddress: '127.0.0.2', log: logger('cluster:api', silentSink) };
    await expect(startKubeApi(start)).rejects.toMatchObject({ code: 'EADDRINUSE' });
    await new Promise((closed) => taken.close(closed));
    await (await startKubeApi(start)).close();
  });

  it('a watcher that never reads is cut off, and the others go on', { timeout: 60_000 }, async () => {
    const lazy = connect({
      port: api.port,
      host: '127.0.0.1',
      ca: api.authority.certificate,
      ...admin,
      servername: 'kubernetes',
    });
    await new Promise((ready) => lazy.once('secureConnect', ready));
    lazy.write('GET /api/v1/namespaces/default/configmaps?watch=true HTTP/1.1\r\nhost: kubernetes\r\n\r\n');
    await new Promise((first) => lazy.once('data', first));
    lazy.pause();
    const cut = new Promise((closed) => lazy.once('close', closed));
    lazy.on('error', () => undefined); // it is cut, as awaited
    const cache = api.server.services.registry.cache.resource('configmaps');
    const before = cache.watchers;
    const data = { a: 'x'.repeat(500_000) };
    for (let i = 0; i < 60 && cache.watchers === before; i++) {
      const body = JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: `big${i}` }, data });
      expect((await ask('/api/v1/namespaces/default/configmaps', { method: 'POST', as: admin, body })).code).toBe(201);
    }
    expect(cache.watchers).toBe(before - 1);
    lazy.resume();
    await cut;
  });
});
