import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { FakeClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { Events } from '#engine/core/events.ts';
import { logNames, packsLogs } from '#engine/core/log-files.ts';
import { followLogs } from '#engine/core/log-follow.ts';
import { LogPacker, putPacked } from '#engine/core/log-packer.ts';
import { type LogLine, readLogs } from '#engine/core/log-reader.ts';
import type { ContainerRecord } from '#engine/core/record.ts';

const directory = mkdtempSync(join(tmpdir(), 'estiba-packer-'));
const path = join(directory, 'c.log');
const places = { path, maxFiles: 5 };
const both = { stdout: true, stderr: true };
const lines = (from: number, to: number): string =>
  Array.from({ length: to - from }, (_, i) => `2026-01-01T00:00:00Z stdout F ${from + i}\n`).join('');
const files = (): string[] => readdirSync(directory).sort();

async function read(tail?: number): Promise<number[]> {
  const seen: LogLine[] = [];
  const put = async (batch: LogLine[]) => void seen.push(...batch);
  await readLogs(places, 'cri', { ...both, ...(tail === undefined ? {} : { tail }) }, put);
  return seen.map((line) => Number(line.text));
}

beforeEach(() => {
  for (const name of files()) rmSync(join(directory, name));
});
afterAll(() => rmSync(directory, { recursive: true }));

describe('packed log files', () => {
  it('are wanted as in dockerd: local’s unless told otherwise, json-file’s when told', () => {
    const packs = (driver: string, options: Record<string, string> = {}) => packsLogs({ driver, options });
    expect([packs('local'), packs('json-file'), packs('none')]).toEqual([true, false, false]);
    expect([packs('local', { compress: 'f' }), packs('json-file', { compress: 'T' })]).toEqual([false, true]);
    expect(packs('local', { 'max-file': '1' })).toBe(false);
  });

  it('read as plain ones do, in any mixture, from the beginning and from behind', async () => {
    const shape = fc.record({
      sizes: fc.array(fc.nat(40), { minLength: 1, maxLength: 5 }),
      packed: fc.array(fc.boolean(), { minLength: 5, maxLength: 5 }),
      tail: fc.option(fc.nat(120), { nil: undefined }),
    });
    await fc.assert(
      fc.asyncProperty(shape, async ({ sizes, packed, tail }) => {
        for (const name of files()) rmSync(join(directory, name));
        let n = 0;
        for (const [i, size] of sizes.entries()) {
          const slot = sizes.length - 1 - i;
          const text = lines(n, n + size);
          n += size;
          if (slot === 0) writeFileSync(path, text);
          else if (packed[slot]) writeFileSync(`${path}.${slot}.gz`, gzipSync(text));
          else writeFileSync(`${path}.${slot}`, text);
        }
        const all = Array.from({ length: n }, (_, i) => i);
        expect(await read(tail)).toEqual(tail === undefined ? all : all.slice(Math.max(0, n - tail)));
      }),
      { numRuns: 60 },
    );
  });

  it('that come while the plain one stands do not count twice, and larger ones come whole', async () => {
    writeFileSync(`${path}.1`, lines(0, 50_000));
    writeFileSync(`${path}.1.gz`, gzipSync(lines(0, 50_000)));
    writeFileSync(path, lines(50_000, 50_001));
    expect(await read()).toHaveLength(50_001);
    rmSync(`${path}.1`);
    expect(await read()).toHaveLength(50_001);
    expect(await read(40_000)).toHaveLength(40_000);
  });

  it('that are damaged are named', async () => {
    writeFileSync(`${path}.1.gz`, gzipSync(lines(0, 1000)).subarray(0, 200));
    await expect(read()).rejects.toThrow(`${path}.1.gz is damaged`);
  });

  it('are followed across: what was added before the turn comes first, and what was turned since', async () => {
    for (const packed of [false, true]) {
      for (const name of files()) rmSync(join(directory, name));
      writeFileSync(path, lines(0, 10));
      const from = await readLogs(places, 'cri', both, async () => undefined);
      const whole = readFileSync(path, 'utf8') + lines(10, 20);
      renameSync(path, `${path}.${packed ? 'away' : 2}`); // so that its inode is not given anew
      if (packed) writeFileSync(`${path}.1.gz`, gzipSync(whole));
      else appendFileSync(`${path}.2`, lines(10, 20));
      if (!packed) writeFileSync(`${path}.1.gz`, gzipSync(lines(20, 30)));
      writeFileSync(path, lines(packed ? 20 : 30, 40));
      const seen: number[] = [];
      const source = { ...places, record: () => undefined, now: () => 0 };
      const put = async (batch: LogLine[]) => void seen.push(...batch.map((line) => Number(line.text)));
      await followLogs(source, 'cri', both, put, new AbortController().signal, from);
      expect(seen).toEqual(Array.from({ length: 30 }, (_, i) => 10 + i));
    }
  });
});

describe('the packer', () => {
  const options = { compress: 'true' };
  const record = (running: boolean) =>
    ({
      id: 'c',
      name: 'c',
      spec: { logging: { driver: 'json-file', options } },
      state: { phase: running ? 'running' : 'exited' },
    }) as unknown as ContainerRecord;
  /** As the shim turns. */
  function turn(): void {
    for (const { path: from, slot, packed } of slots()) renameSync(from, `${path}.${slot + 1}${packed ? '.gz' : ''}`);
    writeFileSync(path, lines(1_000, 1_001));
  }
  const slots = () =>
    files()
      .map((name) => ({
        path: join(directory, name),
        slot: Number(name.split('.')[2] ?? 0),
        packed: name.endsWith('.gz'),
      }))
      .filter(({ path: at }) => at.startsWith(path))
      .sort((a, b) => b.slot - a.slot);

  const made: LogPacker[] = [];
  afterAll(() => Promise.all(made.map((packer) => packer.close())));
  async function packer(of: ContainerRecord, beforeTaking: () => void = () => undefined): Promise<LogPacker> {
    const it = new LogPacker({
      records: { list: () => [of], get: (id) => (id === of.id ? of : undefined) },
      logPath: () => path,
      shim: async () =>
        of.state.phase !== 'running'
          ? undefined
          : {
              takePackedLog: async (inode, packed) => {
                beforeTaking();
                return putPacked(inode, packed, places);
              },
              close: () => undefined,
            },
      scratch: join(directory, 'scratch'),
      events: new Events(() => 0n),
      clock: new FakeClock(),
      log: logger('engine', silentSink),
    });
    made.push(it);
    await it.begin();
    return it;
  }

  it('packs what was turned, running or not, with the time of the last line, and leaves nothing else', async () => {
    for (const running of [true, false]) {
      for (const name of files()) rmSync(join(directory, name));
      writeFileSync(path, lines(20, 30));
      writeFileSync(`${path}.1`, lines(10, 20));
      writeFileSync(`${path}.2`, lines(0, 10));
      const { mtimeMs } = statSync(`${path}.1`);
      await (await packer(record(running))).look();
      expect(files()).toEqual(['c.log', 'c.log.1.gz', 'c.log.2.gz']);
      expect(gunzipSync(readFileSync(`${path}.1.gz`)).toString()).toBe(lines(10, 20));
      expect(Math.abs(statSync(`${path}.1.gz`).mtimeMs - mtimeMs)).toBeLessThan(2);
      expect(statSync(`${path}.1.gz`).mode & 0o777).toBe(0o640);
      expect(await read()).toEqual(Array.from({ length: 30 }, (_, i) => i));
    }
  });

  it('finds the file where it is when the shim has turned meanwhile, and drops what has fallen away', async () => {
    writeFileSync(path, lines(10, 20));
    writeFileSync(`${path}.1`, lines(0, 10));
    let turns = 1;
    const it = await packer(record(true), () => {
      for (; turns > 0; turns--) turn();
    });
    await it.look();
    expect(files()).toEqual(['c.log', 'c.log.1', 'c.log.2.gz']);
    expect(await read()).toEqual([...Array(20).keys(), 1_000]);
    turns = 4; // of five files none of those is left
    await it.look();
    expect((await logNames(places)).filter(({ packed }) => packed)).toEqual([]);
    expect(files()).not.toContain('scratch');
  });

  it('tries again after a failure when the container has ended', async () => {
    writeFileSync(`${path}.1`, lines(0, 10));
    let failures = 1;
    const it = await packer(record(true), () => {
      if (failures-- > 0) throw new Error('no');
    });
    await it.look();
    await it.look();
    expect(files()).toContain('c.log.1');
    const after = await packer(record(false));
    await after.look();
    expect(files()).toEqual(['c.log.1.gz']);
  });
});
