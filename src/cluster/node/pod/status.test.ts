import { describe, expect, it } from 'vitest';
import type { Live } from '#cluster/client/resources.ts';
import type { Run } from '#cluster/node/pod/runs.ts';
import { podStatus, type StatusInput } from '#cluster/node/pod/status.ts';
import type { Container, Pod, PodSpec, PodStatus } from '#spec/kubernetes/types.gen.ts';

const NOW = Date.UTC(2026, 10, 21, 8, 0, 0);

function run(container: string, of: Partial<Run> = {}): Run {
  return {
    id: `id-${container}-${of.attempt ?? 0}`,
    container,
    attempt: 0,
    streak: 0,
    sandbox: 'box',
    image: 'web:1',
    imageId: 'sha256:1',
    state: 'running',
    startedAtMs: NOW - 5_000,
    finishedAtMs: 0,
    exitCode: 0,
    oomKilled: false,
    startError: '',
    ...of,
  };
}
const ended = (container: string, exitCode: number, of: Partial<Run> = {}): Run =>
  run(container, { state: 'ended', exitCode, finishedAtMs: NOW - 1_000, ...of });
const c = (name: string, of: Partial<Container> = {}): Container => ({ name, image: 'web:1', ...of });

function status(spec: Partial<PodSpec>, runs: Run[], of: Partial<StatusInput> & { known?: PodStatus } = {}): PodStatus {
  const { known, ...rest } = of;
  const pod: Live<Pod> = {
    metadata: { name: 'web', namespace: 'shop', uid: 'u1', resourceVersion: '1', creationTimestamp: '' },
    spec: { restartPolicy: 'Always', containers: [c('web')], ...spec },
    ...(known ? { status: known } : {}),
  };
  const byName = new Map<string, Run[]>();
  for (const r of runs) byName.set(r.container, [...(byName.get(r.container) ?? []), r]);
  return podStatus({
    pod,
    runs: byName,
    waiting: () => undefined,
    started: () => true,
    ready: () => true,
    message: () => '',
    sandbox: { ready: true, ips: ['10.42.0.2'] },
    hostIp: '192.0.2.2',
    failed: undefined,
    ending: false,
    startedAtMs: NOW - 10_000,
    nowMs: NOW,
    ...rest,
  });
}
const conditionsOf = (s: PodStatus): Record<string, string> =>
  Object.fromEntries((s.conditions ?? []).map((x) => [x.type, [x.status, x.reason].filter(Boolean).join(' ')]));

describe('the status of a pod', () => {
  it('comes up: waiting, then running and ready, with its addresses', () => {
    const before = status({}, []);
    expect(before).toMatchObject({ phase: 'Pending', podIP: '10.42.0.2', qosClass: 'BestEffort' });
    expect(before.containerStatuses?.[0]).toMatchObject({
      ready: false,
      state: { waiting: { reason: 'ContainerCreating' } },
    });
    expect(conditionsOf(before)).toMatchObject({ Initialized: 'True', Ready: 'False ContainersNotReady' });
    const after = status({}, [run('web')]);
    expect(after.phase).toBe('Running');
    expect(after.containerStatuses?.[0]).toMatchObject({
      ready: true,
      started: true,
      restartCount: 0,
      containerID: 'estiba://id-web-0',
      state: { running: { startedAt: '2026-11-21T07:59:55Z' } },
    });
    expect(conditionsOf(after)).toMatchObject({
      Ready: 'True',
      ContainersReady: 'True',
      PodReadyToStartContainers: 'True',
    });
  });

  it('init containers hold the others back', () => {
    const spec = { initContainers: [c('first'), c('second')] };
    const s = status(spec, [ended('first', 0), run('second')]);
    expect(s.phase).toBe('Pending');
    expect(s.initContainerStatuses?.map((i) => i.ready)).toEqual([true, false]);
    expect(s.containerStatuses?.[0]?.state).toEqual({ waiting: { reason: 'PodInitializing' } });
    expect(s.conditions?.find((x) => x.type === 'Initialized')?.message).toBe(
      'containers with incomplete status: [second]',
    );
    expect(status({ ...spec, restartPolicy: 'Never' }, [ended('first', 3)]).phase).toBe('Failed');
  });

  it('a crash loop shows the back-off, and how the last run ended', () => {
    const second = ended('web', 7, { attempt: 1, streak: 1 });
    const [web] = status({}, [ended('web', 7), second], { message: () => 'last words' }).containerStatuses ?? [];
    expect(web).toMatchObject({
      restartCount: 1,
      state: {
        waiting: {
          reason: 'CrashLoopBackOff',
          message: 'back-off 10s restarting failed container=web pod=web_shop(u1)',
        },
      },
      lastState: { terminated: { exitCode: 7, reason: 'Error', message: 'last words' } },
    });
    expect(status({}, [second]).phase).toBe('Running');
  });

  it('the end: Succeeded, Failed, OOMKilled, StartError, and a pod that the node gave up', () => {
    const never = { restartPolicy: 'Never' as const };
    const done = status(never, [ended('web', 0)], { ending: true });
    expect(done.phase).toBe('Succeeded');
    expect(conditionsOf(done)).toMatchObject({ Ready: 'False PodCompleted', Initialized: 'True PodCompleted' });
    expect(
      status(never, [ended('web', 137, { oomKilled: true })]).containerStatuses?.[0]?.state?.terminated?.reason,
    ).toBe('OOMKilled');
    expect(
      status(never, [ended('web', 127, { startError: 'no such file', startedAtMs: 0 })]).containerStatuses?.[0]?.state,
    ).toMatchObject({
      terminated: { reason: 'StartError', exitCode: 128, message: 'no such file', startedAt: '1970-01-01T00:00:00Z' },
    });
    const failed = { reason: 'DeadlineExceeded', message: 'too long' };
    expect(status({}, [ended('web', 143)], { failed, ending: true })).toMatchObject({ phase: 'Failed', ...failed });
  });

  it('a condition keeps its time until its status changes, and others’ conditions stay', () => {
    const known = {
      conditions: [
        { type: 'Ready', status: 'True', lastTransitionTime: '2026-01-01T00:00:00Z' },
        { type: 'example.com/gate', status: 'False' },
      ],
    };
    const at = (s: PodStatus, type: string) => s.conditions?.find((x) => x.type === type);
    expect(at(status({}, [run('web')], { known }), 'Ready')?.lastTransitionTime).toBe('2026-01-01T00:00:00Z');
    const unready = status({}, [run('web')], { known, ready: () => false });
    expect(at(unready, 'Ready')).toMatchObject({ status: 'False', lastTransitionTime: '2026-11-21T08:00:00Z' });
    expect(at(unready, 'example.com/gate')).toEqual({ type: 'example.com/gate', status: 'False' });
    const gated = { readinessGates: [{ conditionType: 'example.com/gate' }] };
    expect(at(status(gated, [run('web')], { known }), 'Ready')?.reason).toBe('ReadinessGatesNotReady');
  });

  it('what waits says why', () => {
    const waiting = { reason: 'ImagePullBackOff', message: 'no such image' };
    expect(status({}, [], { waiting: () => waiting }).containerStatuses?.[0]?.state).toEqual({ waiting });
  });
});
