import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FakeClock, systemClock } from '#base/clock.ts';
import { contentStoreConformance } from '#image/content-conformance.ts';
import { DiskContentStore } from '#image/content-disk.ts';
import { MemoryContentStore } from '#image/content-memory.ts';

contentStoreConformance('memory', async () => {
  const store = new MemoryContentStore(new FakeClock());
  return {
    store,
    flip: async (digest) => {
      const bytes = store.raw(digest);
      bytes[5] = (bytes[5] ?? 0) ^ 1;
    },
    dispose: async () => undefined,
  };
});

contentStoreConformance('disk', async () => {
  const root = await mkdtemp(join(tmpdir(), 'estiba-image-content-'));
  const store = await DiskContentStore.open(root, systemClock);
  return {
    store,
    reopen: () => DiskContentStore.open(root, systemClock),
    flip: async (digest) => {
      const bytes = await readFile(store.pathOf(digest));
      bytes[5] = (bytes[5] ?? 0) ^ 1;
      await writeFile(store.pathOf(digest), bytes);
    },
    dispose: () => rm(root, { recursive: true, force: true }),
  };
});
