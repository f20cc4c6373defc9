import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { deployment, pod, type TestApi, testApi } from './testing/api.ts';

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.stop());

const PODS = '/api/v1/namespaces/default/pods';
const DEPLOYMENTS = '/apis/apps/v1/namespaces/default/deployments';

describe('objects', () => {
  it('a created pod has identity, defaults and what admission adds', async () => {
    const { code, body } = await api.ask('POST', PODS, pod('p1'));
    expect(code).toBe(201);
    expect(body.metadata).toMatchObject({
      name: 'p1',
      namespace: 'default',
      generation: 1,
      uid: expect.any(String),
      resourceVersion: expect.any(String),
    });
    expect(body['spec']).toMatchObject({
      restartPolicy: 'Always',
      serviceAccountName: 'default',
      priority: 0,
      containers: [{ imagePullPolicy: 'IfNotPresent', terminationMessagePolicy: 'File' }],
      tolerations: [{ key: 'node.kubernetes.io/not-ready' }, { key: 'node.kubernetes.io/unreachable' }],
    });
    expect(body['status']).toEqual({ phase: 'Pending', qosClass: 'BestEffort' });
  });

  it('the same name twice is a conflict, an unknown one is not found', async () => {
    await api.ask('POST', PODS, pod('twice'));
    expect(await api.ask('POST', PODS, pod('twice'))).toMatchObject({
      code: 409,
      body: { reason: 'AlreadyExists', message: 'pods "twice" already exists' },
    });
    expect(await api.ask('GET', `${PODS}/none`)).toMatchObject({
      code: 404,
      body: { reason: 'NotFound', message: 'pods "none" not found' },
    });
  });

  it('generateName finds a name', async () => {
    const { body } = await api.ask('POST', PODS, pod('', {}, { name: undefined, generateName: 'gen-' }));
    expect(body.metadata.name).toMatch(/^gen-[a-z0-9]{5}$/);
  });

  it('an update of an old version is refused, an update that changes nothing makes no new version', async () => {
    const { body: first } = await api.ask('POST', DEPLOYMENTS, deployment('versions'));
    const { body: same } = await api.ask('PUT', `${DEPLOYMENTS}/versions`, first);
    expect(same.metadata.resourceVersion).toBe(first.metadata.resourceVersion);
    const { body: second } = await api.ask('PUT', `${DEPLOYMENTS}/versions`, {
      ...first,
      spec: { ...(first['spec'] as object), replicas: 2 },
    });
    expect(second.metadata.generation).toBe(2);
    expect(await api.ask('PUT', `${DEPLOYMENTS}/versions`, first)).toMatchObject({
      code: 409,
      body: { reason: 'Conflict' },
    });
  });

  it('status is written through its own door only', async () => {
    const { body } = await api.ask('POST', DEPLOYMENTS, { ...deployment('doors'), status: { replicas: 9 } });
    expect(body['status']).toBeUndefined();
    const { body: after } = await api.ask('PUT', `${DEPLOYMENTS}/doors/status`, {
      ...body,
      spec: { ...(body['spec'] as object), replicas: 7 },
      status: { replicas: 3 },
    });
    expect(after['status']).toEqual({ replicas: 3 });
    expect(after['spec']).toMatchObject({ replicas: 1 });
    expect(after.metadata.generation).toBe(1);
    const { body: again } = await api.ask(
      'PATCH',
      `${DEPLOYMENTS}/doors`,
      { status: { replicas: 8 }, spec: { replicas: 2 } },
      { type: 'application/merge-patch+json' },
    );
    expect(again['status']).toEqual({ replicas: 3 });
  });

  it('invalid objects name every field that is wrong', async () => {
    const { code, body } = await api.ask('POST', DEPLOYMENTS, {
      ...deployment('wrong'),
      spec: {
        replicas: -1,
        selector: { matchLabels: { a: 'b' } },
        template: { metadata: { labels: { a: 'c' } }, spec: { containers: [{ name: 'X' }] } },
      },
    });
    expect(code).toBe(422);
    expect(body.message).toContain('Deployment.apps "wrong" is invalid: [');
    expect(body.details.causes.map((c) => c.field)).toEqual(
      expect.arrayContaining([
        'spec.replicas',
        'spec.template.metadata.labels',
        'spec.template.spec.containers[0].name',
        'spec.template.spec.containers[0].image',
      ]),
    );
  });

  it('immutable fields stay', async () => {
    const { body } = await api.ask('POST', DEPLOYMENTS, deployment('fixed'));
    const changed = { ...body, spec: { ...(body['spec'] as object), selector: { matchLabels: { other: 'x' } } } };
    expect((await api.ask('PUT', `${DEPLOYMENTS}/fixed`, changed)).body.details.causes).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ field: 'spec.selector', message: expect.stringContaining('field is immutable') }),
      ]),
    );
  });

  it('a dry run answers as the real thing and stores nothing', async () => {
    expect((await api.ask('POST', `${PODS}?dryRun=All`, pod('dry'))).code).toBe(201);
    expect((await api.ask('GET', `${PODS}/dry`)).code).toBe(404);
  });

  it('unknown and repeated fields: Strict refuses, Warn says so, Ignore is silent', async () => {
    const bad = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"f","name":"f"},"dta":{}}';
    const url = '/api/v1/namespaces/default/configmaps?dryRun=All';
    const strict = await api.ask('POST', `${url}&fieldValidation=Strict`, bad);
    expect(strict.code).toBe(400);
    expect(strict.body.message).toBe(
      'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dta", duplicate field "metadata.name"',
    );
    const warned = await api.ask('POST', `${url}&fieldValidation=Warn`, bad);
    expect(warned.headers['warning']).toEqual([
      '299 - "unknown field \\"dta\\""',
      '299 - "duplicate field \\"metadata.name\\""',
    ]);
    expect((await api.ask('POST', `${url}&fieldValidation=Ignore`, bad)).headers['warning']).toBeUndefined();
  });
});

