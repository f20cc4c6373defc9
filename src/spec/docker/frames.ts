/**
 * The raw stream of attach, exec and logs when there is no terminal (Docker Engine API, "Stream format"): each frame is
 *
 *     [stream][0][0][0][length, 4 bytes big endian][payload]      stream: 0 stdin, 1 stdout, 2 stderr
 */
export const STDOUT = 1;
export const STDERR = 2;

export const RAW_STREAM = 'application/vnd.docker.raw-stream';
export const MULTIPLEXED_STREAM = 'application/vnd.docker.multiplexed-stream';

export function frameHeader(stream: number, length: number): Buffer {
  const header = Buffer.alloc(8);
  header[0] = stream;
  header.writeUInt32BE(length, 4);
  return header;
}

export function frame(stream: number, payload: Uint8Array): Buffer {
  return Buffer.concat([frameHeader(stream, payload.length), payload]);
}

/** Takes frames apart again, whatever the cuts between chunks. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);
  readonly #maxBytes: number;

  constructor(maxBytes = 64 * 1024 * 1024) {
    this.#maxBytes = maxBytes;
  }

  push(chunk: Uint8Array): { stream: number; payload: Buffer }[] {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    const frames: { stream: number; payload: Buffer }[] = [];
    while (this.#rest.length >= 8) {
      const length = this.#rest.readUInt32BE(4);
      if (length > this.#maxBytes) throw new RangeError(`a frame of ${length} bytes`);
      if (this.#rest.length < 8 + length) break;
      frames.push({ stream: this.#rest[0] ?? 0, payload: this.#rest.subarray(8, 8 + length) });
      this.#rest = this.#rest.subarray(8 + length);
    }
    return frames;
  }
}
