import { describe, expect, it } from 'vitest';
import { FakeClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { Hub, type Tables } from '#web/hub.ts';
import type { NodeRow, WorldChange } from '#web/wire.ts';

const node = (key: string, note = ''): NodeRow => ({ key, name: key, note }) as NodeRow;

function setting() {
  const clock = new FakeClock();
  const seen: { tables?: Tables; starts: number; stops: number } = { starts: 0, stops: 0 };
  const hub = new Hub({
    clock,
    log: logger('web', silentSink),
    feeds: [
      {
        async start(tables) {
          seen.tables = tables;
          seen.starts++;
          tables.put('nodes', node('a'));
          return () => {
            seen.stops++;
          };
        },
      },
      {
        start: async () => {
          throw new Error('no cluster today');
        },
      },
    ],
  });
  const page = (): { said: WorldChange[]; leave: () => void } => {
    const said: WorldChange[] = [];
    return { said, leave: hub.subscribe((change) => said.push(change)) };
  };
  return { clock, hub, seen, page };
}

describe('what all pages show', () => {
  it('costs nothing before the first page and after the last', async () => {
    const { clock, hub, seen, page } = setting();
    expect([seen.starts, hub.isRunning]).toEqual([0, false]);
    const [first, second] = [page(), page()];
    await clock.advance(1_000);
    expect(seen.starts).toBe(1);
    first.leave();
    second.leave();
    await clock.advance(9_000);
    expect(seen.stops).toBe(0);
    await clock.advance(1_000);
    expect([seen.stops, hub.isRunning, clock.nextAt()]).toEqual([1, false, undefined]);
  });

  it('greets with all rows and goes on with what changed, once for each moment', async () => {
    const { clock, seen, page } = setting();
    const first = page();
    await clock.advance(1_000);
    expect(first.said[0]).toEqual({ whole: true, set: { nodes: [node('a')] }, gone: {} });
    first.said.length = 0;
    seen.tables?.put('nodes', node('b'));
    seen.tables?.put('nodes', node('b', 'cordoned'));
    seen.tables?.put('nodes', node('a'));
    seen.tables?.drop('nodes', 'x');
    await clock.advance(200);
    expect(first.said).toEqual([{ whole: false, set: { nodes: [node('b', 'cordoned')] }, gone: {} }]);
    const second = page();
    expect(second.said).toEqual([{ whole: true, set: { nodes: [node('a'), node('b', 'cordoned')] }, gone: {} }]);
    seen.tables?.replace('nodes', [node('b', 'cordoned')]);
    await clock.advance(200);
    expect(second.said.slice(1)).toEqual([{ whole: false, set: {}, gone: { nodes: ['a'] } }]);
  });

  it('keeps the youngest events alone', async () => {
    const { clock, seen, page } = setting();
    page();
    await clock.advance(0);
    for (let i = 0; i < 600; i++) seen.tables?.put('events', { key: `e${i}` } as never);
    const events = page().said[0]?.set.events ?? [];
    expect([events.length, events[0]?.key]).toEqual([500, 'e100']);
  });
});
