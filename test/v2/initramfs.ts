import { gzipSync } from 'node:zlib';

export interface Entry {
  path: string;
  mode: number;
  data?: Uint8Array;
}

const FILE = 0o100000;
const DIRECTORY = 0o040000;
const LINK = 0o120000;

export const file = (path: string, data: Uint8Array | string, mode = 0o644): Entry => ({
  path,
  mode: FILE | mode,
  data: typeof data === 'string' ? new TextEncoder().encode(data) : data,
});
export const directory = (path: string): Entry => ({ path, mode: DIRECTORY | 0o755 });
export const link = (path: string, target: string): Entry => ({
  path,
  mode: LINK | 0o777,
  data: new TextEncoder().encode(target),
});

/** A cpio archive in the form that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst). */
export function initramfs(entries: readonly Entry[]): Buffer {
  const parts: Buffer[] = [];
  [...entries, { path: 'TRAILER!!!', mode: 0 }].forEach(({ path, mode, data }: Entry, i) => {
    const hex = (n: number): string => n.toString(16).padStart(8, '0');
    const size = data?.length ?? 0;
    const fields = [i + 1, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, path.length + 1, 0];
    parts.push(padded(Buffer.from(`070701${fields.map(hex).join('')}${path}\0`)), padded(Buffer.from(data ?? [])));
  });
  return gzipSync(Buffer.concat(parts), { level: 1 });
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}
