import type { FileStore } from '#build/context/files.ts';
import { receiveTar } from '#build/context/receive.ts';
import { treeSource } from '#build/context/tree.ts';
import { HEAD_BYTES, packingOf, peek, unpacked } from '#build/context/unpack.ts';
import { type Selection, select } from '#build/copy/select.ts';

/** ADD: a file that is an archive becomes its contents, owners and modes as the archive says; all else stays what it is. */
export async function addedSelections(selection: Selection, files: FileStore): Promise<Selection[]> {
  const { tree, path, info } = selection;
  if (!selection.unpack || info.type !== 'file' || info.size === 0) return [selection];
  const { head, whole } = await peek(tree.open(path), HEAD_BYTES);
  const packing = packingOf(head);
  if (!packing || !(packing === 'tar' || (await holdsTar(packing, selection)))) return [selection];
  const archive = await receiveTar(unpacked(packing, whole, selection.name), files, { what: selection.name });
  const source = treeSource(archive, selection.name, (digest) => files.open(digest));
  const inside = await select(source, '/', { parents: false, excludes: [], unpack: false });
  return inside.map((one) => ({ ...one, describes: archive.rootTold }));
}

/** A packed file that is no archive (`data.gz`) is copied as it is. */
async function holdsTar(packing: 'gzip' | 'zstd' | 'bzip2' | 'xz', { tree, path, name }: Selection): Promise<boolean> {
  const inside = unpacked(packing, tree.open(path), name);
  try {
    const { head } = await peek(inside, HEAD_BYTES);
    return packingOf(head) === 'tar';
  } finally {
    await inside.return(undefined);
  }
}
