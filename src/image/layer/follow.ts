import { open } from 'node:fs/promises';
import type { Arrival } from '#image/layer/arrival.ts';

const READ_BYTES = 256 * 1024;

/** The bytes of a blob as they arrive, to its announced end. */
export async function* follow(arrival: Arrival): AsyncIterable<Buffer> {
  const handle = await open(arrival.path, 'r');
  try {
    let at = 0;
    while (at < arrival.sizeBytes) {
      if (arrival.failure !== undefined) throw arrival.failure;
      const available = Math.min(arrival.offset, arrival.sizeBytes) - at;
      // Small reads while more is on its way would cost a round through the thread pool each.
      if (available < Math.min(READ_BYTES, arrival.sizeBytes - at) && !arrival.hasEnded) {
        await arrival.change();
        continue;
      }
      if (available <= 0) return; // shorter than announced; the digest will say so
      const chunk = Buffer.allocUnsafe(Math.min(READ_BYTES, available));
      const { bytesRead } = await handle.read(chunk, 0, chunk.length, at);
      if (bytesRead === 0) return;
      at += bytesRead;
      yield chunk.subarray(0, bytesRead);
    }
  } finally {
    await handle.close();
  }
}
