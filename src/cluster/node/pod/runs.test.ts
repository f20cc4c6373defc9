import { describe, expect, it } from 'vitest';
import { LABEL, runOf } from '#cluster/node/pod/runs.ts';
import { type ContainerRecord, type ContainerState, FRESH_STATE } from '#engine/core/record.ts';

const run = (state: Partial<ContainerState>): ReturnType<typeof runOf> =>
  runOf({
    id: 'c1',
    createdAtMs: 1_000,
    image: { id: 'sha256:1' },
    spec: { labels: { [LABEL.uid]: 'u1', [LABEL.container]: 'web' } },
    state: { ...FRESH_STATE, ...state },
  } as unknown as ContainerRecord);

describe('a run of a container', () => {
  it('has not begun while it is being started, and has begun once its start is recorded', () => {
    expect(run({ phase: 'starting' })).toMatchObject({ state: 'made', startError: '' });
    expect(run({ phase: 'running', startedAtMs: 2_000 })).toMatchObject({ state: 'running', startedAtMs: 2_000 });
  });

  it('that could not begin has ended, and says why', () => {
    expect(run({ phase: 'created', error: 'no such program', exitCode: 127 })).toMatchObject({
      state: 'ended',
      startError: 'no such program',
      finishedAtMs: 1_000,
    });
  });
});
