import { BLOCK, type EntryType, type TarEntry } from '#image/tar/entry.ts';

/**
 * Writes archives as Go's tar does for containers: ustar where a value fits, else a pax header before it. The same entries
 * give the same bytes, so that a layer made twice has one digest.
 */
const TYPE: Record<EntryType, string> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  dir: '5',
  fifo: '6',
};

/** The header blocks of an entry; its data follows, then `padding(size)`. Holes are not kept: a layer writes them as zeros. */
export function header(entry: TarEntry): Buffer {
  const records = new Map<string, Uint8Array | string>();
  const path = entry.type === 'dir' ? `${entry.path === '' ? '.' : entry.path}/` : entry.path;
  const split = splitPath(path);
  if (!split) records.set('path', path);
  if (!isShortAscii(entry.linkTarget, 100)) records.set('linkpath', entry.linkTarget);
  if (entry.size > 0o77777777777) records.set('size', String(entry.size));
  if (entry.uid > 0o7777777) records.set('uid', String(entry.uid));
  if (entry.gid > 0o7777777) records.set('gid', String(entry.gid));
  if (!isShortAscii(entry.uname, 32)) records.set('uname', entry.uname);
  if (!isShortAscii(entry.gname, 32)) records.set('gname', entry.gname);
  if (entry.mtimeNsec !== 0 || entry.mtimeSec < 0 || entry.mtimeSec > 0o77777777777)
    records.set('mtime', timeText(entry));
  for (const [name, value] of [...(entry.xattrs ?? [])].sort(([a], [b]) => (a < b ? -1 : 1))) {
    records.set(`SCHILY.xattr.${name}`, value);
  }
  const main = block(entry, split ?? { prefix: '', name: asciiTail(path) }, TYPE[entry.type]);
  return records.size === 0 ? main : Buffer.concat([paxHeader(entry, records), main]);
}

/** A small member whole: its size is that of its contents. */
export function member(entry: TarEntry, contents: Uint8Array): Buffer {
  const size = contents.byteLength;
  return Buffer.concat([header({ ...entry, size }), contents, padding(size)]);
}

export function padding(size: number): Buffer {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
}

/** Two blocks of zeros. */
export function endOfArchive(): Buffer {
  return Buffer.alloc(2 * BLOCK);
}

function block(entry: TarEntry, path: { prefix: string; name: string }, type: string): Buffer {
  const b = Buffer.alloc(BLOCK);
  b.write(path.name, 0, 100, 'latin1');
  octal(b, 100, 8, entry.mode);
  octal(b, 108, 8, entry.uid > 0o7777777 ? 0 : entry.uid);
  octal(b, 116, 8, entry.gid > 0o7777777 ? 0 : entry.gid);
  octal(b, 124, 12, entry.size > 0o77777777777 ? 0 : entry.size);
  octal(b, 136, 12, entry.mtimeSec < 0 || entry.mtimeSec > 0o77777777777 ? 0 : entry.mtimeSec);
  b.write(type, 156, 'latin1');
  if (isShortAscii(entry.linkTarget, 100)) b.write(entry.linkTarget, 157, 100, 'latin1');
  b.write('ustar\u000000', 257, 'latin1');
  if (isShortAscii(entry.uname, 32)) b.write(entry.uname, 265, 'latin1');
  if (isShortAscii(entry.gname, 32)) b.write(entry.gname, 297, 'latin1');
  octal(b, 329, 8, entry.deviceMajor);
  octal(b, 337, 8, entry.deviceMinor);
  b.write(path.prefix, 345, 155, 'latin1');
  b.fill(0x20, 148, 156);
  let sum = 0;
  for (const byte of b) sum += byte;
  b.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return b;
}

function paxHeader(entry: TarEntry, records: Map<string, Uint8Array | string>): Buffer {
  const body = Buffer.concat([...records].map(([key, value]) => paxRecord(key, value)));
  const name = `PaxHeaders.0/${asciiTail(entry.path)}`.slice(0, 100);
  const carrier: TarEntry = {
    ...entry,
    mode: 0o644,
    uid: 0,
    gid: 0,
    size: body.length,
    linkTarget: '',
    mtimeSec: 0,
    deviceMajor: 0,
    deviceMinor: 0,
    uname: '',
    gname: '',
  };
  return Buffer.concat([block(carrier, { prefix: '', name }, 'x'), body, padding(body.length)]);
}

/** The length counts its own digits. */
function paxRecord(key: string, value: Uint8Array | string): Buffer {
  const bytes = Buffer.from(value);
  const rest = Buffer.byteLength(key) + bytes.length + 3;
  let length = rest + String(rest).length;
  if (String(length).length > String(rest).length) length = rest + String(length).length;
  return Buffer.concat([Buffer.from(`${length} ${key}=`), bytes, Buffer.from('\n')]);
}

/** Into prefix and name at a slash, or undefined when ustar cannot hold it. */
function splitPath(path: string): { prefix: string; name: string } | undefined {
  if (!isShortAscii(path, 256)) return undefined;
  if (path.length <= 100) return { prefix: '', name: path };
  const slash = path.lastIndexOf('/', 155);
  if (slash <= 0 || path.length - slash - 1 > 100 || slash === path.length - 1) return undefined;
  return { prefix: path.slice(0, slash), name: path.slice(slash + 1) };
}

function timeText({ mtimeSec, mtimeNsec }: TarEntry): string {
  if (mtimeNsec === 0) return String(mtimeSec);
  const negative = mtimeSec < 0;
  const sec = negative ? -mtimeSec - 1 : mtimeSec;
  const nsec = negative ? 1_000_000_000 - mtimeNsec : mtimeNsec;
  return `${negative ? '-' : ''}${sec}.${String(nsec).padStart(9, '0').replace(/0+$/, '')}`;
}

function octal(b: Buffer, at: number, length: number, value: number): void {
  b.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at, 'latin1');
}

function isShortAscii(text: string, max: number): boolean {
  if (text.length > max) return false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0 || c > 127) return false;
  }
  return true;
}

function asciiTail(path: string): string {
  return path.replace(/[^\x20-\x7e]/g, '_').slice(-80);
}
