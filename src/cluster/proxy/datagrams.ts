import { isCode } from '#base/errors.ts';
import type { DatagramFront } from '#cluster/proxy/elements.ts';
import { deleteFlow, dumpFlows, type Flow, parseFlows } from '#kernel/netlink/conntrack.ts';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import type { Family } from '#kernel/netlink/ip.ts';
import { NETLINK_NETFILTER } from '#kernel/netlink/wire.ts';

const UDP = 17;
const ENOENT = 2;

/**
 * Makes the kernel forget UDP flows that lead to who serves no more, or that were let through before anybody served. Such a flow
 * lives on as long as the client keeps sending within its timeout, whatever the rules say by now.
 */
export async function forgetDatagrams(
  kernel: NetKernel,
  fronts: readonly DatagramFront[],
  netns: string | undefined,
): Promise<void> {
  const at = netns === undefined ? {} : { netns };
  for (const family of new Set(fronts.map((front) => front.family))) {
    const answer = await kernel.netlink({
      what: 'read tracked flows',
      protocol: NETLINK_NETFILTER,
      messages: [dumpFlows(family)],
      ...at,
    });
    for (const flow of staleFlows(parseFlows(answer, family), fronts, family)) {
      try {
        await kernel.netlink({
          what: 'forget a flow',
          protocol: NETLINK_NETFILTER,
          messages: [deleteFlow(flow)],
          ...at,
        });
      } catch (error) {
        if (!isCode(error, 'NETLINK_REFUSED') || error.data['errno'] !== ENOENT) throw error; // it ended by itself
      }
    }
  }
}

/** Pure: which flows reached one of these frontends and lead to none of its targets. */
export function staleFlows(flows: readonly Flow[], fronts: readonly DatagramFront[], family: Family): Flow[] {
  const byAddress = new Map<string, DatagramFront>();
  const byPort = new Map<number, DatagramFront>();
  for (const front of fronts) {
    if (front.family !== family) continue;
    if (front.address === undefined) byPort.set(front.port, front);
    else byAddress.set(`${front.address} ${front.port}`, front);
  }
  return flows.filter(({ original, reply }) => {
    if (original.protocol !== UDP) return false;
    const leadsTo = `${reply.source} ${reply.sourcePort}`;
    const front = byAddress.get(`${original.destination} ${original.destinationPort}`);
    if (front) return !front.targets.has(leadsTo);
    // A port of the node: only a flow that was led away is ours; a program on the host may answer on that number elsewhere.
    const port = byPort.get(original.destinationPort);
    return port !== undefined && reply.source !== original.destination && !port.targets.has(leadsTo);
  });
}
