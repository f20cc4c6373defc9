import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { kubernetesFacts } from '#spec/kubernetes/facts.ts';
import type { JsonObject } from '#spec/kubernetes/json.ts';
import { applyJsonPatch } from './json.ts';
import { applyMergePatch } from './merge.ts';
import { applyStrategicPatch } from './strategic.ts';

const pod = kubernetesFacts().types.get('core.v1.Pod');
const deployment = kubernetesFacts().types.get('apps.v1.Deployment');
if (!pod || !deployment) throw new Error('facts are missing');
const onPod = (live: object, patch: object): JsonObject =>
  applyStrategicPatch(pod, live as JsonObject, patch as JsonObject);

describe('strategic merge patch', () => {
  const live = {
    spec: {
      containers: [
        { name: 'a', image: '1', env: [{ name: 'X', value: '1' }] },
        { name: 'b', image: '2' },
      ],
      tolerations: [{ key: 'k' }],
    },
  };

  it('merges lists by their key and leaves the rest', () => {
    expect(onPod(live, { spec: { containers: [{ name: 'b', image: '3' }] } })).toEqual({
      spec: { ...live.spec, containers: [live.spec.containers[0], { name: 'b', image: '3' }] },
    });
  });

  it('deletes an item, replaces a list, replaces lists without a key', () => {
    expect(onPod(live, { spec: { containers: [{ name: 'a', $patch: 'delete' }] } })).toMatchObject({
      spec: { containers: [{ name: 'b' }] },
    });
    expect(onPod(live, { spec: { containers: [{ $patch: 'replace' }, { name: 'c', image: '9' }] } })).toMatchObject({
      spec: { containers: [{ name: 'c', image: '9' }] },
    });
    expect(onPod(live, { spec: { tolerations: [{ key: 'other' }] } })).toMatchObject({
      spec: { tolerations: [{ key: 'other' }] },
    });
  });

  it('orders by $setElementOrder', () => {
    const patch = {
      spec: {
        $setElementOrder$: 0,
        '$setElementOrder/containers': [{ name: 'b' }, { name: 'c' }, { name: 'a' }],
        containers: [{ name: 'c', image: '3' }],
      },
    };
    expect((onPod(live, patch)['spec'] as { containers: { name: string }[] }).containers.map((c) => c.name)).toEqual([
      'b',
      'c',
      'a',
    ]);
  });

  it('keeps only $retainKeys, so that a strategy can be changed', () => {
    const before = { spec: { strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 1 } } } };
    const patch = { spec: { strategy: { $retainKeys: ['type'], type: 'Recreate' } } };
    expect(applyStrategicPatch(deployment, before, patch)).toEqual({ spec: { strategy: { type: 'Recreate' } } });
  });

  it('takes values out of lists of scalars', () => {
    const before = { metadata: { finalizers: ['a/x', 'a/y'] } };
    expect(onPod(before, { metadata: { '$deleteFromPrimitiveList/finalizers': ['a/x'] } })).toEqual({
      metadata: { finalizers: ['a/y'] },
    });
  });

  it('an item without its key is refused', () => {
    expect(() => onPod(live, { spec: { containers: [{ image: '3' }] } })).toThrow(
      'does not contain declared merge key: name',
    );
  });

  it('twice is once', () => {
    const container = fc.record({ name: fc.constantFrom('a', 'b', 'c'), image: fc.constantFrom('1', '2') });
    const patches = fc.record({
      spec: fc.record({ containers: fc.uniqueArray(container, { selector: (c) => c.name }) }),
    });
    fc.assert(
      fc.property(patches, (patch) => {
        expect(onPod(onPod(live, patch), patch)).toEqual(onPod(live, patch));
      }),
    );
  });
});

describe('merge patch (RFC 7386)', () => {
  it.each([
    [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
    [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
    [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
    [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
    [{ a: 'foo' }, 'bar', 'bar'],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ])('%j with %j is %j', (target, patch, result) => {
    expect(applyMergePatch(target, patch)).toEqual(result);
  });

  it('never changes its target, prototype names included', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (target, patch) => {
        const before = JSON.stringify(target);
        applyMergePatch(target, JSON.parse('{"__proto__":{"polluted":1}}'));
        applyMergePatch(target, patch);
        expect(JSON.stringify(target)).toBe(before);
        expect(({} as { polluted?: number }).polluted).toBeUndefined();
      }),
    );
  });
});

describe('JSON patch (RFC 6902)', () => {
  const target = { a: [1, 2], b: { 'c/d': 1 } };
  it.each([
    [[{ op: 'add', path: '/a/1', value: 9 }], { a: [1, 9, 2], b: { 'c/d': 1 } }],
    [[{ op: 'add', path: '/a/-', value: 9 }], { a: [1, 2, 9], b: { 'c/d': 1 } }],
    [[{ op: 'remove', path: '/b/c~1d' }], { a: [1, 2], b: {} }],
    [[{ op: 'replace', path: '/a', value: [] }], { a: [], b: { 'c/d': 1 } }],
    [[{ op: 'move', from: '/a', path: '/z' }], { z: [1, 2], b: { 'c/d': 1 } }],
    [[{ op: 'copy', from: '/b', path: '/z' }], { ...target, z: { 'c/d': 1 } }],
    [[{ op: 'test', path: '/a/0', value: 1 }], target],
  ])('%j', (patch, result) => {
    expect(applyJsonPatch(target, patch)).toEqual(result);
  });

  it.each([
    [[{ op: 'remove', path: '/none' }]],
    [[{ op: 'test', path: '/a/0', value: 2 }]],
    [[{ op: 'add', path: '/a/7', value: 1 }]],
    [[{ op: 'replace', path: '/x/y', value: 1 }]],
    [[{ op: 'move', from: '/b', path: '/b/c' }]],
    [[{ op: 'jump', path: '/a' }]],
    [{}],
  ])('%j is refused', (patch) => {
    expect(() => applyJsonPatch(target, patch)).toThrow();
  });
});
