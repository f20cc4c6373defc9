import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { FakeClock, systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { storeConformance } from '#storage/conformance.ts';
import { type EmbeddedOptions, type EmbeddedStore, openEmbedded, restoreEmbedded } from '#storage/embedded.ts';
import { get, prefix, put, remove, type Store } from '#storage/store.ts';

const directories: string[] = [];
const stores: EmbeddedStore[] = [];

async function scratch(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'estiba-image-store-'));
  directories.push(directory);
  return directory;
}

async function open(directory: string, options: Partial<EmbeddedOptions> = {}): Promise<EmbeddedStore> {
  const store = await openEmbedded(directory, {
    clock: new FakeClock(),
    log: logger('storage', silentSink),
    ...options,
  });
  stores.push(store);
  return store;
}

afterEach(async () => {
  for (const store of stores.splice(0)) await store.close().catch(() => undefined); // some tests break it
  for (const directory of directories.splice(0)) await rm(directory, { recursive: true, force: true });
});

storeConformance('the embedded driver', async () => {
  const clock = new FakeClock();
  const store = await open(await scratch(), { clock, rewriteBytes: 200_000 });
  return { store, ttlMs: 1000, advance: (ms) => clock.advance(ms), dispose: () => store.close() };
});

describe('the embedded driver, opened again', () => {
  it('has all keys, history, leases, revisions and compactions', async () => {
    const directory = await scratch();
    const first = await open(directory);
    await put(first, 'a', bytes('1'));
    const { revision } = await put(first, 'a', bytes('2'));
    await remove(first, { key: 'a' });
    const { id } = await first.grant(5000);
    await put(first, 'leased', bytes('x'), id);
    await first.compact(revision);
    const before = await first.status();
    await first.close();

    const clock = new FakeClock();
    const second = await open(directory, { clock });
    expect(await second.status()).toEqual(before);
    expect(text((await second.range({ key: 'a', revision })).items[0]?.value)).toBe('2');
    await expect(second.range({ key: 'a', revision: revision - 1 })).rejects.toMatchObject({ code: 'STORE_COMPACTED' });
    await clock.advance(5001);
    await second.txn({ ops: [] }); // waits until the lease's end is durable
    expect(await get(second, 'leased')).toBeUndefined();
    expect(Number((await second.grant(1000)).id)).toBeGreaterThan(Number(id));
  });

  it('is held by one process at a time, and by nobody after a crash', async () => {
    const directory = await scratch();
    const store = await open(directory);
    await expect(open(directory)).rejects.toMatchObject({
      code: 'STORE_LOCKED',
      data: { holder: String(process.pid) },
    });
    await store.close();
    await writeFile(join(directory, 'LOCK'), '1 999999999999\n'); // pid 1 lives, but it started at another time
    await open(directory);
  });
});

