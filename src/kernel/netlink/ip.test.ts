import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  contains,
  formatCidr,
  formatIp,
  type Ip,
  ipBytes,
  ipFromBytes,
  lastOf,
  networkOf,
  overlaps,
  parseCidr,
  parseIp,
  tryParseIp,
} from '#kernel/netlink/ip.ts';

const anyIp: fc.Arbitrary<Ip> = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }).map((value): Ip => ({ family: 4, value })),
  fc.bigInt({ min: 0n, max: 2n ** 128n - 1n }).map((value): Ip => ({ family: 6, value })),
);

describe('internet addresses', () => {
  it('what is printed is read back, as text and as bytes', () => {
    fc.assert(
      fc.property(anyIp, (ip) => {
        expect(parseIp(formatIp(ip))).toEqual(ip);
        expect(ipFromBytes(ipBytes(ip))).toEqual(ip);
      }),
    );
  });

  it('IPv6 is written as RFC 5952 wants it', () => {
    const texts = ['::', '::1', 'fe80::1', '2001:db8::1:0:0:1', '2001:db8:0:1:1:1:1:1', '1::'];
    expect(texts.map((text) => formatIp(parseIp(text)))).toEqual(texts);
    expect(formatIp(parseIp('2001:DB8:0:0:0:0:2:1'))).toBe('2001:db8::2:1');
    expect(formatIp(parseIp('::ffff:192.0.2.1'))).toBe('::ffff:c000:201');
  });

  it('refuses what other readers take for something else', () => {
    const wrong = [
      '010.0.0.1',
      '1.2.3',
      '1.2.3.256',
      '::1::',
      ':1',
      '1:2:3:4:5:6:7',
      '12345::',
      '1.2.3.4.5',
      '',
      ' 1.2.3.4',
    ];
    expect(wrong.filter((text) => tryParseIp(text) !== undefined)).toEqual([]);
    expect(() => parseCidr('10.0.0.0/33')).toThrow('10.0.0.0/33');
    expect(() => parseCidr('10.0.0.0')).toThrow('prefix length');
  });

  it('two networks overlap exactly when one holds the other’s first address', () => {
    const cidr = fc.tuple(anyIp, fc.nat(32)).map(([ip, prefix]) => networkOf({ ip, prefix }));
    fc.assert(
      fc.property(cidr, cidr, (a, b) => {
        expect(overlaps(a, b)).toBe(contains(a, b.ip) || contains(b, a.ip));
        expect(contains(a, lastOf(a))).toBe(true);
      }),
    );
    expect(formatCidr(networkOf(parseCidr('10.1.2.3/16')))).toBe('10.1.0.0/16');
  });
});
