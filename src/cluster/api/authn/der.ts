/** The little of DER (X.690) that issuing certificates takes: values in, bytes out. */
export type Der = Buffer;

function tagged(tag: number, ...parts: readonly Uint8Array[]): Der {
  const body = Buffer.concat(parts);
  return Buffer.concat([Buffer.of(tag), length(body.length), body]);
}

function length(n: number): Buffer {
  if (n < 0x80) return Buffer.of(n);
  const bytes: number[] = [];
  for (let rest = n; rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest & 0xff);
  return Buffer.of(0x80 | bytes.length, ...bytes);
}

export const sequence = (...parts: readonly Uint8Array[]): Der => tagged(0x30, ...parts);
export const set = (...parts: readonly Uint8Array[]): Der => tagged(0x31, ...parts);
export const octets = (bytes: Uint8Array): Der => tagged(0x04, bytes);
export const utf8 = (text: string): Der => tagged(0x0c, Buffer.from(text));
export const boolean = (value: boolean): Der => tagged(0x01, Buffer.of(value ? 0xff : 0));
/** `[n]`, constructed: explicit tagging. */
export const explicit = (n: number, ...parts: readonly Uint8Array[]): Der => tagged(0xa0 | n, ...parts);
/** `[n]`, primitive: implicit tagging. */
export const implicit = (n: number, bytes: Uint8Array): Der => tagged(0x80 | n, bytes);

/** A positive integer from its big-endian bytes. */
export function integer(bytes: Uint8Array): Der {
  let start = 0;
  while (start < bytes.length - 1 && bytes[start] === 0) start++;
  const digits = bytes.subarray(start);
  // A first bit of 1 would read as a minus.
  return (digits[0] ?? 0) & 0x80 ? tagged(0x02, Buffer.of(0), digits) : tagged(0x02, digits);
}

/** Bits whose count need not be a multiple of eight: key usages. `unused` counts the low bits that say nothing. */
export function bits(bytes: Uint8Array, unused = 0): Der {
  return tagged(0x03, Buffer.of(unused), bytes);
}

export function oid(text: string): Der {
  const [first = 0, second = 0, ...rest] = text.split('.').map(Number);
  const bytes = [first * 40 + second];
  for (const part of rest) {
    const digits = [part & 0x7f];
    for (let n = Math.floor(part / 128); n > 0; n = Math.floor(n / 128)) digits.unshift((n & 0x7f) | 0x80);
    bytes.push(...digits);
  }
  return tagged(0x06, Buffer.from(bytes));
}

/** RFC 5280, 4.1.2.5: two digits of the year until 2049, four after. */
export function time(ms: number): Der {
  const text = `${new Date(ms)
    .toISOString()
    .replaceAll(/[-:T]|\.\d+/g, '')
    .slice(0, 14)}Z`;
  return Number(text.slice(0, 4)) < 2050 ? tagged(0x17, Buffer.from(text.slice(2))) : tagged(0x18, Buffer.from(text));
}
