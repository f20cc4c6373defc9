import { FakeClock } from '#base/clock.ts';
import { storeConformance } from '#storage/conformance.ts';
import { memoryStore } from '#storage/memory.ts';

storeConformance('the in-memory driver', async () => {
  const clock = new FakeClock();
  const store = memoryStore(clock);
  return { store, ttlMs: 1000, advance: (ms) => clock.advance(ms), dispose: () => store.close() };
});
