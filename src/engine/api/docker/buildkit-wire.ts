/** Protobuf as much as BuildKit's progress and credentials need: varints, and fields that hold bytes. */
const WIRE_VARINT = 0;
const WIRE_BYTES = 2;

export function varintField(number: number, value: number): Buffer {
  return Buffer.from([...varint((number << 3) | WIRE_VARINT), ...varint(value)]);
}

/** Text, bytes or a message. */
export function bytesField(number: number, value: string | Buffer): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([Buffer.from([...varint((number << 3) | WIRE_BYTES), ...varint(bytes.length)]), bytes]);
}

/** Not negative, and exact up to 2^53. */
function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  return [...bytes, rest];
}

/** The byte fields of a message by number, the last of each; it ends at the first that is cut off or unknown. */
export function readFields(message: Buffer): Map<number, Buffer> {
  const fields = new Map<number, Buffer>();
  let at = 0;
  const next = (): number => {
    let value = 0;
    for (let scale = 1; at < message.length; scale *= 0x80) {
      const byte = message[at++] ?? 0;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    return value;
  };
  while (at < message.length) {
    const key = next();
    const value = next();
    if ((key & 7) === WIRE_VARINT) continue;
    if ((key & 7) !== WIRE_BYTES || at + value > message.length) break;
    fields.set(key >>> 3, message.subarray(at, at + value));
    at += value;
  }
  return fields;
}