describe('a log cut at any byte', () => {
  it('gives back exactly the transactions that were whole by then', async () => {
    const directory = await scratch();
    const store = await open(directory);
    const log = join(directory, '00000001.log');
    const ends: { bytes: number; revision: number }[] = [{ bytes: 0, revision: 1 }];
    for (let i = 0; i < 7; i++) {
      const { revision } = await store.txn({
        ops: [
          { do: 'put', key: `k${i % 4}`, value: bytes(`value ${i}`) },
          i % 3 === 2 ? { do: 'delete', key: `k${(i + 1) % 4}` } : { do: 'put', key: `é${i}`, value: bytes('') },
        ],
      });
      ends.push({ bytes: (await stat(log)).size, revision });
    }
    const whole = await dump(store);
    await store.close();
    const size = ends.at(-1)?.bytes ?? 0;
    const copy = await scratch();
    for (let cut = 0; cut <= size; cut++) {
      const at = join(copy, String(cut));
      await mkdir(at);
      await copyFile(log, join(at, '00000001.log'));
      await truncate(join(at, '00000001.log'), cut);
      const opened = await open(at);
      const expected = ends.findLast((e) => e.bytes <= cut)?.revision ?? 0;
      expect((await opened.status()).revision).toBe(expected);
      expect(await dump(opened)).toEqual(whole.filter((_, r) => r < expected));
      // It goes on from there, and what is written then is there after the next opening.
      await put(opened, 'after', bytes('cut'));
      await opened.close();
      const again = await open(at);
      expect(text((await get(again, 'after'))?.value)).toBe('cut');
      expect((await again.status()).revision).toBe(expected + 1);
      await again.close();
      await rm(at, { recursive: true });
    }
  }, 60_000);

  it('a flipped byte in what was acknowledged is damage, never silence', async () => {
    const directory = await scratch();
    const store = await open(directory);
    for (let i = 0; i < 3; i++) await put(store, `k${i}`, bytes(`value ${i}`));
    await store.close();
    const log = join(directory, '00000001.log');
    const original = await readFile(log);
    for (let at = 0; at < original.length - 19; at++) {
      const damaged = Buffer.from(original);
      damaged[at] = (damaged[at] ?? 0) ^ 0x10;
      await writeFile(log, damaged);
      await expect(open(directory), `byte ${at}`).rejects.toMatchObject({ code: 'STORE_CORRUPT' });
      expect((await readFile(log)).equals(damaged)).toBe(true);
    }
  });

  it('a missing log file is damage', async () => {
    const directory = await scratch();
    const store = await open(directory, { rewriteBytes: 1 << 30 });
    await put(store, 'a', bytes('1'));
    await store.close();
    await copyFile(join(directory, '00000001.log'), join(directory, '00000003.log'));
    await expect(open(directory)).rejects.toMatchObject({ code: 'STORE_CORRUPT' });
  });
});

describe('rewriting the log', () => {
  it('keeps the files near the size of what lives, and everything readable meanwhile', async () => {
    const directory = await scratch();
    const store = await open(directory, { rewriteBytes: 30_000, keepRevisions: 100 });
    const watch = store.watch(prefix('k/'));
    const writing = (async () => {
      for (let i = 0; i < 3000; i++) await put(store, `k/${i % 50}`, bytes(`${i} ${'x'.repeat(100)}`));
    })();
    let seen = 0;
    for await (const batch of watch) {
      for (const event of batch.events)
        if (event.type === 'put') expect(text(event.kv.value).split(' ')[0]).toBe(String(seen++));
      if (seen === 3000) break;
    }
    await writing;
    await store.idle();
    const before = await dump(store);
    await store.close();
    const sizes = await Promise.all((await readdir(directory)).map(async (n) => (await stat(join(directory, n))).size));
    expect(sizes.reduce((a, b) => a + b, 0)).toBeLessThan(150_000);
    expect(await dump(await open(directory))).toEqual(before);
  });

  it('comes sooner when nothing is written for a second', async () => {
    const directory = await scratch();
    const clock = new FakeClock();
    const store = await open(directory, { clock, restBytes: 10_000 });
    for (let i = 0; i < 100; i++) await put(store, `k/${i % 10}`, bytes(`${i} ${'x'.repeat(100)}`));
    await clock.advance(999);
    await put(store, 'k/0', bytes('again'));
    await clock.advance(1);
    await store.idle();
    expect(await readdir(directory)).not.toContain('00000001.base');
    await clock.advance(1_000);
    await store.idle();
    expect((await readdir(directory)).sort()).toEqual(['00000001.base', '00000002.log', 'LOCK']);
    const before = await dump(store);
    await store.close();
    const again = await open(directory, { clock, restBytes: 10_000 });
    expect(await dump(again)).toEqual(before);
  });

  it('of what a killed writer left comes a second after the next start', async () => {
    const directory = await scratch();
    const first = await open(directory);
    for (let i = 0; i < 100; i++) await put(first, `k/${i % 10}`, bytes(`${i} ${'x'.repeat(100)}`));
    await first.close();
    const clock = new FakeClock();
    const store = await open(directory, { clock, restBytes: 10_000 });
    await clock.advance(1_000);
    await store.idle();
    expect(await readdir(directory)).toContain('00000001.base');
  });

  it('a crash between any two of its file operations loses nothing', async () => {
    const directory = await scratch();
    const store = await open(directory);
    for (let i = 0; i < 20; i++) await put(store, `k${i % 7}`, bytes(`${i}`));
    const backup = join(await scratch(), 'base');
    await store.backup(backup);
    const before = await dump(store);
    await store.close();
    const log = join(directory, '00000001.log');
    const states: [string, string][][] = [
      [
        [log, '00000001.log'],
        ['', '00000002.log'],
      ], // new log made
      [
        [log, '00000001.log'],
        ['', '00000002.log'],
        [backup, '.tmp-1234'],
      ], // base being written
      [
        [log, '00000001.log'],
        ['', '00000002.log'],
        [backup, '00000001.base'],
      ], // base named, old log still there
      [
        ['', '00000002.log'],
        [backup, '00000001.base'],
      ], // old log gone
    ];
    for (const files of states) {
      const at = await scratch();
      for (const [from, to] of files) await (from === '' ? writeFile(join(at, to), '') : copyFile(from, join(at, to)));
      const opened = await open(at);
      expect(await dump(opened)).toEqual(before);
      expect((await readdir(at)).filter((n) => n.startsWith('.tmp'))).toEqual([]);
      await opened.close();
    }
  });
});

