import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PublishedPort } from '#network/model.ts';
import { holdsFor, type PortWish, resolvePorts } from '#network/ports.ts';

const wish = (hostPort: string, hostIp = '', protocol: PortWish['protocol'] = 'tcp'): PortWish => ({
  protocol,
  containerPort: 80,
  hostIp,
  hostPort,
});
const around = { hostBinding: '0.0.0.0', ipv6: true, anyAfter: 0 };

describe('published ports', () => {
  it('without an address are open on both families, with one there alone', () => {
    expect(resolvePorts([wish('8080')], [], around).map((p) => p.hostIp)).toEqual(['0.0.0.0', '::']);
    expect(resolvePorts([wish('8080', '127.0.0.1')], [], around).map((p) => p.hostIp)).toEqual(['127.0.0.1']);
  });

  it('of a range are the first free one; one that is taken names its holder', () => {
    const [taken] = resolvePorts([wish('8080')], [], around);
    const held = taken ? [{ port: taken, holder: 'container web' }] : [];
    expect(resolvePorts([wish('8080-8082')], held, around)[0]?.hostPort).toBe(8081);
    expect(() => resolvePorts([wish('8080', '192.0.2.1')], held, around)).toThrow('allocated by container web');
    expect(resolvePorts([wish('8080', '', 'udp')], held, around)).toHaveLength(2);
    expect(() => resolvePorts([wish('80-70')], [], around)).toThrow('neither a port nor a range');
  });

  it('never clash, whatever is wished', () => {
    const one = fc.record({
      protocol: fc.constantFrom('tcp' as const, 'udp' as const),
      containerPort: fc.integer({ min: 1, max: 65535 }),
      hostIp: fc.constantFrom('', '127.0.0.1', '192.0.2.1', '::1'),
      hostPort: fc.constantFrom('', '8000-8003', '8001-8002'),
    });
    fc.assert(
      fc.property(fc.array(one, { maxLength: 6 }), (wishes) => {
        let ports: PublishedPort[];
        try {
          ports = resolvePorts(wishes, [], around);
        } catch (error) {
          expect(error).toMatchObject({ code: 'PORT_TAKEN' });
          return;
        }
        const keys = ports.map((p) => `${p.protocol} ${p.hostIp} ${p.hostPort}`);
        expect(new Set(keys).size).toBe(keys.length);
      }),
    );
  });

  it('are relayed where the kernel cannot rewrite them', () => {
    const holds = holdsFor(resolvePorts([wish('8080')], [], around), { ipv4: '10.0.0.2', ipv6: undefined });
    expect(holds).toEqual([
      { protocol: 'tcp', ip: '0.0.0.0', port: 8080 },
      { protocol: 'tcp', ip: '::', port: 8080, relayTo: { ip: '10.0.0.2', port: 80 } },
    ]);
    const datagrams = { ...wish('8080'), protocol: 'udp' as const };
    expect(holdsFor(resolvePorts([datagrams], [], around), { ipv4: '10.0.0.2', ipv6: 'fd00::2' })).toEqual([
      { protocol: 'udp', ip: '0.0.0.0', port: 8080 },
      { protocol: 'udp', ip: '::', port: 8080, relayTo: { ip: 'fd00::2', port: 80 } },
    ]);
  });
});
