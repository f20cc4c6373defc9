import { spawn } from 'node:child_process';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { errnoOf, messageOf } from '#base/errors.ts';
import { ArchiveUnreadable } from '#build/errors.ts';
import { inflate } from '#image/layer/inflate.ts';

/** How a tar may be packed, by its first bytes. */
export type Packing = 'tar' | 'gzip' | 'zstd' | 'bzip2' | 'xz';

const MAGIC: readonly [Packing, Buffer][] = [
  ['gzip', Buffer.from([0x1f, 0x8b])],
  ['zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd])],
  ['bzip2', Buffer.from('BZh')],
  ['xz', Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0])],
];
const USTAR_AT = 257;
const CHECKSUM_AT = 148;
export const HEAD_BYTES = 512;

/** Undefined: no archive that we take apart. By content alone; names say nothing (Dockerfile reference, "Adding local tar archives"). */
export function packingOf(head: Buffer): Packing | undefined {
  for (const [packing, magic] of MAGIC) if (head.subarray(0, magic.length).equals(magic)) return packing;
  if (head.length < HEAD_BYTES) return undefined;
  if (head.toString('latin1', USTAR_AT, USTAR_AT + 5) === 'ustar') return 'tar';
  // Archives older than POSIX have no mark, but a sum of their header's bytes.
  const told = Number.parseInt(
    head
      .toString('latin1', CHECKSUM_AT, CHECKSUM_AT + 8)
      .replaceAll('\0', ' ')
      .trim(),
    8,
  );
  let sum = 8 * 0x20;
  for (let at = 0; at < HEAD_BYTES; at++) if (at < CHECKSUM_AT || at >= CHECKSUM_AT + 8) sum += head[at] ?? 0;
  return told === sum && told !== 8 * 0x20 ? 'tar' : undefined;
}

/** The tar's own bytes. xz and bzip2 are unpacked by the host's programs: Node.js has neither. */
export async function* unpacked(
  packing: Packing,
  body: AsyncIterable<Uint8Array>,
  what: string,
): AsyncGenerator<Buffer> {
  switch (packing) {
    case 'tar':
      for await (const chunk of body) yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
      return;
    case 'gzip':
    case 'zstd':
      yield* inflated(packing, body, what);
      return;
    case 'bzip2':
    case 'xz':
      yield* throughProgram(packing, body, what);
  }
}

/** `inflate` pushes; a reader pulls: a few pieces wait between them. */
async function* inflated(
  packing: 'gzip' | 'zstd',
  body: AsyncIterable<Uint8Array>,
  what: string,
): AsyncGenerator<Buffer> {
  const ready: Buffer[] = [];
  let wake: () => void = () => undefined;
  let drained: () => void = () => undefined;
  let ended = false;
  let stopped = false;
  let failure: unknown;
  const source = async function* (): AsyncGenerator<Buffer> {
    for await (const chunk of body) {
      if (ready.length > PIECES_MAX && !stopped) await new Promise<void>((go) => (drained = go));
      if (stopped) return;
      yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    }
  };
  inflate(packing, what, source(), (chunk) => {
    ready.push(Buffer.from(chunk));
    wake();
  })
    .catch((error: unknown) => {
      failure = error;
    })
    .finally(() => {
      ended = true;
      wake();
    });
  try {
    for (;;) {
      const next = ready.shift();
      if (next) {
        if (ready.length <= PIECES_MAX) drained();
        yield next;
      } else if (ended) break;
      else await new Promise<void>((go) => (wake = go));
    }
    if (failure !== undefined) throw failure;
  } finally {
    stopped = true; // a reader that only wanted the beginning
    drained();
  }
}

const PIECES_MAX = 8;

async function* throughProgram(
  program: 'bzip2' | 'xz',
  body: AsyncIterable<Uint8Array>,
  what: string,
): AsyncGenerator<Buffer> {
  const child = spawn(program, ['-dc'], { stdio: ['pipe', 'pipe', 'pipe'] });
  let said = '';
  child.stderr.on('data', (part: Buffer) => {
    said = (said + part.toString()).slice(-500);
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  ended.catch(() => undefined); // awaited below
  const fed = pipeline(Readable.from(body), child.stdin).catch(() => undefined); // the program says why it stopped reading
  try {
    for await (const chunk of child.stdout) yield chunk as Buffer;
    const code = await ended;
    if (code !== 0) throw new ArchiveUnreadable({ what, why: said.trim() || `${program} ended with ${code}` });
  } catch (error) {
    if (errnoOf(error) === 'ENOENT')
      throw new ArchiveUnreadable({ what, why: `this host has no program ${program}` }, { cause: error });
    if (errnoOf(error) !== undefined) throw new ArchiveUnreadable({ what, why: messageOf(error) }, { cause: error });
    throw error;
  } finally {
    child.kill('SIGKILL');
    await fed;
  }
}

/** The first bytes, and the whole again. */
export async function peek(
  body: AsyncIterable<Uint8Array>,
  bytes: number,
): Promise<{ head: Buffer; whole: AsyncIterable<Uint8Array> }> {
  const iterator = body[Symbol.asyncIterator]();
  const chunks: Uint8Array[] = [];
  let size = 0;
  while (size < bytes) {
    const next = await iterator.next();
    if (next.done) break;
    chunks.push(next.value);
    size += next.value.length;
  }
  const whole = async function* (): AsyncGenerator<Uint8Array> {
    try {
      yield* chunks;
      for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value;
    } finally {
      await iterator.return?.(undefined); // whoever stops early closes what is read
    }
  };
  return { head: Buffer.concat(chunks).subarray(0, bytes), whole: whole() };
}
