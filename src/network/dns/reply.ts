import dns from 'dns-packet';
import type { Answer } from '#network/dns/zone.ts';

/** Messages of RFC 1035, made and taken apart by dns-packet; what it cannot read is answered FORMERR. */
export interface Question {
  name: string;
  type: string;
}

/** Names of containers change while clients keep what they were told: not for long. */
const TTL_SECONDS = 5;
const RCODE = { formatError: 1, serverFailure: 2, nameError: 3 } as const;
const UDP_MAX_BYTES = 512;

/** The one question of a query; undefined if it is not one we read. */
export function questionOf(message: Uint8Array): Question | undefined {
  try {
    const packet = dns.decode(Buffer.from(message));
    const [question] = packet.questions ?? [];
    if (packet.type !== 'query' || packet.questions?.length !== 1 || !question) return undefined;
    return { name: question.name, type: question.type };
  } catch {
    return undefined; // any bytes may come from a container; the caller answers FORMERR
  }
}

/** The answer to a question that concerns us. `turn` rotates the addresses, so that clients who take the first share the load. */
export function replyTo(
  message: Uint8Array,
  answer: Exclude<Answer, { kind: 'forward' }>,
  options: { stream: boolean; turn: number },
): Uint8Array {
  const query = dns.decode(Buffer.from(message));
  const [question] = query.questions ?? [];
  if (!question) return failure(message, RCODE.formatError);
  if (answer.kind === 'refuse') return failure(message, RCODE.nameError);
  const answers: dns.Answer[] =
    answer.kind === 'addresses'
      ? rotated(answer.addresses, options.turn).map((data) => ({
          type: data.includes(':') ? ('AAAA' as const) : ('A' as const),
          name: question.name,
          ttl: TTL_SECONDS,
          data,
        }))
      : answer.kind === 'name'
        ? [{ type: 'PTR', name: question.name, ttl: TTL_SECONDS, data: answer.name }]
        : [];
  const head = {
    type: 'response' as const,
    id: query.id ?? 0,
    flags: dns.RECURSION_AVAILABLE | ((query.flags ?? 0) & dns.RECURSION_DESIRED),
    questions: [question],
  };
  const whole = dns.encode({ ...head, answers });
  const opt = query.additionals?.find((record) => record.type === 'OPT');
  const room = opt && 'udpPayloadSize' in opt ? Math.max(UDP_MAX_BYTES, Number(opt.udpPayloadSize)) : UDP_MAX_BYTES;
  if (options.stream || whole.length <= room) return whole;
  return dns.encode({ ...head, flags: head.flags | dns.TRUNCATED_RESPONSE, answers: [] }); // the client comes back by TCP
}

export function serverFailure(message: Uint8Array): Uint8Array {
  return failure(message, RCODE.serverFailure);
}

export function formatError(message: Uint8Array): Uint8Array {
  return failure(message, RCODE.formatError);
}

/** Header and question as they came, with a response code; works on what cannot be decoded. */
function failure(message: Uint8Array, rcode: number): Uint8Array {
  const out = Uint8Array.from(message);
  out[2] = 0x80 | ((out[2] ?? 0) & 0x79); // QR; opcode and RD stay
  out[3] = 0x80 | rcode; // RA
  if (rcode === RCODE.formatError) return headerOnly(out);
  out.fill(0, 6, 12); // no records behind the question
  return withoutRecords(out);
}

function headerOnly(message: Uint8Array): Uint8Array {
  const out = message.slice(0, 12);
  out.fill(0, 4, 12);
  return out;
}

function withoutRecords(message: Uint8Array): Uint8Array {
  let at = 12;
  while (at < message.length && message[at] !== 0) at += (message[at] ?? 0) + 1;
  return message.slice(0, Math.min(message.length, at + 5)); // the root label, type and class
}

function rotated<T>(items: readonly T[], turn: number): T[] {
  const start = items.length === 0 ? 0 : turn % items.length;
  return [...items.slice(start), ...items.slice(0, start)];
}
