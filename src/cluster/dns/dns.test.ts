import { Resolver } from 'node:dns/promises';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import dns from 'dns-packet';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { namesOf, type ServiceNames } from '#cluster/dns/records.ts';
import { DnsServer } from '#cluster/dns/server.ts';
import { ClusterZone } from '#cluster/dns/zone.ts';
import type { EndpointSlice, Service } from '#spec/kubernetes/types.gen.ts';

const PORTS = [{ name: 'http', port: 80, protocol: 'TCP' as const }];
const web: Service = {
  metadata: { namespace: 'shop', name: 'web' },
  spec: { type: 'ClusterIP', clusterIP: '10.96.0.5', clusterIPs: ['10.96.0.5', 'fd00:96::5'], ports: PORTS },
};
const db: Service = { metadata: { namespace: 'shop', name: 'db' }, spec: { clusterIP: 'None', ports: PORTS } };
const dbSlice: EndpointSlice = {
  metadata: { name: 'db-1' },
  addressType: 'IPv4',
  ports: PORTS,
  endpoints: [
    { addresses: ['10.0.0.7'], hostname: 'db-0', conditions: { ready: true } },
    { addresses: ['10.0.0.8'], conditions: { ready: true } },
    { addresses: ['10.0.0.9'], hostname: 'db-2', conditions: { ready: false } },
  ],
};
const alias = (to: string): Service => ({
  metadata: { namespace: 'shop', name: 'mail' },
  spec: { type: 'ExternalName', externalName: to },
});

function names(service: Service, slices: readonly EndpointSlice[] = []): ServiceNames {
  const found = namesOf(service, slices);
  if (!found) throw new Error('no names');
  return found;
}

function zone(): ClusterZone {
  const z = new ClusterZone('cluster.local');
  z.set('shop/web', names(web));
  z.set('shop/db', names(db, [dbSlice]));
  return z;
}
const data = (z: ClusterZone, name: string, type: string): unknown => {
  const answer = z.answer(name, type);
  return answer.kind === 'records' ? answer.records.map((r) => r.data) : answer.kind;
};

describe('names of the cluster', () => {
  it.each([
    ['web.shop.svc.cluster.local', 'A', ['10.96.0.5']],
    ['WEB.Shop.svc.Cluster.local.', 'AAAA', ['fd00:96::5']],
    ['web.shop.svc.cluster.local', 'MX', 'nothing'],
    ['db.shop.svc.cluster.local', 'A', ['10.0.0.7', '10.0.0.8']],
    ['db.shop.svc.cluster.local', 'AAAA', 'nothing'],
    ['db-0.db.shop.svc.cluster.local', 'A', ['10.0.0.7']],
    ['10-0-0-8.db.shop.svc.cluster.local', 'A', ['10.0.0.8']],
    ['db-2.db.shop.svc.cluster.local', 'A', 'noSuchName'],
    ['db-0.web.shop.svc.cluster.local', 'A', 'noSuchName'],
    ['10-0-0-7.shop.pod.cluster.local', 'A', ['10.0.0.7']],
    ['10-0-0-7.shop.pod.cluster.local', 'AAAA', 'nothing'],
    ['ten.shop.pod.cluster.local', 'A', 'noSuchName'],
    ['other.shop.svc.cluster.local', 'A', 'noSuchName'],
    ['shop.svc.cluster.local', 'A', 'nothing'],
    ['none.svc.cluster.local', 'A', 'noSuchName'],
    ['svc.cluster.local', 'A', 'nothing'],
    ['cluster.local', 'A', 'nothing'],
    ['google.com.shop.svc.cluster.local', 'A', 'noSuchName'],
    ['google.com.cluster.local', 'A', 'noSuchName'],
    ['google.com', 'A', 'notOurs'],
    ['notcluster.local', 'A', 'notOurs'],
    ['dns-version.cluster.local', 'TXT', ['1.1.0']],
    ['5.0.96.10.in-addr.arpa', 'PTR', ['web.shop.svc.cluster.local']],
    ['7.0.0.10.in-addr.arpa', 'PTR', ['db-0.db.shop.svc.cluster.local']],
    ['1.1.1.1.in-addr.arpa', 'PTR', 'notOurs'],
    ['5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa', 'PTR', ['web.shop.svc.cluster.local']],
    [
      '_http._tcp.web.shop.svc.cluster.local',
      'SRV',
      [{ priority: 0, weight: 100, port: 80, target: 'web.shop.svc.cluster.local' }],
    ],
    ['_http._udp.web.shop.svc.cluster.local', 'SRV', 'noSuchName'],
    ['_http._tcp.web.shop.svc.cluster.local', 'A', 'nothing'],
    [
      '_http._tcp.db.shop.svc.cluster.local',
      'SRV',
      [
        { priority: 0, weight: 50, port: 80, target: 'db-0.db.shop.svc.cluster.local' },
        { priority: 0, weight: 50, port: 80, target: '10-0-0-8.db.shop.svc.cluster.local' },
      ],
    ],
  ])('%s %s', (name, type, wanted) => {
    expect(data(zone(), name, type)).toEqual(wanted);
  });

  it('what is dropped leaves nothing behind', () => {
    const z = zone();
    z.drop('shop/web');
    z.drop('shop/db');
    expect(data(z, 'shop.svc.cluster.local', 'A')).toBe('noSuchName');
    expect(data(z, '7.0.0.10.in-addr.arpa', 'PTR')).toBe('notOurs');
  });

  it('a Service without a ready endpoint still has its name', () => {
    const z = new ClusterZone('cluster.local');
    z.set('shop/db', names(db));
    expect(data(z, 'db.shop.svc.cluster.local', 'A')).toBe('nothing');
  });
});