describe('deleting', () => {
  it('a pod without a node goes at once, one with a node waits for its node agent', async () => {
    await api.ask('POST', PODS, pod('loose'));
    await api.ask('DELETE', `${PODS}/loose`);
    expect((await api.ask('GET', `${PODS}/loose`)).code).toBe(404);

    await api.ask('POST', PODS, pod('placed', { nodeName: 'n1' }));
    const { body } = await api.ask('DELETE', `${PODS}/placed`);
    expect(body.metadata).toMatchObject({ deletionGracePeriodSeconds: 30, deletionTimestamp: expect.any(String) });
    const shorter = await api.ask('DELETE', `${PODS}/placed`, {
      apiVersion: 'v1',
      kind: 'DeleteOptions',
      gracePeriodSeconds: 5,
    });
    expect(shorter.body.metadata.deletionGracePeriodSeconds).toBe(5);
    await api.ask('DELETE', `${PODS}/placed?gracePeriodSeconds=0`);
    expect((await api.ask('GET', `${PODS}/placed`)).code).toBe(404);
  });

  it('finalizers hold an object until the last is taken off', async () => {
    const url = '/api/v1/namespaces/default/configmaps';
    await api.ask('POST', url, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'held', finalizers: ['example.com/a'] },
    });
    expect((await api.ask('DELETE', `${url}/held`)).body.metadata.deletionTimestamp).toBeDefined();
    const more = await api.ask(
      'PATCH',
      `${url}/held`,
      { metadata: { finalizers: ['example.com/a', 'example.com/b'] } },
      { type: 'application/merge-patch+json' },
    );
    expect(more.code).toBe(422);
    await api.ask('PATCH', `${url}/held`, { metadata: { finalizers: null } }, { type: 'application/merge-patch+json' });
    expect((await api.ask('GET', `${url}/held`)).code).toBe(404);
  });

  it('preconditions are kept', async () => {
    await api.ask('POST', PODS, pod('sure'));
    const body = { kind: 'DeleteOptions', apiVersion: 'v1', preconditions: { uid: 'other' } };
    expect((await api.ask('DELETE', `${PODS}/sure`, body)).code).toBe(409);
  });

  it('propagation leaves its finalizer for the garbage collector', async () => {
    await api.ask('POST', DEPLOYMENTS, deployment('parents'));
    const { body } = await api.ask('DELETE', `${DEPLOYMENTS}/parents?propagationPolicy=Foreground`);
    expect(body.metadata.finalizers).toEqual(['foregroundDeletion']);
  });

  it('a namespace is Terminating until its finalizer goes, and takes nothing new', async () => {
    await api.ask('POST', '/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'ending' } });
    const { body } = await api.ask('DELETE', '/api/v1/namespaces/ending');
    expect(body['status']).toEqual({ phase: 'Terminating' });
    const refused = await api.ask('POST', '/api/v1/namespaces/ending/pods', pod('late'));
    expect(refused).toMatchObject({
      code: 403,
      body: { message: expect.stringContaining('because it is being terminated') },
    });
    await api.ask('PUT', '/api/v1/namespaces/ending/finalize', { ...body, spec: { finalizers: [] } });
    expect((await api.ask('GET', '/api/v1/namespaces/ending')).code).toBe(404);
  });

  it('a collection goes by selector', async () => {
    const url = '/api/v1/namespaces/default/configmaps';
    for (const name of ['x1', 'x2', 'y1'])
      await api.ask('POST', url, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, labels: { set: name[0] } } });
    await api.ask('DELETE', `${url}?labelSelector=set%3Dx`);
    expect((await api.ask('GET', `${url}?labelSelector=set`)).body.items.map((o) => o.metadata.name)).toEqual(['y1']);
  });
});

