import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { Events, eventMatches } from '#engine/core/events.ts';
import { afterProbe, HEALTH_START, probeArgv, probeDelayMs } from '#engine/core/health.ts';
import { type LogFormat, type LogLine, type LogWish, parseLines, readLogs } from '#engine/core/log-reader.ts';
import { FRESH_STATE, type HealthState } from '#engine/core/record.ts';
import { afterExit, restartDelayMs, startsWithDaemon } from '#engine/core/restart.ts';
import type { HealthSpec, RestartPolicy } from '#engine/core/spec.ts';
import { parseFilters } from '#spec/docker/filters.ts';

const policy = (name: RestartPolicy['name'], maxRetries = 0): RestartPolicy => ({
  name,
  maxRetries,
  onUnhealthy: false,
});

describe('restart policies', () => {
  it.each([
    ['no', 1, 0, false],
    ['on-failure', 0, 0, false],
    ['on-failure', 1, 0, true],
    ['always', 0, 99, true],
    ['unless-stopped', 0, 99, true],
  ] as const)('%s after exit code %d and %d restarts: %s', (name, code, restartCount, restart) => {
    expect(afterExit(policy(name), { ...FRESH_STATE, restartCount }, { code, ranMs: 0 }).restart).toBe(restart);
  });

  it('stop at their limit and when somebody stopped the container', () => {
    expect(
      afterExit(policy('on-failure', 3), { ...FRESH_STATE, restartCount: 3 }, { code: 1, ranMs: 0 }),
    ).toMatchObject({ restart: false, why: expect.stringContaining('3 times') });
    expect(afterExit(policy('always'), { ...FRESH_STATE, stoppedByHand: true }, { code: 1, ranMs: 0 }).restart).toBe(
      false,
    );
  });

  it('wait twice as long each time, never more than a minute, and start over after a good run', () => {
    expect([0, 1, 2, 3].map((n) => restartDelayMs(n, 0))).toEqual([100, 200, 400, 800]);
    expect(restartDelayMs(1_000, 0)).toBe(60_000);
    expect(restartDelayMs(50, 10_000)).toBe(100);
  });

  it('bring back after a reboot what wanted to run', () => {
    const was = { ...FRESH_STATE, phase: 'running' as const };
    const stopped = { ...FRESH_STATE, phase: 'exited' as const, stoppedByHand: true };
    expect(
      ['no', 'on-failure', 'always', 'unless-stopped'].map((n) =>
        startsWithDaemon(policy(n as RestartPolicy['name']), was),
      ),
    ).toEqual([false, true, true, true]);
    expect(
      ['always', 'unless-stopped'].map((n) => startsWithDaemon(policy(n as RestartPolicy['name']), stopped)),
    ).toEqual([true, false]);
    expect(startsWithDaemon(policy('always'), { ...FRESH_STATE, phase: 'created' })).toBe(false);
  });
});

describe('health', () => {
  const check: HealthSpec = {
    test: ['CMD-SHELL', 'ok'],
    intervalNs: 30e9,
    timeoutNs: 1e9,
    startPeriodNs: 10e9,
    startIntervalNs: 2e9,
    retries: 3,
  };
  const run = (codes: number[], sinceStartMs: number, from: HealthState = HEALTH_START): HealthState =>
    codes.reduce(
      (state, exitCode) => afterProbe(check, state, { startMs: 0, endMs: 1, exitCode, output: '' }, sinceStartMs),
      from,
    );

  it('is unhealthy after as many failures in a row as the check says, and healthy after one success', () => {
    expect(run([1, 1], 60_000).status).toBe('starting');
    expect(run([1, 1, 1], 60_000)).toMatchObject({ status: 'unhealthy', failingStreak: 3 });
    expect(run([1, 1, 0, 1, 1], 60_000)).toMatchObject({ status: 'healthy', failingStreak: 2 });
  });

  it('does not count failures in the start period, until it was healthy once', () => {
    expect(run([1, 1, 1, 1], 5_000)).toMatchObject({ status: 'starting', failingStreak: 0 });
    expect(run([0, 1, 1, 1], 5_000).status).toBe('unhealthy');
  });

  it('keeps the last five results, probes closer together at first, and cuts long output', () => {
    expect(run([0, 0, 0, 0, 0, 0, 0], 0).log).toHaveLength(5);
    expect([probeDelayMs(check, HEALTH_START, 5_000), probeDelayMs(check, HEALTH_START, 20_000)]).toEqual([
      2_000, 30_000,
    ]);
    expect(
      afterProbe(check, HEALTH_START, { startMs: 0, endMs: 0, exitCode: 0, output: 'x'.repeat(9_999) }, 0).log[0]
        ?.output,
    ).toHaveLength(4097);
    expect(probeArgv(check)).toEqual(['/bin/sh', '-c', 'ok']);
  });
});

