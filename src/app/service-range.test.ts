import { describe, expect, it } from 'vitest';
import { rangeHolders } from '#app/service-range.ts';
import { parseCidr } from '#kernel/netlink/ip.ts';

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
    expect(rangeHolders(range, { index: 3 }, routes, links)).toEqual([
      '10.96.0.0/12 by other0',
      '10.100.0.0/16 by a link that is gone',
    ]);
  });

  it('is free beside our own route, wider ones, those of other ranges and the default', () => {
    const routes = [route('10.96.0.0/12', 3), route('10.0.0.0/8', 7), route('172.17.0.0/16', 7), { index: 7 }];
    expect(rangeHolders(range, { index: 3 }, routes, links)).toEqual([]);
  });
});
