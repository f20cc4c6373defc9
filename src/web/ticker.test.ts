import { describe, expect, it } from 'vitest';
import { FakeClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { Ticker } from '#web/ticker.ts';

describe('looks at an interval', () => {
  it('are made for all who want to know together, and by nobody for nobody', async () => {
    const clock = new FakeClock();
    let looks = 0;
    const ticker = new Ticker({ clock, everyMs: 2_000, look: () => ++looks, log: logger('web', silentSink) });
    const seen: number[][] = [[], []];
    const stops = seen.map((list) => ticker.subscribe((look) => list.push(look)));
    await clock.advance(4_000);
    expect(seen).toEqual([
      [1, 3, 4],
      [2, 3, 4],
    ]);
    for (const stop of stops) stop();
    expect(clock.nextAt()).toBeUndefined();
    await clock.advance(10_000);
    expect(looks).toBe(4);
  });

  it('go on after one that failed', async () => {
    const clock = new FakeClock();
    const looks = [() => 1, () => fail(), () => 3];
    const look = (): number => looks.shift()?.() ?? 0;
    const seen: number[] = [];
    new Ticker({ clock, everyMs: 1_000, look, log: logger('web', silentSink) }).subscribe((n) => seen.push(n));
    await clock.advance(2_000);
    expect(seen).toEqual([1, 3]);
  });
});

function fail(): never {
  throw new Error('the kernel said no');
}
