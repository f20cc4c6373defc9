import { closeSync, fdatasync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { promisify } from 'node:util';
import { blocksOf, EROFS_BLOCK, EROFS_MAX_BYTES, layOut, mayBeInline, SUPER_BLOCK_OFFSET } from '#image/layer/erofs.ts';
import { type IdMap, LayerTree, type Node } from '#image/layer/tree.ts';
import type { TarEntry } from '#image/tar/entry.ts';
import { LayerInvalid } from '#image/tar/errors.ts';
import { BrokenRule, broken } from '#image/tar/header.ts';
import type { TarConsumer } from '#image/tar/reader.ts';

const STAGE_BYTES = 1024 * 1024;

export interface Unpacked {
  /** Size of the image file, holes included. */
  imageBytes: number;
  /** Bytes of all files, as `du --apparent-size` would count them. */
  contentBytes: number;
  inodes: number;
}

/**
 * Writes a layer as one EROFS image while its tar comes in: contents go straight to their place, in large writes; what
 * describes them is kept in memory (about 500 bytes a file) and written at the end. No privilege is needed, whatever
 * owners, devices and attributes the layer has, and a crash leaves one file to delete.
 */
export class ErofsSink implements TarConsumer {
  readonly #blob: string;
  readonly #tree: LayerTree;
  readonly #fd: number;
  /** Grows to `STAGE_BYTES`: a build makes many layers of a few kilobytes, and a megabyte for each keeps the collector busy. */
  #stage = Buffer.allocUnsafe(16 * EROFS_BLOCK);
  #staged = 0;
  /** Where the stage's first byte belongs. Block 0 is the super block's. */
  #position = EROFS_BLOCK;
  #node: Node | undefined;
  #nodeStart = 0;
  #contentBytes = 0;

  constructor(path: string, blob: string, ids?: IdMap) {
    this.#blob = blob;
    this.#tree = new LayerTree(blob, ids);
    this.#fd = openSync(path, 'w', 0o600);
  }

  sync(): Promise<void> {
    return promisify(fdatasync)(this.#fd);
  }

  entry(entry: TarEntry): void {
    const node = this.#tree.add(entry);
    this.#node = node;
    if (!node) return;
    this.#contentBytes += entry.size;
    if (!entry.sparse && mayBeInline(node, entry.size)) {
      node.inline = Buffer.allocUnsafe(entry.size);
      return;
    }
    if (entry.size === 0) return;
    this.#nodeStart = blocksOf(this.#position + this.#staged) * EROFS_BLOCK;
    node.data = this.#nodeStart / EROFS_BLOCK;
    this.#checkRoom(entry);
  }

  data(chunk: Buffer, offset: number): void {
    const node = this.#node;
    if (!node) return;
    if (node.inline) chunk.copy(node.inline, offset);
    else this.#put(chunk, this.#nodeStart + offset);
  }

  end(): void {
    const node = this.#node;
    this.#node = undefined;
    if (!node || node.inline || node.size === 0) return;
    // A hole at the end has no data that would move the position.
    const end = this.#nodeStart + node.size;
    if (this.#position + this.#staged < end) this.#jump(end);
  }

  /** Writes what describes the contents. The file is complete then, but not synced. */
  finish(): Unpacked {
    this.#tree.finish();
    const startBlock = blocksOf(this.#position + this.#staged);
    const tail = layOut(this.#tree, startBlock);
    this.#put(tail.bytes, startBlock * EROFS_BLOCK);
    this.#flush();
    ftruncateSync(this.#fd, this.#position);
    writeAll(this.#fd, tail.superBlock, SUPER_BLOCK_OFFSET);
    return { imageBytes: this.#position, contentBytes: this.#contentBytes, inodes: tail.inodes };
  }

  close(): void {
    closeSync(this.#fd);
  }

  #put(bytes: Buffer, at: number): void {
    const end = this.#position + this.#staged;
    if (at !== end) this.#jump(at);
    if (bytes.length >= STAGE_BYTES / 2) {
      this.#flush();
      writeAll(this.#fd, bytes, this.#position);
      this.#position += bytes.length;
      return;
    }
    if (this.#staged + bytes.length > STAGE_BYTES) this.#flush();
    this.#grow(this.#staged + bytes.length);
    bytes.copy(this.#stage, this.#staged);
    this.#staged += bytes.length;
  }

  /** Forward to `at`: the gap is zeros when small (the end of a block), else a hole in the image file. */
  #jump(at: number): void {
    const gap = at - this.#position - this.#staged;
    if (gap < EROFS_BLOCK && this.#staged + gap <= STAGE_BYTES) {
      this.#grow(this.#staged + gap);
      this.#stage.fill(0, this.#staged, this.#staged + gap);
      this.#staged += gap;
      return;
    }
    this.#flush();
    this.#position = at;
  }

  #grow(bytes: number): void {
    if (bytes <= this.#stage.length) return;
    const larger = Buffer.allocUnsafe(Math.min(STAGE_BYTES, Math.max(bytes, this.#stage.length * 4)));
    this.#stage.copy(larger, 0, 0, this.#staged);
    this.#stage = larger;
  }

  #flush(): void {
    writeAll(this.#fd, this.#stage.subarray(0, this.#staged), this.#position);
    this.#position += this.#staged;
    this.#staged = 0;
  }

  #checkRoom(entry: TarEntry): void {
    try {
      if (this.#nodeStart + entry.size > EROFS_MAX_BYTES / 2)
        broken(`makes the layer larger than ${EROFS_MAX_BYTES / 2} bytes`);
    } catch (error) {
      if (!(error instanceof BrokenRule)) throw error;
      throw new LayerInvalid({ blob: this.#blob, entry: entry.path, rule: error.message });
    }
  }
}

function writeAll(fd: number, bytes: Buffer, position: number): void {
  let done = 0;
  while (done < bytes.length) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
}
