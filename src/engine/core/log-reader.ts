import type { FileHandle } from 'node:fs/promises';
import { type LogPlaces, type OpenLog, openLogs, unpack } from '#engine/core/log-files.ts';

/** One line of a container's log. `text` ends with a newline, unless the program wrote none or the line was cut. */
export interface LogLine {
  stream: 'stdout' | 'stderr';
  text: Buffer;
  time: string;
}

export type LogFormat = 'json' | 'cri';

export interface LogWish {
  stdout: boolean;
  stderr: boolean;
  /** RFC 3339; lines before are left out. */
  since?: Date;
  until?: Date;
  /** The last so many lines; `undefined` is all. */
  tail?: number;
}

/** How far the youngest file was read: where following goes on, so that no line falls in between. */
export interface LogPlace {
  ino: number;
  offset: number;
}

const CHUNK_BYTES = 1024 * 1024;

/** Lines of the files in order. `put` is called with whole batches, so that 200 MB do not cost two million promises. */
export function readLogs(
  places: LogPlaces,
  format: LogFormat,
  wish: LogWish,
  put: (lines: LogLine[]) => Promise<void>,
): Promise<LogPlace | undefined> {
  return readLogBytes(places, wish.tail, linesTo(format, wish, put));
}

/** The same without a look at what the lines say: `take` gets whole lines as they stand in the files, good until it is done. */
export async function readLogBytes(
  places: LogPlaces,
  tail: number | undefined,
  take: (bytes: Buffer) => Promise<void>,
): Promise<LogPlace | undefined> {
  const logs = await openLogs(places);
  try {
    let place: LogPlace | undefined;
    const starts = tail === undefined ? logs.map(() => 0) : await tailStarts(logs, tail);
    for (const [index, log] of logs.entries()) {
      const start = starts[index];
      if (start === undefined) continue;
      const offset = log.packed
        ? await readPacked(log, { lines: start }, take)
        : await readBytes(log.handle, start, take);
      place = { ino: log.ino, offset };
    }
    return place;
  } finally {
    for (const { handle } of logs) await handle.close();
  }
}

/** Whole lines of a packed file, but for what is skipped at its beginning; returns the bytes it holds. */
export async function readPacked(
  log: OpenLog,
  skip: { lines?: number; bytes?: number },
  take: (bytes: Buffer) => Promise<void>,
): Promise<number> {
  let { lines = 0 } = skip;
  const { bytes = 0 } = skip;
  let kept: Buffer = Buffer.alloc(0);
  let seen = 0;
  await unpack(log, async (chunk) => {
    let from = Math.min(chunk.length, Math.max(0, bytes - seen));
    seen += chunk.length;
    for (; lines > 0 && from < chunk.length; lines--) {
      const end = chunk.indexOf(NEWLINE, from);
      from = end < 0 ? chunk.length : end + 1;
      if (end < 0) break;
    }
    const rest = chunk.subarray(from);
    const end = rest.lastIndexOf(NEWLINE) + 1;
    if (end > 0) await take(kept.length > 0 ? Buffer.concat([kept, rest.subarray(0, end)]) : rest.subarray(0, end));
    kept = end > 0 ? rest.subarray(end) : Buffer.concat([kept, rest]);
  });
  return seen;
}

/** Whole lines to the present end, as they stand there; returns the offset behind the last. */
export async function readBytes(
  handle: FileHandle,
  start: number,
  take: (bytes: Buffer) => Promise<void>,
): Promise<number> {
  // Most logs are short, and a follower reads a line at a time.
  let buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, Math.max((await handle.stat()).size - start, 0) + 1));
  let kept = 0;
  let offset = start;
  for (;;) {
    const { bytesRead } = await handle.read(buffer, kept, buffer.length - kept, offset + kept);
    if (bytesRead === 0) return offset;
    const filled = kept + bytesRead;
    const end = buffer.subarray(0, filled).lastIndexOf(NEWLINE) + 1;
    if (end > 0) await take(buffer.subarray(0, end));
    if (end === 0 && filled === buffer.length)
      buffer = Buffer.concat([buffer], buffer.length * 2); // one line, longer than that
    else buffer.copyWithin(0, end, filled);
    kept = filled - end;
    offset += end;
  }
}

/** Takes bytes of a log file, whole lines, and puts those on that are wished for. */
export function linesTo(
  format: LogFormat,
  wish: LogWish,
  put: (lines: LogLine[]) => Promise<void>,
): (bytes: Buffer) => Promise<void> {
  return async (bytes) => {
    const lines = parseLines(bytes, format).filter((line) => wanted(line, wish));
    if (lines.length > 0) await put(lines);
  };
}

const NEWLINE = 10;

function wanted(line: LogLine, wish: LogWish): boolean {
  if (!wish[line.stream]) return false;
  if (!wish.since && !wish.until) return true;
  const at = Date.parse(line.time);
  return (!wish.since || at >= wish.since.getTime()) && (!wish.until || at <= wish.until.getTime());
}