describe('sub-resources', () => {
  it('scale changes replicas and tells the selector as text', async () => {
    await api.ask('POST', DEPLOYMENTS, deployment('scaled'));
    const { body } = await api.ask(
      'PATCH',
      `${DEPLOYMENTS}/scaled/scale`,
      { spec: { replicas: 4 } },
      { type: 'application/merge-patch+json' },
    );
    expect(body).toMatchObject({ kind: 'Scale', spec: { replicas: 4 }, status: { selector: 'app=scaled' } });
    expect((await api.ask('GET', `${DEPLOYMENTS}/scaled`)).body['spec']).toMatchObject({ replicas: 4 });
  });

  it('a binding is written once', async () => {
    await api.ask('POST', PODS, pod('bound'));
    const binding = {
      apiVersion: 'v1',
      kind: 'Binding',
      metadata: { name: 'bound' },
      target: { kind: 'Node', name: 'n1' },
    };
    expect((await api.ask('POST', `${PODS}/bound/binding`, binding)).code).toBe(201);
    expect((await api.ask('GET', `${PODS}/bound`)).body['spec']).toMatchObject({ nodeName: 'n1' });
    expect((await api.ask('POST', `${PODS}/bound/binding`, binding)).code).toBe(409);
  });

  it('an eviction obeys the disruption budget, in the old version of the body too', async () => {
    await api.ask('POST', PODS, pod('evicted', { nodeName: 'n1' }, { labels: { budget: 'b' } }));
    await api.ask('PUT', `${PODS}/evicted/status`, {
      ...(await api.ask('GET', `${PODS}/evicted`)).body,
      status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] },
    });
    const budgets = '/apis/policy/v1/namespaces/default/poddisruptionbudgets';
    const { body: budget } = await api.ask('POST', budgets, {
      apiVersion: 'policy/v1',
      kind: 'PodDisruptionBudget',
      metadata: { name: 'b' },
      spec: { minAvailable: 1, selector: { matchLabels: { budget: 'b' } } },
    });
    const eviction = { apiVersion: 'policy/v1beta1', kind: 'Eviction', metadata: { name: 'evicted' } };
    const status = (disruptionsAllowed: number): object => ({
      ...budget,
      metadata: { name: 'b' },
      status: { observedGeneration: 1, disruptionsAllowed, currentHealthy: 1, desiredHealthy: 1, expectedPods: 1 },
    });
    await api.ask('PUT', `${budgets}/b/status`, status(0));
    const refused = await api.ask('POST', `${PODS}/evicted/eviction`, eviction);
    expect(refused.code).toBe(429);
    // kubectl drain is to say so and go on; with the header its client would wait in silence.
    expect(refused.headers?.['retry-after']).toBeUndefined();
    await api.ask('PUT', `${budgets}/b/status`, status(1));
    expect((await api.ask('POST', `${PODS}/evicted/eviction`, eviction)).code).toBe(201);
    expect((await api.ask('GET', `${PODS}/evicted`)).body.metadata.deletionTimestamp).toBeDefined();
  });

  it('a pod that is not ready goes as its budget’s policy says, and spends nothing', async () => {
    const budgets = '/apis/policy/v1/namespaces/default/poddisruptionbudgets';
    const spec = { minAvailable: 1, selector: { matchLabels: { budget: 'u' } } };
    const { body: budget } = await api.ask('POST', budgets, { metadata: { name: 'u' }, spec });
    const evict = async (name: string, currentHealthy: number, policy?: string): Promise<number> => {
      await api.ask('POST', PODS, pod(name, { nodeName: 'n1' }, { labels: { budget: 'u' } }));
      const { body } = await api.ask('GET', `${PODS}/${name}`);
      await api.ask('PUT', `${PODS}/${name}/status`, { ...body, status: { phase: 'Running' } });
      const unhealthyPodEvictionPolicy = policy ?? null;
      const type = 'application/merge-patch+json';
      await api.ask('PATCH', `${budgets}/u`, { spec: { unhealthyPodEvictionPolicy } }, { type });
      const status = {
        observedGeneration: 9,
        disruptionsAllowed: 0,
        currentHealthy,
        desiredHealthy: 1,
        expectedPods: 2,
      };
      await api.ask('PUT', `${budgets}/u/status`, { ...budget, metadata: { name: 'u' }, status });
      const eviction = { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name } };
      return (await api.ask('POST', `${PODS}/${name}/eviction`, eviction)).code;
    };
    expect(await evict('u1', 1)).toBe(201);
    expect(await evict('u2', 0)).toBe(429);
    expect(await evict('u3', 0, 'IfHealthyBudget')).toBe(429);
    expect(await evict('u4', 0, 'AlwaysAllow')).toBe(201);
  });

  it('autoscaling/v1 and v2 are one object', async () => {
    const spec = {
      scaleTargetRef: { kind: 'Deployment', name: 'x', apiVersion: 'apps/v1' },
      maxReplicas: 3,
      targetCPUUtilizationPercentage: 40,
    };
    await api.ask('POST', '/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers', {
      apiVersion: 'autoscaling/v1',
      kind: 'HorizontalPodAutoscaler',
      metadata: { name: 'h' },
      spec,
    });
    const { body } = await api.ask('GET', '/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/h');
    expect(body['spec']).toMatchObject({
      metrics: [{ resource: { name: 'cpu', target: { averageUtilization: 40 } } }],
    });
    const back = await api.ask('GET', '/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/h');
    expect(back.body['spec']).toEqual({ ...spec, minReplicas: 1 });
  });

  it('services get addresses and ports that nobody else has', async () => {
    const url = '/api/v1/namespaces/default/services';
    const service = (name: string, more: object = {}): object => ({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name },
      spec: { ports: [{ port: 80 }], ...more },
    });
    const made = await Promise.all(
      Array.from({ length: 40 }, (_, i) => api.ask('POST', url, service(`s${i}`, { type: 'NodePort' }))),
    );
    const addresses = made.map(({ body }) => (body['spec'] as { clusterIP: string }).clusterIP);
    expect(new Set(addresses).size).toBe(40);
    expect(
      new Set(made.map(({ body }) => (body['spec'] as { ports: { nodePort: number }[] }).ports[0]?.nodePort)).size,
    ).toBe(40);
    const taken = await api.ask('POST', url, service('dup', { clusterIP: addresses[0] }));
    expect(taken.body.message).toContain('provided IP is already allocated');
    expect((await api.ask('POST', url, service('far', { clusterIP: '192.0.2.1' }))).body.message).toContain(
      'not in the valid range',
    );
  });
});
