import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ADMIN, pod, type TestApi, testApi, user } from './testing/api.ts';

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.stop());

const MAPS = '/api/v1/namespaces/default/configmaps';
const PODS = '/api/v1/namespaces/default/pods';
const nested = (levels: number): string => `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`;

describe('bad input', () => {
  it.each([
    [
      '200 levels deep',
      `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":${nested(200)}}`,
      /levels deep/,
    ],
    ['no JSON', '{"apiVersion":', /error decoding from json/],
    ['no object', '[1,2]', /unrecognized/],
    ['another kind', '{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}', /cannot be handled as a ConfigMap/],
    [
      'data of the wrong type',
      '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":{"b":1}}}',
      /cannot unmarshal object into Go struct field data\.a of type string/,
    ],
    [
      'metadata as a list',
      '{"apiVersion":"v1","kind":"ConfigMap","metadata":[]}',
      /cannot unmarshal array into Go struct field metadata/,
    ],
    [
      'bytes that are no base64',
      '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"binaryData":{"a":"%%"}}',
      /binaryData\.a: illegal base64/,
    ],
  ])('%s is 400 with a Status that says where', async (_, body, message) => {
    expect(await api.ask('POST', MAPS, body)).toMatchObject({
      code: 400,
      body: { kind: 'Status', reason: 'BadRequest', message: expect.stringMatching(message) },
    });
  });

  it('invalid UTF-8 is 400', async () => {
    expect(
      (await api.ask('POST', MAPS, Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]))).body.message,
    ).toContain('UTF-8');
  });

  it('prototype names are plain keys or plain errors', async () => {
    const body =
      '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"proto","__proto__":{"x":1}},"data":{"__proto__":"v","constructor":"c"},"__proto__":{"a":1}}';
    const { code, text } = await api.ask('POST', MAPS, body);
    expect(code).toBe(201);
    expect(text).toContain('"__proto__":"v"');
    const patched = await api.ask('PATCH', `${MAPS}/proto`, '{"data":{"__proto__":"w","toString":"t"}}', {
      type: 'application/merge-patch+json',
    });
    expect(patched.text).toContain('"__proto__":"w"');
    expect(Object.keys(Object.prototype)).toEqual([]);
    const selector = await api.ask('GET', `${MAPS}?fieldSelector=__proto__%3Dx`);
    expect(selector.code).toBe(400);
    expect((await api.ask('GET', '/apis/__proto__/v1/constructor')).code).toBe(404);
  });

  it('an object too large for the store is refused and says so', async () => {
    const data = { big: 'x'.repeat(1_600_000) };
    const { code } = await api.ask('POST', MAPS, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'big' },
      data,
    });
    expect(code).toBe(422);
  });

  it('a huge list is answered, with a bounded number of causes', async () => {
    const containers = Array.from({ length: 20_000 }, () => ({ name: 'BAD NAME' }));
    const { code, body } = await api.ask('POST', PODS, pod('huge', { containers }));
    expect(code).toBe(422);
    expect(body.details.causes.length).toBeLessThanOrEqual(100);
  });

  it('whatever JSON comes, the answer is a Status or an object, never 500', async () => {
    const spec = fc.jsonValue({ maxDepth: 5 });
    await fc.assert(
      fc.asyncProperty(spec, spec, async (a, b) => {
        const answers = [
          await api.ask('POST', `${PODS}?dryRun=All`, {
            apiVersion: 'v1',
            kind: 'Pod',
            metadata: { name: 'f' },
            spec: a,
          }),
          await api.ask('POST', `${PODS}?dryRun=All`, {
            apiVersion: 'v1',
            kind: 'Pod',
            metadata: a,
            spec: { containers: b },
          }),
          await api.ask('PATCH', `${MAPS}/proto?dryRun=All`, a, { type: 'application/merge-patch+json' }),
          await api.ask('PATCH', `${MAPS}/proto?dryRun=All`, a, { type: 'application/json-patch+json' }),
          await api.ask(
            'PATCH',
            `${MAPS}/proto?dryRun=All`,
            { metadata: a, data: b },
            { type: 'application/strategic-merge-patch+json' },
          ),
          await api.ask(
            'PATCH',
            `${MAPS}/proto?dryRun=All&fieldManager=f`,
            { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'proto' }, data: a },
            { type: 'application/apply-patch+yaml' },
          ),
        ];
        for (const { code, text } of answers)
          expect([code >= 200 && code < 500, text.slice(0, 300)]).toEqual([true, expect.anything()]);
      }),
      { numRuns: 150 },
    );
  });

  it('whatever bytes come as protobuf, the answer is a Status', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
        const body = Buffer.concat([Buffer.from('k8s\0'), bytes]);
        expect((await api.ask('POST', MAPS, body, { type: 'application/vnd.kubernetes.protobuf' })).code).toBe(400);
      }),
    );
  });

  it('paths that would be other keys are refused', async () => {
    for (const path of [
      '/api/v1/namespaces/default/pods/a%2Fb',
      '/api/v1/namespaces/%00/pods',
      '/api/v1/namespaces/default/pods/%zz',
    ])
      expect((await api.ask('GET', path)).code).toBe(400);
  });

  it('kinds of a later round are refused by name', async () => {
    const { code, body } = await api.ask('GET', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions');
    expect([code, body.message]).toEqual([
      404,
      expect.stringContaining('CustomResourceDefinitions (apiextensions.k8s.io) are not served'),
    ]);
    expect((await api.ask('GET', '/apis/storage.k8s.io/v1/csidrivers')).body.message).toContain('CSI drivers');
  });
});