describe('events', () => {
  const event = {
    type: 'container' as const,
    action: 'exec_create: sh -c x',
    id: 'abc123',
    attributes: { name: 'web', image: 'nginx', tier: 'front' },
  };
  const matches = (filters: object): boolean =>
    eventMatches(parseFilters(JSON.stringify(filters)), { ...event, atNs: 0n });

  it.each([
    [{ type: ['container'] }, true],
    [{ type: ['image'] }, false],
    [{ event: ['exec_create'] }, true],
    [{ event: ['exec'] }, false],
    [{ container: ['web'] }, true],
    [{ container: ['abc'] }, true],
    [{ container: ['other'] }, false],
    [{ image: ['nginx'] }, true],
    [{ image: ['reg:5000/nginx'] }, false],
    [{ container: ['web'], image: ['nginx'] }, true],
    [{ container: ['web'], image: ['other'] }, false],
    [{ image: ['other'] }, false],
    [{ label: ['tier=front', 'name'] }, true],
    [{ label: ['tier=back'] }, false],
  ])('%j: %s', (filters, expected) => expect(matches(filters)).toBe(expected));

  it('are kept for those who ask later, with a bound', () => {
    let now = 0n;
    const events = new Events(() => ++now);
    const seen: string[] = [];
    const end = events.subscribe((e) => seen.push(e.action));
    for (let i = 0; i < 1_200; i++) events.publish({ ...event, action: String(i) });
    end();
    events.publish(event);
    expect(seen).toHaveLength(1_200);
    expect(events.since(0n, 2_000n)).toHaveLength(1_000);
    expect(events.since(1_199n, 1_200n).map((e) => e.action)).toEqual(['1198', '1199']);
  });
});

describe('reading logs', () => {
  const directory = mkdtempSync(join(tmpdir(), 'estiba-logs-'));
  afterAll(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'c.log');
  const all: LogWish = { stdout: true, stderr: true };

  const stamp = (i: number): string => new Date(Date.UTC(2026, 0, 1) + i * 1000).toISOString();
  const json = (i: number, log: string, stream = 'stdout'): string =>
    `${JSON.stringify({ log, stream, time: stamp(i) })}\n`;

  async function read(wish: LogWish, format: LogFormat = 'json'): Promise<string[]> {
    const lines: LogLine[] = [];
    await readLogs({ path, maxFiles: 3 }, format, wish, async (batch) => void lines.push(...batch));
    return lines.map((l) => `${l.stream[3]}:${l.text.toString()}`);
  }

  it('goes through rotated files in order', async () => {
    writeFileSync(`${path}.1`, json(0, 'a\n') + json(1, 'b\n', 'stderr'));
    writeFileSync(path, `${json(2, 'c "quoted"\té\n')}${json(3, 'd')}{"log":"torn`);
    expect(await read(all)).toEqual(['o:a\n', 'e:b\n', 'o:c "quoted"\té\n', 'o:d']);
    expect(await read({ stdout: true, stderr: false })).toHaveLength(3);
    expect(await read({ ...all, since: new Date(stamp(1)), until: new Date(stamp(2)) })).toEqual([
      'e:b\n',
      'o:c "quoted"\té\n',
    ]);
  });

  it('finds the last lines from behind, across files', async () => {
    writeFileSync(`${path}.1`, json(0, 'a\n') + json(1, 'b\n'));
    writeFileSync(path, json(2, 'c\n') + json(3, 'd\n'));
    expect(await read({ ...all, tail: 3 })).toEqual(['o:b\n', 'o:c\n', 'o:d\n']);
    expect(await read({ ...all, tail: 1 })).toEqual(['o:d\n']);
    expect(await read({ ...all, tail: 99 })).toHaveLength(4);
    expect(await read({ ...all, tail: 0 })).toEqual([]);
    writeFileSync(path, '');
    expect(await read({ ...all, tail: 1 })).toEqual(['o:b\n']);
  });

  it('reads the CRI form, cut lines and all', async () => {
    rmSync(`${path}.1`);
    writeFileSync(path, `${stamp(0)} stdout P long\n${stamp(0)} stdout F  end\n${stamp(1)} stderr F \n`);
    expect(await read(all, 'cri')).toEqual(['o:long', 'o: end\n', 'e:\n']);
  });

  it('gives back any text that was written, in both ways of parsing', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.constantFrom('stdout', 'stderr'), (text, stream) => {
        const line = json(0, text, stream);
        const spaced = `${JSON.stringify({ stream, time: stamp(0), log: text })}\n`;
        for (const bytes of [line, spaced].map((l) => Buffer.from(l))) {
          expect(parseLines(bytes, 'json')).toEqual([{ stream, time: stamp(0), text: Buffer.from(text) }]);
        }
      }),
    );
  });
});
