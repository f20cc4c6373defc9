import { createHash, type Hash } from 'node:crypto';
import { closeSync, createReadStream, fstatSync, openSync, readFileSync } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#base/clock.ts';
import { errnoOf } from '#base/errors.ts';
import { newId, type Random } from '#base/random.ts';
import { ContextFileLost } from '#build/errors.ts';
import { type Digest, digestOf, hexOf } from '#spec/image/digest.ts';

/**
 * Bytes of build contexts, each content once:
 *
 *     DIRECTORY/ab/<62 hex>    a file, by the SHA-256 of its bytes; its mtime says when it was last asked for
 *     DIRECTORY/in/…           one being written; swept at start
 *
 * It is a cache, so nothing is synced: bytes are hashed again when they go into a layer, and what a power cut took is
 * forgotten and asked for again.
 */
export class FileStore {
  readonly #directory: string;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #known = new Set<Digest>();
  #readAtOnce = 0;

  private constructor(directory: string, clock: Clock, random: Random) {
    this.#directory = directory;
    this.#clock = clock;
    this.#random = random;
  }

  static async openAt(directory: string, clock: Clock, random: Random): Promise<FileStore> {
    const files = new FileStore(directory, clock, random);
    await rm(join(directory, 'in'), { recursive: true, force: true });
    await mkdir(join(directory, 'in'), { recursive: true, mode: 0o700 });
    for (const fan of await readdir(directory)) {
      if (!/^[0-9a-f]{2}$/.test(fan)) continue;
      for (const name of await readdir(join(directory, fan))) files.#known.add(`sha256:${fan}${name}`);
    }
    return files;
  }

  has(digest: Digest): boolean {
    return this.#known.has(digest);
  }

  /** A file that is in memory. */
  async put(bytes: Buffer): Promise<Digest> {
    const digest = digestOf(bytes);
    if (this.#known.has(digest)) return digest;
    const temporary = this.#temporary();
    await writeFile(temporary, bytes, { mode: 0o600 });
    await this.#keep(temporary, digest);
    return digest;
  }

  /** A file that comes in pieces. */
  async begin(): Promise<FileWriter> {
    const path = this.#temporary();
    return new FileWriter(path, await open(path, 'wx', 0o600), (digest) => this.#keep(path, digest));
  }

  async copy(body: AsyncIterable<Uint8Array>): Promise<{ digest: Digest; sizeBytes: number }> {
    const writer = await this.begin();
    try {
      for await (const chunk of body) await writer.write(chunk);
      return await writer.end();
    } catch (error) {
      await writer.abort();
      throw error;
    }
  }

  /** The bytes, compared with their digest on the way; CONTEXT_FILE_LOST when they are gone or changed. */
  async *open(digest: Digest): AsyncGenerator<Buffer> {
    const hash = createHash('sha256');
    try {
      for await (const chunk of this.#chunks(digest)) {
        hash.update(chunk);
        yield chunk;
      }
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      this.#known.delete(digest);
      throw new ContextFileLost({ digest });
    }
    if (hash.digest('hex') === hexOf(digest)) return;
    await this.remove(digest);
    throw new ContextFileLost({ digest });
  }

  /**
   * A small file is read here and now: it came a moment ago, is in memory, and four rounds through the thread pool cost ten times as
   * much. Others want a turn in between.
   */
  async *#chunks(digest: Digest): AsyncGenerator<Buffer> {
    const fd = openSync(this.#path(digest), 'r');
    try {
      const { size } = fstatSync(fd);
      if (size <= SMALL_BYTES) {
        yield readFileSync(fd);
        if (++this.#readAtOnce % SMALL_A_TURN === 0) await new Promise((go) => setImmediate(go));
      } else yield* createReadStream('', { fd, autoClose: false, start: 0, highWaterMark: READ_BYTES });
    } finally {
      closeSync(fd);
    }
  }

  /** Keeps it from the next prune. */
  async touch(digest: Digest): Promise<void> {
    const seconds = this.#clock.now() / 1000;
    await utimes(this.#path(digest), seconds, seconds).catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw error;
    });
  }

  async remove(digest: Digest): Promise<void> {
    this.#known.delete(digest);
    await rm(this.#path(digest), { force: true });
  }

  /** What is there, with the time of its last use. */
  async *list(): AsyncGenerator<{ digest: Digest; sizeBytes: number; usedAtMs: number }> {
    for (const digest of [...this.#known]) {
      const info = await stat(this.#path(digest)).catch(() => undefined); // removed meanwhile
      if (info) yield { digest, sizeBytes: info.blocks * 512, usedAtMs: info.mtimeMs };
    }
  }

  async #keep(temporary: string, digest: Digest): Promise<void> {
    if (this.#known.has(digest)) {
      await rm(temporary, { force: true });
      return;
    }
    const path = this.#path(digest);
    try {
      await rename(temporary, path);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      await mkdir(join(path, '..'), { recursive: true, mode: 0o700 });
      await rename(temporary, path);
    }
    this.#known.add(digest);
  }

  #temporary(): string {
    return join(this.#directory, 'in', newId(this.#random));
  }

  #path(digest: Digest): string {
    const hex = hexOf(digest);
    return join(this.#directory, hex.slice(0, 2), hex.slice(2));
  }
}

const READ_BYTES = 256 * 1024;
const SMALL_BYTES = 64 * 1024;
const SMALL_A_TURN = 32;

export class FileWriter {
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #keep: (digest: Digest) => Promise<void>;
  readonly #hash: Hash = createHash('sha256');
  #sizeBytes = 0;

  constructor(path: string, handle: FileHandle, keep: (digest: Digest) => Promise<void>) {
    this.#path = path;
    this.#handle = handle;
    this.#keep = keep;
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#hash.update(chunk);
    this.#sizeBytes += chunk.length;
    let done = 0;
    while (done < chunk.length) done += (await this.#handle.write(chunk, done)).bytesWritten;
  }

  async end(): Promise<{ digest: Digest; sizeBytes: number }> {
    await this.#handle.close();
    const digest: Digest = `sha256:${this.#hash.digest('hex')}`;
    await this.#keep(digest);
    return { digest, sizeBytes: this.#sizeBytes };
  }

  async abort(): Promise<void> {
    await this.#handle.close().catch(() => undefined); // closed already when `end` failed
    await rm(this.#path, { force: true });
  }
}
