import dns from 'dns-packet';

/** What the containers' and the cluster's name servers share of RFC 1035 and RFC 6891; dns-packet takes messages apart. */
export interface Question {
  name: string;
  type: string;
}

const FORMAT_ERROR = 1;
const HEADER_BYTES = 12;
/** What every client takes in a datagram (RFC 1035, 4.2.1). */
const UDP_MIN_BYTES = 512;
/** What we are willing to send in one, however much the client takes: above, paths fragment (DNS flag day 2020). */
export const UDP_MAX_BYTES = 1_232;

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

/** Whether the client speaks EDNS, and the bytes that an answer by UDP may have. */
export function datagramRoom(query: dns.Packet): { edns: boolean; bytes: number } {
  const opt = query.additionals?.find((record) => record.type === 'OPT');
  const theirs = opt && 'udpPayloadSize' in opt ? Number(opt.udpPayloadSize) : UDP_MIN_BYTES;
  return { edns: opt !== undefined, bytes: Math.max(UDP_MIN_BYTES, Math.min(theirs, UDP_MAX_BYTES)) };
}

/** The answer to what cannot be read: the header alone, with the client's id as far as there is one. */
export function formatError(message: Uint8Array): Uint8Array {
  const out = new Uint8Array(HEADER_BYTES);
  out.set(message.subarray(0, Math.min(4, message.length)));
  return withCode(out, FORMAT_ERROR);
}

/** Turns a query's header into that of an answer: QR and RA set, opcode and RD as they came. Writes into `message`. */
export function withCode(message: Uint8Array, rcode: number): Uint8Array {
  message[2] = 0x80 | ((message[2] ?? 0) & 0x79);
  message[3] = 0x80 | rcode;
  return message;
}

/** `turn` counts answers: each client that takes the first record gets another one. */
export function rotated<T>(items: readonly T[], turn: number): T[] {
  const start = items.length === 0 ? 0 : turn % items.length;
  return [...items.slice(start), ...items.slice(0, start)];
}
