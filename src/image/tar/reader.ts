import {
  BLOCK,
  DEFAULT_LIMITS,
  type EntryType,
  FILE_MAX_BYTES,
  PATH_MAX,
  PAX_MAX_BYTES,
  SPARSE_MAX_EXTENTS,
  type SparseExtent,
  type TarEntry,
  type TarLimits,
} from '#image/tar/entry.ts';
import { LayerInvalid } from '#image/tar/errors.ts';
import {
  BrokenRule,
  broken,
  cleanPath,
  decodeUtf8,
  isZeroBlock,
  numberField,
  type RawHeader,
  readHeader,
} from '#image/tar/header.ts';
import { checkExtents, type PaxRecords, parsePax, paxInteger, paxText, paxTime, paxXattrs } from '#image/tar/pax.ts';

/** Who takes the entries. For each `entry`: `data` in order of offset (never in a hole), then `end`. */
export interface TarConsumer {
  entry(entry: TarEntry): void;
  data(chunk: Buffer, offset: number): void;
  end(): void;
}

/**
 * Reads an archive that is pushed in, in chunks of any size, without waiting for anything: it runs in a worker between
 * inflating and writing. What it hands on are views into the chunk.
 *
 *     header ─▶ meta (long names, pax) ─▶ header ─▶ [sparse map] ─▶ data ─▶ padding ─▶ header ─▶ … ─▶ two zero blocks
 */
export class TarReader {
  readonly #blob: string;
  readonly #consumer: TarConsumer;
  readonly #limits: TarLimits;

  #state: 'header' | 'meta' | 'gnuSparse' | 'paxSparse' | 'data' | 'tail' | 'skip' | 'done' = 'header';
  /** A block, or the body of an extension, that came in pieces. */
  #held: Buffer = Buffer.alloc(0);
  /** Bytes still to come of the present body, and of the padding behind it. */
  #left = 0;
  #padding = 0;
  #zeroBlocks = 0;
  #entries = 0;
  #contentBytes = 0;

  #metaType = '';
  readonly #global: PaxRecords = new Map();
  #pax: PaxRecords = new Map();
  #sparsePairs: Uint8Array[] = [];
  #longName: string | undefined;
  #longLink: string | undefined;

  #raw: RawHeader | undefined;
  #gnuExtents: number[] = [];
  #current: TarEntry | undefined;
  #extents: readonly SparseExtent[] = [];
  #extent = 0;
  #extentDone = 0;

  constructor(blob: string, consumer: TarConsumer, limits: TarLimits = DEFAULT_LIMITS) {
    this.#blob = blob;
    this.#consumer = consumer;
    this.#limits = limits;
  }

