import { afterEach, describe, expect, it } from 'vitest';
import {
  compareAndPut,
  get,
  type Key,
  prefix,
  put,
  remove,
  type Store,
  type Watch,
  type WatchBatch,
  type WatchEvent,
} from '#storage/store.ts';

/** What a driver brings to be tested: an empty store, and its time. */
export interface StoreUnderTest {
  store: Store;
  /** Lets time pass for leases: a fake clock is advanced, a real one waited for. */
  advance(ms: number): Promise<void>;
  /** The shortest TTL it keeps exactly (etcd: 1 000 or more). */
  ttlMs: number;
  dispose(): Promise<void>;
}

/** The same cases for every driver of the seam: embedded, in-memory, etcd. */
export function storeConformance(name: string, make: () => Promise<StoreUnderTest>): void {
  const opened: StoreUnderTest[] = [];
  const open = async (): Promise<StoreUnderTest> => {
    const under = await make();
    opened.push(under);
    return under;
  };
  afterEach(async () => {
    for (const under of opened.splice(0)) await under.dispose();
  });

  describe(`${name} is a store`, () => {
    it('a put is read back with its revisions and its version', async () => {
      const { store } = await open();
      const first = await put(store, 'a', bytes('1'));
      const second = await put(store, 'a', bytes('2'));
      expect(second.revision).toBe(first.revision + 1);
      expect(show(await get(store, 'a'))).toEqual({
        key: 'a',
        value: '2',
        createRevision: first.revision,
        modRevision: second.revision,
        version: 2,
      });
      expect(await get(store, 'b')).toBeUndefined();
    });

    it('values are bytes: empty, NUL and large ones come back as they were', async () => {
      const { store } = await open();
      const large = Uint8Array.from({ length: 1_000_000 }, (_, i) => (i * 31) & 0xff);
      await put(store, 'large', large);
      await put(store, 'empty', new Uint8Array(0));
      expect(Buffer.compare((await get(store, 'large'))?.value ?? bytes(''), large)).toBe(0);
      expect((await get(store, 'empty'))?.value.length).toBe(0);
    });

    it('a range is ordered by bytes, limited, counted and continued', async () => {
      const { store } = await open();
      for (const key of ['p/b', 'p/a', 'p/é', 'p/Z', 'q', 'o', 'p']) await put(store, key, bytes(key));
      const all = await store.range(prefix('p/'));
      expect(all.items.map((kv) => kv.key)).toEqual(['p/Z', 'p/a', 'p/b', 'p/é']);
      expect(all).toMatchObject({ count: 4, more: false });
      const first = await store.range({ ...prefix('p/'), limit: 2 });
      expect(first).toMatchObject({ count: 4, more: true });
      const rest = await store.range({ ...prefix('p/'), key: `${first.items[1]?.key}\u0001`, limit: 2 });
      expect(rest.items.map((kv) => kv.key)).toEqual(['p/b', 'p/é']);
      const keys = await store.range({ ...prefix('p/'), keysOnly: true });
      expect(keys.items.map((kv) => kv.value.length)).toEqual([0, 0, 0, 0]);
      expect(await store.range({ ...prefix('p/'), countOnly: true })).toMatchObject({ items: [], count: 4 });
      expect((await store.range({ key: '\u0001', end: '' })).count).toBe(7);
    });

    it('a range at a revision sees the keys as they were then', async () => {
      const { store } = await open();
      const { revision } = await put(store, 'k/a', bytes('old'));
      await put(store, 'k/a', bytes('new'));
      await put(store, 'k/b', bytes('b'));
      await remove(store, { key: 'k/a' });
      const then = await store.range({ ...prefix('k/'), revision });
      expect(then.items.map(show)).toMatchObject([{ key: 'k/a', value: 'old' }]);
      expect((await store.range(prefix('k/'))).items.map((kv) => kv.key)).toEqual(['k/b']);
      await expect(store.range({ ...prefix('k/'), revision: then.revision + 100 })).rejects.toMatchObject({
        code: 'STORE_FUTURE_REVISION',
      });
    });

    it('a key made anew counts its versions from 1 again', async () => {
      const { store } = await open();
      await put(store, 'a', bytes('1'));
      await remove(store, { key: 'a' });
      const again = await put(store, 'a', bytes('2'));
      expect(await get(store, 'a')).toMatchObject({ version: 1, createRevision: again.revision });
    });
  });

  describe(`${name} transactions`, () => {
    it('compare and set lets exactly one of many writers through', async () => {
      const { store } = await open();
      const wins = await Promise.all(Array.from({ length: 20 }, (_, i) => compareAndPut(store, 'k', 0, bytes(`${i}`))));
      expect(wins.filter(Boolean).length).toBe(1);
      const now = await get(store, 'k');
      expect(await compareAndPut(store, 'k', now?.modRevision ?? 0, bytes('next'))).toBe(true);
      expect(await compareAndPut(store, 'k', now?.modRevision ?? 0, bytes('late'))).toBe(false);
    });

    it('all operations of a transaction share one revision, and later ones see earlier ones', async () => {
      const { store } = await open();
      await put(store, 't/old', bytes('x'));
      const done = await store.txn({
        ops: [
          { do: 'put', key: 't/a', value: bytes('1') },
          { do: 'delete', ...prefix('t/o'), prevKv: true },
          { do: 'range', ...prefix('t/') },
        ],
      });
      expect(done.results[1]).toMatchObject({ do: 'delete', deleted: 1, prev: [{ key: 't/old' }] });
      expect(done.results[2]).toMatchObject({ count: 1, items: [{ key: 't/a', modRevision: done.revision }] });
    });

    it('what failed comparisons choose is done instead; what changes nothing makes no revision', async () => {
      const { store } = await open();
      const { revision } = await put(store, 'a', bytes('1'));
      const failed = await store.txn({
        when: [{ key: 'a', target: 'value', is: '=', to: bytes('2') }],
        ops: [{ do: 'delete', key: 'a' }],
        otherwise: [{ do: 'range', key: 'a' }],
      });
      expect(failed).toMatchObject({ succeeded: false, revision, results: [{ count: 1 }] });
      const nothing = await store.txn({ ops: [{ do: 'delete', key: 'absent' }] });
      expect(nothing).toMatchObject({ revision, results: [{ deleted: 0 }] });
    });

    it('comparisons know mod, create and version, and count an absent key as 0', async () => {
      const { store } = await open();
      const { revision } = await put(store, 'a', bytes('1'));
      const holds = async (when: Parameters<Store['txn']>[0]['when']): Promise<boolean> =>
        (await store.txn({ ...(when ? { when } : {}), ops: [] })).succeeded;
      expect(await holds([{ key: 'a', target: 'create', is: '=', to: revision }])).toBe(true);
      expect(await holds([{ key: 'a', target: 'mod', is: '<', to: revision + 1 }])).toBe(true);
      expect(await holds([{ key: 'a', target: 'version', is: '>', to: 1 }])).toBe(false);
      expect(await holds([{ key: 'b', target: 'version', is: '=', to: 0 }])).toBe(true);
      expect(await holds([{ key: 'b', target: 'value', is: '!=', to: bytes('x') }])).toBe(false);
    });

    it('refuses a key put twice, a key put and deleted, empty keys and too large a write, and changes nothing', async () => {
      const { store } = await open();
      const before = await store.status();
      const one = { do: 'put', key: 'a', value: bytes('1') } as const;
      for (const ops of [
        [one, one],
        [one, { do: 'delete', key: 'a' } as const],
      ]) {
        await expect(store.txn({ ops })).rejects.toMatchObject({ code: 'STORE_BAD_TRANSACTION' });
      }
      for (const key of ['', 'a\0b', 'x'.repeat(2000), '\ud83d\ude00']) {
        await expect(put(store, key, bytes('1'))).rejects.toMatchObject({ code: 'STORE_BAD_KEY' });
      }
      await expect(put(store, 'a', new Uint8Array(2_000_000))).rejects.toMatchObject({ code: 'STORE_VALUE_TOO_LARGE' });
      expect((await store.status()).revision).toBe(before.revision);
    });
  });

  describe(`${name} watches`, () => {
    it('deliver every change after their start, once, in order, and only those of the range', async () => {
      const { store } = await open();
      const watch = store.watch({ ...prefix('w/'), prevKv: true });
      const seen = collect(watch, 3);
      await put(store, 'w/a', bytes('1'));
      await put(store, 'other', bytes('x'));
      await put(store, 'w/a', bytes('2'));
      await remove(store, { key: 'w/a' });
      expect((await seen).map(brief)).toEqual(['put w/a=1', 'put w/a=2 was 1', 'delete w/a was 2']);
    });

    it('started in the past replay the history from there', async () => {
      const { store } = await open();
      await put(store, 'w/a', bytes('0'));
      const { revision } = await put(store, 'w/a', bytes('1'));
      await remove(store, { key: 'w/a' });
      await put(store, 'w/b', bytes('2'));
      const seen = await collect(store.watch({ ...prefix('w/'), fromRevision: revision }), 3);
      expect(seen.map(brief)).toEqual(['put w/a=1', 'delete w/a', 'put w/b=2']);
    });

    it('never split a revision over batches', async () => {
      const { store } = await open();
      const watch = store.watch(prefix('w/'));
      const ops = (round: number) =>
        Array.from({ length: 100 }, (_, i) => ({ do: 'put', key: `w/${i}`, value: bytes(`${round}`) }) as const);
      for (let round = 0; round < 25; round++) await store.txn({ ops: ops(round) });
      const revisions: number[] = [];
      let events = 0;
      for await (const batch of watch) {
        const inBatch = new Set(batch.events.map((e) => (e.type === 'put' ? e.kv.modRevision : e.modRevision)));
        expect(Math.max(...inBatch)).toBeLessThanOrEqual(batch.revision);
        for (const revision of inBatch) expect(revisions).not.toContain(revision);
        revisions.push(...inBatch);
        events += batch.events.length;
        if (events === 2500) break;
      }
      expect(revisions.length).toBe(25);
    });

    it('say how far they are, also when nothing in their range happens', async () => {
      const { store } = await open();
      const watch = store.watch(prefix('w/'));
      const { revision } = await put(store, 'elsewhere', bytes('1'));
      expect(await watch.progress()).toBeGreaterThanOrEqual(revision);
      watch.cancel();
      await expect(watch.progress()).rejects.toMatchObject({ code: 'STORE_CLOSED' });
    });

    it('end when cancelled and when the store is closed', async () => {
      const { store } = await open();
      const watches = [store.watch(prefix('a')), store.watch(prefix('b'))] as const;
      const ends = watches.map((watch) => collect(watch, 1));
      watches[0].cancel();
      watches[0].cancel();
      expect(await ends[0]).toEqual([]);
      await store.close();
      expect(await ends[1]).toEqual([]);
      await expect(get(store, 'a')).rejects.toMatchObject({ code: 'STORE_CLOSED' });
    });
  });

  describe(`${name} compaction`, () => {
    it('forgets old revisions for ranges and watches and keeps what is newest', async () => {
      const { store } = await open();
      const first = await put(store, 'a', bytes('1'));
      const second = await put(store, 'a', bytes('2'));
      await remove(store, { key: 'a' });
      await put(store, 'b', bytes('3'));
      const last = await put(store, 'b', bytes('4'));
      await store.compact(second.revision);
      expect((await store.range({ key: 'a', revision: second.revision })).items.map(show)).toMatchObject([
        { value: '2' },
      ]);
      await expect(store.range({ key: 'a', revision: first.revision })).rejects.toMatchObject({
        code: 'STORE_COMPACTED',
      });
      await expect(collect(store.watch({ key: 'a', fromRevision: first.revision }), 1)).rejects.toMatchObject({
        code: 'STORE_COMPACTED',
      });
      const after = await collect(store.watch({ ...prefix(''), fromRevision: second.revision + 1 }), 3);
      expect(after.map(brief)).toEqual(['delete a', 'put b=3', 'put b=4']);
      await store.compact(last.revision);
      expect((await store.range({ key: '\u0001', end: '' })).items.map(show)).toMatchObject([{ key: 'b', value: '4' }]);
      await expect(store.compact(last.revision)).rejects.toMatchObject({ code: 'STORE_COMPACTED' });
      await expect(store.compact(last.revision + 1)).rejects.toMatchObject({ code: 'STORE_FUTURE_REVISION' });
    });
  });

  describe(`${name} leases`, () => {
    it('take their keys with them when they end, in one revision that watches see', async () => {
      const { store, advance, ttlMs } = await open();
      const { id } = await store.grant(ttlMs);
      await put(store, 'l/a', bytes('1'), id);
      await put(store, 'l/b', bytes('2'), id);
      expect((await get(store, 'l/a'))?.lease).toBe(id);
      const seen = collect(store.watch(prefix('l/')), 2);
      await advance(ttlMs * 2.5);
      const events = await seen;
      expect(events.map(brief).sort()).toEqual(['delete l/a', 'delete l/b']);
      await expect(store.keepAlive(id)).rejects.toMatchObject({ code: 'STORE_LEASE_NOT_FOUND' });
      await expect(put(store, 'l/c', bytes('3'), id)).rejects.toMatchObject({ code: 'STORE_LEASE_NOT_FOUND' });
    });

    it('live on while kept alive', async () => {
      const { store, advance, ttlMs } = await open();
      const { id } = await store.grant(ttlMs);
      await put(store, 'l', bytes('1'), id);
      for (let i = 0; i < 4; i++) {
        await advance(ttlMs / 2);
        await store.keepAlive(id);
      }
      expect(await get(store, 'l')).toBeDefined();
      await store.revoke(id);
      expect(await get(store, 'l')).toBeUndefined();
      await expect(store.revoke(id)).rejects.toMatchObject({ code: 'STORE_LEASE_NOT_FOUND' });
    });

    it('let a key go that is put again without them', async () => {
      const { store } = await open();
      const { id } = await store.grant(60_000);
      await put(store, 'l', bytes('1'), id);
      await put(store, 'l', bytes('2'));
      await store.revoke(id);
      expect(show(await get(store, 'l'))).toMatchObject({ value: '2' });
    });
  });
}

function bytes(s: string): Uint8Array {
  return Buffer.from(s);
}

function show(kv: { key: Key; value: Uint8Array } | undefined): object | undefined {
  return kv && { ...kv, value: Buffer.from(kv.value).toString() };
}

function brief(event: WatchEvent): string {
  const was = event.prev ? ` was ${Buffer.from(event.prev.value).toString()}` : '';
  if (event.type === 'delete') return `delete ${event.key}${was}`;
  return `put ${event.kv.key}=${Buffer.from(event.kv.value).toString()}${was}`;
}

async function collect(watch: Watch, count: number): Promise<WatchEvent[]> {
  const events: WatchEvent[] = [];
  const batches: AsyncIterable<WatchBatch> = watch;
  for await (const batch of batches) {
    events.push(...batch.events);
    if (events.length >= count) break;
  }
  return events;
}
