import type { Clock } from '#base/clock.ts';
import { newId, type Random } from '#base/random.ts';
import { InvalidValue } from '#base/shape.ts';
import type { FileStore, FileWriter } from '#build/context/files.ts';
import { ContextTree } from '#build/context/tree.ts';
import { ContextFileLost, ContextInvalid, NoSuchContext } from '#build/errors.ts';
import { contextLine, FILE_HEAD_BYTES, readFileHead } from '#spec/estiba/build.ts';
import type { Digest } from '#spec/image/digest.ts';

interface Announced {
  tree: ContextTree;
  atMs: number;
}

/** A client announces, sends and builds within seconds; what nobody came back for is forgotten. */
const KEPT_MS = 600_000;
const KEPT_MAX = 64;
const LINE_MAX_BYTES = 32 * 1024;

/** Contexts whose files were named before they were sent: what the store has already does not travel again. */
export class AnnouncedContexts {
  readonly #files: FileStore;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #known = new Map<string, Announced>();

  constructor(files: FileStore, clock: Clock, random: Random) {
    this.#files = files;
    this.#clock = clock;
    this.#random = random;
  }

  /** Lines of a manifest → its id, and the digests that are not here. */
  async announce(body: AsyncIterable<Uint8Array>): Promise<{ id: string; missing: string[] }> {
    const tree = new ContextTree();
    const missing = new Set<string>();
    let number = 0;
    for await (const line of linesOf(body)) {
      number++;
      const { p, t, m, ts, s = 0, h, l = '' } = contextLine(parse(line, number), `line ${number}`);
      if (!isClean(p)) throw new ContextInvalid({ path: p, rule: 'is no relative path' });
      const digest: Digest | undefined = h === undefined ? undefined : `sha256:${h}`;
      if (t === 'file' && !digest) throw new ContextInvalid({ path: p, rule: 'has no digest' });
      if (digest && h !== undefined && !this.#files.has(digest)) missing.add(h);
      tree.add(p, {
        type: t,
        mode: m,
        uid: 0,
        gid: 0,
        size: s,
        mtimeSec: ts,
        linkTarget: l,
        deviceMajor: 0,
        deviceMinor: 0,
        ...(digest ? { digest } : {}),
      });
    }
    return { id: this.keep(tree), missing: [...missing] };
  }

  /** A tree that came otherwise, to be built from by its id. */
  keep(tree: ContextTree): string {
    const id = newId(this.#random).slice(0, 32);
    this.#forgetOld();
    this.#known.set(id, { tree, atMs: this.#clock.now() });
    return id;
  }

  /** Bytes of files, each after its head. What is not what its head says is refused. */
  async receive(body: AsyncIterable<Uint8Array>): Promise<number> {
    const reader = new FrameReader(this.#files);
    try {
      for await (const chunk of body) await reader.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
      return reader.end();
    } finally {
      await reader.close();
    }
  }

  /** The tree, every file of which is here. CONTEXT_FILE_LOST when one has gone since it was announced. */
  take(id: string): ContextTree {
    const found = this.#known.get(id);
    if (!found) throw new NoSuchContext({ name: id });
    for (const [, node] of found.tree.walk())
      if (node.digest && !this.#files.has(node.digest)) throw new ContextFileLost({ digest: node.digest });
    return found.tree;
  }

  #forgetOld(): void {
    const oldest = this.#clock.now() - KEPT_MS;
    for (const [id, { atMs }] of this.#known) if (atMs < oldest || this.#known.size >= KEPT_MAX) this.#known.delete(id);
  }
}

class FrameReader {
  readonly #files: FileStore;
  #held: Buffer = Buffer.alloc(0);
  #current: { writer: FileWriter; hex: string; left: number } | undefined;
  #count = 0;

  constructor(files: FileStore) {
    this.#files = files;
  }

  async push(chunk: Buffer): Promise<void> {
    let rest = this.#held.length > 0 ? Buffer.concat([this.#held, chunk]) : chunk;
    this.#held = Buffer.alloc(0);
    for (;;) {
      if (!this.#current) {
        if (rest.length < FILE_HEAD_BYTES) break;
        const { hex, sizeBytes } = readFileHead(rest);
        rest = rest.subarray(FILE_HEAD_BYTES);
        this.#current = { writer: await this.#files.begin(), hex, left: sizeBytes };
      }
      const part = rest.subarray(0, this.#current.left);
      rest = rest.subarray(part.length);
      this.#current.left -= part.length;
      if (part.length > 0) await this.#current.writer.write(part);
      if (this.#current.left > 0) return;
      await this.#finish(this.#current);
    }
    this.#held = rest;
  }

  end(): number {
    if (this.#current || this.#held.length > 0)
      throw new ContextInvalid({ path: 'what was sent', rule: 'ends too early' });
    return this.#count;
  }

  async close(): Promise<void> {
    await this.#current?.writer.abort();
  }

  async #finish({ writer, hex }: { writer: FileWriter; hex: string }): Promise<void> {
    this.#current = undefined;
    const { digest } = await writer.end();
    if (digest !== `sha256:${hex}`)
      throw new ContextInvalid({
        path: `sha256:${hex}`,
        rule: `was announced, and what came is ${digest}: it changed meanwhile`,
      });
    this.#count++;
  }
}

async function* linesOf(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  let rest = '';
  const decoder = new TextDecoder('utf-8', { fatal: true });
  for await (const chunk of body) {
    rest += decoder.decode(chunk, { stream: true });
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > LINE_MAX_BYTES) throw new ContextInvalid({ path: 'a line', rule: 'is too long' });
    yield* lines;
  }
  if (rest !== '') yield rest;
}

function parse(line: string, number: number): unknown {
  try {
    return JSON.parse(line);
  } catch {
    throw new InvalidValue({ path: `line ${number}`, value: line.slice(0, 80), rule: 'is not JSON' });
  }
}

/** As a tar's reader wants them: nothing leads out, nothing has two names. */
function isClean(path: string): boolean {
  return !path.includes('\0') && path.split('/').every((part) => part !== '' && part !== '.' && part !== '..');
}