describe('the name server', () => {
  let server: DnsServer | undefined;
  afterEach(() => server?.close());

  const upstream = async (message: Uint8Array): Promise<Uint8Array | undefined> => {
    const query = dns.decode(Buffer.from(message));
    const name = query.questions?.[0]?.name ?? '';
    if (!name.startsWith('smtp')) return undefined;
    return dns.encode({
      type: 'response',
      id: query.id ?? 0,
      questions: query.questions ?? [],
      answers: [{ type: 'A', name, ttl: 60, data: '192.0.2.25' }],
    });
  };

  async function serve(more: [string, unknown][] = []): Promise<Resolver> {
    const port = await freePort();
    server = new DnsServer({ upstream, clock: systemClock, log: logger('cluster:dns', silentSink) });
    await server.apply({
      whole: true,
      drop: [],
      set: new Map<string, unknown>([
        ['settings', { domain: 'cluster.local', listen: [{ ip: '127.0.0.1', port }], upstreams: [] }],
        ['svc/shop/web', names(web)],
        ['svc/shop/db', names(db, [dbSlice])],
        ...more,
      ]),
    });
    const resolver = new Resolver({ timeout: 2_000, tries: 1 });
    resolver.setServers([`127.0.0.1:${port}`]);
    return resolver;
  }

  it('answers a resolver: addresses, SRV, PTR, and the difference between no such name and no such record', async () => {
    const resolver = await serve();
    expect(await resolver.resolve4('web.shop.svc.cluster.local')).toEqual(['10.96.0.5']);
    expect((await resolver.resolveSrv('_http._tcp.db.shop.svc.cluster.local')).map((r) => r.name).sort()).toEqual([
      '10-0-0-8.db.shop.svc.cluster.local',
      'db-0.db.shop.svc.cluster.local',
    ]);
    expect(await resolver.reverse('10.96.0.5')).toEqual(['web.shop.svc.cluster.local']);
    await expect(resolver.resolve4('nobody.shop.svc.cluster.local')).rejects.toMatchObject({ code: 'ENOTFOUND' });
    await expect(resolver.resolve6('db.shop.svc.cluster.local')).rejects.toMatchObject({ code: 'ENODATA' });
    expect(await resolver.resolve4('smtp.example.org')).toEqual(['192.0.2.25']);
    await expect(resolver.resolve4('silent.example.org')).rejects.toMatchObject({ code: 'ESERVFAIL' });
  });

  it('an external name is an alias with what it leads to, outside and inside', async () => {
    const resolver = await serve([['svc/shop/mail', names(alias('smtp.example.org.'))]]);
    expect(await resolver.resolveCname('mail.shop.svc.cluster.local')).toEqual(['smtp.example.org']);
    expect(await resolver.resolve4('mail.shop.svc.cluster.local')).toEqual(['192.0.2.25']);
    await server?.apply({
      whole: false,
      drop: [],
      set: new Map([['svc/shop/mail', names(alias('web.shop.svc.cluster.local'))]]),
    });
    expect(await resolver.resolve4('mail.shop.svc.cluster.local')).toEqual(['10.96.0.5']);
  });

  it('an answer too long for a datagram comes by TCP', async () => {
    const many: EndpointSlice = {
      ...dbSlice,
      endpoints: Array.from({ length: 150 }, (_, n) => ({ addresses: [`10.1.0.${n}`], conditions: { ready: true } })),
    };
    const resolver = await serve([['svc/shop/db', names(db, [many])]]);
    expect(await resolver.resolve4('db.shop.svc.cluster.local')).toHaveLength(150);
  });

  it('any bytes get an answer, and none ends the server', async () => {
    await serve();
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 64 }), async (bytes) => {
        const reply = await server?.answer(bytes, false);
        expect(reply?.length).toBeGreaterThanOrEqual(12);
      }),
      { numRuns: 300 },
    );
  });
});

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}
