import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat, unlink, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { type Readable, Transform } from 'node:stream';
import type { Clock } from '#base/clock.ts';
import { errnoOf } from '#base/errors.ts';
import type { BlobInfo, ContentLease, ContentStore, Ingest, IngestOptions } from '#image/content.ts';
import { BLOB_MAX_BYTES } from '#image/content.ts';
import {
  BlobDamaged,
  BlobNotFound,
  BlobTooLarge,
  DigestMismatch,
  IngestBusy,
  IngestClosed,
  SizeMismatch,
} from '#image/errors.ts';
import { LeaseTable } from '#image/leases.ts';
import {
  type Algorithm,
  algorithmOf,
  type Digest,
  digestOf,
  finish,
  hasher,
  hexOf,
  isDigest,
} from '#spec/image/digest.ts';
import { renameDurably, sweepTemporary, syncDirectory, writeFileAtomic } from '#storage/files.ts';

/**
 *     blobs/sha256/<hex>          a blob; its name is its digest, its access time when it was last used (for the disk budget)
 *     blobs/sha512/<hex>
 *     blobs/sha256/.tmp-…         a small one being written; swept at start
 *     blobs/ingest/<name>.data    a transfer that has begun; <name> is a hash of its ref
 *     blobs/ingest/<name>.ref     the ref as text
 *     blobs/damaged/<hex>         set aside by a failed verification, for whoever wants to look
 */
export class DiskContentStore implements ContentStore {
  readonly #root: string;
  readonly #clock: Clock;
  readonly #leases = new LeaseTable();
  readonly #held = new Set<string>();
  readonly #touchedAtMs = new Map<Digest, number>();

  private constructor(root: string, clock: Clock) {
    this.#root = root;
    this.#clock = clock;
  }

  static async open(root: string, clock: Clock): Promise<DiskContentStore> {
    const made = ['sha256', 'sha512', 'ingest', 'damaged'].map((name) => join(root, name));
    await Promise.all(made.map((path) => mkdir(path, { recursive: true, mode: 0o700 })));
    const sweeps = ['sha256', 'ingest'].map((name) => sweepTemporary(join(root, name)));
    await Promise.all([...sweeps, syncDirectory(root)]);
    await sweepRefs(join(root, 'ingest'));
    return new DiskContentStore(root, clock);
  }

