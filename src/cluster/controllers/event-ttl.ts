import { DONE, type Requeue } from '#cluster/client/queue.ts';
import { EVENTS, type Live } from '#cluster/client/resources.ts';
import type { Event } from '#spec/kubernetes/types.gen.ts';
import { again, type ControllerDeps, millis, onSelf, type Reconciler, reconciler } from './loop.ts';

export const EVENT_TTL_MS = 3_600_000;

/** When an event was last seen; every write renews its hour. */
export function lastSeenMs(event: Live<Event>): number {
  const times = [
    event.series?.lastObservedTime,
    event.lastTimestamp,
    event.eventTime,
    event.metadata.creationTimestamp,
  ];
  return Math.max(...times.map(millis).filter((ms) => !Number.isNaN(ms)));
}

/** Events live for an hour after they were last seen. */
export function eventTtlController(deps: ControllerDeps): Reconciler {
  const { view, clock } = deps;
  const events = view.of(EVENTS);
  const loop = reconciler(deps, 'event-ttl', reconcile);
  onSelf(events, loop);
  return loop;

  async function reconcile(key: string): Promise<Requeue> {
    const event = events.get(key);
    if (!event) return DONE;
    const leftMs = lastSeenMs(event) + EVENT_TTL_MS - clock.now();
    if (leftMs > 0) return again(leftMs);
    await events.remove(event);
    return DONE;
  }
}
