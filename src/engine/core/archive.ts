import { once } from 'node:events';
import { constants } from 'node:fs';
import { posix } from 'node:path';
import type { Readable } from 'node:stream';
import * as zlib from 'node:zlib';
import { defineError, isCode } from '#base/errors.ts';
import type { RootView } from '#engine/core/root-view.ts';
import { TreeWriter } from '#engine/core/tree-writer.ts';
import { type TreeTools, xattrsOf } from '#engine/core/volume-content.ts';
import { tarOf } from '#image/diff.ts';
import type { TarEntry } from '#image/tar/entry.ts';
import { TarReader } from '#image/tar/reader.ts';
import { type Place, walkTree, withPlace } from '#kernel/beneath.ts';

export const NoSuchFile = defineError('NO_SUCH_FILE', (d: { path: string; container: string }) => ({
  message: `Could not find the file ${d.path} in container ${d.container}`,
}));

export const NotADirectory = defineError('INVALID_ARGUMENT', (_: { path: string }) => ({
  message: 'extraction point is not a directory',
}));

export const IsReadonly = defineError('READ_ONLY', (d: { what: 'root' | 'volume' }) => ({
  message: d.what === 'root' ? 'container rootfs is marked read-only' : 'mounted volume is marked read-only',
}));

export const PackedUnknown = defineError('INVALID_ARGUMENT', (d: { format: string }) => ({
  message: `the archive is packed with ${d.format}, which is not read here`,
  hint: 'send it as plain tar, or packed with gzip',
}));

/** What `docker cp` learns of a path before it copies. */
export interface PathStat {
  name: string;
  size: number;
  /** Go's os.FileMode, which is not the kernel's st_mode. */
  mode: number;
  mtimeMs: number;
  /** Of a link: where it leads in the container, all links resolved. */
  linkTarget: string;
}

/** `foo/` and `foo/.` ask for what a link leads to; `foo` for the link itself. */
interface AskedPath {
  path: string;
  follow: boolean;
  /** The last part as it was asked for: names in the archive begin with it. */
  base: string;
}

function asked(path: string): AskedPath {
  const dot = path.endsWith('/.') || path === '.';
  const slash = path.endsWith('/');
  const clean = posix.join('/', path);
  return {
    path: dot || slash ? posix.join(clean, '/') : clean,
    follow: dot || slash,
    base: dot ? '.' : clean === '/' ? '/' : posix.basename(clean),
  };
}

export async function statPath(view: RootView, path: string, container: string): Promise<PathStat> {
  const { path: inside, follow, base } = asked(path);
  return found(path, container, () =>
    withPlace(view, inside, { follow }, async ({ stat }) => {
      if (!stat) throw new NoSuchFile({ path, container });
      const linkTarget = stat.isSymbolicLink()
        ? await withPlace(view, inside, { follow: true }, async (target) => target.path)
        : '';
      return { name: base, size: stat.size, mode: goMode(stat.mode), mtimeMs: stat.mtimeMs, linkTarget };
    }),
  );
}

/** The path with all below it as a tar, given to `write` in pieces. */
export async function packPath(
  view: RootView,
  path: string,
  container: string,
  tools: TreeTools,
  write: (chunk: Buffer) => Promise<void>,
): Promise<void> {
  const { path: inside, follow, base } = asked(path);
  await found(path, container, () =>
    withPlace(view, inside, { follow }, async (place) => {
      if (!place.stat) throw new NoSuchFile({ path, container });
      const xattrs = place.stat.isDirectory() ? await xattrsOf(view, place.path, tools) : new Map();
      const archive = tarOf(walkTree(view, place), xattrs, {
        whiteouts: false,
        rename: renamer(base),
        ids: view.ids?.map,
      });
      for await (const chunk of inPieces(archive)) await write(chunk);
    }),
  );
}

/** Docker's names: `foo/a` for `foo`, `./a` for `foo/.`, `/a` for the root. */
function renamer(base: string): (path: string) => string {
  if (base === '/') return (path) => (path === '' ? '/.' : `/${path}`);
  if (base === '.') return (path) => (path === '' ? '' : `./${path}`);
  return (path) => (path === '' ? base : `${base}/${path}`);
}

export interface UnpackWish {
  path: string;
  owner?: { uid: number; gid: number };
  keepKinds: boolean;
}

/** Writes an archive below a directory of the container. */
export async function unpackInto(
  view: RootView,
  { path, owner, keepKinds }: UnpackWish,
  container: string,
  body: Readable,
  { runPlan }: TreeTools,
): Promise<void> {
  const { path: inside } = asked(path);
  const place = await found(path, container, () =>
    withPlace(view, inside, { follow: true }, async (p): Promise<Pick<Place, 'path' | 'stat'>> => p),
  );
  if (!place.stat) throw new NoSuchFile({ path, container });
  if (!place.stat.isDirectory()) throw new NotADirectory({ path });
  const readonly = view.readonlyAt(place.path);
  if (readonly) throw new IsReadonly({ what: readonly });
  const writer = new TreeWriter({
    root: view,
    base: place.path,
    runPlan,
    keepKinds,
    ...(owner ? { owner } : {}),
    ...(view.ids ? { ids: view.ids } : {}),
  });
  try {
    await unpack(body, writer);
    await writer.finish();
  } finally {
    await writer.close();
  }
}

