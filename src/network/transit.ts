import { NFPROTO } from '#kernel/nft/message.ts';
import type { ChainInfo, Ruleset } from '#kernel/nft/ruleset.ts';
import { LEGACY_TABLE } from '#kernel/xtables/table.ts';
import { baseChains, type FirewallNote, familyName, legacyTool, placeOf } from '#network/firewall.ts';
import { anyLink, type Packet, rulesFrom, Walk } from '#network/reach.ts';

/**
 * What others' forward hooks do to our containers' traffic: a drop there holds, whatever our own table accepts. A packet of each
 * bridge is sent through them, one each way; of its far end nothing is known but that it is none of our links.
 */
export function forwardNotes(daemon: string, ruleset: Ruleset, bridges: readonly string[]): FirewallNote[] {
  const bases = baseChains(daemon, ruleset, 'forward');
  const rules = rulesFrom(bases, ruleset);
  const found = new Map<string, { note: FirewallNote; ways: Set<string>; bridges: Set<string> }>();
  for (const bridge of bridges.filter((name) => name !== '')) // drivers without one are forwarded elsewhere
    for (const packet of packetsOf(bridge)) {
      const [sure, perhaps] = [true, false].map((fits) => new Walk(ruleset, rules, packet, fits).refusal(bases));
      if (!sure || !perhaps) continue; // passes, or might
      const { chain, rule } = sure;
      const where = placeOf({ ...chain, chain: rule?.chain ?? chain.name }, rule?.handle);
      const known = found.get(where) ?? {
        note: { kind: 'forward-drop', where, says: rule ? 'drop' : 'policy drop', fix: '', bridges: [] },
        ways: new Set<string>(),
        bridges: new Set<string>(),
      };
      known.ways.add(packet.dnated ? 'what comes in for' : 'what goes out of');
      known.bridges.add(bridge);
      known.note.fix = [...known.bridges].map((one) => fixFor(chain, ruleset, one)).join('; ');
      found.set(where, known);
    }
  return [...found.values()].map(({ note, ways, bridges: stopped }) => ({
    ...note,
    says: `${note.says} at the forward hook: ${[...ways].join(' and ')} containers on ${[...stopped].join(', ')} ends there`,
    bridges: [...stopped],
  }));
}

/** Out of the bridge and, for a published port, into it; of both families. */
function packetsOf(bridge: string): Packet[] {
  const [inside, outside] = [{ name: bridge, index: 0 }, anyLink];
  const unknown = { protocol: 'tcp', source: undefined, daddr: undefined, port: undefined } as const;
  return ([4, 6] as const).flatMap((family) => [
    { ...unknown, family, link: inside, out: outside, dnated: false },
    { ...unknown, family, link: outside, out: inside, dnated: true },
  ]);
}

/** To be run as it stands: in the place that the tool which made the chain leaves to people. */
function fixFor(chain: ChainInfo, ruleset: Ruleset, bridge: string): string {
  const has = (name: string): boolean =>
    ruleset.chains.some((c) => c.family === chain.family && c.table === chain.table && c.name === name);
  if (has('ufw-user-forward')) return `ufw route allow in on ${bridge}; ufw route allow out on ${bridge}`;
  if (chain.family !== NFPROTO.INET && chain.name === 'FORWARD') {
    const nft = chain.family === NFPROTO.IPV6 ? 'ip6tables' : 'iptables';
    const tool = chain.table === LEGACY_TABLE ? legacyTool(chain.family) : nft;
    const at = has('DOCKER-USER') ? 'DOCKER-USER' : 'FORWARD';
    return `${tool} -I ${at} -i ${bridge} -j ACCEPT; ${tool} -I ${at} -o ${bridge} -j ACCEPT`;
  }
  const insert = `nft insert rule ${familyName(chain.family)} ${chain.table} ${chain.name}`;
  return `${insert} iifname ${bridge} accept; ${insert} oifname ${bridge} accept`;
}
