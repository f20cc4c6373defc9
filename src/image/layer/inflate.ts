import { once } from 'node:events';
import type { Transform } from 'node:stream';
import * as zlib from 'node:zlib';
import { messageOf } from '#base/errors.ts';
import { LayerInvalid } from '#image/tar/errors.ts';
import type { Compression } from '#spec/image/manifest.ts';

const OUTPUT_BYTES = 512 * 1024;

/**
 * Unpacks `source` and hands the bytes to `sink`. gzip runs in Node's thread pool, so inflating the next piece overlaps
 * with what `sink` does with this one.
 */
export async function inflate(
  compression: Compression,
  blob: string,
  source: AsyncIterable<Buffer>,
  sink: (chunk: Buffer) => void,
): Promise<void> {
  switch (compression) {
    case 'none':
      for await (const chunk of source) sink(chunk);
      return;
    case 'gzip':
      return throughStream(zlib.createGunzip({ chunkSize: OUTPUT_BYTES }), blob, source, sink);
    case 'zstd': {
      // Node has zstd since 22.15; before it, fzstd (JavaScript) reads it at a fifth of the speed.
      const native = (zlib as { createZstdDecompress?: (o: { chunkSize: number }) => Transform }).createZstdDecompress;
      if (native) return throughStream(native({ chunkSize: OUTPUT_BYTES }), blob, source, sink);
      return throughFzstd(blob, source, sink);
    }
  }
}

async function throughStream(
  stream: Transform,
  blob: string,
  source: AsyncIterable<Buffer>,
  sink: (chunk: Buffer) => void,
): Promise<void> {
  let failure: unknown;
  let isEmpty = true;
  const ended = new Promise<void>((resolve) => {
    stream.once('close', resolve);
    stream.once('error', (error) => {
      failure ??= new LayerInvalid(
        { blob, entry: '', rule: `cannot be inflated: ${messageOf(error)}` },
        { cause: error },
      );
    });
  });
  stream.on('data', (chunk: Buffer) => {
    if (failure !== undefined) return;
    try {
      sink(chunk);
    } catch (error) {
      failure = error;
      stream.destroy();
    }
  });
  try {
    for await (const chunk of source) {
      isEmpty &&= chunk.length === 0;
      if (failure !== undefined || stream.destroyed) break;
      // A stream that fails in the place of draining says why by `ended`.
      if (!stream.write(chunk)) await Promise.race([once(stream, 'drain').catch(() => undefined), ended]);
    }
    // zlib takes no bytes at all for a stream that has ended well.
    if (isEmpty && failure === undefined) failure = new LayerInvalid({ blob, entry: '', rule: 'is empty' });
    if (failure === undefined) stream.end();
    else stream.destroy();
    await ended;
  } finally {
    stream.destroy();
  }
  if (failure !== undefined) throw failure;
}

async function throughFzstd(blob: string, source: AsyncIterable<Buffer>, sink: (chunk: Buffer) => void): Promise<void> {
  const { Decompress } = await import('fzstd'); // read by those alone who meet such a layer
  let failure: unknown;
  const decompress = new Decompress((chunk) => {
    try {
      if (failure === undefined && chunk.length > 0) sink(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length));
    } catch (error) {
      failure = error;
    }
  });
  const push = (chunk: Uint8Array, last: boolean): void => {
    try {
      decompress.push(chunk, last);
    } catch (cause) {
      throw new LayerInvalid({ blob, entry: '', rule: `cannot be inflated: ${messageOf(cause)}` }, { cause });
    }
    if (failure !== undefined) throw failure;
  };
  for await (const chunk of source) push(chunk, false);
  push(new Uint8Array(0), true);
}