  push(chunk: Buffer): void {
    this.#guard(() => {
      let at = 0;
      while (at < chunk.length && this.#state !== 'done') at = this.#step(chunk, at);
    });
  }

  /** The archive has ended; LAYER_INVALID if it ended too early. */
  finish(): void {
    this.#guard(() => {
      // Not all packers close an archive: umoci's `insert` ends it with the last file's last byte, and Go's reader takes that.
      const isWhole = this.#state === 'done' || this.#state === 'tail';
      if (!isWhole && (this.#state !== 'header' || this.#held.length > 0 || this.#left > 0)) broken('ends too early');
      if (this.#pax.size > 0 || this.#longName !== undefined) broken('ends after an extended header');
    });
  }

  get contentBytes(): number {
    return this.#contentBytes;
  }

  #guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      if (!(error instanceof BrokenRule)) throw error;
      const entry = this.#current?.path ?? this.#longName ?? this.#raw?.name ?? '';
      throw new LayerInvalid({ blob: this.#blob, entry, rule: error.message });
    }
  }

  #step(chunk: Buffer, at: number): number {
    switch (this.#state) {
      case 'header':
        return this.#inBlocks(chunk, at, (b, o) => this.#header(b, o));
      case 'meta':
        return this.#meta(chunk, at);
      case 'gnuSparse':
        return this.#inBlocks(chunk, at, (b, o) => this.#gnuSparse(b, o));
      case 'paxSparse':
        return this.#inBlocks(chunk, at, (b, o) => this.#paxSparse(b, o));
      case 'data':
        return this.#data(chunk, at);
      case 'tail':
      case 'skip': {
        const take = Math.min(this.#padding, chunk.length - at);
        this.#padding -= take;
        if (this.#padding === 0) this.#state = 'header';
        return at + take;
      }
      case 'done':
        return chunk.length;
    }
  }

  /** Gives whole blocks to `use`, without copying where the chunk has them whole. */
  #inBlocks(chunk: Buffer, at: number, use: (b: Buffer, offset: number) => void): number {
    if (this.#held.length === 0 && chunk.length - at >= BLOCK) {
      use(chunk, at);
      return at + BLOCK;
    }
    const take = Math.min(BLOCK - this.#held.length, chunk.length - at);
    this.#held = Buffer.concat([this.#held, chunk.subarray(at, at + take)]);
    if (this.#held.length === BLOCK) {
      const block = this.#held;
      this.#held = Buffer.alloc(0);
      use(block, 0);
    }
    return at + take;
  }

  // -- headers

  #header(b: Buffer, at: number): void {
    this.#raw = undefined;
    this.#current = undefined;
    if (b[at] === 0 && isZeroBlock(b, at)) {
      if (++this.#zeroBlocks === 2) this.#state = 'done';
      return;
    }
    if (this.#zeroBlocks > 0) broken('goes on after a block of zeros');
    const raw = readHeader(b, at);
    this.#raw = raw;
    if ('xgLK'.includes(raw.type)) this.#beginMeta(raw);
    else if (raw.type === 'V')
      this.#skipBody(raw.size); // GNU volume label: a name for the archive, no member of it
    else if ('MDN'.includes(raw.type)) broken(`has the type ${raw.type}, which no layer has`);
    else if (raw.type === 'S') this.#beginGnuSparse(raw, b, at);
    else this.#begin(raw);
  }

  #beginMeta(raw: RawHeader): void {
    const limit = raw.type === 'L' || raw.type === 'K' ? PATH_MAX + 1 : PAX_MAX_BYTES;
    if (raw.size > limit) broken(`has an extension of ${raw.size} bytes`);
    this.#metaType = raw.type;
    this.#left = raw.size;
    this.#padding = paddingOf(raw.size);
    this.#held = Buffer.alloc(0);
    if (raw.size === 0) this.#endMeta(this.#held);
    else this.#state = 'meta';
  }

  #meta(chunk: Buffer, at: number): number {
    const take = Math.min(this.#left, chunk.length - at);
    const part = chunk.subarray(at, at + take);
    this.#held = this.#held.length === 0 ? Buffer.from(part) : Buffer.concat([this.#held, part]);
    this.#left -= take;
    if (this.#left === 0) {
      const body = this.#held;
      this.#held = Buffer.alloc(0);
      this.#endMeta(body);
    }
    return at + take;
  }

  #endMeta(body: Buffer): void {
    switch (this.#metaType) {
      case 'x':
        parsePax(body, this.#pax, this.#sparsePairs);
        break;
      case 'g':
        parsePax(body, this.#global, []);
        break;
      case 'L':
        this.#longName = decodeUtf8(untilNul(body), 'long name');
        break;
      case 'K':
        this.#longLink = decodeUtf8(untilNul(body), 'long link name');
    }
    this.#state = this.#padding > 0 ? 'skip' : 'header';
  }

  #skipBody(size: number): void {
    this.#padding = size + paddingOf(size);
    this.#state = this.#padding > 0 ? 'skip' : 'header';
  }

  // -- sparse maps

  #beginGnuSparse(raw: RawHeader, b: Buffer, at: number): void {
    if (!raw.isGnu) broken('is sparse in a format that is not GNU’s');
    this.#gnuExtents = [];
    this.#takeGnuExtents(b, at + 386, 4);
    raw.size = numberField(b, at + 483, 12, 'real size');
    this.#left = numberField(b, at + 124, 12, 'size');
    if (b[at + 482] !== 0) this.#state = 'gnuSparse';
    else this.#begin(raw);
  }

  #gnuSparse(b: Buffer, at: number): void {
    this.#takeGnuExtents(b, at, 21);
    if (b[at + 504] === 0 && this.#raw) this.#begin(this.#raw);
  }

  #takeGnuExtents(b: Buffer, at: number, count: number): void {
    for (let i = 0; i < count; i++) {
      if (b[at + i * 24] === 0) break;
      this.#gnuExtents.push(
        numberField(b, at + i * 24, 12, 'sparse offset'),
        numberField(b, at + i * 24 + 12, 12, 'sparse length'),
      );
    }
    if (this.#gnuExtents.length > SPARSE_MAX_EXTENTS * 2) broken('has too many extents');
  }

  /** Format 1.0: the map stands before the data, decimal numbers one a line, filled up to a block. */
  #paxSparse(b: Buffer, at: number): void {
    this.#left -= BLOCK;
    if (this.#left < 0) broken('has a sparse map that is longer than its data');
    this.#sparsePairs.push(Buffer.from(b.subarray(at, at + BLOCK)));
    if (this.#sparsePairs.length * BLOCK > PAX_MAX_BYTES * 2) broken('has too many extents');
    const lines = Buffer.concat(this.#sparsePairs).toString('latin1').split('\n');
    const count = decimal(lines[0]);
    if (lines.length - 1 < 1 + count * 2) return;
    const current = this.#current;
    if (!current) return;
    this.#sparsePairs = [];
    this.#beginData(
      { ...current, sparse: checkExtents(lines.slice(1, 1 + count * 2).map(decimal), current.size) },
      this.#left,
    );
  }

  // -- entries

  #begin(raw: RawHeader): void {
    const pax = this.#merged();
    const entry = this.#entry(raw, pax);
    this.#current = entry;
    this.#limit(entry);
    const stored = raw.type === 'S' ? this.#left : (paxInteger(pax, 'size') ?? raw.size);
    const sparse = this.#sparseMap(raw, pax, entry.size);
    this.#pax = new Map();
    this.#longName = undefined;
    this.#longLink = undefined;
    if (entry.type === 'file' && paxText(pax, 'GNU.sparse.major') === '1') {
      this.#left = stored;
      this.#padding = paddingOf(stored);
      this.#sparsePairs = [];
      this.#state = 'paxSparse';
      return;
    }
    this.#sparsePairs = [];
    this.#padding = entry.type === 'file' ? paddingOf(stored) : 0;
    if (entry.type === 'file') {
      this.#beginData({ ...entry, sparse }, stored);
      return;
    }
    this.#consumer.entry(entry);
    this.#consumer.end();
    // Links and directories of old archives carry the size of what they name, without a body (POSIX: "shall be ignored").
    this.#state = 'header';
  }

  #merged(): PaxRecords {
    return this.#global.size === 0 ? this.#pax : new Map([...this.#global, ...this.#pax]);
  }

  #entry(raw: RawHeader, pax: PaxRecords): TarEntry {
    const name = paxText(pax, 'GNU.sparse.name') ?? paxText(pax, 'path') ?? this.#longName ?? raw.name;
    if (name === '') broken('has no name');
    const type = typeOf(raw, name);
    const link = paxText(pax, 'linkpath') ?? this.#longLink ?? raw.link;
    if (link.includes('\0')) broken('has a NUL byte in its link target');
    if (type === 'symlink' && (link === '' || Buffer.byteLength(link) >= PATH_MAX))
      broken('has a link target that is empty or too long');
    const mtime = paxTime(pax, 'mtime');
    const realSize = paxInteger(pax, 'GNU.sparse.realsize') ?? paxInteger(pax, 'GNU.sparse.size');
    return {
      type,
      path: cleanPath(name, 'name'),
      mode: raw.mode & 0o7777,
      uid: id(paxInteger(pax, 'uid') ?? raw.uid, 'uid'),
      gid: id(paxInteger(pax, 'gid') ?? raw.gid, 'gid'),
      uname: paxText(pax, 'uname') ?? raw.uname,
      gname: paxText(pax, 'gname') ?? raw.gname,
      mtimeSec: mtime?.sec ?? raw.mtimeSec,
      mtimeNsec: mtime?.nsec ?? 0,
      size: type === 'file' ? (realSize ?? paxInteger(pax, 'size') ?? raw.size) : 0,
      linkTarget: type === 'hardlink' ? cleanPath(link, 'link target') : type === 'symlink' ? link : '',
      deviceMajor: device(raw.major, 0xfff),
      deviceMinor: device(raw.minor, 0xf_ffff),
      xattrs: paxXattrs(pax),
      sparse: undefined,
    };
  }

  #limit(entry: TarEntry): void {
    if (++this.#entries > this.#limits.entries) broken(`is one entry more than the ${this.#limits.entries} allowed`);
    if (entry.size > FILE_MAX_BYTES) broken(`is larger than ${FILE_MAX_BYTES} bytes`);
  }

  #sparseMap(raw: RawHeader, pax: PaxRecords, realSize: number): SparseExtent[] | undefined {
    if (raw.type === 'S') return checkExtents(this.#gnuExtents, realSize);
    const map = paxText(pax, 'GNU.sparse.map');
    if (map !== undefined) return checkExtents(map === '' ? [] : map.split(',').map(decimal), realSize);
    if (!pax.has('GNU.sparse.size')) return undefined;
    return checkExtents(
      this.#sparsePairs.map((v) => decimal(Buffer.from(v).toString('latin1'))),
      realSize,
    );
  }

  #beginData(entry: TarEntry, stored: number): void {
    const extents = entry.sparse ?? [{ offset: 0, length: entry.size }];
    const total = extents.reduce((sum, e) => sum + e.length, 0);
    if (total !== stored) broken(`has ${stored} bytes of data where its map wants ${total}`);
    this.#contentBytes += stored;
    if (this.#contentBytes > this.#limits.contentBytes) {
      broken(`makes the layer larger than the ${this.#limits.contentBytes} bytes allowed`);
    }
    this.#current = entry;
    this.#extents = extents;
    this.#extent = 0;
    this.#extentDone = 0;
    this.#left = stored;
    this.#consumer.entry(entry);
    if (stored === 0) this.#endData();
    else this.#state = 'data';
  }

  #data(chunk: Buffer, at: number): number {
    const extent = this.#extents[this.#extent] as SparseExtent;
    const take = Math.min(extent.length - this.#extentDone, chunk.length - at);
    if (take > 0) this.#consumer.data(chunk.subarray(at, at + take), extent.offset + this.#extentDone);
    this.#extentDone += take;
    this.#left -= take;
    if (this.#extentDone === extent.length) {
      this.#extent++;
      this.#extentDone = 0;
    }
    if (this.#left === 0) this.#endData();
    return at + take;
  }

  #endData(): void {
    this.#consumer.end();
    this.#state = this.#padding > 0 ? 'tail' : 'header';
  }
}

const TYPES: Record<string, EntryType> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file', // contiguous file: nobody makes the difference any more
  S: 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'dir',
  '6': 'fifo',
};

function typeOf(raw: RawHeader, name: string): EntryType {
  const type = TYPES[raw.type] ?? broken(`has the unknown type ${JSON.stringify(raw.type)}`);
  // Archives older than ustar mark directories by a slash alone.
  return type === 'file' && raw.type !== 'S' && name.endsWith('/') ? 'dir' : type;
}

function paddingOf(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}

function id(value: number, what: string): number {
  // (uid_t)-1 means "leave as it is" to chown.
  return value < 0xffff_ffff ? value : broken(`has a ${what} that is too large`);
}

function device(value: number, max: number): number {
  return value <= max ? value : broken('has a device number that is too large');
}

function untilNul(body: Buffer): Buffer {
  const end = body.indexOf(0);
  return end < 0 ? body : body.subarray(0, end);
}

function decimal(text: string | undefined): number {
  return text !== undefined && /^\d{1,16}$/.test(text) ? Number(text) : broken('has a sparse map that cannot be read');
}
