import type { IncomingMessage } from 'node:http';
import { type Duplex, PassThrough, type Readable } from 'node:stream';
import { BadBody } from '#engine/api/errors.ts';

/**
 * A request that upgrades may carry a body (exec start does). Node 20 to 24 stop parsing at the headers: the body comes in
 * `head` and from the socket, and what follows it is the client's standard input already. Node 26 gives the body through the
 * request. This reads exactly the body and leaves everything after it to be read from `input`.
 */
export async function readUpgradeBody(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  maxBytes: number,
): Promise<{ body: Buffer; early: Buffer }> {
  if (request.headers['transfer-encoding']) {
    if (bodyComesWithRequest()) return { body: await readAll(request, maxBytes), early: head };
    return readChunks(socket, head, maxBytes);
  }
  const length = Number(request.headers['content-length'] ?? 0);
  if (!Number.isSafeInteger(length) || length < 0 || length > maxBytes)
    throw new BadBody({ problem: `Content-Length ${length} is out of bounds` });
  if (length === 0) return { body: Buffer.alloc(0), early: head };
  if (bodyComesWithRequest()) return { body: await readAll(request, maxBytes), early: head };

  let bytes = head;
  while (bytes.length < length) {
    const chunk = await nextChunk(socket);
    if (!chunk) throw new BadBody({ problem: `it ends after ${bytes.length} of ${length} bytes` });
    bytes = Buffer.concat([bytes, chunk]);
  }
  return { body: bytes.subarray(0, length), early: bytes.subarray(length) };
}

/** Chunks to the last, empty one (RFC 9112, 7.1); extensions and trailers are nobody's here. */
async function readChunks(socket: Duplex, head: Buffer, maxBytes: number): Promise<{ body: Buffer; early: Buffer }> {
  const chunks: Buffer[] = [];
  let size = 0;
  let bytes = head;
  const have = async (count: number): Promise<void> => {
    while (bytes.length < count) {
      const more = await nextChunk(socket);
      if (!more) throw new BadBody({ problem: 'it ends in the middle of a chunk' });
      bytes = Buffer.concat([bytes, more]);
    }
  };
  for (;;) {
    let line = bytes.indexOf('\r\n');
    for (; line < 0; line = bytes.indexOf('\r\n')) {
      if (bytes.length > CHUNK_LINE_MAX_BYTES) throw new BadBody({ problem: 'a chunk has no size' });
      await have(bytes.length + 1);
    }
    const digits = /^[0-9a-f]{1,8}$/i.exec(bytes.subarray(0, line).toString('latin1'))?.[0];
    if (digits === undefined) throw new BadBody({ problem: 'a chunk has no size' });
    const length = Number.parseInt(digits, 16);
    size += length;
    if (size > maxBytes) throw new BadBody({ problem: `longer than ${maxBytes} bytes` });
    const end = line + 2 + length;
    await have(end + 2);
    chunks.push(bytes.subarray(line + 2, end));
    bytes = bytes.subarray(end + 2);
    if (length === 0) return { body: Buffer.concat(chunks), early: bytes };
  }
}

const CHUNK_LINE_MAX_BYTES = 16;

/**
 * The client's standard input after an upgrade, with bytes that came early in front. A stream of its own: reading it to its
 * end, or giving it up, must not close the connection that the output still uses.
 */
export function hijackedInput(socket: Duplex, early: Buffer): Readable {
  const input = new PassThrough();
  if (early.length > 0) input.write(early);
  socket.on('error', () => input.end());
  return socket.pipe(input);
}

/** From Node 26 on, an upgraded request is parsed to its end and reads as a stream of its own. */
function bodyComesWithRequest(): boolean {
  return Number(process.versions.node.split('.')[0]) >= 26;
}

async function readAll(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > maxBytes) throw new BadBody({ problem: `longer than ${maxBytes} bytes` });
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function nextChunk(socket: Duplex): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    const done = (result: Buffer | undefined): void => {
      socket.off('readable', onReadable);
      socket.off('end', onEnd);
      socket.off('close', onEnd);
      socket.off('error', reject);
      resolve(result);
    };
    const onReadable = (): void => {
      const chunk = socket.read();
      if (chunk) done(chunk);
    };
    const onEnd = (): void => done(undefined);
    socket.on('readable', onReadable);
    socket.once('end', onEnd);
    socket.once('close', onEnd);
    socket.once('error', reject);
    onReadable();
  });
}
