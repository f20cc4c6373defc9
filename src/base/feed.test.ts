import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { FeedSource, followFeed } from '#base/feed.ts';
import { logger, silentSink } from '#base/log.ts';

const log = logger('app', silentSink);

describe('a feed', () => {
  let dir: string;
  let server: Server;
  let source: FeedSource;
  const sockets = new Set<Socket>();
  const state = new Map<string, Map<string, unknown>>();
  const messages: number[] = [];

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'estiba-feed-'));
    state.clear();
    messages.length = 0;
    server = createServer((socket) => {
      sockets.add(socket);
      followFeed(
        socket,
        async (topic, { whole, set, drop }) => {
          messages.push(set.size + drop.length);
          const map = (whole ? undefined : state.get(topic)) ?? new Map<string, unknown>();
          for (const [key, value] of set) map.set(key, value);
          for (const key of drop) map.delete(key);
          state.set(topic, map);
        },
        log,
      );
    });
    await new Promise<void>((done) => server.listen(join(dir, 's'), done));
    source = new FeedSource({
      clock: systemClock,
      log,
      connect: () =>
        new Promise((resolve, reject) => {
          const socket = connect(join(dir, 's'), () => resolve(socket)).once('error', reject);
        }),
    });
  });
  afterEach(() => {
    source.close();
    for (const socket of sockets) socket.destroy();
    server.close();
    rmSync(dir, { recursive: true });
  });

  it('keeps the follower equal, sends a burst once, and what is equal not at all', async () => {
    const topic = source.topic('dns');
    topic.set('a', { n: 1 });
    topic.set('a', { n: 2 });
    topic.set('b', 'x');
    topic.declare();
    await topic.confirmed();
    expect(state.get('dns')).toEqual(
      new Map<string, unknown>([
        ['a', { n: 2 }],
        ['b', 'x'],
      ]),
    );
    topic.set('a', { n: 2 });
    topic.drop('b');
    await topic.confirmed();
    expect([...(state.get('dns')?.keys() ?? [])]).toEqual(['a']);
    expect(messages).toEqual([2, 1]);
  });

  it('says all of it again after a break, and what is gone stays gone', async () => {
    const topic = source.topic('dns');
    for (let n = 0; n < 1_200; n++) topic.set(`k${n}`, n);
    topic.declare();
    await topic.confirmed();
    for (const socket of sockets) socket.destroy();
    topic.drop('k7');
    topic.set('new', true);
    await topic.confirmed();
    expect(state.get('dns')?.size).toBe(1_200);
    expect(state.get('dns')?.has('k7')).toBe(false);
  });
});
