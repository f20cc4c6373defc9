import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type PodSeen, type PodStep, planPod } from '#cluster/node/pod/plan.ts';
import { type Run, restartDelayMs } from '#cluster/node/pod/runs.ts';
import type { Container, PodSpec } from '#spec/kubernetes/types.gen.ts';

const NOW = 1_000_000_000;
const GONE = { sandbox: undefined, prepared: false };

function run(container: string, of: Partial<Run> = {}): Run {
  return {
    id: `${container}-id`,
    container,
    attempt: 0,
    streak: 0,
    sandbox: 'box',
    image: 'busybox',
    imageId: 'sha256:1',
    state: 'running',
    startedAtMs: NOW - 1_000,
    finishedAtMs: 0,
    exitCode: 0,
    oomKilled: false,
    startError: '',
    ...of,
  };
}
const ended = (container: string, exitCode: number, of: Partial<Run> = {}): Run =>
  run(container, { state: 'ended', exitCode, finishedAtMs: NOW, ...of });
const c = (name: string, of: Partial<Container> = {}): Container => ({ name, image: 'busybox', ...of });

function seen(spec: Partial<PodSpec>, runs: Run[] = [], of: Partial<PodSeen> = {}): PodSeen {
  return {
    spec: { restartPolicy: 'Always', containers: [c('web')], ...spec },
    sandbox: 'box',
    prepared: true,
    runs: new Map(runs.map((r) => [r.container, r])),
    started: () => true,
    condemned: () => undefined,
    busy: new Set(),
    ending: undefined,
    nowMs: NOW,
    ...of,
  };
}
const told = (steps: readonly PodStep[]): string[] =>
  steps.map((s) => (s.do === 'sandbox' ? 'sandbox' : `${s.do} ${s.container.name}`));
const plan = (...args: Parameters<typeof seen>): string[] => told(planPod(seen(...args)).steps);

