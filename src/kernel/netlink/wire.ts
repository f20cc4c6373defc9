import { NetlinkRefused, NetlinkTruncated } from '#kernel/netlink/errors.ts';

/**
 * Netlink's wire form (netlink(7)): messages of a 16-byte header, a family header and attributes, all aligned to four bytes.
 * Everything here is pure bytes; the executor sends them. The header and rtnetlink attributes are in the host's byte order,
 * which is little endian on every machine we run on; nftables' attributes are big endian and say so (`u32be`).
 *
 *   │ length 4 │ type 2 │ flags 2 │ sequence 4 │ port 4 │ family header │ attribute … │
 *                                                       attribute: │ length 2 │ type 2 │ value │ padding │
 */
export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

export const NLM_F_REQUEST = 0x01;
export const NLM_F_ACK = 0x04;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;
export const NLM_F_DUMP = 0x300;

const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;
const HEADER_BYTES = 16;
const ATTR_HEADER_BYTES = 4;
const ATTR_MAX_BYTES = 0xffff;

// -- attributes ---------------------------------------------------------------------------------------------------------

/** One attribute, header included and padded. */
export function attr(type: number, value: Uint8Array): Uint8Array {
  const length = ATTR_HEADER_BYTES + value.length;
  if (length > ATTR_MAX_BYTES) throw new RangeError(`netlink attribute ${type} of ${value.length} bytes does not fit`);
  const out = new Uint8Array(align(length));
  const view = viewOf(out);
  view.setUint16(0, length, true);
  view.setUint16(2, type, true);
  out.set(value, ATTR_HEADER_BYTES);
  return out;
}

export function nested(type: number, attrs: readonly Uint8Array[]): Uint8Array {
  return attr(type | NLA_F_NESTED, concat(attrs));
}

export const flag = (type: number): Uint8Array => attr(type, new Uint8Array(0));
export const u8 = (type: number, value: number): Uint8Array => attr(type, Uint8Array.of(value));
export const u16 = (type: number, value: number): Uint8Array =>
  attr(
    type,
    bytes(2, (v) => v.setUint16(0, value, true)),
  );
export const u16be = (type: number, value: number): Uint8Array =>
  attr(
    type,
    bytes(2, (v) => v.setUint16(0, value)),
  );
export const u32 = (type: number, value: number): Uint8Array => attr(type, u32Bytes(value));
export const u32be = (type: number, value: number): Uint8Array =>
  attr(
    type,
    bytes(4, (v) => v.setInt32(0, value | 0)),
  );
export const u64be = (type: number, value: bigint): Uint8Array =>
  attr(
    type,
    bytes(8, (v) => v.setBigUint64(0, value)),
  );
/** A string with its NUL, as the kernel's NLA_NUL_STRING policies want it. */
export const str = (type: number, value: string): Uint8Array => attr(type, new TextEncoder().encode(`${value}\0`));

export function u32Bytes(value: number): Uint8Array {
  return bytes(4, (v) => v.setInt32(0, value | 0, true));
}

