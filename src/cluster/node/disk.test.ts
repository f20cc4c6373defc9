import { describe, expect, it } from 'vitest';
import { hasDiskLimit, overuse } from '#cluster/node/disk.ts';
import type { Container, PodSpec } from '#spec/kubernetes/types.gen.ts';

const MI = 1 << 20;
const use = (volumes: Record<string, number>, containers: Record<string, number> = {}) => ({
  volumes: new Map(Object.entries(volumes)),
  containers: new Map(Object.entries(containers)),
});
const container = (name: string, limit?: string): Container => ({
  name,
  ...(limit === undefined ? {} : { resources: { limits: { 'ephemeral-storage': limit } } }),
});

describe('what a pod may use of the disk', () => {
  it('an emptyDir goes by its sizeLimit; one in memory has a bound of its own', () => {
    const spec: PodSpec = {
      containers: [container('c')],
      volumes: [
        { name: 'v', emptyDir: { sizeLimit: '1Mi' } },
        { name: 'free', emptyDir: {} },
        { name: 'm', emptyDir: { medium: 'Memory', sizeLimit: '1Mi' } },
      ],
    };
    expect(hasDiskLimit(spec)).toBe(true);
    expect(overuse(spec, use({ v: MI, free: 9 * MI, m: 9 * MI }))).toBeUndefined();
    expect(overuse(spec, use({ v: MI + 1 }))).toBe('Usage of EmptyDir volume "v" exceeds the limit "1Mi". ');
    expect(hasDiskLimit({ containers: [container('c')], volumes: [{ name: 'free', emptyDir: {} }] })).toBe(false);
  });

  it('a container goes by its limit; the pod by the sum, when all have one, emptyDirs counted', () => {
    const all: PodSpec = { containers: [container('a', '1Mi'), container('b', '3Mi')] };
    expect(overuse(all, use({ v: 2 * MI }, { a: MI, b: MI }))).toBeUndefined();
    expect(overuse(all, use({ v: 2 * MI }, { a: MI, b: MI + 1 }))).toBe(
      'Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. ',
    );
    expect(overuse(all, use({}, { a: MI + 1 }))).toBe('Container a exceeded its local ephemeral storage limit "1Mi". ');
    const some: PodSpec = { containers: [container('a', '1Mi'), container('b')] };
    expect(overuse(some, use({ v: 9 * MI }, { b: 9 * MI }))).toBeUndefined();
    expect(hasDiskLimit(some)).toBe(true);
  });
});
