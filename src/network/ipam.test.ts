import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { contains, formatCidr, formatIp, type Ip, overlaps, parseCidr, parseIp } from '#kernel/netlink/ip.ts';
import {
  chooseAddress,
  chooseSubnet,
  DEFAULT_POOLS,
  isHost,
  macFor,
  resolveSubnet,
  uniqueLocalSubnet,
} from '#network/ipam.ts';

const taken = (...cidrs: string[]) => cidrs.map((text) => ({ cidr: parseCidr(text), holder: `route ${text}` }));

describe('subnets', () => {
  it('the first free one of the pools is taken, around host routes of any size', () => {
    expect(formatCidr(chooseSubnet(DEFAULT_POOLS, []))).toBe('172.17.0.0/16');
    expect(formatCidr(chooseSubnet(DEFAULT_POOLS, taken('172.17.5.0/24')))).toBe('172.18.0.0/16');
    expect(formatCidr(chooseSubnet(DEFAULT_POOLS, taken('172.16.0.0/12')))).toBe('192.168.0.0/20');
    expect(formatCidr(chooseSubnet(DEFAULT_POOLS, taken('172.16.0.0/12', '192.168.3.0/24')))).toBe('192.168.16.0/20');
    expect(() => chooseSubnet(DEFAULT_POOLS, taken('0.0.0.0/0'))).toThrow('in use');
  });

  it('what is chosen never overlaps what is taken', () => {
    const cidr = fc
      .tuple(fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }), fc.integer({ min: 9, max: 32 }))
      .map(([value, prefix]) => ({ ip: { family: 4, value } as Ip, prefix }));
    fc.assert(
      fc.property(fc.array(cidr, { maxLength: 12 }), (cidrs) => {
        const others = cidrs.map((c) => ({ cidr: c, holder: 'x' }));
        const chosen = chooseSubnet(DEFAULT_POOLS, others);
        expect(others.some((other) => overlaps(chosen, other.cidr))).toBe(false);
      }),
    );
  });

  it('a wish is checked against its own subnet and against others', () => {
    const subnet = parseCidr('10.5.0.0/16');
    expect(formatIp(resolveSubnet({ subnet }, []).gateway)).toBe('10.5.0.1');
    expect(formatIp(resolveSubnet({ subnet, range: parseCidr('10.5.9.0/24') }, []).gateway)).toBe('10.5.9.0');
    expect(() => resolveSubnet({ subnet, gateway: parseIp('10.6.0.1') }, [])).toThrow(
      'gateway "10.6.0.1" is not in subnet',
    );
    expect(() => resolveSubnet({ subnet, range: parseCidr('10.0.0.0/8') }, [])).toThrow('ip-range');
    expect(() => resolveSubnet({ subnet }, taken('10.5.7.0/24'))).toThrow('overlaps 10.5.7.0/24 of route 10.5.7.0/24');
    expect(() => resolveSubnet({ subnet: parseCidr('10.0.0.0/31') }, [])).toThrow('no room');
  });

  it('a network’s own IPv6 subnet comes from its id', () => {
    expect(formatCidr(uniqueLocalSubnet('a1b2c3d4e5f60718'.padEnd(64, '0')))).toBe('fda1:b2c3:d4e5:f607::/64');
  });
});

describe('addresses', () => {
  it('every host address is handed out once before any is refused', () => {
    const where = resolveSubnet({ subnet: parseCidr('10.0.0.0/28'), auxiliary: { router: parseIp('10.0.0.9') } }, []);
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 100 }), (steps) => {
        const used = new Set<bigint>();
        let last: Ip | undefined;
        for (const give of steps) {
          if (!give) {
            const [first] = used;
            if (first !== undefined) used.delete(first);
            continue;
          }
          if (used.size === 12) {
            expect(() => chooseAddress(where, used, last, 'n')).toThrow('no free address');
            continue;
          }
          const ip = chooseAddress(where, used, last, 'n');
          expect(used.has(ip.value)).toBe(false);
          expect(isHost(where.subnet, ip)).toBe(true);
          expect(['10.0.0.1', '10.0.0.9']).not.toContain(formatIp(ip));
          used.add(ip.value);
          last = ip;
        }
      }),
    );
  });

  it('a given-back address rests while others are free', () => {
    const where = resolveSubnet({ subnet: parseCidr('10.0.0.0/24') }, []);
    const first = chooseAddress(where, new Set(), undefined, 'n');
    expect(formatIp(chooseAddress(where, new Set(), first, 'n'))).toBe('10.0.0.3');
    expect(macFor(first)).toBe('02:42:0a:00:00:02');
    expect(contains(where.subnet, first)).toBe(true);
  });
});
