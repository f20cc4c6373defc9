import { DigestMismatch } from '#image/errors.ts';
import { DirectorySink, type Ownership, type Unfinished } from '#image/layer/directory-sink.ts';
import { ErofsSink, type Unpacked } from '#image/layer/erofs-sink.ts';
import { inflate } from '#image/layer/inflate.ts';
import type { IdMap } from '#image/layer/tree.ts';
import type { TarLimits } from '#image/tar/entry.ts';
import { TarReader } from '#image/tar/reader.ts';
import { algorithmOf, type Digest, finish, hasher } from '#spec/image/digest.ts';
import type { Compression } from '#spec/image/manifest.ts';

export interface UnpackJob {
  /** The compressed blob's digest: errors name it. */
  blob: Digest;
  /** Check the compressed bytes too: not needed where somebody else hashes them as they arrive. */
  verifyBlob: boolean;
  compression: Compression;
  /** Digest of the unpacked tar; undefined when nobody has said (load, import): then it is only computed. */
  diffId: Digest | undefined;
  /** The image file or the directory to write; it must not exist. */
  target: string;
  /** Not synced here: whoever asks does it before the file counts. */
  unsynced?: true;
  form: 'erofs' | 'directory';
  ownership: Ownership;
  ids?: [from: number, to: number, count: number][];
  limits?: TarLimits;
}

export interface UnpackResult extends Unpacked {
  diffId: Digest;
  /** Of a directory: what is still to be done. */
  left?: Unfinished;
}

/**
 * bytes ─▶ (hash) ─▶ inflate ─▶ hash ─▶ tar ─▶ image file, synced, or directory, not synced: there a checksum finds what a
 * power cut took. Throws and leaves what was written to the caller to delete.
 */
export async function unpackLayer(job: UnpackJob, source: AsyncIterable<Buffer>): Promise<UnpackResult> {
  const sink =
    job.form === 'erofs'
      ? new ErofsSink(job.target, job.blob, idMap(job.ids))
      : new DirectorySink(job.target, job.blob, idMap(job.ids), job.ownership);
  try {
    const reader = new TarReader(job.blob, sink, job.limits);
    const diffHash = hasher(job.diffId ? algorithmOf(job.diffId) : 'sha256');
    await inflate(job.compression, job.blob, verified(job, source), (chunk) => {
      diffHash.update(chunk);
      reader.push(chunk);
    });
    reader.finish();
    const diffId = finish(diffHash, job.diffId ? algorithmOf(job.diffId) : 'sha256');
    if (job.diffId !== undefined && diffId !== job.diffId) {
      throw new DigestMismatch({ what: `${job.blob} unpacked`, expected: job.diffId, actual: diffId });
    }
    const unpacked = sink.finish();
    if (sink instanceof ErofsSink && !job.unsynced) await sink.sync();
    return { ...unpacked, diffId };
  } finally {
    sink.close();
  }
}

async function* verified(job: UnpackJob, source: AsyncIterable<Buffer>): AsyncIterable<Buffer> {
  if (!job.verifyBlob) {
    yield* source;
    return;
  }
  const hash = hasher(algorithmOf(job.blob));
  for await (const chunk of source) {
    hash.update(chunk);
    yield chunk;
  }
  const actual = finish(hash, algorithmOf(job.blob));
  if (actual !== job.blob) throw new DigestMismatch({ what: `blob ${job.blob}`, expected: job.blob, actual });
}

/** Ids outside of all ranges become 65534, the kernel's own "nobody" for what cannot be mapped. */
function idMap(ranges: UnpackJob['ids']): IdMap | undefined {
  if (!ranges) return undefined;
  const map = (id: number): number => {
    for (const [from, to, count] of ranges) if (id >= from && id < from + count) return to + id - from;
    return 65_534;
  };
  return { uid: map, gid: map };
}