export function bytes(length: number, fill: (view: DataView) => void): Uint8Array {
  const out = new Uint8Array(length);
  fill(viewOf(out));
  return out;
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Aligned to four bytes, as every part of a message is. */
export function padded(value: Uint8Array): Uint8Array {
  return value.length % 4 === 0 ? value : concat([value, new Uint8Array(align(value.length) - value.length)]);
}

// -- messages out -------------------------------------------------------------------------------------------------------

export interface Message {
  type: number;
  flags: number;
  /** Family header and attributes. */
  body: readonly Uint8Array[];
}

/** One message after another; each gets its place in the batch, counted from 1, as sequence number, so that an answer names it. */
export function encode(messages: readonly Message[]): Uint8Array {
  return concat(
    messages.map((message, index) => {
      const body = concat(message.body.map(padded));
      const head = bytes(HEADER_BYTES, (v) => {
        v.setUint32(0, HEADER_BYTES + body.length, true);
        v.setUint16(4, message.type, true);
        v.setUint16(6, message.flags | NLM_F_REQUEST, true);
        v.setUint32(8, index + 1, true);
      });
      return concat([head, body]);
    }),
  );
}

// -- messages in --------------------------------------------------------------------------------------------------------

export interface Received {
  type: number;
  flags: number;
  sequence: number;
  /** Behind the 16-byte header. */
  body: Uint8Array;
}

/** Splits what a socket gave. A length that leads out of the buffer is an error, never a read beyond it. */
export function* decode(buffer: Uint8Array): Generator<Received> {
  const view = viewOf(buffer);
  for (let at = 0; at < buffer.length; ) {
    if (buffer.length - at < HEADER_BYTES) throw new NetlinkTruncated({ what: 'message header', atByte: at });
    const length = view.getUint32(at, true);
    if (length < HEADER_BYTES || at + length > buffer.length)
      throw new NetlinkTruncated({ what: 'message', atByte: at });
    yield {
      type: view.getUint16(at + 4, true),
      flags: view.getUint16(at + 6, true),
      sequence: view.getUint32(at + 8, true),
      body: buffer.subarray(at + HEADER_BYTES, at + length),
    };
    at += align(length);
  }
}

/** The answers to a dump or a request, without the closing DONE and the acknowledgements; a refusal is thrown. */
export function answers(buffer: Uint8Array, what: string): Received[] {
  const out: Received[] = [];
  for (const message of decode(buffer)) {
    if (message.type === NLMSG_ERROR) {
      const error = decodeError(message);
      if (error.errno !== 0) throw new NetlinkRefused({ what, ...error });
    } else if (message.type !== NLMSG_DONE) out.push(message);
  }
  return out;
}

export interface NetlinkError {
  /** Positive errno; 0 is an acknowledgement. */
  errno: number;
  /** The kernel's own words (extended acknowledgement, Linux 4.12), if it had any. */
  says: string | undefined;
  /** Place of the refused message in its batch, from 1. */
  sequence: number;
  /** Byte in the refused message that the kernel points at. */
  offset: number | undefined;
}

export function decodeError(message: Received): NetlinkError {
  if (message.body.length < 4 + HEADER_BYTES) throw new NetlinkTruncated({ what: 'error', atByte: 0 });
  const view = viewOf(message.body);
  const errno = -view.getInt32(0, true);
  const requestLength = view.getUint32(4, true);
  // A capped answer repeats only the header of the refused message; acknowledgements always do.
  const capped = (message.flags & NLM_F_CAPPED) !== 0 || errno === 0;
  const tlvsAt = 4 + (capped ? HEADER_BYTES : align(requestLength));
  const tlvs = message.flags & NLM_F_ACK_TLVS ? attributes(message.body.subarray(tlvsAt)) : NO_ATTRIBUTES;
  const says = tlvs.get(1);
  const offset = tlvs.get(2);
  return {
    errno,
    says: says && text(says),
    sequence: view.getUint32(12, true),
    offset: offset && asU32(offset),
  };
}

export type Attributes = ReadonlyMap<number, Uint8Array>;
const NO_ATTRIBUTES: Attributes = new Map();

/** Attributes by type; of a type that comes twice the last counts (lists are read with `attributeList`). */
export function attributes(buffer: Uint8Array): Attributes {
  return new Map(attributeList(buffer));
}

export function attributeList(buffer: Uint8Array): [type: number, value: Uint8Array][] {
  const out: [number, Uint8Array][] = [];
  const view = viewOf(buffer);
  for (let at = 0; at + ATTR_HEADER_BYTES <= buffer.length; ) {
    const length = view.getUint16(at, true);
    if (length < ATTR_HEADER_BYTES || at + length > buffer.length)
      throw new NetlinkTruncated({ what: 'attribute', atByte: at });
    out.push([view.getUint16(at + 2, true) & NLA_TYPE_MASK, buffer.subarray(at + ATTR_HEADER_BYTES, at + length)]);
    at += align(length);
  }
  return out;
}

export const asU32 = (value: Uint8Array): number => viewOf(value).getUint32(0, true);
export const asU32be = (value: Uint8Array): number => viewOf(value).getUint32(0);
export const asI32be = (value: Uint8Array): number => viewOf(value).getInt32(0);
export const asU64be = (value: Uint8Array): bigint => viewOf(value).getBigUint64(0);

/** Text up to its NUL. */
export function text(value: Uint8Array): string {
  const end = value.indexOf(0);
  return new TextDecoder().decode(end < 0 ? value : value.subarray(0, end));
}

export function viewOf(value: Uint8Array): DataView {
  return new DataView(value.buffer, value.byteOffset, value.byteLength);
}

function align(length: number): number {
  return (length + 3) & ~3;
}
