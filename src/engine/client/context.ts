import { createHash } from 'node:crypto';
import { createReadStream, lstatSync, readdirSync, readlinkSync } from 'node:fs';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { defineError, errnoOf, messageOf } from '#base/errors.ts';
import { Limiter } from '#base/queue.ts';
import { IGNORE_NOTHING, type Ignore } from '#spec/dockerfile/ignore.ts';
import { type ContextLine, fileHead } from '#spec/estiba/build.ts';

export const ContextUnreadable = defineError('CONTEXT_UNREADABLE', (d: { path: string; why: string }) => ({
  message: `${d.path} cannot be read: ${d.why}`,
  hint: 'list it in .dockerignore if the build does not need it',
}));

export const FileChanged = defineError('CONTEXT_FILE_CHANGED', (d: { path: string }) => ({
  message: `${d.path} changed while it was sent`,
  hint: 'something writes into the build context; try again when it is done',
}));

/** A directory as a build context: a line a file, and where the bytes of each digest are. */
export interface ScannedContext {
  root: string;
  lines: ContextLine[];
  files: Map<string, { path: string; sizeBytes: number }>;
  /** When what was hashed has been noted for the next time; sending need not wait for it. */
  noted: Promise<void>;
}

const HASHES_AT_ONCE = 8;
/** A file that changed within the grain of the clock could change again without a new time: such times are not trusted. */
const GRAIN_MS = 2_000;

/**
 * Reads names, modes and times of a directory; bytes only of files that changed since the last time. Links are told as links: where
 * they lead is no part of the context.
 */
export async function scanContext(
  root: string,
  ignore: Ignore = IGNORE_NOTHING,
  cacheFile?: string,
): Promise<ScannedContext> {
  const cache = await HashCache.open(cacheFile);
  const lines: ContextLine[] = [];
  const files: ScannedContext['files'] = new Map();
  const hashing: Promise<void>[] = [];
  const limiter = new Limiter(HASHES_AT_ONCE);
  const visit = (directory: string): void => {
    for (const entry of namesIn(root, directory)) {
      const path = directory === '' ? entry : `${directory}/${entry}`;
      const ignored = ignore.isIgnored(path);
      const stat = lstatSync(join(root, path), { bigint: true });
      if (ignored && !(stat.isDirectory() && ignore.mayHoldKept(path))) continue;
      const line: ContextLine = {
        p: path,
        t: 'file',
        m: Number(stat.mode) & 0o7777,
        ts: Math.max(0, Number(stat.mtimeNs / 1_000_000_000n)),
      };
      if (stat.isDirectory()) {
        if (!ignored) lines.push({ ...line, t: 'dir' });
        visit(path);
      } else if (stat.isSymbolicLink()) lines.push({ ...line, t: 'symlink', l: readlinkSync(join(root, path)) });
      else if (stat.isFIFO()) lines.push({ ...line, t: 'fifo' });
      else if (stat.isFile()) {
        const sizeBytes = Number(stat.size);
        const identity = `${stat.dev}:${stat.ino}:${sizeBytes}:${stat.mtimeNs}:${stat.ctimeNs}`;
        const take = (hex: string): void => {
          line.s = sizeBytes;
          line.h = hex;
          files.set(hex, { path: join(root, path), sizeBytes });
        };
        lines.push(line);
        const known = cache.find(path, identity);
        if (known !== undefined) take(known);
        else
          hashing.push(
            limiter.run(async () => {
              const hex = await hashOf(join(root, path));
              cache.put(path, identity, hex, Number(stat.mtimeNs / 1_000_000n));
              take(hex);
            }),
          );
      } // sockets and devices are no part of a context
    }
  };
  visit('');
  await Promise.all(hashing);
  return { root, lines, files, noted: cache.save() };
}

function namesIn(root: string, directory: string): string[] {
  try {
    return readdirSync(join(root, directory)).sort();
  } catch (error) {
    throw new ContextUnreadable(
      { path: join(root, directory), why: errnoOf(error) ?? messageOf(error) },
      { cause: error },
    );
  }
}

export async function* contextBody(context: ScannedContext): AsyncGenerator<Buffer> {
  let batch = '';
  for (const line of context.lines) {
    batch += `${JSON.stringify(line)}\n`;
    if (batch.length < BATCH_CHARS) continue;
    yield Buffer.from(batch);
    batch = '';
  }
  yield Buffer.from(batch);
}

const BATCH_CHARS = 256 * 1024;

/** The bytes of what is missing, each file after its head. */
export async function* filesBody(
  missing: readonly string[],
  find: (hex: string) => { path: string; sizeBytes: number } | undefined,
): AsyncGenerator<Uint8Array> {
  for (const hex of missing) {
    const file = find(hex);
    if (!file) continue;
    yield fileHead(hex, file.sizeBytes);
    let left = file.sizeBytes;
    for await (const chunk of createReadStream(file.path, { highWaterMark: BATCH_CHARS })) {
      left -= chunk.length;
      if (left < 0) throw new FileChanged({ path: file.path });
      yield chunk;
    }
    if (left > 0) throw new FileChanged({ path: file.path });
  }
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: BATCH_CHARS })) hash.update(chunk);
  } catch (error) {
    throw new ContextUnreadable({ path, why: errnoOf(error) ?? messageOf(error) }, { cause: error });
  }
  return hash.digest('hex');
}

/** What files of a directory hashed to, by inode, size and times: `PATH\tIDENTITY\tHEX` a line. Lost, it is made again. */
class HashCache {
  readonly #file: string | undefined;
  readonly #known: Map<string, string>;
  readonly #next = new Map<string, string>();
  #changed = false;

  private constructor(file: string | undefined, known: Map<string, string>) {
    this.#file = file;
    this.#known = known;
  }

  static async open(file: string | undefined): Promise<HashCache> {
    const text = file === undefined ? '' : await readFile(file, 'utf8').catch(() => ''); // not there yet, or unreadable: hash all
    const known = new Map<string, string>();
    for (const line of text.split('\n')) {
      const tab = line.indexOf('\t');
      if (tab > 0) known.set(line.slice(0, tab), line.slice(tab + 1));
    }
    return new HashCache(file, known);
  }

  find(path: string, identity: string): string | undefined {
    const found = this.#known.get(path);
    if (!found?.startsWith(`${identity}\t`)) return undefined;
    this.#next.set(path, found);
    return found.slice(identity.length + 1);
  }

  put(path: string, identity: string, hex: string, mtimeMs: number): void {
    if (path.includes('\n') || path.includes('\t') || Date.now() - mtimeMs < GRAIN_MS) return;
    this.#next.set(path, `${identity}\t${hex}`);
    this.#changed = true;
  }

  async save(): Promise<void> {
    if (this.#file === undefined || (!this.#changed && this.#next.size === this.#known.size)) return;
    const text = [...this.#next].map(([path, rest]) => `${path}\t${rest}\n`).join('');
    const temporary = `${this.#file}.${process.pid}`;
    try {
      await mkdir(dirname(this.#file), { recursive: true });
      await writeFile(temporary, text, { mode: 0o600 });
      await rename(temporary, this.#file);
    } catch {
      // a read-only home: the next build hashes again
    }
  }
}
