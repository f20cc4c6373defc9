import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pod, type TestApi, testApi } from '../testing/api.ts';

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.stop());

const SPACE = '/api/v1/namespaces/rationed';

const cpu = (milli: number): object => ({ resources: { requests: { cpu: `${milli}m` } } });
const container = (name: string, milli: number): object => ({ name, image: 'busybox', ...cpu(milli) });

describe('a resource quota', () => {
  beforeAll(async () => {
    await api.ask('POST', '/api/v1/namespaces', {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: 'rationed' },
    });
    const quota = {
      apiVersion: 'v1',
      kind: 'ResourceQuota',
      metadata: { name: 'small' },
      spec: { hard: { 'requests.cpu': '1' } },
    };
    expect((await api.ask('POST', `${SPACE}/resourcequotas`, quota)).code).toBe(201);
  });

  it('counts a sidecar beside the containers, as it runs beside them', async () => {
    const sidecar = { ...container('beside', 600), restartPolicy: 'Always' };
    const wish = pod('with-sidecar', { containers: [container('main', 600)], initContainers: [sidecar] });
    expect(await api.ask('POST', `${SPACE}/pods`, wish)).toMatchObject({
      code: 403,
      body: {
        message: expect.stringContaining('exceeded quota: small, requested: requests.cpu=1200m, used: requests.cpu=0'),
      },
    });
  });

  it('counts an init container that ends before the others begin by what it needs more than they', async () => {
    const wish = pod('with-init', { containers: [container('main', 600)], initContainers: [container('first', 600)] });
    expect((await api.ask('POST', `${SPACE}/pods`, wish)).code).toBe(201);
    expect(
      await api.ask('POST', `${SPACE}/pods`, pod('one-more', { containers: [container('main', 500)] })),
    ).toMatchObject({
      code: 403,
      body: {
        message: expect.stringContaining(
          'requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1',
        ),
      },
    });
  });

  it('takes no pod that does not say what it needs', async () => {
    expect(await api.ask('POST', `${SPACE}/pods`, pod('silent'))).toMatchObject({
      code: 403,
      body: { message: expect.stringContaining('failed quota: small: must specify requests.cpu') },
    });
  });
});