  /** Where the blob lies, for workers that read it themselves; what they read they verify. */
  pathOf(digest: Digest): string {
    return join(this.#root, algorithmOf(digest), hexOf(digest));
  }

  async info(digest: Digest): Promise<BlobInfo | undefined> {
    const found = await stat(this.pathOf(digest)).catch(absent);
    return found && { digest, sizeBytes: found.size };
  }

  async open(digest: Digest, part: { offset?: number; length?: number; unverified?: boolean } = {}): Promise<Readable> {
    const handle = await this.#use(digest);
    const { size } = await handle.stat();
    const { offset = 0, length = size, unverified = false } = part;
    const whole = offset === 0 && length >= size;
    if (!whole && (length === 0 || offset >= size)) {
      await handle.close();
      return createReadStream('/dev/null');
    }
    const end = Math.min(size, offset + length) - 1;
    const file = createReadStream('', {
      fd: handle,
      start: offset,
      ...(end >= offset ? { end } : {}),
      highWaterMark: READ_BYTES,
    });
    if (!whole || unverified) return file;
    const check = this.#verifier(digest);
    file.on('error', (error) => check.destroy(error));
    check.on('close', () => file.destroy());
    return file.pipe(check);
  }

  async read(digest: Digest, maxBytes: number): Promise<Buffer> {
    const handle = await this.#use(digest);
    try {
      const { size } = await handle.stat();
      if (size > maxBytes) throw new BlobTooLarge({ what: digest, limitBytes: maxBytes });
      const bytes = await handle.readFile();
      const hash = hasher(algorithmOf(digest)).update(bytes);
      await this.#check(digest, finish(hash, algorithmOf(digest)));
      return bytes;
    } finally {
      await handle.close();
    }
  }

  async put(bytes: Uint8Array): Promise<BlobInfo> {
    const digest = digestOf(bytes);
    if (!(await this.info(digest))) await writeFileAtomic(this.pathOf(digest), bytes);
    return { digest, sizeBytes: bytes.length };
  }

  async verify(digest: Digest): Promise<void> {
    const stream = await this.open(digest);
    for await (const _ of stream);
  }

  async ingest(ref: string, { maxBytes = BLOB_MAX_BYTES }: IngestOptions = {}): Promise<Ingest> {
    if (this.#held.has(ref)) throw new IngestBusy({ ref });
    this.#held.add(ref);
    try {
      return await DiskIngest.begin(ref, maxBytes, join(this.#root, 'ingest', ingestName(ref)), {
        blobPath: (digest) => this.pathOf(digest),
        released: () => void this.#held.delete(ref),
      });
    } catch (error) {
      this.#held.delete(ref);
      throw error;
    }
  }

  async ingests(): Promise<{ ref: string; offset: number; updatedAtMs: number; held: boolean }[]> {
    const directory = join(this.#root, 'ingest');
    const result = [];
    for (const name of await readdir(directory)) {
      if (!name.endsWith('.ref')) continue;
      const ref = await readFile(join(directory, name), 'utf8').catch(absent);
      const data = await stat(join(directory, name.replace(/ref$/, 'data'))).catch(absent);
      if (ref === undefined || !data) continue;
      result.push({ ref, offset: data.size, updatedAtMs: data.mtimeMs, held: this.#held.has(ref) });
    }
    return result;
  }

  lease(because: string): ContentLease {
    return this.#leases.take(because);
  }

  async remove(digest: Digest): Promise<boolean> {
    if (this.#leases.isHeld(digest)) return false;
    this.#touchedAtMs.delete(digest);
    await unlink(this.pathOf(digest)).catch(absent);
    return true;
  }

  async *list(): AsyncIterable<BlobInfo & { usedAtMs: number }> {
    for (const algorithm of ['sha256', 'sha512'] satisfies Algorithm[]) {
      for (const name of await readdir(join(this.#root, algorithm))) {
        const digest = `${algorithm}:${name}`;
        const found = isDigest(digest) ? await stat(join(this.#root, algorithm, name)).catch(absent) : undefined;
        if (found && isDigest(digest)) yield { digest, sizeBytes: found.size, usedAtMs: found.atimeMs };
      }
    }
  }

  async #use(digest: Digest): Promise<FileHandle> {
    const path = this.pathOf(digest);
    const handle = await open(path, 'r').catch(absent);
    if (!handle) throw new BlobNotFound({ digest });
    // Mounts are often noatime or relatime; the budget needs no more than the hour.
    const nowMs = this.#clock.now();
    if (nowMs - (this.#touchedAtMs.get(digest) ?? 0) > TOUCH_EVERY_MS) {
      this.#touchedAtMs.set(digest, nowMs);
      const { mtimeMs } = await handle.stat();
      await utimes(path, nowMs / 1000, mtimeMs / 1000).catch(absent);
    }
    return handle;
  }

  #verifier(digest: Digest): Transform {
    const hash = hasher(algorithmOf(digest));
    return new Transform({
      highWaterMark: READ_BYTES,
      transform: (chunk, _, done) => {
        hash.update(chunk);
        done(null, chunk);
      },
      flush: (done) => {
        this.#check(digest, finish(hash, algorithmOf(digest))).then(() => done(), done);
      },
    });
  }

  async #check(digest: Digest, actual: Digest): Promise<void> {
    if (actual === digest) return;
    const path = this.pathOf(digest);
    await rename(path, join(this.#root, 'damaged', hexOf(digest))).catch(absent);
    throw new BlobDamaged({ digest, actual, path });
  }
}

/** A crash between a blob's rename and the end of its transfer, or right at the beginning of one, leaves a ref without data. */
async function sweepRefs(directory: string): Promise<void> {
  const names = new Set(await readdir(directory));
  for (const name of names)
    if (name.endsWith('.ref') && !names.has(name.replace(/ref$/, 'data'))) await rm(join(directory, name));
}

const READ_BYTES = 256 * 1024;
const WRITE_BYTES = 512 * 1024;
const TOUCH_EVERY_MS = 3_600_000;

interface IngestHost {
  blobPath(digest: Digest): string;
  released(): void;
}

class DiskIngest implements Ingest {
  readonly ref: string;
  readonly path: string;
  readonly #refPath: string;
  readonly #maxBytes: number;
  readonly #handle: FileHandle;
  readonly #host: IngestHost;
  readonly #hash: Hash;
  #offset: number;
  /** Up to here bytes have been given to a write, and up to there written. */
  #handedOut: number;
  #readableBytes: number;
  #pending: Uint8Array[] = [];
  #writing: Promise<void> = Promise.resolve();
  #open = true;

  private constructor(
    ref: string,
    maxBytes: number,
    name: string,
    handle: FileHandle,
    hash: Hash,
    offset: number,
    host: IngestHost,
  ) {
    this.ref = ref;
    this.path = `${name}.data`;
    this.#refPath = `${name}.ref`;
    this.#maxBytes = maxBytes;
    this.#handle = handle;
    this.#hash = hash;
    this.#offset = offset;
    this.#handedOut = offset;
    this.#readableBytes = offset;
    this.#host = host;
  }

  static async begin(ref: string, maxBytes: number, name: string, host: IngestHost): Promise<DiskIngest> {
    const known = await stat(`${name}.ref`).catch(absent);
    if (!known) await writeFileAtomic(`${name}.ref`, ref);
    const handle = await open(`${name}.data`, 'a+', 0o600);
    // The hash of an earlier process is gone: what it wrote is read once more (1.7 GB/s).
    const hash = createHash('sha256');
    const { size } = await handle.stat();
    if (size > 0)
      for await (const chunk of createReadStream(`${name}.data`, { highWaterMark: READ_BYTES })) hash.update(chunk);
    return new DiskIngest(ref, maxBytes, name, handle, hash, size, host);
  }

  get offset(): number {
    return this.#offset;
  }

  get readableBytes(): number {
    return this.#readableBytes;
  }

  /** Bytes are written half a megabyte at a time, while the next are on their way: a write costs a round through the thread pool. */
  async append(chunk: Uint8Array): Promise<void> {
    if (!this.#open) throw new IngestClosed({ ref: this.ref });
    if (this.#offset + chunk.length > this.#maxBytes)
      throw new BlobTooLarge({ what: this.ref, limitBytes: this.#maxBytes });
    this.#hash.update(chunk);
    this.#pending.push(chunk);
    this.#offset += chunk.length;
    if (this.#offset - this.#handedOut < WRITE_BYTES) return;
    await this.#writing;
    this.#write();
  }

  #write(): void {
    const chunks = this.#pending;
    this.#pending = [];
    this.#handedOut = this.#offset;
    this.#writing = this.#writeAll(chunks);
    this.#writing.catch(() => undefined); // whoever comes next awaits it and hears of the failure
  }

  async #writeAll(chunks: Uint8Array[]): Promise<void> {
    const bytes = chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks);
    let done = 0;
    while (done < bytes.length) done += (await this.#handle.write(bytes, done)).bytesWritten;
    this.#readableBytes += bytes.length;
  }

  async #flush(): Promise<void> {
    await this.#writing;
    this.#write();
    await this.#writing;
  }

  async commit(expected?: Digest, sizeBytes?: number): Promise<BlobInfo> {
    if (!this.#open) throw new IngestClosed({ ref: this.ref });
    try {
      await this.#flush();
      if (sizeBytes !== undefined && sizeBytes !== this.#offset) {
        throw new SizeMismatch({ what: this.ref, expected: sizeBytes, actual: this.#offset });
      }
      const actual = await this.#digest(expected === undefined ? 'sha256' : algorithmOf(expected));
      if (expected !== undefined && expected !== actual) throw new DigestMismatch({ what: this.ref, expected, actual });
      const path = this.#host.blobPath(actual);
      if (!(await stat(path).catch(absent))) {
        await this.#handle.datasync();
        await renameDurably(this.path, path);
      }
      return { digest: actual, sizeBytes: this.#offset };
    } finally {
      await this.abort();
    }
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    try {
      await this.#flush();
    } finally {
      await this.#handle.close();
      this.#host.released();
    }
  }

  async abort(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#writing.catch(() => undefined); // what could not be written is removed anyway
    await this.#handle.close();
    await rm(this.path, { force: true });
    await rm(this.#refPath, { force: true });
    this.#host.released();
  }

  async #digest(algorithm: Algorithm): Promise<Digest> {
    if (algorithm === 'sha256') return finish(this.#hash);
    const hash = hasher(algorithm);
    for await (const chunk of createReadStream(this.path, { highWaterMark: READ_BYTES })) hash.update(chunk);
    return finish(hash, algorithm);
  }
}

function ingestName(ref: string): string {
  return createHash('sha256').update(ref).digest('hex').slice(0, 40);
}

function absent(error: unknown): undefined {
  if (errnoOf(error) !== 'ENOENT') throw error;
  return undefined;
}
