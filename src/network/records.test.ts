import { expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { loadSandboxes } from '#network/records.ts';
import { memoryStore } from '#storage/memory.ts';

it('an endpoint of an older daemon, which says of itself that it has the default routes, has those of its families', async () => {
  const old = { network: 'n', sandbox: 's', link: 'eth0', hostLink: 'h', mac: 'm', asked: {}, names: [] };
  const endpoints = [
    { ...old, ipv4: '10.0.0.2', ipv6: 'fd00::2', defaultRoute: true },
    { ...old, ipv4: '10.0.1.2', defaultRoute: false },
    { ...old, ipv6: 'fd01::2', defaultRoutes: [6] },
  ];
  const box = {
    id: 's',
    name: 'web',
    netns: '/n',
    endpoints,
    ports: [],
    dns: { servers: [], search: [], options: [] },
  };
  const store = memoryStore(systemClock);
  const value = new TextEncoder().encode(JSON.stringify(box));
  await store.txn({ ops: [{ do: 'put', key: 'network/box/s', value }] });
  const [loaded] = await loadSandboxes(store);
  expect(loaded?.endpoints.map((e) => e.defaultRoutes)).toEqual([[4, 6], [], [6]]);
});
