import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { firewallFindings } from '#app/doctor-firewall.ts';
import { treeFiles } from '#kernel/files.ts';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import { NetWorld } from '../../test/net/world.ts';

describe('what estiba doctor says of the host’s firewall', () => {
  let world: NetWorld;
  let host: string;
  let kernel: NetKernel;
  const none = treeFiles({});
  beforeAll(async () => {
    world = new NetWorld('doctor');
    host = await world.netns('host');
    kernel = world.handIn(host);
  });
  afterAll(() => world.close());

  it('is good where there is none, or one that is understood', async () => {
    expect(await firewallFindings(kernel, none)).toMatchObject([{ verdict: 'good' }]);
    world.run(host, 'nft', 'add table inet fw');
    world.run(host, 'nft', 'add chain inet fw input { type filter hook input priority 0; policy drop; }');
    world.run(host, 'nft', 'add rule inet fw input tcp dport 22 accept');
    expect(await firewallFindings(kernel, none)).toMatchObject([{ verdict: 'good' }]);
  });

  it('names a rule that is outside what is understood, and a drop at the forward hook, each with the fix', async () => {
    world.run(host, 'nft', 'add rule inet fw input tcp dport 80 quota over 10 mbytes drop');
    world.run(host, 'iptables', '-P', 'FORWARD', 'DROP');
    expect(await firewallFindings(kernel, none)).toEqual([
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

  it('says where there are rules that nftables does not show', async () => {
    const files = treeFiles({ '/proc/net/ip_tables_names': 'nat\nfilter\n' });
    const findings = await firewallFindings(kernel, files);
    expect(findings.at(-1)).toMatchObject({ verdict: 'degraded', found: expect.stringContaining('iptables-legacy') });
  });
});
