import { describe, expect, it } from 'vitest';
import { FakeClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { seededRandom } from '#base/random.ts';
import { KubeClient } from '#cluster/client/client.ts';
import { EventRecorder } from '#cluster/client/events.ts';
import type { InformerDeps } from '#cluster/client/informer.ts';
import { LeaderElection } from '#cluster/client/lease.ts';
import { DONE, WorkQueue } from '#cluster/client/queue.ts';
import { CONFIG_MAPS, EVENTS, keyOf, PODS } from '#cluster/client/resources.ts';
import { breakConnection, FakeApi } from '#cluster/client/testing/fake-api.ts';
import { ClusterView } from '#cluster/client/view.ts';
import type { ConfigMap } from '#spec/kubernetes/types.gen.ts';

function world() {
  const clock = new FakeClock();
  const api = new FakeApi(clock);
  const client = new KubeClient(api, { fieldManager: 'test' });
  const log = logger('cluster:ctrl', silentSink);
  const deps: InformerDeps = { client, clock, random: seededRandom(1), log };
  return { clock, api, client, log, view: new ClusterView(deps) };
}

const map = (name: string, data: Record<string, string> = {}): ConfigMap => ({
  metadata: { namespace: 'default', name },
  data,
});

describe('client', () => {
  it('turns refusals into errors by their reason', async () => {
    const { client } = world();
    await expect(client.get(CONFIG_MAPS, 'default/none')).rejects.toMatchObject({ code: 'KUBE_NOT_FOUND' });
    await client.create(CONFIG_MAPS, map('a'));
    await expect(client.create(CONFIG_MAPS, map('a'))).rejects.toMatchObject({ code: 'KUBE_ALREADY_EXISTS' });
    const a = await client.get(CONFIG_MAPS, 'default/a');
    await client.update(CONFIG_MAPS, { ...a, data: { x: '1' } });
    await expect(client.update(CONFIG_MAPS, { ...a, data: { x: '2' } })).rejects.toMatchObject({
      code: 'KUBE_CONFLICT',
    });
  });
});

describe('informer', () => {
  it('reads its own writes at once and is not told of them twice', async () => {
    const { view, clock } = world();
    const maps = view.of(CONFIG_MAPS);
    const seen: string[] = [];
    maps.informer.onChange((now, before) => seen.push(`${before ? 'had' : 'new'} ${now ? keyOf(now) : 'gone'}`));
    await view.start();
    const made = await maps.create(map('a'));
    expect(maps.get('default/a')).toBe(made);
    await maps.remove(made);
    expect(maps.get('default/a')).toBeUndefined();
    await clock.advance(10);
    expect(maps.get('default/a')).toBeUndefined();
    expect(seen).toEqual(['new default/a', 'had gone']);
    await view.stop();
  });

  it('does not bring back what the watch has already taken away', async () => {
    const { view, clock, client } = world();
    const maps = view.of(CONFIG_MAPS);
    await view.start();
    const late = await client.create(CONFIG_MAPS, map('a'));
    await client.delete(CONFIG_MAPS, 'default/a');
    await clock.advance(10);
    maps.informer.observe(late);
    expect(maps.get('default/a')).toBeUndefined();
    await view.stop();
  });

  it('resumes after a cut watch, and lists again after compaction, telling of what vanished meanwhile', async () => {
    const { view, clock, client, api } = world();
    const maps = view.of(CONFIG_MAPS);
    const gone: string[] = [];
    maps.informer.onChange((now, before) => {
      if (!now && before) gone.push(keyOf(before));
    });
    await client.create(CONFIG_MAPS, map('a'));
    await view.start();
    api.cutWatches();
    await client.create(CONFIG_MAPS, map('b'));
    await client.delete(CONFIG_MAPS, 'default/a');
    api.compact();
    await clock.advance(5_000);
    expect(maps.list().map(keyOf)).toEqual(['default/b']);
    expect(gone).toEqual(['default/a']);
    expect(api.requests.filter((r) => r === 'GET /api/v1/configmaps')).toHaveLength(2);
    await view.stop();
  });

  it('keeps indexes in step with changes', async () => {
    const { view } = world();
    const maps = view.of(CONFIG_MAPS);
    maps.informer.addIndex('colour', (o) => [o.data?.['colour'] ?? '']);
    await view.start();
    const a = await maps.create(map('a', { colour: 'red' }));
    await maps.update({ ...a, data: { colour: 'blue' } });
    expect(maps.informer.by('colour', 'red')).toEqual([]);
    expect(maps.informer.by('colour', 'blue').map(keyOf)).toEqual(['default/a']);
    await view.stop();
  });

  it('a create whose answer was lost is not made twice', async () => {
    const { view, clock, api } = world();
    const maps = view.of(CONFIG_MAPS);
    await view.start();
    let lose = 1;
    api.after = (r) => {
      if (r.method === 'POST' && lose-- > 0) breakConnection('POST');
    };
    const made = maps.create(map('a'));
    await clock.advance(1_000);
    expect(keyOf(await made)).toBe('default/a');
    expect(maps.list()).toHaveLength(1);
    await view.stop();
  });
});

describe('WorkQueue', () => {
  it('works on a key once at a time, and again when it was added meanwhile', async () => {
    const clock = new FakeClock();
    const runs: string[] = [];
    let release: () => void = () => undefined;
    const queue = new WorkQueue({
      name: 'test',
      clock,
      onError: () => undefined,
      work: async (key) => {
        runs.push(key);
        if (runs.length === 1)
          await new Promise<void>((go) => {
            release = go;
          });
        return DONE;
      },
    });
    queue.start();
    queue.add('a');
    queue.add('a');
    await clock.advance(0);
    queue.add('a');
    queue.add('a');
    release();
    await clock.advance(0);
    expect(runs).toEqual(['a', 'a']);
    await queue.stop();
  });

  it('backs a failing key off exponentially and forgets failures after a success', async () => {
    const clock = new FakeClock(0);
    const atMs: number[] = [];
    const queue = new WorkQueue({
      name: 'test',
      clock,
      onError: () => undefined,
      work: async () => {
        atMs.push(clock.now());
        if (atMs.length < 5) throw new Error('no');
        return DONE;
      },
      backoffMs: { base: 10, max: 60 },
    });
    queue.start();
    queue.add('a');
    await clock.advance(1_000);
    expect(atMs).toEqual([0, 10, 30, 70, 130]);
    await queue.stop();
  });
});

describe('LeaderElection', () => {
  it('has one leader, and another one after the first goes silent for the lease', async () => {
    const { client, clock, log } = world();
    const leading: string[] = [];
    const make = (identity: string) =>
      new LeaderElection({
        client,
        clock,
        log,
        lease: 'kube-system/x',
        identity,
        onLead: () => leading.push(`+${identity}`),
        onLose: () => leading.push(`-${identity}`),
      });
    const [a, b] = [make('a'), make('b')];
    a.start();
    await clock.advance(0);
    b.start();
    await clock.advance(30_000);
    expect(leading).toEqual(['+a']);
    await a.stop();
    await clock.advance(10_000);
    expect(leading).toEqual(['+a', '-a', '+b']);
    await b.stop();
  });
});

describe('EventRecorder', () => {
  it('counts repetitions, folds like ones and cuts a flood', async () => {
    const { client, clock, log } = world();
    const recorder = new EventRecorder({ client, clock, log, component: 'test' });
    const pod = { metadata: { namespace: 'default', name: 'p', uid: 'u' } };
    for (let i = 0; i < 3; i++) recorder.record(PODS, pod, { type: 'Warning', reason: 'Failed', message: 'no' });
    for (let i = 0; i < 60; i++) recorder.record(PODS, pod, { type: 'Normal', reason: 'Seen', message: `number ${i}` });
    await recorder.flush();
    const { items } = await client.list(EVENTS);
    expect(items.find((e) => e.reason === 'Failed')).toMatchObject({ count: 3, source: { component: 'test' } });
    const seen = items.filter((e) => e.reason === 'Seen');
    expect(seen).toHaveLength(11);
    expect(seen.at(-1)).toMatchObject({ message: '(combined from similar events): number 21', count: 12 });
    await clock.advance(0);
  });
});
