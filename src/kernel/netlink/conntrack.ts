import { afOf, type Family, formatIp, ipFromBytes } from '#kernel/netlink/ip.ts';
import { attr, attributes, type Message, NLM_F_ACK, NLM_F_DUMP, type Received } from '#kernel/netlink/wire.ts';
import { nfgen } from '#kernel/nft/message.ts';

/** Connection tracking: linux/netfilter/nfnetlink_conntrack.h. Flows as the kernel believes in them, and forgetting one. */
const NFNL_SUBSYS_CTNETLINK = 1;
const IPCTNL_MSG_CT_NEW = 0;
const IPCTNL_MSG_CT_GET = 1;
const IPCTNL_MSG_CT_DELETE = 2;
const NFGEN_BYTES = 4;
const CTA = { TUPLE_ORIG: 1, TUPLE_REPLY: 2 } as const;
const CTA_TUPLE = { IP: 1, PROTO: 2 } as const;
const CTA_IP = { 4: { src: 1, dst: 2 }, 6: { src: 3, dst: 4 } } as const;
const CTA_PROTO = { NUM: 1, SRC_PORT: 2, DST_PORT: 3 } as const;
const NLA_F_NESTED = 0x8000;

export interface Tuple {
  protocol: number;
  source: string;
  sourcePort: number;
  destination: string;
  destinationPort: number;
}

export interface Flow {
  family: Family;
  /** As the client sent it. */
  original: Tuple;
  /** As the answer comes: its source is where the flow really leads. */
  reply: Tuple;
  /** The original tuple as the kernel wrote it, for `deleteFlow`. */
  raw: Uint8Array;
}

export function dumpFlows(family: Family): Message {
  return { type: type(IPCTNL_MSG_CT_GET), flags: NLM_F_DUMP, body: [nfgen(afOf(family))] };
}

/** Refused with ENOENT when it has ended meanwhile. */
export function deleteFlow(flow: Flow): Message {
  return {
    type: type(IPCTNL_MSG_CT_DELETE),
    flags: NLM_F_ACK,
    body: [nfgen(afOf(flow.family)), attr(CTA.TUPLE_ORIG | NLA_F_NESTED, flow.raw)],
  };
}

export function parseFlows(messages: readonly Received[], family: Family): Flow[] {
  return messages.flatMap((message) => {
    if (message.type !== type(IPCTNL_MSG_CT_NEW)) return [];
    const a = attributes(message.body.subarray(NFGEN_BYTES));
    const raw = a.get(CTA.TUPLE_ORIG);
    const original = raw && tupleOf(raw, family);
    const reply = tupleOf(a.get(CTA.TUPLE_REPLY), family);
    return raw && original && reply ? [{ family, original, reply, raw }] : [];
  });
}

function tupleOf(value: Uint8Array | undefined, family: Family): Tuple | undefined {
  if (!value) return undefined;
  const a = attributes(value);
  const ip = attributes(a.get(CTA_TUPLE.IP) ?? new Uint8Array());
  const proto = attributes(a.get(CTA_TUPLE.PROTO) ?? new Uint8Array());
  const [source, destination] = [ip.get(CTA_IP[family].src), ip.get(CTA_IP[family].dst)];
  if (!source || !destination) return undefined;
  const port = (bytes: Uint8Array | undefined): number => ((bytes?.[0] ?? 0) << 8) | (bytes?.[1] ?? 0);
  return {
    protocol: proto.get(CTA_PROTO.NUM)?.[0] ?? 0,
    source: formatIp(ipFromBytes(source)),
    sourcePort: port(proto.get(CTA_PROTO.SRC_PORT)),
    destination: formatIp(ipFromBytes(destination)),
    destinationPort: port(proto.get(CTA_PROTO.DST_PORT)),
  };
}

function type(of: number): number {
  return (NFNL_SUBSYS_CTNETLINK << 8) | of;
}
