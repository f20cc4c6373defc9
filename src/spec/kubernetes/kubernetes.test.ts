import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { kubernetesFacts, pathOf, resourceOfKind } from './facts.ts';
import {
  addQuantities,
  canonicalQuantity,
  compareQuantities,
  milliOf,
  subtractQuantities,
  unitsOf,
} from './quantity.ts';
import { formatRequirements, matchesRequirements, matchesSelector, parseSelector } from './selector.ts';

describe('facts of the Kubernetes API', () => {
  it('every field refers to a type that has been described', () => {
    const bare = [...kubernetesFacts().types.values()].filter((t) => t.fields.size === 0).map((t) => t.name);
    // Types without fields are real there: markers whose presence is the fact.
    expect(bare).toEqual([]);
  });

  it('a Service keeps its ports as a map by port and protocol', () => {
    const ports = kubernetesFacts().types.get('core.v1.ServiceSpec')?.fields.get('ports');
    expect(ports).toMatchObject({ listType: { is: 'map', keys: ['port', 'protocol'] }, merge: true, mergeKey: 'port' });
  });

  it('a Deployment lives under apps/v1 with a scale', () => {
    const deployment = resourceOfKind('apps/v1', 'Deployment');
    expect(deployment?.subresources.get('scale')).toMatchObject({ apiVersion: 'autoscaling/v1', kind: 'Scale' });
    expect(deployment && pathOf(deployment, { namespace: 'a', name: 'b', sub: 'scale' })).toBe(
      '/apis/apps/v1/namespaces/a/deployments/b/scale',
    );
  });

  it('kinds of a later round are absent', () => {
    expect(resourceOfKind('apiextensions.k8s.io/v1', 'CustomResourceDefinition')).toBeUndefined();
    expect(resourceOfKind('storage.k8s.io/v1', 'CSIDriver')).toBeUndefined();
  });
});

describe('quantities', () => {
  it.each([
    ['0.5', '500m'],
    ['1000m', '1'],
    ['1024Mi', '1Gi'],
    ['1.5Gi', '1536Mi'],
    ['0', '0'],
    ['2e3', '2e3'],
    ['100', '100'],
    ['1000', '1k'],
    ['512', '512'],
    ['0.5Gi', '512Mi'],
    ['-1.5', '-1500m'],
    ['.5', '500m'],
    ['1n', '1n'],
    ['0.1n', '1n'],
  ])('%s is stored as %s', (text, stored) => {
    expect(canonicalQuantity(text)).toBe(stored);
  });

  it.each(['', 'x', '1x', '1 Gi', '1.2.3', '--1', '1ki', 'e3'])('%j is none', (text) => {
    expect(canonicalQuantity(text)).toBeUndefined();
  });

  it('canonical text means the same and stays as it is', () => {
    const suffix = fc.constantFrom('n', 'u', 'm', '', 'k', 'M', 'G', 'Ki', 'Mi', 'Gi', 'e3');
    fc.assert(
      fc.property(fc.integer({ min: -1e6, max: 1e6 }), suffix, (n, s) => {
        const once = canonicalQuantity(`${n}${s}`) ?? '';
        expect(compareQuantities(once, `${n}${s}`)).toBe(0);
        expect(canonicalQuantity(once)).toBe(once);
      }),
    );
  });

  it('adds, subtracts and reads in milli and whole units', () => {
    expect(addQuantities('500m', '1')).toBe('1500m');
    expect(subtractQuantities('1Gi', '512Mi')).toBe('512Mi');
    expect(milliOf('1.5')).toBe(1500);
    expect(unitsOf('1Ki')).toBe(1024);
    expect(unitsOf('100m')).toBe(1);
  });
});

describe('label selectors', () => {
  const labels = { app: 'web', tier: 'front', n: '5' };
  it.each([
    ['app=web', true],
    ['app==web,tier!=back', true],
    ['app in (web, db)', true],
    ['app notin (web)', false],
    ['missing notin (x)', true],
    ['app,!missing', true],
    ['n>4,n<6', true],
    ['', true],
    ['app=', false],
  ])('%s matches: %s', (text, expected) => {
    const parsed = parseSelector(text);
    expect(typeof parsed === 'string' ? parsed : matchesRequirements(parsed, labels)).toBe(expected);
  });

  it.each(['a b', 'a=b=c', '=x', 'a in', 'a,,b', 'a>x'])('%j is malformed', (text) => {
    expect(typeof parseSelector(text)).toBe('string');
  });

  it('the object form is the same language', () => {
    expect(
      matchesSelector({ matchLabels: { app: 'web' }, matchExpressions: [{ key: 'n', operator: 'Exists' }] }, labels),
    ).toBe(true);
    expect(matchesSelector(undefined, labels)).toBe(false);
    expect(matchesSelector({}, labels)).toBe(true);
    expect(
      formatRequirements([
        { key: 'b', operator: 'Exists' },
        { key: 'a', operator: 'In', values: ['1'] },
      ]),
    ).toBe('a=1,b');
  });
});
