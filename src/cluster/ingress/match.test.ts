import { describe, expect, it } from 'vitest';
import { Routes } from '#cluster/ingress/match.ts';
import type { IngressEntry, PathRule } from '#cluster/ingress/model.ts';
import { planBackend, planIngress } from '#cluster/ingress/plan.ts';
import type { Ingress } from '#spec/kubernetes/types.gen.ts';

const rule = (host: string, path: string, backend: string, type: PathRule['type'] = 'Prefix'): PathRule => ({
  host,
  path,
  type,
  backend,
});
const entry = (rules: PathRule[], more: Partial<IngressEntry> = {}): IngressEntry => ({
  namespace: 'default',
  name: 'i',
  createdAtMs: 1,
  rules,
  tls: [],
  ...more,
});
const find = (routes: Routes, host: string, path: string): string | undefined => routes.find(host, path)?.backend;

describe('routes', () => {
  // The table of the Kubernetes documentation on path types.
  it.each([
    ['Prefix', ['/'], '/any/path', '/'],
    ['Exact', ['/foo'], '/foo', '/foo'],
    ['Exact', ['/foo'], '/bar', undefined],
    ['Exact', ['/foo'], '/foo/', undefined],
    ['Exact', ['/foo/'], '/foo', undefined],
    ['Prefix', ['/foo'], '/foo/', '/foo'],
    ['Prefix', ['/foo/'], '/foo', '/foo/'],
    ['Prefix', ['/aaa/bb'], '/aaa/bbb', undefined],
    ['Prefix', ['/aaa/bbb'], '/aaa/bbb', '/aaa/bbb'],
    ['Prefix', ['/aaa/bbb/'], '/aaa/bbb', '/aaa/bbb/'],
    ['Prefix', ['/aaa/bbb'], '/aaa/bbb/ccc', '/aaa/bbb'],
    ['Prefix', ['/aaa/bbb'], '/aaa/bbbxyz', undefined],
    ['Prefix', ['/', '/aaa', '/aaa/bbb'], '/aaa/bbb', '/aaa/bbb'],
    ['Prefix', ['/', '/aaa'], '/ccc', '/'],
  ] as const)('%s %j, %s → %s', (type, paths, path, wanted) => {
    const routes = new Routes([entry(paths.map((p) => rule('', p, p, type)))]);
    expect(find(routes, 'x', path)).toBe(wanted);
  });

  it('Exact wins over Prefix, a full host over a wildcard over none, an older Ingress over a newer', () => {
    const routes = new Routes([
      entry([rule('a.org', '/x', 'newer')], { name: 'b', createdAtMs: 2 }),
      entry([
        rule('', '/', 'any'),
        rule('*.a.org', '/', 'wild'),
        rule('a.org', '/x', 'older'),
        rule('a.org', '/y', 'prefix'),
        rule('a.org', '/y', 'exact', 'Exact'),
      ]),
      entry([], { name: 'c', defaultBackend: 'default' }),
    ]);
    expect(find(routes, 'A.org', '/x')).toBe('older');
    expect(find(routes, 'a.org', '/y')).toBe('exact');
    expect(find(routes, 'a.org', '/y/z')).toBe('prefix');
    expect(find(routes, 'w.a.org', '/')).toBe('wild');
    expect(find(routes, 'v.w.a.org', '/')).toBe('any');
    const onlyDefault = new Routes([entry([rule('a.org', '/x', 'x')], { defaultBackend: 'default' })]);
    expect(find(onlyDefault, 'a.org', '/other')).toBe('default');
  });
});

describe('what an Ingress wishes', () => {
  const ingress: Ingress = {
    metadata: { namespace: 'shop', name: 'web' },
    spec: {
      rules: [
        {
          host: 'shop.example',
          http: {
            paths: [
              { path: '/', pathType: 'Prefix', backend: { service: { name: 'web', port: { name: 'http' } } } },
              { path: '/files', pathType: 'Exact', backend: { resource: { kind: 'Bucket', name: 'b' } } },
            ],
          },
        },
      ],
      tls: [{ secretName: 'cert' }],
    },
  };

  it('names its backends and secrets; a resource as backend is complained about', () => {
    const plan = planIngress(ingress);
    expect(plan.backends).toEqual(['shop/web:http']);
    expect(plan.entry.tls).toEqual([{ hosts: ['shop.example'], secret: 'cert' }]);
    expect(plan.complaints.map((c) => c.reason)).toEqual(['BackendNotSupported']);
  });

  it('a backend without endpoints says why', () => {
    const why = (...args: Parameters<typeof planBackend>): string | undefined => planBackend(...args).entry.why;
    const service = {
      metadata: { namespace: 'shop', name: 'web' },
      spec: { ports: [{ name: 'http', port: 80 }] },
    };
    expect(why('shop/web:http', undefined, [])).toBe('Service shop/web does not exist');
    expect(why('shop/web:81', service, [])).toBe('Service shop/web has no port 81');
    expect(why('shop/web:http', service, [])).toBe('Service shop/web selects no pod that has the port');
    const unready = {
      metadata: { name: 's' },
      addressType: 'IPv4' as const,
      ports: [{ name: 'http', port: 8080, protocol: 'TCP' as const }],
      endpoints: [{ addresses: ['10.0.0.1'], conditions: { ready: false } }],
    };
    expect(why('shop/web:80', service, [unready])).toBe('none of the 1 pods of Service shop/web is ready');
  });
});
