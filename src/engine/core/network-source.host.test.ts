import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import { NodeNetworkSource } from '#engine/core/network-source.ts';
import { NO_NETWORK, plainSpec } from '#engine/core/plain-spec.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';
import { runPlan } from '#kernel/plan/execute.ts';
import type { Edge } from '#network/edge.ts';
import { Networks } from '#network/networks.ts';
import { memoryStore } from '#storage/memory.ts';
import { NetWorld } from '../../../test/net/world.ts';

const noEdge: Edge = { put: async () => undefined, drop: async () => undefined, list: async () => [] };

function specWith(network: Partial<ContainerSpec['network']>, kind: 'private' | 'host' = 'private'): ContainerSpec {
  const plain = plainSpec({ network: { ...NO_NETWORK, ...network } });
  return { ...plain, namespaces: { ...plain.namespaces, network: { kind } } };
}
const endpoint = (network: string, aliases: string[] = []) => ({ network, aliases, links: [], driverOptions: {} });

describe('a container’s network, from its wishes to its record', () => {
  let world: NetWorld;
  let networks: Networks;
  let source: NodeNetworkSource;
  const attach = async (id: string, spec: ContainerSpec, exposedPorts: string[] = []) => {
    const got = await source.attach(id, { name: id, hostname: `${id}-host`, spec, exposedPorts, endpoints: {} });
    await got.plug();
    return got;
  };

  beforeAll(async () => {
    world = new NetWorld('network-source');
    const { host } = await world.lan();
    networks = await Networks.open({
      daemon: 'est-s',
      kernel: world.handIn(host),
      store: memoryStore(systemClock),
      edge: noEdge,
      clock: systemClock,
      random: systemRandom,
      log: logger('network', silentSink),
      netnsDir: join(world.dir, 'est-s-netns'),
      ipv6: false,
      poolSize: 0,
      mtuBytes: 1500,
    });
    const hostResolv = join(world.dir, 'resolv.conf');
    writeFileSync(hostResolv, 'nameserver 127.0.0.53\nnameserver 192.0.2.53\nsearch lan\n');
    source = new NodeNetworkSource({
      networks,
      filesDir: join(world.dir, 'files'),
      hostResolv,
      runPlan,
    });
  });
  afterAll(async () => {
    await networks.removeAll();
    await world.close();
  });

  it('has addresses, ports and files as Docker’s users expect them', async () => {
    await networks.create({ name: 'front', subnets: [{ subnet: '10.77.0.0/24' }] });
    const spec = specWith({
      endpoints: [endpoint('front', ['www'])],
      ports: { '80/tcp': [{ hostIp: '', hostPort: '8080' }] },
      extraHosts: ['printer:192.0.2.9', 'outside:host-gateway'],
    });
    const got = await attach('web', spec, ['80/tcp', '443/tcp']);
    expect(got.endpoints['front']).toMatchObject({
      ipv4: '10.77.0.2',
      prefix4: 24,
      gateway4: '10.77.0.1',
      aliases: ['www'],
    });
    expect(got.ports).toEqual([
      { protocol: 'tcp', containerPort: 80, hostIp: '0.0.0.0', hostPort: 8080 },
      { protocol: 'tcp', containerPort: 443 },
    ]);
    const text = (path: string): string => readFileSync(got.files.find((f) => f.path === path)?.source ?? '', 'utf8');
    expect(text('/etc/hosts')).toMatch(/192\.0\.2\.9\tprinter\n172\.17\.0\.1\toutside\n10\.77\.0\.2\tweb-host\n$/);
    expect(text('/etc/resolv.conf')).toBe('nameserver 127.0.0.11\nsearch lan\noptions ndots:0\n');
    expect(world.run(got.namespace ?? '', 'ip', '-br', 'addr')).toContain('10.77.0.2/24');
  });

  it('on the default bridge has links and the host’s own resolvers', async () => {
    await attach('db', specWith({ endpoints: [endpoint('bridge')] }));
    const got = await attach('app', specWith({ endpoints: [endpoint('bridge')], links: ['db:database'] }));
    const text = (path: string): string => readFileSync(got.files.find((f) => f.path === path)?.source ?? '', 'utf8');
    expect(text('/etc/hosts')).toContain('172.17.0.2\tdatabase db\n');
    expect(text('/etc/resolv.conf')).toBe('nameserver 192.0.2.53\nsearch lan\n');
    await expect(attach('bad', specWith({ endpoints: [endpoint('bridge')], links: ['nobody:x'] }))).rejects.toThrow(
      'nobody',
    );
    expect(networks.sandbox('bad')).toBeUndefined();
  });

  it('is the host’s, or nothing but a loopback, when that is the wish', async () => {
    expect((await attach('h', specWith({}, 'host'))).namespace).toBeUndefined();
    const none = await attach('n', specWith({ endpoints: [endpoint('none')] }));
    expect(
      world
        .run(none.namespace ?? '', 'ip', '-br', 'link')
        .trim()
        .split('\n'),
    ).toHaveLength(1);
    for (const id of ['web', 'db', 'app', 'h', 'n']) await source.release(id);
    expect(networks.list().flatMap((n) => networks.sandboxesOn(n.id))).toEqual([]);
  });
});