type Event = { do: 'entry'; entry: TarEntry } | { do: 'data'; chunk: Buffer; offset: number } | { do: 'end' };

/** The reader never waits, the writer does: what one chunk holds is written before the next is read. */
async function unpack(body: Readable, writer: TreeWriter): Promise<void> {
  const events: Event[] = [];
  const reader = new TarReader('archive', {
    entry: (entry) => events.push({ do: 'entry', entry }),
    data: (chunk, offset) => events.push({ do: 'data', chunk, offset }),
    end: () => events.push({ do: 'end' }),
  });
  for await (const chunk of unpacked(body)) {
    reader.push(chunk);
    for (const event of events.splice(0)) {
      if (event.do === 'entry') await writer.begin(event.entry);
      else if (event.do === 'data') await writer.data(event.chunk, event.offset);
      else await writer.endFile();
    }
  }
  reader.finish();
}

const GZIP = Buffer.from([0x1f, 0x8b]);
const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const FOREIGN = [
  { format: 'bzip2', magic: Buffer.from('BZh') },
  { format: 'xz', magic: Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]) },
];
const MAGIC_BYTES = 6;

/** Told by its first bytes, whatever the client says of it. */
async function* unpacked(body: Readable): AsyncGenerator<Buffer> {
  let head: Buffer = Buffer.alloc(0);
  const source = body[Symbol.asyncIterator]();
  while (head.length < MAGIC_BYTES) {
    const { done, value } = await source.next();
    if (done) break;
    head = Buffer.concat([head, value as Buffer]);
  }
  const foreign = FOREIGN.find(({ magic }) => head.subarray(0, magic.length).equals(magic));
  if (foreign) throw new PackedUnknown(foreign);
  const whole = (async function* () {
    yield head;
    for (;;) {
      const { done, value } = await source.next();
      if (done) return;
      yield value as Buffer;
    }
  })();
  if (head.subarray(0, GZIP.length).equals(GZIP)) yield* through(zlib.createGunzip(), whole);
  else if (head.subarray(0, ZSTD.length).equals(ZSTD)) yield* through(zstd(), whole);
  else yield* whole;
}

function zstd(): zlib.Gunzip {
  const make = (zlib as { createZstdDecompress?: () => zlib.Gunzip }).createZstdDecompress;
  if (!make) throw new PackedUnknown({ format: 'zstd' }); // Node.js before 22.15
  return make();
}

async function* through(stream: zlib.Gunzip, source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const feeding = (async () => {
    for await (const chunk of source) if (!stream.write(chunk)) await once(stream, 'drain');
    stream.end();
  })().catch((error: Error) => stream.destroy(error));
  try {
    yield* stream as AsyncIterable<Buffer>;
  } finally {
    stream.destroy();
    await feeding;
  }
}

const PIECE_BYTES = 64 * 1024;

/** Headers and small files together: a client should not get a packet for each. */
export async function* inPieces(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let held: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    held.push(chunk);
    bytes += chunk.length;
    if (bytes < PIECE_BYTES) continue;
    yield joined(held, bytes);
    held = [];
    bytes = 0;
  }
  if (bytes > 0) yield joined(held, bytes);
}

/** Large chunks come alone, and are not copied. */
function joined(chunks: Buffer[], bytes: number): Buffer {
  const [only] = chunks;
  return only && chunks.length === 1 ? only : Buffer.concat(chunks, bytes);
}

async function found<T>(path: string, container: string, look: () => Promise<T>): Promise<T> {
  try {
    return await look();
  } catch (error) {
    if (isCode(error, 'PATH_NOT_BENEATH')) throw new NoSuchFile({ path, container }, { cause: error });
    throw error;
  }
}

/** io/fs.FileMode: permission bits below, kinds and set-id bits from the top. */
const GO_KINDS: ReadonlyMap<number, number> = new Map([
  [constants.S_IFDIR, 2 ** 31],
  [constants.S_IFLNK, 2 ** 27],
  [constants.S_IFBLK, 2 ** 26],
  [constants.S_IFIFO, 2 ** 25],
  [constants.S_IFSOCK, 2 ** 24],
  [constants.S_IFCHR, 2 ** 26 + 2 ** 21],
]);

export function goMode(mode: number): number {
  const special = (mode & 0o4000 ? 2 ** 23 : 0) + (mode & 0o2000 ? 2 ** 22 : 0) + (mode & 0o1000 ? 2 ** 20 : 0);
  return (GO_KINDS.get(mode & constants.S_IFMT) ?? 0) + special + (mode & 0o777);
}
