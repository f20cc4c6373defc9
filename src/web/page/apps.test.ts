import { describe, expect, it } from 'vitest';
import type { ContainerRow, PodRow } from '#web/wire.ts';
import { appsOf, containerHealth, containersOfPod, LOOSE, podHealth } from './apps.ts';

const container = (name: string, more: Partial<ContainerRow> = {}): ContainerRow =>
  ({ key: name, name, phase: 'running', exitCode: 0, oomKilled: false, createdAtMs: 1, ...more }) as ContainerRow;
const pod = (name: string, more: Partial<PodRow> = {}): PodRow =>
  ({
    key: `ns/${name}`,
    namespace: 'ns',
    name,
    app: 'shop',
    phase: 'Running',
    state: 'Running',
    ready: 1,
    wanted: 1,
    ...more,
  }) as PodRow;
const inPod = (name: string): NonNullable<ContainerRow['pod']> => ({ namespace: 'ns', name, container: 'c' });

describe('apps', () => {
  it('hold pods with their containers, compose services, and last what stands alone', () => {
    const apps = appsOf(
      [
        container('loose'),
        container('db', { app: 'blog' }),
        container('k1', { pod: inPod('web') }),
        container('k2', { pod: inPod('gone') }),
      ],
      [pod('web'), pod('job', { state: 'Completed', phase: 'Succeeded', ready: 0 })],
    );
    expect(
      apps.map((a) => [a.name, a.pods.map((p) => p.name), a.containers.map((c) => c.name), a.ready, a.wanted]),
    ).toEqual([
      ['blog', [], ['db'], 1, 1],
      ['shop', ['web', 'job'], ['k1'], 1, 1],
      [LOOSE, [], ['loose'], 1, 1],
    ]);
  });

  it('are as well as the worst of what is wanted', () => {
    const health = (...containers: ContainerRow[]) => appsOf(containers, [])[0]?.health;
    expect(health(container('a'), container('b', { phase: 'exited', exitCode: 143 }))).toBe('good');
    expect(health(container('a'), container('b', { phase: 'exited', exitCode: 1 }))).toBe('bad');
    expect(health(container('a'), container('b', { health: 'starting' }))).toBe('busy');
    expect(health(container('b', { phase: 'created' }))).toBe('off');
  });

  it('say of each part how it is', () => {
    expect(containerHealth(container('x', { phase: 'exited', oomKilled: true, exitCode: 137 }))).toBe('bad');
    expect(podHealth(pod('x', { state: 'CrashLoopBackOff', ready: 0 }))).toBe('bad');
    expect(podHealth(pod('x', { state: 'ContainerCreating', phase: 'Pending', ready: 0 }))).toBe('busy');
    expect(podHealth(pod('x', { state: 'Terminating' }))).toBe('busy');
  });

  it('find the youngest container of a pod', () => {
    const old = container('old', { pod: inPod('web') });
    const young = container('young', { pod: inPod('web'), createdAtMs: 2 });
    expect(containersOfPod(pod('web'), [young, old]).get('c')).toBe(young);
  });
});
