import type { FileStore, FileWriter } from '#build/context/files.ts';
import { ContextTree } from '#build/context/tree.ts';
import type { TarEntry, TarLimits } from '#image/tar/entry.ts';
import { type TarConsumer, TarReader } from '#image/tar/reader.ts';
import { type Digest, digestOf } from '#spec/image/digest.ts';

/** Files up to this size are hashed in memory and written only when their bytes are new. */
const SMALL_BYTES = 512 * 1024;

type Piece =
  | { do: 'small'; path: string; entry: TarEntry; bytes: Buffer }
  | { do: 'begin'; path: string; entry: TarEntry }
  | { do: 'data'; chunk: Buffer; offset: number }
  | { do: 'end' }
  | { do: 'node'; path: string; entry: TarEntry };

/**
 * A tar → a tree, its bytes in the store. The reader is pushed a chunk, what it found is written, then the next chunk comes:
 * memory stays bounded, whatever the archive holds. Paths that lead out were refused by the reader.
 */
export async function receiveTar(
  body: AsyncIterable<Uint8Array>,
  files: FileStore,
  options: { what: string; limits?: TarLimits },
): Promise<ContextTree> {
  const tree = new ContextTree();
  const pieces: Piece[] = [];
  const reader = new TarReader(options.what, collector(pieces), options.limits);
  let writer: { file: FileWriter; path: string; entry: TarEntry; offset: number } | undefined;
  const writes: Promise<unknown>[] = [];
  const settle = async (piece: Piece): Promise<void> => {
    switch (piece.do) {
      case 'small': {
        const digest = digestOf(piece.bytes);
        addFile(tree, piece.path, piece.entry, digest);
        if (!files.has(digest)) writes.push(files.put(piece.bytes));
        return;
      }
      case 'begin':
        writer = { file: await files.begin(), path: piece.path, entry: piece.entry, offset: 0 };
        return;
      case 'data':
        if (!writer) return;
        await fillTo(writer, piece.offset);
        await writer.file.write(piece.chunk);
        writer.offset += piece.chunk.length;
        return;
      case 'end': {
        if (!writer) return;
        const { file, path, entry } = writer;
        await fillTo(writer, entry.size);
        writer = undefined;
        return addFile(tree, path, entry, (await file.end()).digest);
      }
      case 'node':
        if (piece.entry.type === 'hardlink') tree.link(piece.path, piece.entry.linkTarget);
        else tree.add(piece.path, { ...nodeOf(piece.entry), type: piece.entry.type });
    }
  };
  try {
    for await (const chunk of body) {
      reader.push(Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk));
      for (const piece of pieces.splice(0)) await settle(piece);
      await Promise.all(writes.splice(0));
    }
    reader.finish();
    return tree;
  } finally {
    await Promise.allSettled(writes);
    await writer?.file.abort();
  }
}

/** A hole is zeros. */
async function fillTo(writer: { file: FileWriter; offset: number }, offset: number): Promise<void> {
  while (writer.offset < offset) {
    const zeros = Buffer.alloc(Math.min(offset - writer.offset, SMALL_BYTES));
    await writer.file.write(zeros);
    writer.offset += zeros.length;
  }
}

function addFile(tree: ContextTree, path: string, entry: TarEntry, digest: Digest): void {
  tree.add(path, { ...nodeOf(entry), type: 'file', digest });
}

function nodeOf(entry: TarEntry): Omit<Parameters<ContextTree['add']>[1], 'type'> {
  const { mode, uid, gid, size, mtimeSec, linkTarget, deviceMajor, deviceMinor, xattrs } = entry;
  const attributes = xattrs ? { xattrs } : {};
  return { mode, uid, gid, size, mtimeSec, linkTarget, deviceMajor, deviceMinor, ...attributes };
}

/** What the reader hands over are views into its chunk: small files are copied out, large ones written before the next. */
function collector(pieces: Piece[]): TarConsumer {
  let small: { path: string; entry: TarEntry; bytes: Buffer } | undefined;
  let large = false;
  return {
    entry(entry) {
      small = undefined;
      large = false;
      const { path } = entry;
      if (entry.type !== 'file') pieces.push({ do: 'node', path, entry });
      else if (entry.size <= SMALL_BYTES) small = { path, entry, bytes: Buffer.alloc(entry.size) };
      else {
        large = true;
        pieces.push({ do: 'begin', path, entry });
      }
    },
    data(chunk, offset) {
      if (small) chunk.copy(small.bytes, offset);
      else if (large) pieces.push({ do: 'data', chunk, offset });
    },
    end() {
      if (small) pieces.push({ do: 'small', ...small });
      else if (large) pieces.push({ do: 'end' });
      small = undefined;
    },
  };
}