/** Whole lines only. A line that does not parse (a torn write after a power cut) is left out. */
export function parseLines(bytes: Buffer, format: LogFormat): LogLine[] {
  const lines: LogLine[] = [];
  const parse = format === 'json' ? parseJsonLine : parseCriLine;
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(10, at);
    if (end < 0) break;
    const line = parse(bytes, at, end);
    if (line) lines.push(line);
    at = end + 1;
  }
  return lines;
}

/** `TIME stdout F text`: the text is what it is, so the bytes are only cut out. */
function parseCriLine(bytes: Buffer, start: number, end: number): LogLine | undefined {
  const afterTime = bytes.indexOf(32, start);
  if (afterTime < 0 || afterTime + 10 > end) return undefined;
  const stream = bytes[afterTime + 4] === 0x6f /* o of stdout */ ? 'stdout' : 'stderr';
  const whole = bytes[afterTime + 8] === 0x46; /* F */
  const textStart = afterTime + 10;
  // A whole line gets its newline back by taking the file's own.
  return {
    stream,
    text: Buffer.from(bytes.subarray(textStart, whole ? end + 1 : end)),
    time: bytes.toString('latin1', start, afterTime),
  };
}

const JSON_HEAD = Buffer.from('{"log":"');

/**
 * `{"log":"…","stream":"stdout","time":"…"}` as our own writer lays it out: the tail is found from the end, and only text
 * with escapes goes through the JSON parser. Lines of another writer take the slow way.
 */
function parseJsonLine(bytes: Buffer, start: number, end: number): LogLine | undefined {
  const timeEnd = end - 2;
  const timeStart = bytes.lastIndexOf(34, timeEnd - 1) + 1;
  const streamEnd = timeStart - 10; // ","time":"
  const streamStart = streamEnd - 6;
  const textEnd = streamStart - 12; // ","stream":"
  const ours =
    textEnd >= start + 8 &&
    bytes.compare(JSON_HEAD, 0, 8, start, start + 8) === 0 &&
    bytes.toString('latin1', textEnd, streamStart) === '","stream":"';
  if (!ours) return parseForeignLine(bytes.toString('utf8', start, end));
  const stream = bytes.toString('latin1', streamStart, streamEnd) === 'stdout' ? 'stdout' : 'stderr';
  const time = bytes.toString('latin1', timeStart, timeEnd);
  const textStart = start + 8;
  const firstEscape = bytes.indexOf(92, textStart);
  // The commonest line has one escape, its newline.
  if (firstEscape === textEnd - 2 && bytes[textEnd - 1] === 0x6e) {
    const text = Buffer.from(bytes.subarray(textStart, textEnd - 1));
    text[text.length - 1] = 10;
    return { stream, text, time };
  }
  if (firstEscape < 0 || firstEscape >= textEnd)
    return { stream, text: Buffer.from(bytes.subarray(textStart, textEnd)), time };
  return parseForeignLine(bytes.toString('utf8', start, end));
}

function parseForeignLine(line: string): LogLine | undefined {
  try {
    const { log = '', stream, time = '' } = JSON.parse(line) as { log?: string; stream?: string; time?: string };
    return { stream: stream === 'stderr' ? 'stderr' : 'stdout', text: Buffer.from(log), time };
  } catch {
    return undefined; // cut off by a crash, or written by somebody else: no line
  }
}

/**
 * Where to start in each file so that the last `count` lines come, in bytes, of a packed one in lines; `undefined` leaves a file out. From
 * behind, and plain files are read backwards.
 */
async function tailStarts(logs: readonly OpenLog[], count: number): Promise<(number | undefined)[]> {
  const starts: (number | undefined)[] = logs.map(() => undefined);
  let missing = count;
  for (const [i, log] of [...logs.entries()].reverse()) {
    if (missing <= 0) break;
    const found = log.packed ? await packedTail(log, missing) : await tailStart(log.handle, missing);
    starts[i] = found.start;
    missing -= found.lines;
  }
  return starts;
}

async function packedTail(log: OpenLog, count: number): Promise<{ start: number; lines: number }> {
  let lines = 0;
  await unpack(log, (chunk) => {
    for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, at + 1)) lines++;
  });
  return { start: Math.max(0, lines - count), lines };
}

async function tailStart(handle: FileHandle, count: number): Promise<{ start: number; lines: number }> {
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  let position = (await handle.stat()).size;
  let lines = 0;
  let last = true;
  while (position > 0) {
    const size = Math.min(CHUNK_BYTES, position);
    position -= size;
    await handle.read(buffer, 0, size, position);
    for (let at = size - 1; at >= 0; at--) {
      if (buffer[at] !== 10) continue;
      if (last && position + at + 1 === (await handle.stat()).size) {
        last = false; // the newline that ends the last line begins none
        continue;
      }
      last = false;
      if (++lines === count) return { start: position + at + 1, lines };
    }
  }
  return { start: 0, lines: last ? 0 : lines + 1 };
}
