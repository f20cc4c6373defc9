import { expect, it } from 'vitest';
import { Chores } from '#base/chores.ts';
import { FakeClock } from '#base/clock.ts';

function setUp(): { clock: FakeClock; chores: Chores; done: number[]; add: (n: number) => () => void } {
  const clock = new FakeClock();
  const chores = new Chores(clock);
  const done: number[] = [];
  const add = (n: number): (() => void) => chores.add(async () => void done.push(n));
  return { clock, chores, done, add };
}

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

it('chores are done in their order once nobody has come for a while', async () => {
  const { clock, chores, done, add } = setUp();
  add(1);
  add(2);
  await clock.advance(10);
  chores.stir();
  await clock.advance(10);
  await settle();
  expect(done).toEqual([]);
  await clock.advance(10);
  await settle();
  expect(done).toEqual([1, 2]);
});

it('where nobody ever pauses, the oldest are done when too many wait', async () => {
  const { done, add } = setUp();
  for (let n = 0; n < 10; n++) add(n);
  await settle();
  expect(done).toEqual([0, 1]);
});

it('who asks for it finds all of them done, one after the other', async () => {
  const { chores, done, add } = setUp();
  let open: () => void = () => undefined;
  chores.add(() => new Promise<void>((resolve) => (open = resolve)));
  add(1);
  const flushed = chores.flush().then(() => done.push(2));
  await settle();
  expect(done).toEqual([]);
  open();
  await flushed;
  expect(done).toEqual([1, 2]);
});

it('none waits for ever where somebody comes all the time', async () => {
  const { clock, chores, done, add } = setUp();
  add(1);
  for (let ms = 0; ms < 1_100; ms += 10) {
    await clock.advance(10);
    chores.stir();
  }
  await settle();
  expect(done).toEqual([1]);
});

it('who needs one of them done has that done at once, and once', async () => {
  const { clock, done, add } = setUp();
  add(1);
  const hurry = add(2);
  hurry();
  expect(done).toEqual([2]);
  hurry();
  await clock.advance(20);
  await settle();
  expect(done).toEqual([2, 1]);
});
