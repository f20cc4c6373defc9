import { expect, it } from 'vitest';
import { logger, silentSink } from '#base/log.ts';
import { seededRandom } from '#base/random.ts';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import { NamespacePool } from '#network/pool.ts';

/** A kernel that takes its time to make one, until it is let. */
function slowKernel() {
  const there = new Set<string>();
  let go: () => void = () => undefined;
  const kernel: NetKernel = {
    netlink: async () => [],
    makeNetns: async (path) => {
      await new Promise<void>((let_) => {
        go = let_;
      });
      there.add(path);
    },
    makeOwnedNetns: async () => undefined,
    dropNetns: async (path) => {
      there.delete(path);
    },
    sysctl: async () => undefined,
    xtables: async () => new Uint8Array(),
  };
  return { kernel, there, go: () => go() };
}

it('a pool that is closed leaves neither those it has nor the one that is being made', async () => {
  const { kernel, there, go } = slowKernel();
  const pool = new NamespacePool({
    kernel,
    dir: '/ns',
    random: seededRandom(1),
    log: logger('network', silentSink),
    size: 4,
    later: (work) => void work(),
  });
  pool.fill();
  await new Promise((done) => setImmediate(done));
  go();
  await expect.poll(() => pool.ready.length).toBe(1);
  await expect.poll(() => there.size).toBe(1);
  await new Promise((done) => setImmediate(done)); // it makes the next one

  const closed = pool.close();
  go();
  await closed;
  expect([...there]).toEqual([]);
  expect(pool.ready).toEqual([]);
});
