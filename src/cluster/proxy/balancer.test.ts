import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Live } from '#cluster/client/resources.ts';
import { assign, assignHost } from '#cluster/proxy/balancer.ts';
import { parseCidr } from '#kernel/netlink/ip.ts';
import type { Service, ServiceSpec } from '#spec/kubernetes/types.gen.ts';

const pool = parseCidr('192.0.2.8/30');
const ask = (name: string, has?: string, spec: ServiceSpec = {}): Live<Service> =>
  ({
    metadata: { namespace: 'default', name },
    spec: { type: 'LoadBalancer', ...spec },
    ...(has === undefined ? {} : { status: { loadBalancer: { ingress: [{ ip: has }] } } }),
  }) as Live<Service>;
const addresses = (services: Live<Service>[], from = pool): (string | undefined)[] =>
  assign(services, from).map((a) => a.address);

describe('addresses of load balancers', () => {
  it('who has one keeps it, the others get the lowest free one', () => {
    expect(addresses([ask('a'), ask('b', '192.0.2.9')])).toEqual(['192.0.2.10', '192.0.2.9']);
  });

  it('a wish is kept if it can be; otherwise nobody is given something else than asked', () => {
    expect(addresses([ask('a', undefined, { loadBalancerIP: '192.0.2.10' }), ask('b')])).toEqual([
      '192.0.2.10',
      '192.0.2.9',
    ]);
    expect(addresses([ask('a', '192.0.2.9'), ask('b', undefined, { loadBalancerIP: '192.0.2.9' })])).toEqual([
      '192.0.2.9',
      undefined,
    ]);
  });

  it('nobody who does not ask gets one, nor who asks another class', () => {
    const [none] = assign([ask('a', '192.0.2.9', { type: 'ClusterIP' })], pool);
    expect(none?.address).toBeUndefined();
    expect(addresses([ask('a', undefined, { loadBalancerClass: 'other' })])).toEqual([undefined]);
  });

  it('no address is given twice, and a second look changes nothing', () => {
    const has = fc.option(fc.constantFrom('192.0.2.8', '192.0.2.9', '192.0.2.10', '10.0.0.1'), { nil: undefined });
    fc.assert(
      fc.property(fc.array(has, { maxLength: 5 }), (list) => {
        const services = list.map((ip, n) => ask(`s${n}`, ip));
        const given = addresses(services);
        const some = given.filter((ip) => ip !== undefined);
        expect(new Set(some).size).toBe(some.length);
        expect(addresses(given.map((ip, n) => ask(`s${n}`, ip)))).toEqual(given);
      }),
    );
  });

  describe('where there is no pool', () => {
    const host = '192.0.2.1';
    const publish = (name: string, port: number, has?: string): Live<Service> => ask(name, has, { ports: [{ port }] });

    it('a Service gets its own ports of the host, unless another or a program of the host has one', () => {
      const all = [publish('late', 80), publish('first', 80, host), publish('ssh', 22), publish('free', 8081)];
      const given = assignHost(all, host, new Set(['tcp 22', 'tcp 80']));
      expect(given.map((a) => a.address ?? a.refused)).toEqual([
        'port tcp 80 of the host serves Service default/first',
        host,
        'a program of the host listens on port tcp 22',
        host,
      ]);
    });

    it('who asks for what only an address of its own can give is told so', () => {
      const [given] = assignHost([ask('a', undefined, { loadBalancerSourceRanges: ['10.0.0.0/8'] })], host, new Set());
      expect(given?.refused).toContain('--lb-pool');
    });
  });
});
