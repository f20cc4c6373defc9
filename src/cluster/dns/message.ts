import dns from 'dns-packet';
import type { Data } from '#cluster/dns/zone.ts';

/** Messages of RFC 1035, made and taken apart by dns-packet. */
export interface Question {
  name: string;
  type: string;
}

export interface Reply {
  rcode: 'NOERROR' | 'NXDOMAIN' | 'SERVFAIL' | 'REFUSED';
  /** `name` absent: the name that was asked for. */
  answers: readonly (Data & { name?: string; ttlSeconds?: number })[];
  /** Zone whose SOA tells how long "there is none" may be remembered (RFC 2308). */
  soaOf?: string;
}

/** Names change with every deployment while clients keep what they were told: not for long. As CoreDNS's kubernetes plugin. */
export const TTL_SECONDS = 5;
const UDP_MAX_BYTES = 512;
/** What we are willing to send in a datagram however much the client takes: above, paths fragment (DNS flag day 2020). */
const UDP_OUR_MAX_BYTES = 1_232;
const RCODE = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, REFUSED: 5 } as const;

/** The one question of a query; undefined if it is not one we read. */
export function questionOf(message: Uint8Array): Question | undefined {
  try {
    const packet = dns.decode(Buffer.from(message));
    const [question] = packet.questions ?? [];
    if (packet.type !== 'query' || packet.questions?.length !== 1 || !question) return undefined;
    return { name: question.name, type: question.type };
  } catch {
    return undefined; // any bytes may come from a pod; the caller answers FORMERR
  }
}

/** `message` is a query that `questionOf` could read. `turn` rotates the answers, for clients that take the first. */
export function encodeReply(message: Uint8Array, reply: Reply, options: { stream: boolean; turn: number }): Uint8Array {
  const query = dns.decode(Buffer.from(message));
  const [question] = query.questions ?? [];
  if (!question) return formatError(message);
  const answers = rotated(reply.answers, options.turn).map(
    ({ name, ttlSeconds, ...data }) =>
      ({ ...data, name: name ?? question.name, ttl: ttlSeconds ?? TTL_SECONDS }) as dns.Answer,
  );
  const opt = query.additionals?.find((record) => record.type === 'OPT');
  const theirs = opt && 'udpPayloadSize' in opt ? Number(opt.udpPayloadSize) : UDP_MAX_BYTES;
  const room = Math.max(UDP_MAX_BYTES, Math.min(theirs, UDP_OUR_MAX_BYTES));
  const flags =
    dns.RECURSION_AVAILABLE |
    ((query.flags ?? 0) & dns.RECURSION_DESIRED) |
    (reply.rcode === 'SERVFAIL' || reply.rcode === 'REFUSED' ? 0 : dns.AUTHORITATIVE_ANSWER) |
    RCODE[reply.rcode];
  const head: dns.Packet = {
    type: 'response',
    id: query.id ?? 0,
    flags,
    questions: [question],
    ...(reply.soaOf === undefined ? {} : { authorities: [soa(reply.soaOf)] }),
    // RFC 6891: who speaks EDNS is answered in it.
    ...(opt ? { additionals: [{ type: 'OPT', name: '.', udpPayloadSize: UDP_OUR_MAX_BYTES } as dns.Answer] } : {}),
  };
  const whole = dns.encode({ ...head, answers });
  if (options.stream || whole.length <= room) return whole;
  return dns.encode({ ...head, flags: flags | dns.TRUNCATED_RESPONSE, answers: [] }); // the client comes back by TCP
}

/** The answer to what cannot be read: the header alone, if there is one. */
export function formatError(message: Uint8Array): Uint8Array {
  const out = new Uint8Array(12);
  out.set(message.subarray(0, Math.min(4, message.length)));
  out[2] = 0x80 | ((out[2] ?? 0) & 0x79); // QR; opcode and RD stay
  out[3] = 0x80 | RCODE.FORMERR; // RA
  return out;
}

/** The records of an upstream's answer, to be put behind our alias; undefined when it is none. */
export function answersOf(message: Uint8Array | undefined): dns.Answer[] | undefined {
  if (!message) return undefined;
  try {
    return dns.decode(Buffer.from(message)).answers ?? [];
  } catch {
    return undefined; // not a DNS message: as if nobody had answered
  }
}

export function encodeQuery(id: number, name: string, type: string): Uint8Array {
  return dns.encode({
    type: 'query',
    id,
    flags: dns.RECURSION_DESIRED,
    questions: [{ name, type: type as dns.RecordType }],
  });
}

function soa(zone: string): dns.Answer {
  return {
    type: 'SOA',
    name: zone,
    ttl: TTL_SECONDS,
    data: {
      mname: `ns.dns.${zone}`,
      rname: `hostmaster.${zone}`,
      serial: 1,
      refresh: 7_200,
      retry: 1_800,
      expire: 86_400,
      minimum: TTL_SECONDS,
    },
  };
}

function rotated<T extends { type: string }>(items: readonly T[], turn: number): T[] {
  // An alias stays in front of what it leads to.
  if (items.length < 2 || items.some((item) => item.type === 'CNAME')) return [...items];
  const start = turn % items.length;
  return [...items.slice(start), ...items.slice(0, start)];
}
