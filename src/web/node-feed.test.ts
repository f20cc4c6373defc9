import { describe, expect, it } from 'vitest';
import { FakeClock } from '#base/clock.ts';
import type { Engine } from '#engine/core/engine.ts';
import { NoSuchContainer, WrongPhase } from '#engine/core/errors.ts';
import { figuresOf } from '#web/node-feed.ts';

/** What is left of an engine when one asks it for counters. A container of this list runs, by its record. */
function engineOf(
  ids: string[],
  running: (id: string) => { cgroups: readonly object[]; pid: number },
  tree: Readonly<Record<string, string>> = {},
): Engine {
  const record = (id: string): object => ({
    id,
    state: { phase: 'running' },
    spec: { namespaces: { network: { kind: 'host' } } },
  });
  const containers = { list: () => ids.map(record), find: record, running };
  const files = { read: (path: string) => tree[path], list: () => undefined, exists: () => false };
  return { containers, stats: { containers, files, clock: new FakeClock() } } as never;
}

const cgroupsOf = (id: string): object[] => [
  { version: 2, mount: '/sys/fs/cgroup', path: `/${id}`, controllers: ['cpu', 'memory', 'pids'] },
];

describe('the figures of a container that goes between the list and its counters', () => {
  it.each([
    ['was removed', () => new NoSuchContainer({ name: 'gone' })],
    ['has ended', () => new WrongPhase({ message: 'container gone is not running' })],
  ])('are left out when it %s, and the others are told', (_, error) => {
    const engine = engineOf(
      ['gone', 'here'],
      (id) => {
        if (id === 'gone') throw error();
        return { cgroups: cgroupsOf(id), pid: 1 };
      },
      { '/sys/fs/cgroup/here/cpu.stat': 'usage_usec 5\nuser_usec 3\nsystem_usec 2\n' },
    );
    expect(figuresOf(engine, new FakeClock()).containers).toEqual({ here: expect.objectContaining({ cpuNs: 5_000 }) });
  });

  it('are left out when its cgroups went, instead of falling to zero', () => {
    const engine = engineOf(['gone'], (id) => ({ cgroups: cgroupsOf(id), pid: 1 }));
    expect(figuresOf(engine, new FakeClock()).containers).toEqual({});
  });

  it('fail aloud for any other reason', () => {
    const engine = engineOf(['x'], () => {
      throw new Error('a bug');
    });
    expect(() => figuresOf(engine, new FakeClock())).toThrow('a bug');
  });
});
