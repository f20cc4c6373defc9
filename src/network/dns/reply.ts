import dns from 'dns-packet';
import type { Answer } from '#network/dns/zone.ts';
import { datagramRoom, formatError, rotated, withCode } from '#spec/dns/message.ts';

/** Names of containers change while clients keep what they were told: not for long. */
const TTL_SECONDS = 5;
const RCODE = { serverFailure: 2, nameError: 3 } as const;

/** The answer to a question that concerns us. `turn` rotates the addresses, so that clients who take the first share the load. */
export function replyTo(
  message: Uint8Array,
  answer: Exclude<Answer, { kind: 'forward' }>,
  options: { stream: boolean; turn: number },
): Uint8Array {
  const query = dns.decode(Buffer.from(message));
  const [question] = query.questions ?? [];
  if (!question) return formatError(message);
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
  if (options.stream || whole.length <= datagramRoom(query).bytes) return whole;
  return dns.encode({ ...head, flags: head.flags | dns.TRUNCATED_RESPONSE, answers: [] }); // the client comes back by TCP
}

export function serverFailure(message: Uint8Array): Uint8Array {
  return failure(message, RCODE.serverFailure);
}

/** Header and question as they came, with a response code. */
function failure(message: Uint8Array, rcode: number): Uint8Array {
  const out = withCode(Uint8Array.from(message), rcode);
  out.fill(0, 6, 12); // no records behind the question
  return withoutRecords(out);
}

function withoutRecords(message: Uint8Array): Uint8Array {
  let at = 12;
  while (at < message.length && message[at] !== 0) at += (message[at] ?? 0) + 1;
  return message.slice(0, Math.min(message.length, at + 5)); // the root label, type and class
}
