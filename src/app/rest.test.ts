import { expect, test } from 'vitest';
import { collectAtRest, ownHeap } from '#app/rest.ts';
import { FakeClock } from '#base/clock.ts';

const MIB = 1024 * 1024;

function daemon() {
  const clock = new FakeClock();
  const seen = { cpuMs: 0, heapBytes: 20 * MIB, collected: 0 };
  const end = collectAtRest({
    clock,
    cpuMs: () => seen.cpuMs,
    heapBytes: () => seen.heapBytes,
    collect: () => {
      seen.collected++;
      seen.heapBytes = 15 * MIB;
    },
  });
  return { clock, seen, end };
}

test('what work left is collected once, when the work is done', async () => {
  const { clock, seen, end } = daemon();
  for (let second = 0; second < 30; second++) {
    seen.cpuMs += 100; // it works
    await clock.advance(1_000);
  }
  expect(seen.collected).toBe(0);
  await clock.advance(20_000);
  expect(seen.collected).toBe(1);
  await clock.advance(600_000);
  expect(seen.collected).toBe(1);
  end();
});

test('a little garbage is left alone, more is collected at the next rest', async () => {
  const { clock, seen, end } = daemon();
  await clock.advance(20_000);
  seen.heapBytes += 1000;
  await clock.advance(60_000);
  expect(seen.collected).toBe(1);
  seen.heapBytes += 5 * MIB;
  await clock.advance(20_000);
  expect(seen.collected).toBe(2);
  end();
  seen.heapBytes += 5 * MIB;
  await clock.advance(60_000);
  expect(seen.collected).toBe(2);
});

test('this process’s heap can be collected', () => {
  const { collect, heapBytes } = ownHeap();
  let garbage: object[] | undefined = Array.from({ length: 200_000 }, (_, i) => ({ i }));
  const full = heapBytes();
  expect(garbage.length).toBe(200_000);
  garbage = undefined;
  collect();
  expect(heapBytes()).toBeLessThan(full - 2 * MIB);
});
