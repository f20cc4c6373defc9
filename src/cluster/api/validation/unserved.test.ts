import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type TestApi, testApi } from '../testing/api.ts';

describe('what is kept and has no effect', () => {
  let api: TestApi;
  beforeAll(async () => {
    api = await testApi();
  });
  afterAll(() => api.stop());
  const told = async (path: string, body: object): Promise<string[]> => {
    const answer = await api.ask('POST', path, body);
    expect(answer.text, answer.text).toContain(String(answer.code === 201 ? 'uid' : ''));
    return [answer.headers['warning'] ?? []].flat().map((header) => /^299 - "(.*)"$/.exec(String(header))?.[1] ?? '');
  };
  const inDefault = (group: string, resource: string): string => `${group}/namespaces/default/${resource}`;
  const pod = { containers: [{ name: 'c', image: 'i' }] };

  it('is told by a warning a field, in pods and wherever pods are described', async () => {
    const spec = {
      ...pod,
      hostUsers: false,
      securityContext: { seLinuxOptions: { level: 's0' } },
      volumes: [
        { name: 'a', emptyDir: {} },
        { name: 'b', nfs: { server: 's', path: '/' } },
      ],
    };
    const expected = (at: string): string[] => [
      `${at}.hostUsers: user namespaces for pods are not served here, no node will run it`,
      `${at}.securityContext.seLinuxOptions: has no effect, nodes do not label with SELinux`,
      `${at}.volumes[1].nfs: nodes of this cluster cannot mount it, the pod will wait`,
    ];
    const labels = { app: 'x' };
    expect(await told(inDefault('/api/v1', 'pods'), { metadata: { name: 'p' }, spec })).toEqual(expected('spec'));
    expect(
      await told(inDefault('/apis/apps/v1', 'deployments'), {
        metadata: { name: 'd' },
        spec: { selector: { matchLabels: labels }, template: { metadata: { labels }, spec } },
      }),
    ).toEqual(expected('spec.template.spec'));
  });

  it('is told of Services, Ingresses, namespaces and classes', async () => {
    expect(
      await told(inDefault('/api/v1', 'services'), {
        metadata: { name: 's' },
        spec: {
          ports: [{ port: 80 }],
          sessionAffinity: 'ClientIP',
          sessionAffinityConfig: { clientIP: { timeoutSeconds: 60 } },
          trafficDistribution: 'PreferClose',
        },
      }),
    ).toEqual([
      'spec.trafficDistribution: has no effect, connections are spread over all endpoints',
      'spec.sessionAffinityConfig.clientIP.timeoutSeconds: a client keeps its endpoint for longer, as long as that one serves',
    ]);
    expect(
      await told('/api/v1/namespaces', {
        metadata: { name: 'guarded', labels: { 'pod-security.kubernetes.io/enforce': 'restricted' } },
      }),
    ).toHaveLength(1);
    const ingress = (ingressClassName: string) => ({
      metadata: { name: ingressClassName, annotations: { 'nginx.ingress.kubernetes.io/rewrite-target': '/' } },
      spec: { ingressClassName, defaultBackend: { service: { name: 's', port: { number: 80 } } } },
    });
    expect(await told(inDefault('/apis/networking.k8s.io/v1', 'ingresses'), ingress('estiba'))).toHaveLength(1);
    expect(await told(inDefault('/apis/networking.k8s.io/v1', 'ingresses'), ingress('nginx'))).toEqual([]);
  });

  it('of a plain object nothing is said', async () => {
    expect(await told(inDefault('/api/v1', 'pods'), { metadata: { name: 'plain' }, spec: pod })).toEqual([]);
    expect(
      await told(inDefault('/api/v1', 'services'), {
        metadata: { name: 'plain' },
        spec: { ports: [{ port: 80 }], sessionAffinity: 'ClientIP' },
      }),
    ).toEqual([]);
  });
});