describe('who may what', () => {
  it('anonymous gets health and version, and nothing else', async () => {
    const anonymous = { username: 'system:anonymous', groups: ['system:unauthenticated'] };
    for (const path of ['/healthz', '/livez', '/readyz', '/version'])
      expect((await api.ask('GET', path, undefined, { as: anonymous })).code).toBe(200);
    for (const path of ['/api', '/apis', '/metrics', '/openapi/v2', '/api/v1/secrets', '/none'])
      expect((await api.ask('GET', path, undefined, { as: anonymous })).code).toBe(403);
  });

  it('roles grant what they say, in their namespace', async () => {
    await api.ask('POST', '/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings', {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'RoleBinding',
      metadata: { name: 'viewers' },
      roleRef: { kind: 'ClusterRole', name: 'view' },
      subjects: [{ kind: 'User', name: 'eve' }],
    });
    const as = user('eve');
    expect((await api.ask('GET', PODS, undefined, { as })).code).toBe(200);
    expect((await api.ask('GET', '/api/v1/namespaces/default/secrets', undefined, { as })).code).toBe(403);
    expect((await api.ask('GET', '/api/v1/namespaces/kube-system/pods', undefined, { as })).body.message).toBe(
      'pods is forbidden: User "eve" cannot list resource "pods" in API group "" in the namespace "kube-system"',
    );
  });

  it('nobody grants more than they hold', async () => {
    const bind = (name: string, role: string, subject: string): Promise<unknown> =>
      api.ask('POST', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'ClusterRoleBinding',
        metadata: { name },
        roleRef: { kind: 'ClusterRole', name: role },
        subjects: [{ kind: 'User', name: subject }],
      });
    await bind('mallory-admin', 'admin', 'mallory');
    const role = (rules: object[]): object => ({
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'Role',
      metadata: { name: 'more' },
      rules,
    });
    const roles = '/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles';
    const as = user('mallory');
    expect(
      (await api.ask('POST', roles, role([{ verbs: ['*'], apiGroups: ['*'], resources: ['*'] }]), { as })).body.message,
    ).toContain('attempting to grant RBAC permissions not currently held');
    expect(
      (await api.ask('POST', roles, role([{ verbs: ['get'], apiGroups: [''], resources: ['pods'] }]), { as })).code,
    ).toBe(201);
  });

  it('a node sees the secrets of its pods and changes only itself', async () => {
    const as = user('system:node:n1', 'system:nodes');
    const secret = (name: string): Promise<unknown> =>
      api.ask('POST', '/api/v1/namespaces/default/secrets', { apiVersion: 'v1', kind: 'Secret', metadata: { name } });
    await secret('mine');
    await secret('others');
    await api.ask(
      'POST',
      PODS,
      pod('on-n1', { nodeName: 'n1', volumes: [{ name: 'v', secret: { secretName: 'mine' } }] }),
    );
    expect((await api.ask('GET', '/api/v1/namespaces/default/secrets/mine', undefined, { as })).code).toBe(200);
    expect((await api.ask('GET', '/api/v1/namespaces/default/secrets/others', undefined, { as })).code).toBe(403);
    await api.ask('POST', PODS, pod('on-n2', { nodeName: 'n2' }));
    expect((await api.ask('DELETE', `${PODS}/on-n2`, undefined, { as })).code).toBe(403);
    expect((await api.ask('DELETE', `${PODS}/on-n1`, undefined, { as })).code).toBe(200);
    const node = (name: string): object => ({ apiVersion: 'v1', kind: 'Node', metadata: { name } });
    expect((await api.ask('POST', '/api/v1/nodes', node('n1'), { as })).code).toBe(201);
    expect((await api.ask('POST', '/api/v1/nodes', node('n2'), { as })).code).toBe(403);
  });

  it('the first namespaces cannot be deleted', async () => {
    expect(await api.ask('DELETE', '/api/v1/namespaces/default')).toMatchObject({
      code: 403,
      body: { message: 'namespaces "default" is forbidden: this namespace may not be deleted' },
    });
  });

  it('impersonation needs its own permission', async () => {
    const headers = { 'impersonate-user': 'eve' };
    expect((await api.ask('GET', PODS, undefined, { as: ADMIN, headers })).code).toBe(200);
    expect((await api.ask('GET', PODS, undefined, { as: user('mallory'), headers })).code).toBe(403);
  });

  it('a token ends with its account', async () => {
    const accounts = '/api/v1/namespaces/default/serviceaccounts';
    await api.ask('POST', accounts, { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'bot' } });
    const request = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { audiences: [] } };
    const { body } = await api.ask('POST', `${accounts}/bot/token`, request);
    const { token } = body['status'] as { token: string };
    const whoami = (): Promise<{ body: unknown }> =>
      api.ask('POST', '/apis/authentication.k8s.io/v1/tokenreviews', {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenReview',
        spec: { token },
      });
    expect((await whoami()).body).toMatchObject({
      status: { authenticated: true, user: { username: 'system:serviceaccount:default:bot' } },
    });
    await api.ask('DELETE', `${accounts}/bot`);
    expect((await whoami()).body).toMatchObject({ status: { authenticated: false } });
  });
});