describe('what a pod needs next', () => {
  it('a sandbox comes first, then all containers at once', () => {
    expect(plan({}, [], GONE)).toEqual(['sandbox']);
    expect(plan({ containers: [c('web'), c('log')] })).toEqual(['start web', 'start log']);
    expect(plan({}, [run('web')])).toEqual([]);
  });

  it('after a restart of the agent what runs goes on while its surroundings are looked up', () => {
    expect(plan({}, [run('web')], { prepared: false })).toEqual(['sandbox']);
    expect(plan({}, [run('web')], { prepared: false, busy: new Set(['']) })).toEqual([]);
    expect(plan({}, [run('web')], GONE)).toEqual(['end web']);
  });

  it('init containers run one after the other, and must succeed', () => {
    const spec = { initContainers: [c('first'), c('second')] };
    expect(plan(spec)).toEqual(['start first']);
    expect(plan(spec, [run('first')])).toEqual([]);
    expect(plan(spec, [ended('first', 0)])).toEqual(['start second']);
    expect(plan(spec, [ended('first', 1)])).toEqual(['start first']);
    expect(plan(spec, [ended('first', 0), ended('second', 0)])).toEqual(['start web']);
    const never = planPod(seen({ ...spec, restartPolicy: 'Never' }, [ended('first', 1)]));
    expect(never).toEqual({ steps: [], over: true });
  });

  it('a sidecar only has to be started for the next to come, and is kept running', () => {
    const spec = { initContainers: [c('proxy', { restartPolicy: 'Always' }), c('second')] };
    expect(plan(spec)).toEqual(['start proxy']);
    expect(plan(spec, [run('proxy')], { started: () => false })).toEqual([]);
    expect(plan(spec, [run('proxy')])).toEqual(['start second']);
    expect(plan(spec, [ended('proxy', 0), ended('second', 0), run('web')])).toEqual(['start proxy']);
  });

  it('sidecars end after the containers, the last one first', () => {
    const spec = { initContainers: [c('a', { restartPolicy: 'Always' }), c('b', { restartPolicy: 'Always' })] };
    const all = [run('a'), run('b'), run('web')];
    expect(plan(spec, all, { ending: 'it is deleted' })).toEqual(['end web']);
    expect(plan(spec, all, { ending: 'it is deleted', busy: new Set(['web']) })).toEqual([]);
    expect(plan(spec, [run('a'), run('b'), ended('web', 143)], { ending: 'x' })).toEqual(['end b']);
    expect(plan(spec, [run('a'), ended('b', 143), ended('web', 143)], { ending: 'x' })).toEqual(['end a']);
    const job = { ...spec, restartPolicy: 'Never' as const };
    expect(plan(job, [run('a'), run('b'), ended('web', 0)])).toEqual(['end b']);
    expect(planPod(seen(job, [ended('a', 0), ended('b', 0), ended('web', 0)])).over).toBe(true);
  });

  it('restarts follow the policy; the first comes at once, later ones wait longer and longer', () => {
    expect(plan({}, [ended('web', 0)])).toEqual(['start web']);
    expect(plan({ restartPolicy: 'OnFailure' }, [ended('web', 0)])).toEqual([]);
    expect(plan({ restartPolicy: 'OnFailure' }, [ended('web', 3)])).toEqual(['start web']);
    expect(plan({ restartPolicy: 'Never' }, [ended('web', 3)])).toEqual([]);
    const second = ended('web', 1, { attempt: 1, streak: 1 });
    expect(planPod(seen({}, [second])).steps).toMatchObject([{ do: 'wait', forMs: 10_000 }]);
    const delays = [0, 1, 2, 3, 4, 5, 6, 20].map((streak) => restartDelayMs(ended('web', 1, { streak })));
    expect(delays).toEqual([0, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]);
    expect(restartDelayMs(ended('web', 1, { streak: 9, startedAtMs: NOW - 600_000 }))).toBe(0);
  });

  it('a container that failed its probes, or has another image now, is ended', () => {
    const why = (of: Partial<PodSeen>): unknown => planPod(seen({}, [run('web')], of)).steps;
    expect(why({ condemned: () => 'failed liveness probe' })).toMatchObject([
      { do: 'end', why: 'failed liveness probe' },
    ]);
    expect(plan({ containers: [c('web', { image: 'busybox:2' })] }, [run('web')])).toEqual(['end web']);
  });

  it('after a boot all starts again, init containers too; what was done for good stays done', () => {
    const spec = {
      initContainers: [c('first')],
      containers: [c('web'), c('job')],
      restartPolicy: 'OnFailure' as const,
    };
    const before = [ended('first', 0), ended('web', 255), ended('job', 0)];
    expect(plan(spec, before, GONE)).toEqual(['sandbox']);
    expect(plan(spec, before, { sandbox: 'new' })).toEqual(['start first']);
    const first = ended('first', 0, { sandbox: 'new' });
    expect(plan(spec, [first, ...before.slice(1)], { sandbox: 'new' })).toEqual(['start web']);
  });

  it('nothing is done twice: who is busy is left alone, and an ending pod starts nothing', () => {
    const state = fc.constantFrom<Run['state']>('made', 'running', 'ended');
    const name = fc.constantFrom('init', 'side', 'web', 'log');
    const someRun = fc.record({ container: name, state, exitCode: fc.nat(2), streak: fc.nat(4) });
    const spec = {
      initContainers: [c('init'), c('side', { restartPolicy: 'Always' })],
      containers: [c('web'), c('log')],
    };
    fc.assert(
      fc.property(
        fc.array(someRun),
        fc.subarray(['init', 'side', 'web', 'log']),
        fc.boolean(),
        (some, busy, ending) => {
          const runs = some.map((r) => run(r.container, { ...r, finishedAtMs: r.state === 'ended' ? NOW : 0 }));
          const { steps, over } = planPod(
            seen(spec, runs, { busy: new Set(busy), ending: ending ? 'deleted' : undefined }),
          );
          const names = steps.flatMap((s) => (s.do === 'sandbox' ? [] : [s.container.name]));
          expect(names.filter((n) => busy.includes(n))).toEqual([]);
          expect(new Set(names).size).toBe(names.length);
          if (ending) expect(steps.filter((s) => s.do !== 'end')).toEqual([]);
          if (over) expect(steps).toEqual([]);
        },
      ),
    );
  });
});
