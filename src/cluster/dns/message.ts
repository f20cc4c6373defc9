import dns from 'dns-packet';
import type { Data } from '#cluster/dns/zone.ts';
import { datagramRoom, formatError, rotated, UDP_MAX_BYTES } from '#spec/dns/message.ts';

export interface Reply {
  rcode: 'NOERROR' | 'NXDOMAIN' | 'SERVFAIL' | 'REFUSED';
  /** `name` absent: the name that was asked for. */
  answers: readonly (Data & { name?: string; ttlSeconds?: number })[];
  /** Zone whose SOA tells how long "there is none" may be remembered (RFC 2308). */
  soaOf?: string;
}

/** Names change with every deployment while clients keep what they were told: not for long. As CoreDNS's kubernetes plugin. */
export const TTL_SECONDS = 5;
const RCODE = { NOERROR: 0, SERVFAIL: 2, NXDOMAIN: 3, REFUSED: 5 } as const;

/** `message` is a query that `questionOf` could read. `turn` rotates the answers, for clients that take the first. */
export function encodeReply(message: Uint8Array, reply: Reply, options: { stream: boolean; turn: number }): Uint8Array {
  const query = dns.decode(Buffer.from(message));
  const [question] = query.questions ?? [];
  if (!question) return formatError(message);
  const answers = inTurn(reply.answers, options.turn).map(
    ({ name, ttlSeconds, ...data }) =>
      ({ ...data, name: name ?? question.name, ttl: ttlSeconds ?? TTL_SECONDS }) as dns.Answer,
  );
  const room = datagramRoom(query);
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
    ...(room.edns ? { additionals: [{ type: 'OPT', name: '.', udpPayloadSize: UDP_MAX_BYTES } as dns.Answer] } : {}),
  };
  const whole = dns.encode({ ...head, answers });
  if (options.stream || whole.length <= room.bytes) return whole;
  return dns.encode({ ...head, flags: flags | dns.TRUNCATED_RESPONSE, answers: [] }); // the client comes back by TCP
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

/** An alias stays in front of what it leads to. */
function inTurn(answers: Reply['answers'], turn: number): Reply['answers'] {
  return answers.some((answer) => answer.type === 'CNAME') ? answers : rotated(answers, turn);
}
