import { describe, expect, it } from 'vitest';
import { gatewayEndpoint, publishTarget, withGateways } from '#network/gateways.ts';
import type { Endpoint, Network } from '#network/model.ts';

/** Letters name networks; `4`, `6` and `46` what they have, `-` that they are internal: `b46`, `a4-`. */
function choose(...wishes: (string | [string, number])[]): { endpoints: Endpoint[] } {
  const networks = new Map<string, Network>();
  const endpoints = wishes.map((wish): Endpoint => {
    const [text, gwPriority] = typeof wish === 'string' ? [wish, undefined] : wish;
    const name = text.slice(0, 1);
    networks.set(`id-${name}`, { name, internal: text.includes('-') } as Network);
    return {
      network: `id-${name}`,
      ...(text.includes('4') ? { ipv4: `10.0.0.${name}` } : {}),
      ...(text.includes('6') ? { ipv6: `fd00::${name}` } : {}),
      gwPriority,
      defaultRoutes: [4, 6], // of an earlier choice
    } as unknown as Endpoint;
  });
  return { endpoints: withGateways(endpoints, networks) };
}
const chosen = (...wishes: Parameters<typeof choose>) => {
  const box = choose(...wishes);
  return [4, 6].map((family) => gatewayEndpoint(box, family as 4 | 6)?.network.slice(3));
};

describe('the default routes of a container in many networks', () => {
  it('go to the highest priority, else to the first by name, whatever the order of joining', () => {
    expect(chosen('b4', 'a4', 'c4')).toEqual(['a', undefined]);
    expect(chosen('c4', ['b4', 1], 'a4')).toEqual(['b', undefined]);
    expect(chosen(['a4', -1], 'b4')).toEqual(['b', undefined]);
    expect(chosen(['b4', 7], ['a4', 7])).toEqual(['a', undefined]);
  });

  it('are chosen by family, and of equal networks one of both families has both', () => {
    expect(chosen('a4', 'b46', 'c6')).toEqual(['b', 'b']);
    expect(chosen(['a4', 1], 'b46')).toEqual(['a', 'b']);
    expect(chosen('a4', 'b6')).toEqual(['a', 'b']);
  });

  it('never lead into an internal network', () => {
    expect(chosen(['a4-', 9], 'b4')).toEqual(['b', undefined]);
    expect(chosen('a4-')).toEqual([undefined, undefined]);
  });

  it('take published ports with them; where nothing leads out these go to the first network', () => {
    expect(publishTarget(choose('b46', ['a4', 1]))).toEqual({ ipv4: '10.0.0.a', ipv6: 'fd00::b' });
    expect(publishTarget(choose('b4', 'a4'))).toEqual({ ipv4: '10.0.0.a', ipv6: undefined });
    expect(publishTarget(choose('b4-', 'a4-'))).toEqual({ ipv4: '10.0.0.b', ipv6: undefined });
    expect(publishTarget({ endpoints: [] })).toEqual({ ipv4: undefined, ipv6: undefined });
  });
});
