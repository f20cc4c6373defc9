import type { Clock } from '#base/clock.ts';
import { LocalStore } from '#storage/local.ts';
import type { Store } from '#storage/store.ts';

/** The driver for tests and the simulation: the same index and rules as the embedded driver, and nothing outlives it. */
export function memoryStore(clock: Clock): Store {
  let usedBytes = 0;
  return new LocalStore<Uint8Array>({
    clock,
    journal: {
      append(record) {
        if (record.kind !== 'change') return [];
        return record.entries.map(({ value }) => {
          usedBytes += value?.length ?? 0;
          return value?.slice();
        });
      },
      synced: () => Promise.resolve(),
      written: () => undefined,
      read: (bytes) => bytes,
      hold: () => () => undefined,
      forget: (version) => {
        usedBytes -= version.ref?.length ?? 0;
      },
      usage: () => ({ usedBytes, limitBytes: Number.MAX_SAFE_INTEGER }),
      close: () => Promise.resolve(),
    },
  });
}
