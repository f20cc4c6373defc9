import { type LogFormat, type LogLine, parseLines } from '#engine/core/log-reader.ts';
import { frameHeader, STDERR, STDOUT } from '#spec/docker/frames.ts';

export interface FramesWish {
  format: LogFormat;
  stdout: boolean;
  stderr: boolean;
  /** A header before each line; without it the lines alone, as a terminal's client reads them. */
  framed: boolean;
}

const HEADER_BYTES = 8;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const LETTER_N = 0x6e;
const NEWLINE = 0x0a;
const LETTER_O = 0x6f;
const BRACE = 0x7d;
/** A text this short is copied byte by byte in less time than a call out of JavaScript takes. */
const SHORT_BYTES = 256;
const HEAD = Buffer.from('{"log":"');
/** Before `stdout` or `stderr`, and between that and the time. */
const STREAM = Buffer.from('","stream":"');
const TIME = Buffer.from('","time":"');
const STREAM_NAME_BYTES = 6;
/** Our times have nine digits at most, without zeros at the end; see native/log.c. */
const TIME_MOST_BYTES = 30;

/**
 * Whole lines of a log file as a client of `docker logs` reads them, bytes to bytes: two million lines become neither objects nor
 * strings. Lines with escapes besides their newline, and lines that are not ours, go the way of `parseLines`.
 */
export function frameLines(bytes: Buffer, wish: FramesWish): Buffer {
  if (wish.format === 'cri') return Buffer.concat(parseLines(bytes, 'cri').flatMap((line) => printed(line, wish)));
  const parts: Buffer[] = [];
  // A header is shorter than what a line of ours loses, so this is room for all of them.
  let out = Buffer.allocUnsafe(bytes.length);
  let filled = 0;
  const headerBytes = wish.framed ? HEADER_BYTES : 0;
  for (let at = 0; at < bytes.length; ) {
    const textAt = at + HEAD.length;
    const size = isAt(HEAD, bytes, at) ? copyText(bytes, textAt, out, filled + headerBytes) : 0;
    const streamAt = textAt + size + 1 + STREAM.length; // the newline is two bytes here, and one there
    const end = size > 0 ? endOfPlain(bytes, textAt + size + 1) : -1;
    if (end < 0) {
      const lineEnd = bytes.indexOf(NEWLINE, at) + 1;
      if (lineEnd === 0) break;
      parts.push(out.subarray(0, filled));
      out = out.subarray(filled);
      filled = 0;
      for (const line of parseLines(bytes.subarray(at, lineEnd), 'json')) parts.push(...printed(line, wish));
      at = lineEnd;
      continue;
    }
    const isOut = bytes[streamAt + 3] === LETTER_O;
    if (isOut ? wish.stdout : wish.stderr) {
      if (wish.framed) putHeader(out, filled, isOut ? STDOUT : STDERR, size);
      filled += headerBytes + size;
    }
    at = end;
  }
  parts.push(out.subarray(0, filled));
  return parts.length === 1 ? (parts[0] ?? out) : Buffer.concat(parts);
}

/** Copies text up to its first escape, which has to be the newline that ends it; its size with that, 0 when it is another. */
function copyText(bytes: Buffer, from: number, out: Buffer, to: number): number {
  const soon = Math.min(bytes.length, from + SHORT_BYTES);
  let at = from;
  for (; at < soon; at++) {
    const byte = bytes[at] as number;
    if (byte === BACKSLASH) break;
    if (byte === NEWLINE) return 0; // a line without an escape, or torn
    out[to++] = byte;
  }
  if (at === soon) {
    const escape = bytes.indexOf(BACKSLASH, at);
    const newline = bytes.indexOf(NEWLINE, at);
    if (escape < 0 || (newline >= 0 && newline < escape)) return 0;
    to += bytes.copy(out, to, at, escape);
    at = escape;
  }
  if (bytes[at + 1] !== LETTER_N) return 0;
  out[to] = NEWLINE;
  return at - from + 1;
}

/** Behind the text: `","stream":"stdout","time":"…"}` and a newline. The offset behind that; −1 when it reads otherwise. */
function endOfPlain(bytes: Buffer, at: number): number {
  const timeAt = at + STREAM.length + STREAM_NAME_BYTES;
  if (!isAt(STREAM, bytes, at) || !isAt(TIME, bytes, timeAt)) return -1;
  let quote = timeAt + TIME.length;
  for (const stop = quote + TIME_MOST_BYTES; quote < stop && bytes[quote] !== QUOTE; ) quote++;
  return bytes[quote] === QUOTE && bytes[quote + 1] === BRACE && bytes[quote + 2] === NEWLINE ? quote + 3 : -1;
}

function putHeader(out: Buffer, at: number, stream: number, size: number): void {
  out[at] = stream;
  out[at + 1] = out[at + 2] = out[at + 3] = 0;
  out[at + 4] = size >>> 24;
  out[at + 5] = size >>> 16;
  out[at + 6] = size >>> 8;
  out[at + 7] = size;
}

function isAt(wanted: Buffer, bytes: Buffer, at: number): boolean {
  for (let i = 0; i < wanted.length; i++) if (bytes[at + i] !== wanted[i]) return false;
  return true;
}

function printed({ stream, text }: LogLine, wish: FramesWish): Buffer[] {
  if (!wish[stream]) return [];
  return wish.framed ? [frameHeader(stream === 'stdout' ? STDOUT : STDERR, text.length), text] : [text];
}