describe('bounds', () => {
  it('a full store refuses puts, says so, takes deletes, and lives on after a compaction', async () => {
    const store = await open(await scratch(), { limitBytes: 20_000 });
    const fill = async (): Promise<void> => {
      for (let i = 0; i < 100; i++) await put(store, `k${i}`, new Uint8Array(1000));
    };
    await expect(fill()).rejects.toMatchObject({ code: 'STORE_FULL', data: { limitBytes: 20_000 } });
    expect(await remove(store, prefix('k'))).toBeGreaterThan(10);
    await expect(put(store, 'k', bytes('1'))).rejects.toMatchObject({ code: 'STORE_FULL' });
    await store.compact((await store.status()).revision);
    await put(store, 'k', bytes('1'));
    expect((await store.status()).usedBytes).toBeLessThan(1000);
  });

  it('backup and restore carry everything, history included', async () => {
    const directory = await scratch();
    const store = await open(directory);
    for (let i = 0; i < 30; i++) await put(store, `k${i % 5}`, bytes(`${i}`));
    const file = join(await scratch(), 'backup');
    const writing = Promise.all(Array.from({ length: 50 }, (_, i) => put(store, `later${i}`, bytes('x'))));
    const { revision } = await store.backup(file);
    await writing;
    const target = join(await scratch(), 'new');
    await restoreEmbedded(file, target);
    const restored = await open(target);
    expect((await restored.status()).revision).toBe(revision);
    expect(await dump(restored)).toEqual((await dump(store)).filter((_, r) => r < revision));
    await expect(restoreEmbedded(file, directory)).rejects.toMatchObject({ code: 'STORE_LOCKED' });
  });
});

describe('any sequence of transactions', () => {
  it('gives the same as a plain map, now, in the past and after opening again', async () => {
    const op = fc.oneof(
      fc.record({ do: fc.constant('put' as const), key: fc.constantFrom('a', 'b', 'c/1', 'c/2'), value: fc.string() }),
      fc.record({ do: fc.constant('delete' as const), key: fc.constantFrom('a', 'b', 'c/1') }),
      fc.record({ do: fc.constant('deleteAll' as const), key: fc.constantFrom('c/', 'a') }),
      fc.record({ do: fc.constant('reopen' as const), key: fc.constant('') }),
      fc.record({ do: fc.constant('compact' as const), key: fc.constant('') }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(op, { maxLength: 30 }), async (steps) => {
        const directory = await scratch();
        let store = await open(directory, { rewriteBytes: 500 });
        let model = new Map<string, string>();
        const past = new Map<number, Map<string, string>>();
        for (const step of steps) {
          if (step.do === 'reopen') {
            await store.close();
            store = await open(directory, { rewriteBytes: 500 });
          } else if (step.do === 'compact') {
            const { revision, compactedRevision } = await store.status();
            if (revision > compactedRevision) await store.compact(revision);
            for (const r of past.keys()) if (r < revision) past.delete(r);
          } else if (step.do === 'put') {
            await put(store, step.key, bytes(step.value));
            model = new Map(model).set(step.key, step.value);
          } else {
            await remove(store, step.do === 'delete' ? { key: step.key } : prefix(step.key));
            model = new Map(
              [...model].filter(([k]) => (step.do === 'delete' ? k !== step.key : !k.startsWith(step.key))),
            );
          }
          past.set((await store.status()).revision, model);
        }
        for (const [revision, then] of past) expect(await content(store, revision)).toEqual(sorted(then));
        await store.close();
      }),
      { numRuns: 60 },
    );
  }, 60_000);
});

