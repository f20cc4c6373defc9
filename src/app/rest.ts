import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Clock } from '#base/clock.ts';

/**
 * Gives memory back when the work is done. V8 collects when a heap has grown, so what the last requests left (some hundred KiB for each
 * container that they made) would lie in an idle daemon for good; one collection at rest takes it, and then V8's own memory reducer lets
 * the emptied pages go. It stops the event loop for some ten milliseconds, at a time when nobody waits.
 */
export interface RestOptions {
  clock: Clock;
  /** CPU time of this process so far, of all its threads. */
  cpuMs: () => number;
  heapBytes: () => number;
  collect: () => void;
}

/** Long enough for V8 to see that little is allocated: only then it shrinks the space that new objects are made in. */
const LOOK_EVERY_MS = 10_000;
/** As little work as a resting daemon has, with a cluster's too: 2 % of a core. */
const REST_CPU_MS = 200;
/** Less is not worth a collection. */
const WORTH_BYTES = 1024 * 1024;

/** Returns what ends it. */
export function collectAtRest({ clock, cpuMs, heapBytes, collect }: RestOptions): () => void {
  let cpu = cpuMs();
  let leftBytes = 0;
  let cancel = clock.after(LOOK_EVERY_MS, look);
  function look(): void {
    const rests = cpuMs() - cpu < REST_CPU_MS;
    if (rests && heapBytes() - leftBytes > WORTH_BYTES) {
      collect();
      leftBytes = heapBytes();
    }
    cpu = cpuMs();
    cancel = clock.after(LOOK_EVERY_MS, look);
  }
  return () => cancel();
}

/** This process's own. */
export function ownHeap(): Omit<RestOptions, 'clock'> {
  let collect: (() => void) | undefined;
  return {
    cpuMs: () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1000;
    },
    heapBytes: () => process.memoryUsage().heapUsed,
    collect: () => {
      collect ??= collector();
      collect();
    },
  };
}

/** Node.js shows V8's `gc` to contexts that are made after the flag alone. */
function collector(): () => void {
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
  setFlagsFromString('--no-expose-gc');
  return collect;
}
