import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { firewallFindings } from '#app/doctor-firewall.ts';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import { NetWorld } from '../../test/net/world.ts';

describe('what estiba doctor says of the host’s firewall', () => {
  let world: NetWorld;
  let host: string;
  let kernel: NetKernel;
  beforeAll(async () => {
    world = new NetWorld('doctor');
    host = await world.netns('host');
    kernel = world.handIn(host);
  });
  afterAll(() => world.close());

  it('is good where there is none, or one that is understood', async () => {
    expect(await firewallFindings(kernel)).toMatchObject([{ verdict: 'good' }]);
    world.run(host, 'nft', 'add table inet fw');
    world.run(host, 'nft', 'add chain inet fw input { type filter hook input priority 0; policy drop; }');
    world.run(host, 'nft', 'add rule inet fw input tcp dport 22 accept');
    expect(await firewallFindings(kernel)).toMatchObject([{ verdict: 'good' }]);
  });

  it('names a rule that is outside what is understood, and a drop at the forward hook, each with the fix', async () => {
    world.run(host, 'nft', 'add rule inet fw input tcp dport 80 quota over 10 mbytes drop');
    world.run(host, 'iptables', '-P', 'FORWARD', 'DROP');
    expect(await firewallFindings(kernel)).toEqual([
      expect.objectContaining({
        what: 'host firewall',
        verdict: 'degraded',
        found: expect.stringMatching(/^inet fw input handle \d+: uses quota, /),
        fix: expect.stringContaining('add a plain accept rule'),
      }),
      {
        area: 'network',
        what: 'host firewall',
        verdict: 'degraded',
        found:
          'ip filter FORWARD: policy drop at the forward hook: what goes out of and what comes in for containers on estiba0 ends there',
        fix: 'iptables -I FORWARD -i estiba0 -j ACCEPT; iptables -I FORWARD -o estiba0 -j ACCEPT',
      },
    ]);
  });

  it('reads rules of iptables-legacy, which nftables does not show', async () => {
    world.run(host, 'nft', 'flush', 'ruleset');
    world.run(host, 'iptables-legacy', '-A', 'INPUT', '-p', 'tcp', '--dport', '22', '-j', 'ACCEPT');
    world.run(host, 'iptables-legacy', '-P', 'INPUT', 'DROP');
    expect(await firewallFindings(kernel)).toMatchObject([{ verdict: 'good' }]);
    world.run(host, 'iptables-legacy', '-A', 'INPUT', '-m', 'mark', '--mark', '7', '-j', 'ACCEPT');
    world.run(host, 'ip6tables-legacy', '-P', 'FORWARD', 'DROP');
    expect(await firewallFindings(kernel)).toMatchObject([
      { verdict: 'degraded', found: expect.stringMatching(/^iptables-legacy INPUT rule 2: uses match mark, /) },
      {
        verdict: 'degraded',
        found: expect.stringMatching(/^ip6tables-legacy FORWARD: policy drop at the forward hook: /),
        fix: 'ip6tables-legacy -I FORWARD -i estiba0 -j ACCEPT; ip6tables-legacy -I FORWARD -o estiba0 -j ACCEPT',
      },
    ]);
  });
});
