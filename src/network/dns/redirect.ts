import { ipBytes, parseIp } from '#kernel/netlink/ip.ts';
import type { Message } from '#kernel/netlink/wire.ts';
import { CMP, type Expression, PAYLOAD_NETWORK, PAYLOAD_TRANSPORT, portBytes, REG_1 } from '#kernel/nft/expression.ts';
import { filterAt, PRIORITY } from '#kernel/nft/facts.ts';
import { isFamily } from '#kernel/nft/match.ts';
import { addChain, addRule, addTable, NFPROTO, type TableRef } from '#kernel/nft/message.ts';
import { DNS_ADDRESS, DNS_PORT } from '#network/edge.ts';

const TABLE: TableRef = { family: NFPROTO.INET, table: 'estiba-dns' };
const CHAIN = 'loopback';
const UDP = { number: 17, checksumAt: 6 };
const TCP = { number: 6, checksumAt: 16 };

/**
 * In a container's namespace: questions to 127.0.0.11:53 go to the port where the edge listens, answers come back from 53.
 * Port 53 itself stays free, so a name server in the container can bind it on all addresses. The ports are rewritten in the
 * packets; NAT would switch connection tracking on for all that the container sends (docs/decisions/0020).
 */
export function redirectDns(): Message[] {
  const address = ipBytes(parseIp(DNS_ADDRESS));
  const rewrite = (protocol: typeof UDP, at: 'source' | 'destination', from: number, to: number): Message =>
    addRule(TABLE, CHAIN, [
      ...isFamily(4),
      { expr: 'payload', dreg: REG_1, base: PAYLOAD_NETWORK, offset: at === 'source' ? 12 : 16, length: 4 },
      { expr: 'cmp', sreg: REG_1, op: CMP.EQ, data: address },
      { expr: 'payload', dreg: REG_1, base: PAYLOAD_NETWORK, offset: 9, length: 1 },
      { expr: 'cmp', sreg: REG_1, op: CMP.EQ, data: Uint8Array.of(protocol.number) },
      ...port(at, from),
      { expr: 'immediate', dreg: REG_1, data: portBytes(to) },
      {
        expr: 'payloadSet',
        sreg: REG_1,
        base: PAYLOAD_TRANSPORT,
        offset: at === 'source' ? 0 : 2,
        length: 2,
        checksumAt: protocol.checksumAt,
      },
    ]);
  return [
    addTable(TABLE),
    addChain(TABLE, CHAIN, filterAt('output', PRIORITY.raw)),
    ...[UDP, TCP].flatMap((protocol) => [
      rewrite(protocol, 'destination', 53, DNS_PORT),
      rewrite(protocol, 'source', DNS_PORT, 53),
    ]),
  ];
}

function port(at: 'source' | 'destination', value: number): Expression[] {
  return [
    { expr: 'payload', dreg: REG_1, base: PAYLOAD_TRANSPORT, offset: at === 'source' ? 0 : 2, length: 2 },
    { expr: 'cmp', sreg: REG_1, op: CMP.EQ, data: portBytes(value) },
  ];
}
