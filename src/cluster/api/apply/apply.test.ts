import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { KubeObject } from '#cluster/store/objects.ts';
import { kubernetesFacts } from '#spec/kubernetes/facts.ts';
import type { JsonObject } from '../codec/json.ts';
import { difference, emptySet, equalSets, fieldsOf, fromFieldsV1, shapeOfType, toFieldsV1, union } from './fieldset.ts';
import { applyConfig, trackUpdate } from './managed.ts';

const service = kubernetesFacts().types.get('core.v1.Service');
if (!service) throw new Error('no Service in the facts');
const type = service;
const shape = shapeOfType(type);

const writer = (manager: string) => ({
  manager,
  subresource: '',
  hasStatus: true,
  apiVersion: 'v1',
  time: '2026-01-01T00:00:00Z',
});
const apply = (live: KubeObject | undefined, manager: string, config: JsonObject, force = false): KubeObject =>
  applyConfig({ type, live, config, writer: writer(manager), force });
const svc = (more: JsonObject): JsonObject => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 's', ...(more['metadata'] as object) },
  spec: more['spec'] ?? {},
});

// Configurations as people write them: some labels, some ports by number, a few scalars.
const port = fc.record({
  port: fc.integer({ min: 1, max: 5 }),
  name: fc.constantFrom('a', 'b', 'c'),
  targetPort: fc.integer({ min: 1, max: 3 }),
});
const config = fc
  .record({
    labels: fc.dictionary(fc.constantFrom('x', 'y', 'z', '__proto__'), fc.constantFrom('1', '2'), { maxKeys: 3 }),
    ports: fc.uniqueArray(port, { selector: (p) => p.port, maxLength: 4 }),
    type: fc.constantFrom('ClusterIP', 'NodePort'),
    externalIPs: fc.uniqueArray(fc.constantFrom('192.0.2.1', '192.0.2.2'), { maxLength: 2 }),
  })
  .map(({ labels, ...spec }) => svc({ metadata: { labels }, spec }));

describe('sets of fields', () => {
  it('the written form means the same when read back', () => {
    fc.assert(
      fc.property(config, (c) => {
        expect(equalSets(fromFieldsV1(toFieldsV1(fieldsOf(shape, c))), fieldsOf(shape, c))).toBe(true);
      }),
    );
  });

  it('union and difference are what they are for sets', () => {
    fc.assert(
      fc.property(config, config, (a, b) => {
        const left = fieldsOf(shape, a);
        const right = fieldsOf(shape, b);
        expect(equalSets(union(left, right), union(right, left))).toBe(true);
        expect(equalSets(difference(left, left), emptySet())).toBe(true);
        expect(equalSets(union(difference(left, right), right), union(left, right))).toBe(true);
      }),
    );
  });
});

describe('server-side apply', () => {
  it('applying twice equals applying once', () => {
    fc.assert(
      fc.property(config, config, (first, second) => {
        const live = apply(undefined, 'other', first);
        const once = apply(live, 'me', second, true);
        expect(apply(once, 'me', second)).toEqual(once);
      }),
    );
  });

  it('an applied configuration is in the result, and what is left out again is gone unless another has it', () => {
    fc.assert(
      fc.property(config, (c) => {
        const live = apply(undefined, 'me', c);
        for (const p of (c['spec'] as { ports: JsonObject[] }).ports)
          expect((live['spec'] as { ports: unknown[] }).ports).toContainEqual(p);
        const bare = apply(live, 'me', svc({}));
        expect((bare['spec'] as { ports?: unknown[] }).ports ?? []).toEqual([]);
        expect(Object.keys(bare.metadata.labels ?? {})).toEqual([]);
      }),
    );
  });

  it('two managers of the same value share it; another value is a conflict that names field and manager', () => {
    const live = apply(undefined, 'a', svc({ spec: { type: 'NodePort' } }));
    const shared = apply(live, 'b', svc({ spec: { type: 'NodePort' } }));
    expect(shared.metadata.managedFields?.map((e) => e.manager)).toEqual(['a', 'b']);
    expect(() => apply(shared, 'c', svc({ spec: { type: 'ClusterIP' } }))).toThrow(
      /2 conflicts.*"a"[\s\S]*\.spec\.type/,
    );
    const forced = apply(shared, 'c', svc({ spec: { type: 'ClusterIP' } }), true);
    expect(forced['spec']).toEqual({ type: 'ClusterIP' });
    expect(forced.metadata.managedFields?.map((e) => e.manager)).toEqual(['c']);
  });

  it('list items belong to who applied them', () => {
    const a = apply(undefined, 'a', svc({ spec: { ports: [{ port: 80, name: 'web' }] } }));
    const both = apply(a, 'b', svc({ spec: { ports: [{ port: 81, name: 'more' }] } }));
    expect((both['spec'] as { ports: JsonObject[] }).ports.map((p) => p['port'])).toEqual([80, 81]);
    const left = apply(both, 'a', svc({ spec: {} }));
    expect((left['spec'] as { ports: JsonObject[] }).ports.map((p) => p['port'])).toEqual([81]);
  });

  it('an update takes ownership of what it changes and of nothing else', () => {
    const live = apply(
      undefined,
      'a',
      svc({ metadata: { labels: { x: '1' } }, spec: { type: 'NodePort', ports: [{ port: 80 }] } }),
    );
    const after = structuredClone(live);
    (after['spec'] as JsonObject)['type'] = 'ClusterIP';
    trackUpdate(type, live, after, writer('editor'));
    expect(after.metadata.managedFields?.map((e) => [e.manager, e.operation, JSON.stringify(e.fieldsV1)])).toEqual([
      ['a', 'Apply', expect.not.stringContaining('f:type')],
      ['editor', 'Update', '{"f:spec":{"f:type":{}}}'],
    ]);
  });
});
