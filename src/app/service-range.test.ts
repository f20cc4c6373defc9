import { describe, expect, it } from 'vitest';
import { decideServiceRange, rangeHolders } from '#app/service-range.ts';
import { formatCidr, parseCidr } from '#kernel/netlink/ip.ts';

describe('a Service range', () => {
  const range = parseCidr('10.96.0.0/12');
  const links = [
    { index: 3, name: 'estiba0' },
    { index: 7, name: 'other0' },
  ];
  const route = (to: string, index: number): { destination: ReturnType<typeof parseCidr>; index: number } => ({
    destination: parseCidr(to),
    index,
  });

  it('is held by whoever else has a route to all of it, or to a part', () => {
    const routes = [route('10.96.0.0/12', 7), route('10.100.0.0/16', 9)];
    expect(rangeHolders(range, { own: { index: 3 }, routes, links })).toEqual([
      '10.96.0.0/12 by other0',
      '10.100.0.0/16 by a link that is gone',
    ]);
  });

  it('is free beside our own route, wider ones, those of other ranges and the default', () => {
    const routes = [route('10.96.0.0/12', 3), route('10.0.0.0/8', 7), route('172.17.0.0/16', 7), { index: 7 }];
    expect(rangeHolders(range, { own: { index: 3 }, routes, links })).toEqual([]);
  });

  const heldBy = (holders: Record<string, string[]>) => (asked: ReturnType<typeof parseCidr>) =>
    holders[formatCidr(asked)] ?? [];
  const busy = heldBy({ '10.96.0.0/16': ['10.96.0.0/16 by other0'] });

  it('that is taken is refused by its holder when it was asked for, or Services have addresses of it', () => {
    for (const wish of [
      { wished: '10.96.0.0/16', kept: undefined },
      { wished: undefined, kept: '10.96.0.0/16' },
    ])
      expect(() => decideServiceRange(wish, busy)).toThrow(
        expect.objectContaining({
          message: 'the Service range 10.96.0.0/16 is in use on this host already: 10.96.0.0/16 by other0',
          hint: expect.stringContaining('--service-cidr'),
        }),
      );
  });

  it('is the next free one for a new cluster, and the one that was asked for before any other', () => {
    expect(decideServiceRange({ wished: undefined, kept: undefined }, busy)).toBe('10.97.0.0/16');
    expect(decideServiceRange({ wished: undefined, kept: undefined }, () => [])).toBe('10.96.0.0/16');
    expect(decideServiceRange({ wished: '10.5.0.0/16', kept: '10.97.0.0/16' }, busy)).toBe('10.5.0.0/16');
    expect(decideServiceRange({ wished: undefined, kept: '10.97.0.0/16' }, busy)).toBe('10.97.0.0/16');
    expect(() => decideServiceRange({ wished: undefined, kept: undefined }, () => ['x by y'])).toThrow('x by y');
  });
});