describe('a lazy transaction', () => {
  it('is in the file when it is answered, and seen once it is synced: by the next that is not lazy, or after a while', async () => {
    const directory = await scratch();
    const clock = new FakeClock();
    const store = await open(directory, { clock });
    const lazily = (key: string, value: string): Promise<unknown> =>
      store.txn({ ops: [{ do: 'put', key, value: bytes(value) }], lazy: true });
    await lazily('a', 'written before anybody waits');
    const log = (await readdir(directory)).find((name) => name.endsWith('.log')) ?? '';
    expect(await readFile(join(directory, log), 'utf8')).toContain('written before anybody waits');
    expect(await get(store, 'a')).toBeUndefined();
    await put(store, 'b', bytes('2'));
    expect((await get(store, 'a'))?.modRevision).toBe(2);
    await lazily('a', 'again');
    clock.advance(1_000);
    await expect.poll(async () => text((await get(store, 'a'))?.value)).toBe('again');
  });
});

describe('kill -9', () => {
  it('of a writer with eight hands loses nothing it had acknowledged', async () => {
    const directory = await scratch();
    const script = join(await scratch(), 'writer.mjs');
    const source = new URL('./fixtures/writer.ts', import.meta.url).pathname;
    await build({
      entryPoints: [source],
      outfile: script,
      bundle: true,
      platform: 'node',
      format: 'esm',
      logLevel: 'error',
    });
    const acknowledged = new Map<string, number>();
    for (let round = 0; round < 4; round++) {
      const child = spawn(process.execPath, [script, directory, String(round * 100_000)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await killAfter(child, 150 + round * 90, acknowledged);
      const store = await openEmbedded(directory, { clock: systemClock });
      for (const [key, i] of acknowledged) {
        const value = Number(text((await get(store, key))?.value).replaceAll('.', ''));
        expect(value, key).toBeGreaterThanOrEqual(i);
      }
      await store.close();
    }
    expect(acknowledged.size).toBe(160);
  }, 60_000);
});

async function killAfter(child: ChildProcess, ms: number, acknowledged: Map<string, number>): Promise<void> {
  let rest = '';
  let lines = 0;
  child.stdout?.on('data', (chunk: Buffer) => {
    const all = (rest + chunk.toString()).split('\n');
    rest = all.pop() ?? '';
    for (const line of all) {
      const [w, i] = line.split(' ');
      acknowledged.set(`w/${w}/${Number(i) % 20}`, Number(i));
      if (++lines === 400) setTimeout(() => child.kill('SIGKILL'), ms);
    }
  });
  await once(child, 'close');
}

/** Every revision's keys, from the oldest that can be read. */
async function dump(store: Store): Promise<string[][]> {
  const { revision, compactedRevision } = await store.status();
  const result: string[][] = [];
  for (let r = Math.max(1, compactedRevision); r <= revision; r++) result.push(await content(store, r));
  return result;
}

async function content(store: Store, revision: number): Promise<string[]> {
  const { items } = await store.range({ key: '\u0001', end: '', revision });
  return items.map((kv) => `${kv.key}=${text(kv.value)}`);
}

function sorted(map: Map<string, string>): string[] {
  return [...map].map(([k, v]) => `${k}=${v}`).sort();
}

function bytes(s: string): Uint8Array {
  return Buffer.from(s);
}

function text(value: Uint8Array | undefined): string {
  return value === undefined ? '' : Buffer.from(value).toString();
}
