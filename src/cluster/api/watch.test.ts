import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pod, type TestApi, testApi } from './testing/api.ts';

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
});
afterAll(() => api.stop());

const MAPS = '/api/v1/namespaces/default/configmaps';
const map = (name: string, labels: object = {}): object => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, labels },
});
const settle = (): Promise<void> => new Promise((done) => setImmediate(done));
const types = (events: { type: string; object: { metadata: { name: string } } }[]): string[] =>
  events.map((e) => `${e.type} ${e.object.metadata.name}`);

describe('watching', () => {
  it('a watch without a version begins with what is there', async () => {
    await api.ask('POST', MAPS, map('a1'));
    const reader = await api.watch(`${MAPS}?watch=true&fieldSelector=metadata.name%3Da1`);
    expect(types(reader.events)).toEqual(['ADDED a1']);
    reader.stop();
  });

  it('a watch from a version misses nothing and repeats nothing', async () => {
    const { body: list } = await api.ask('GET', MAPS);
    await api.ask('POST', MAPS, map('b1'));
    const reader = await api.watch(
      `${MAPS}?watch=true&resourceVersion=${(list.metadata as { resourceVersion: string }).resourceVersion}`,
    );
    await api.ask('PATCH', `${MAPS}/b1`, { data: { k: 'v' } }, { type: 'application/merge-patch+json' });
    await api.ask('DELETE', `${MAPS}/b1`);
    await settle();
    expect(types(reader.events)).toEqual(['ADDED b1', 'MODIFIED b1', 'DELETED b1']);
    reader.stop();
  });

  it('with a selector, who begins to match is added and who stops is deleted', async () => {
    const { body: list } = await api.ask('GET', MAPS);
    const reader = await api.watch(
      `${MAPS}?watch=true&labelSelector=in%3Dyes&resourceVersion=${(list.metadata as { resourceVersion: string }).resourceVersion}`,
    );
    await api.ask('POST', MAPS, map('c1'));
    const label = (value: string | null): Promise<unknown> =>
      api.ask('PATCH', `${MAPS}/c1`, { metadata: { labels: { in: value } } }, { type: 'application/merge-patch+json' });
    await label('yes');
    await label('no');
    await settle();
    expect(types(reader.events)).toEqual(['ADDED c1', 'DELETED c1']);
    reader.stop();
  });

  it('initial events end with a bookmark that says so', async () => {
    const reader = await api.watch(
      `${MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true`,
    );
    const last = reader.events.at(-1);
    expect(last?.type).toBe('BOOKMARK');
    expect(last?.object.metadata.annotations).toEqual({ 'k8s.io/initial-events-end': 'true' });
    reader.stop();
  });

  it('bookmarks come while nothing happens, and the stream ends at its time', async () => {
    const reader = await api.watch(`${MAPS}?watch=true&allowWatchBookmarks=true&timeoutSeconds=200`);
    const before = reader.events.length;
    await api.clock.advance(130_000);
    expect(reader.events.slice(before).map((e) => e.type)).toEqual(['BOOKMARK', 'BOOKMARK']);
    await api.clock.advance(100_000);
    expect(reader.ended).toBe(true);
  });

  it('history that is gone is 410 before the stream begins', async () => {
    for (let i = 0; i < 9000; i++)
      await api.ask('PUT', '/apis/coordination.k8s.io/v1/namespaces/default/leases/l', {
        apiVersion: 'coordination.k8s.io/v1',
        kind: 'Lease',
        metadata: { name: 'l' },
        spec: { leaseTransitions: i },
      });
    await expect(
      api.watch('/apis/coordination.k8s.io/v1/namespaces/default/leases?watch=true&resourceVersion=40'),
    ).rejects.toThrow('"code":410');
  });
});

describe('lists', () => {
  it('pages are one snapshot, whatever happens between them', async () => {
    for (let i = 0; i < 25; i++)
      await api.ask('POST', '/api/v1/namespaces/kube-public/pods', pod(`l${String(i).padStart(2, '0')}`));
    const url = '/api/v1/namespaces/kube-public/pods';
    const first = await api.ask('GET', `${url}?limit=10`);
    const { continue: token, remainingItemCount } = first.body.metadata as unknown as {
      continue: string;
      remainingItemCount: number;
    };
    expect([first.body.items.length, remainingItemCount]).toEqual([10, 15]);
    await api.ask('DELETE', `${url}/l24`);
    const rest = await api.ask('GET', `${url}?limit=500&continue=${token}`);
    expect([...first.body.items, ...rest.body.items].map((o) => o.metadata.name)).toEqual(
      Array.from({ length: 25 }, (_, i) => `l${String(i).padStart(2, '0')}`),
    );
    expect((await api.ask('GET', url)).body.items.length).toBe(24);
    expect((await api.ask('GET', `${url}?continue=garbage`)).code).toBe(400);
  });

  it('tables carry columns and cells', async () => {
    const { body } = await api.ask('GET', '/api/v1/namespaces?limit=1', undefined, {
      accept: 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json',
    });
    expect(body).toMatchObject({
      kind: 'Table',
      columnDefinitions: [{ name: 'Name' }, { name: 'Status' }, { name: 'Age' }],
      rows: [{ cells: ['default', 'Active', '3m50s'] }],
    });
  });
});
